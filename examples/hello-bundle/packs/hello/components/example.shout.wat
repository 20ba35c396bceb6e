;; A component by hand: it answers a text with the same text in capitals. It imports nothing and keeps nothing.
;;
;; The interface is greentic:component/node@0.6.0: invoke(op, envelope) -> result<invocation-result, node-error>. A payload is
;; CBOR; a text is one head byte (and up to four length bytes), then its bytes.
(component
  (core module $code
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 1024))

    ;; Memory for what is passed in: taken from the end, never given back, since an instance lives for one call.
    (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at
        (i32.and (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1)))
                 (i32.sub (i32.const 0) (local.get $align))))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
        (then
          (if (i32.eq (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1))) (i32.const -1))
            (then unreachable))))
      (local.get $at))

    ;; $arguments: op at 0, envelope at 8; the payload's address and length are at 124 and 128.
    (func (export "invoke") (param $arguments i32) (result i32)
      (local $at i32) (local $end i32) (local $info i32) (local $byte i32)
      (local.set $at (i32.load offset=124 (local.get $arguments)))
      (local.set $end (i32.add (local.get $at) (i32.load offset=128 (local.get $arguments))))
      ;; Step over the head of the text: 1, 2, 3 or 5 bytes.
      (local.set $info (i32.and (i32.load8_u (local.get $at)) (i32.const 31)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (if (i32.eq (local.get $info) (i32.const 24)) (then (local.set $at (i32.add (local.get $at) (i32.const 1)))))
      (if (i32.eq (local.get $info) (i32.const 25)) (then (local.set $at (i32.add (local.get $at) (i32.const 2)))))
      (if (i32.eq (local.get $info) (i32.const 26)) (then (local.set $at (i32.add (local.get $at) (i32.const 4)))))
      (block $done
        (loop $each
          (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
          (local.set $byte (i32.load8_u (local.get $at)))
          (if (i32.lt_u (i32.sub (local.get $byte) (i32.const 97)) (i32.const 26))
            (then (i32.store8 (local.get $at) (i32.sub (local.get $byte) (i32.const 32)))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $each)))
      ;; The answer, at 16: ok({ok: true, output-cbor: the payload, output-metadata-cbor: none}).
      (i32.store8 (i32.const 16) (i32.const 0))
      (i32.store8 (i32.const 24) (i32.const 1))
      (i32.store (i32.const 28) (i32.load offset=124 (local.get $arguments)))
      (i32.store (i32.const 32) (i32.load offset=128 (local.get $arguments)))
      (i32.store8 (i32.const 36) (i32.const 0))
      (i32.const 16)))

  (core instance $core (instantiate $code))

  (type $tenant-ctx (record
    (field "tenant-id" string) (field "team-id" (option string)) (field "user-id" (option string)) (field "env-id" string)
    (field "trace-id" string) (field "correlation-id" string) (field "deadline-ms" u64) (field "attempt" u32)
    (field "idempotency-key" (option string)) (field "i18n-id" string)))
  (type $envelope (record
    (field "ctx" $tenant-ctx) (field "flow-id" string) (field "step-id" string) (field "component-id" string)
    (field "attempt" u32) (field "payload-cbor" (list u8)) (field "metadata-cbor" (option (list u8)))))
  (type $result (record
    (field "ok" bool) (field "output-cbor" (list u8)) (field "output-metadata-cbor" (option (list u8)))))
  (type $error (record
    (field "code" string) (field "message" string) (field "retryable" bool) (field "backoff-ms" (option u64))
    (field "details" (option (list u8)))))

  (func $invoke (param "op" string) (param "envelope" $envelope) (result (result $result (error $error)))
    (canon lift (core func $core "invoke") (memory (core memory $core "memory")) (realloc (core func $core "cabi_realloc"))))

  ;; An interface exports its types too: a component around the function gives them their names.
  (component $named
    (type $t (record
      (field "tenant-id" string) (field "team-id" (option string)) (field "user-id" (option string)) (field "env-id" string)
      (field "trace-id" string) (field "correlation-id" string) (field "deadline-ms" u64) (field "attempt" u32)
      (field "idempotency-key" (option string)) (field "i18n-id" string)))
    (import "tenant-ctx" (type $tenant-in (eq $t)))
    (type $e (record
      (field "ctx" $tenant-in) (field "flow-id" string) (field "step-id" string) (field "component-id" string)
      (field "attempt" u32) (field "payload-cbor" (list u8)) (field "metadata-cbor" (option (list u8)))))
    (import "invocation-envelope" (type $envelope-in (eq $e)))
    (type $r (record
      (field "ok" bool) (field "output-cbor" (list u8)) (field "output-metadata-cbor" (option (list u8)))))
    (import "invocation-result" (type $result-in (eq $r)))
    (type $f (record
      (field "code" string) (field "message" string) (field "retryable" bool) (field "backoff-ms" (option u64))
      (field "details" (option (list u8)))))
    (import "node-error" (type $error-in (eq $f)))
    (import "invoke" (func $invoke
      (param "op" string) (param "envelope" $envelope-in) (result (result $result-in (error $error-in)))))
    (export $tenant-out "tenant-ctx" (type $t))
    (type $e-out (record
      (field "ctx" $tenant-out) (field "flow-id" string) (field "step-id" string) (field "component-id" string)
      (field "attempt" u32) (field "payload-cbor" (list u8)) (field "metadata-cbor" (option (list u8)))))
    (export $envelope-out "invocation-envelope" (type $e-out))
    (export $result-out "invocation-result" (type $r))
    (export $error-out "node-error" (type $f))
    (export "invoke" (func $invoke)
      (func (param "op" string) (param "envelope" $envelope-out) (result (result $result-out (error $error-out))))))

  (instance $node (instantiate $named
    (with "tenant-ctx" (type $tenant-ctx)) (with "invocation-envelope" (type $envelope))
    (with "invocation-result" (type $result)) (with "node-error" (type $error)) (with "invoke" (func $invoke))))
  (export "greentic:component/node@0.6.0" (instance $node)))
