"""Components for tests, written out as text: any interface, any body, with the memory layout computed here.

Types are `"string"`, `"bool"`, `"u8"`…`"f64"`, or tuples: `("list", t)`, `("option", t)`, `("record", name, {field: t})`,
`("tuple", [t])`, `("result", ok, err)`, `("variant", name, {case: t or None})`, `("enum", name, [cases])`, `("flags", name, […])`.
"""

from __future__ import annotations

import functools
import hashlib

from wasmtime import wat2wasm

SCALARS = {
    "bool": 1,
    "u8": 1,
    "s8": 1,
    "u16": 2,
    "s16": 2,
    "u32": 4,
    "s32": 4,
    "f32": 4,
    "char": 4,
    "u64": 8,
    "s64": 8,
    "f64": 8,
}
BYTES = ("list", "u8")


def opt(t):
    return ("option", t)


def _align(at: int, to: int) -> int:
    return (at + to - 1) // to * to


def layout(t) -> tuple[int, int]:
    """Size and alignment of a type in linear memory."""
    if isinstance(t, str):
        return (8, 4) if t == "string" else (SCALARS[t], SCALARS[t])
    if t[0] == "list":
        return 8, 4
    if t[0] in ("record", "tuple"):
        at, most = 0, 1
        for item in t[2].values() if t[0] == "record" else t[1]:
            size, align = layout(item)
            at, most = _align(at, align) + size, max(most, align)
        return _align(at, most), most
    if t[0] == "enum":
        return 1, 1
    if t[0] == "flags":
        return (1, 1) if len(t[2]) <= 8 else (2, 2) if len(t[2]) <= 16 else (4, 4)
    cases = _cases(t)
    size, align = 0, 1
    for case in cases:
        if case is not None:
            s, a = layout(case)
            size, align = max(size, s), max(align, a)
    return _align(_align(1, align) + size, align), align


def _cases(t):
    return {"option": lambda: [None, t[1]], "result": lambda: [t[1], t[2]] if t[0] == "result" else []}.get(
        t[0], lambda: list(t[2].values())
    )()


def payload_offset(t) -> int:
    """Where the payload of an option, result or variant begins."""
    return _align(1, max(layout(c)[1] for c in _cases(t) if c is not None))


def offset(t, *path: str) -> int:
    """Where a field of nested records begins."""
    at = 0
    for name in path:
        inner = 0
        for field, item in t[2].items():
            size, align = layout(item)
            inner = _align(inner, align)
            if field == name:
                break
            inner += size
        at += inner
        t = t[2][name]
    return at


def flat(t) -> int:
    """How many core values a type takes."""
    if isinstance(t, str):
        return 2 if t == "string" else 1
    if t[0] == "list":
        return 2
    if t[0] in ("record", "tuple"):
        return sum(flat(i) for i in (t[2].values() if t[0] == "record" else t[1]))
    if t[0] in ("enum", "flags"):
        return 1
    return 1 + max((flat(c) for c in _cases(t) if c is not None), default=0)


class Names:
    """Types by name in one scope of the text, each defined before it is used."""

    def __init__(self, prefix: str, export: bool, known: dict[str, str] | None = None) -> None:
        self.prefix, self.export, self.known = prefix, export, dict(known or {})
        self.lines: list[str] = []

    def ref(self, t) -> str:
        if isinstance(t, str):
            return t
        if t[0] == "list":
            return f"(list {self.ref(t[1])})"
        if t[0] == "option":
            return f"(option {self.ref(t[1])})"
        if t[0] == "tuple":
            return f"(tuple {' '.join(self.ref(i) for i in t[1])})"
        if t[0] == "result":
            ok = "" if t[1] is None else f" {self.ref(t[1])}"
            err = "" if t[2] is None else f" (error {self.ref(t[2])})"
            return f"(result{ok}{err})"
        name = t[1]
        if name not in self.known:
            self.known[name] = self._define(name, t)
        return self.known[name]

    def _define(self, name: str, t) -> str:
        if t[0] == "record":
            body = "record " + " ".join(f'(field "{f}" {self.ref(i)})' for f, i in t[2].items())
        elif t[0] == "variant":
            body = "variant " + " ".join(
                f'(case "{c}"{"" if i is None else " " + self.ref(i)})' for c, i in t[2].items()
            )
        else:
            body = f"{t[0]} " + " ".join(f'"{c}"' for c in t[2])
        plain, shown = f"${self.prefix}{name}-plain", f"${self.prefix}{name}"
        self.lines.append(f"(type {plain} ({body}))")
        if not self.export:
            return plain
        self.lines.append(self._shown(name, plain, shown))
        return shown

    def _shown(self, name: str, plain: str, shown: str) -> str:
        return f'(export {shown} "{name}" (type {plain}))'


class _Imported(Names):
    def _shown(self, name: str, plain: str, shown: str) -> str:
        return f'(import "type-{name}" (type {shown} (eq {plain})))'


class _InstanceType(Names):
    def _shown(self, name: str, plain: str, shown: str) -> str:
        return f'(export "{name}" (type {shown} (eq {plain})))'


def _signature(names: Names, parameters: dict, result) -> str:
    listed = " ".join(f'(param "{p}" {names.ref(t)})' for p, t in parameters.items())
    return f"{listed}{'' if result is None else f' (result {names.ref(result)})'}"


class Function:
    """An exported or imported function: parameters by name, a result, and for exports a body of core code.

    A body gets its parameters as locals 0…; more than 16 flat ones come as one pointer. A result of more than one flat value
    is returned as a pointer. `$alloc` allocates, imports are called as `$<name>`.
    """

    def __init__(self, name: str, parameters: dict, result, body: str = "", locals_: str = "") -> None:
        self.name, self.parameters, self.result, self.body, self.locals_ = name, parameters, result, body, locals_

    def core_type(self, *, lowered: bool) -> str:
        parameters = self._flat_parameters()
        many = len(parameters) > 16
        shown = ["i32"] if many else parameters
        result = []
        if self.result is not None:
            kinds = _flat_kinds(self.result)
            if len(kinds) == 1:
                result = kinds
            elif lowered:
                shown = [*shown, "i32"]
            else:
                result = ["i32"]
        params = f"(param {' '.join(shown)})" if shown else ""
        return params + (f" (result {' '.join(result)})" if result else "")

    def _flat_parameters(self) -> list[str]:
        return [kind for t in self.parameters.values() for kind in _flat_kinds(t)]


def _flat_kinds(t) -> list[str]:
    if isinstance(t, str):
        return (
            ["i32", "i32"]
            if t == "string"
            else ["i64"]
            if t in ("u64", "s64")
            else [t]
            if t in ("f32", "f64")
            else ["i32"]
        )
    if t[0] == "list":
        return ["i32", "i32"]
    if t[0] in ("record", "tuple"):
        return [k for i in (t[2].values() if t[0] == "record" else t[1]) for k in _flat_kinds(i)]
    if t[0] in ("enum", "flags"):
        return ["i32"]
    joined: list[str] = []
    for kinds in (_flat_kinds(case) for case in _cases(t) if case is not None):
        for at, kind in enumerate(kinds):
            if at == len(joined):
                joined.append(kind)
            elif joined[at] != kind:
                joined[at] = "i32" if {joined[at], kind} == {"i32", "f32"} else "i64"
    return ["i32", *joined]


def component(
    interface: str,
    functions: list[Function],
    imports: dict[str, list[Function]] | None = None,
    data: str = "",
    pages: int = 2,
) -> bytes:
    """A component that exports an interface."""
    return _assemble(text(interface, functions, imports, data, pages))


@functools.lru_cache(maxsize=256)
def _assemble(wat: str) -> bytes:
    return bytes(wat2wasm(wat))


def text(
    interface: str,
    functions: list[Function],
    imports: dict[str, list[Function]] | None = None,
    data: str = "",
    pages: int = 2,
) -> str:
    out = ["(component"]
    lowered: list[tuple[str, Function]] = []
    for number, (name, members) in enumerate((imports or {}).items()):
        scope = _InstanceType(f"i{number}-", True)
        offered = [(f, _signature(scope, f.parameters, f.result)) for f in members]
        exports = " ".join(f'(export "{f.name}" (func {s}))' for f, s in offered)
        out.append(f"(type $import{number} (instance {' '.join(scope.lines)} {exports}))")
        out.append(f'(import "{name}" (instance $host{number} (type $import{number})))')
        lowered += [(f"$host{number}", f) for f in members]
    out.append(f"""(core module $memory
      (memory (export "memory") {pages})
      (global $next (mut i32) (i32.const 65536))
      (func (export "alloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
        (local.set $at (i32.and (i32.add (global.get $next) (i32.sub (local.get 2) (i32.const 1))) (i32.sub (i32.const 0) (local.get 2))))
        (global.set $next (i32.add (local.get $at) (local.get 3)))
        (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
          (then (if (i32.eq (memory.grow (i32.add (i32.shr_u (local.get 3) (i32.const 16)) (i32.const 1))) (i32.const -1)) (then unreachable))))
        (local.get $at))
      {data})
    (core instance $memory (instantiate $memory))""")
    for number, (host, f) in enumerate(lowered):
        out.append(
            f'(core func $low{number} (canon lower (func {host} "{f.name}") (memory (core memory $memory "memory")) '
            f'(realloc (core func $memory "alloc"))))'
        )
    core_imports = "".join(
        f'(import "host" "{f.name}" (func ${f.name} {f.core_type(lowered=True)}))' for _, f in lowered
    )
    bodies = "".join(
        f'(func (export "{f.name}") {f.core_type(lowered=False)} (local $a i32) (local $b i32) (local $n i64) {f.locals_} {f.body})'
        for f in functions
    )
    out.append(f"""(core module $main (import "memory" "memory" (memory {pages}))
      (import "memory" "alloc" (func $alloc (param i32 i32 i32 i32) (result i32))) {core_imports} {bodies})""")
    host_instance = (
        "(core instance $host "
        + " ".join(f'(export "{f.name}" (func $low{i}))' for i, (_, f) in enumerate(lowered))
        + ")"
        if lowered
        else ""
    )
    out.append(host_instance)
    out.append(
        f'(core instance $main (instantiate $main (with "memory" (instance $memory)) {"(with " + chr(34) + "host" + chr(34) + " (instance $host))" if lowered else ""}))'
    )
    plain = Names("p-", False)
    signatures = [_signature(plain, f.parameters, f.result) for f in functions]
    out += plain.lines
    for number, (f, signature) in enumerate(zip(functions, signatures, strict=True)):
        out.append(
            f'(func $f{number} {signature} (canon lift (core func $main "{f.name}") (memory (core memory $memory "memory")) '
            f'(realloc (core func $memory "alloc"))))'
        )
    inner = _Imported("in-", True)
    in_signatures = [_signature(inner, f.parameters, f.result) for f in functions]
    shown = Names("out-", True)
    out_signatures = [_signature(shown, f.parameters, f.result) for f in functions]
    shim = [*inner.lines]
    shim += [
        f'(import "f-{f.name}" (func $f{i} {s}))' for i, (f, s) in enumerate(zip(functions, in_signatures, strict=True))
    ]
    shim += shown.lines
    shim += [
        f'(export "{f.name}" (func $f{i}) (func {s}))'
        for i, (f, s) in enumerate(zip(functions, out_signatures, strict=True))
    ]
    out.append(f"(component $named {' '.join(shim)})")
    given = [f'(with "type-{name}" (type {plain.known[name]}))' for name in inner.known]
    given += [f'(with "f-{f.name}" (func $f{i}))' for i, f in enumerate(functions)]
    out.append(f"(instance $named (instantiate $named {' '.join(given)}))")
    out.append(f'(export "{interface}" (instance $named)))')
    return "\n".join(out)


# -- the interfaces of components -----------------------------------------------------------------------------------

S = "string"
TENANT_06 = ("record", "tenant-ctx", {
    "tenant-id": S, "team-id": opt(S), "user-id": opt(S), "env-id": S, "trace-id": S, "correlation-id": S, "deadline-ms": "u64", "attempt": "u32",
    "idempotency-key": opt(S), "i18n-id": S,
})  # fmt: skip
ENVELOPE = ("record", "invocation-envelope", {
    "ctx": TENANT_06, "flow-id": S, "step-id": S, "component-id": S, "attempt": "u32", "payload-cbor": BYTES, "metadata-cbor": opt(BYTES),
})  # fmt: skip
ANSWER = ("record", "invocation-result", {"ok": "bool", "output-cbor": BYTES, "output-metadata-cbor": opt(BYTES)})
ERROR_06 = (
    "record",
    "node-error",
    {"code": S, "message": S, "retryable": "bool", "backoff-ms": opt("u64"), "details": opt(BYTES)},
)
ERROR_05 = (
    "record",
    "node-error",
    {"code": S, "message": S, "retryable": "bool", "backoff-ms": opt("u64"), "details": opt(S)},
)
TENANT_04 = ("record", "tenant-ctx", {
    "tenant": S, "team": opt(S), "user": opt(S), "trace-id": opt(S), "correlation-id": opt(S), "deadline-unix-ms": opt("u64"), "attempt": "u32",
    "idempotency-key": opt(S),
})  # fmt: skip
TENANT_05A = ("record", "tenant-ctx", {
    "tenant": S, "team": opt(S), "user": opt(S), "trace-id": opt(S), "i18n-id": opt(S), "correlation-id": opt(S), "deadline-unix-ms": opt("u64"),
    "attempt": "u32", "idempotency-key": opt(S),
})  # fmt: skip
IMPERSONATION = ("record", "impersonation", {"actor-id": S, "reason": opt(S)})
TENANT_05B = ("record", "tenant-ctx", {
    "env": S, "tenant": S, "tenant-id": S, "team": opt(S), "team-id": opt(S), "user": opt(S), "user-id": opt(S), "trace-id": opt(S), "i18n-id": opt(S),
    "correlation-id": opt(S), "attributes": ("list", ("tuple", [S, S])), "session-id": opt(S), "flow-id": opt(S), "node-id": opt(S), "provider-id": opt(S),
    "deadline-ms": opt("s64"), "attempt": "u32", "idempotency-key": opt(S), "impersonation": opt(IMPERSONATION),
})  # fmt: skip
ARGUMENTS_06 = ("record", "arguments", {"op": S, "envelope": ENVELOPE})
RESULT_06 = ("result", ANSWER, ERROR_06)
AT = 1024
"""Where test bodies put their answers."""


def store_string(at: int, where: str, length: str) -> str:
    return f"(i32.store (i32.const {at}) {where}) (i32.store (i32.const {at + 4}) {length})"


def ok_06(where: str, length: str, *, ok: bool = True) -> str:
    """Core code that answers `ok({ok, output-cbor})` and returns."""
    base = AT + payload_offset(RESULT_06)
    out = base + offset(ANSWER, "output-cbor")
    return (
        f"(i32.store8 (i32.const {AT}) (i32.const 0)) (i32.store8 (i32.const {base}) (i32.const {int(ok)})) {store_string(out, where, length)} "
        f"(i32.store8 (i32.const {base + offset(ANSWER, 'output-metadata-cbor')}) (i32.const 0)) (i32.const {AT})"
    )


def payload_06() -> tuple[str, str]:
    """Core code for address and length of the payload that was passed."""
    at = offset(ARGUMENTS_06, "envelope", "payload-cbor")
    return f"(i32.load offset={at} (local.get 0))", f"(i32.load offset={at + 4} (local.get 0))"


def node_06(body: str = "", imports: dict[str, list[Function]] | None = None, data: str = "", pages: int = 2) -> bytes:
    """A node 0.6 component; by default it echoes its payload."""
    body = body or ok_06(*payload_06())
    invoke = Function("invoke", {"op": S, "envelope": ENVELOPE}, RESULT_06, body)
    return component("greentic:component/node@0.6.0", [invoke], imports, data, pages)


def error_06(code: str, message: str, *, retryable: bool = False) -> bytes:
    """A node 0.6 component that answers with an error."""
    base = AT + payload_offset(RESULT_06)
    at = {name: base + offset(ERROR_06, name) for name in ERROR_06[2]}
    body = (
        f"(i32.store8 (i32.const {AT}) (i32.const 1)) {store_string(at['code'], '(i32.const 16)', f'(i32.const {len(code)})')} "
        f"{store_string(at['message'], f'(i32.const {16 + len(code)})', f'(i32.const {len(message)})')} "
        f"(i32.store8 (i32.const {at['retryable']}) (i32.const {int(retryable)})) "
        f"(i32.store8 (i32.const {at['backoff-ms']}) (i32.const 1)) (i64.store (i32.const {at['backoff-ms'] + payload_offset(opt('u64'))}) (i64.const 250)) "
        f"(i32.store8 (i32.const {at['details']}) (i32.const 0)) (i32.const {AT})"
    )
    return node_06(body, data=f'(data (i32.const 16) "{code}{message}")')


def node_05(tenant, version: str = "0.5.0", *, i18n: bool = True) -> bytes:
    """A node 0.4 or 0.5 component that answers with the text it was given."""
    context = {"tenant": tenant, **({"i18n-id": opt(S)} if i18n else {}), "flow-id": S, "node-id": opt(S)}
    exec_ctx = ("record", "exec-ctx", context)
    arguments = ("record", "arguments", {"ctx": exec_ctx, "op": S, "input": S})
    result = ("variant", "invoke-result", {"ok": S, "err": ERROR_05})
    at = offset(arguments, "input")
    out = AT + payload_offset(result)
    body = (
        f"(i32.store8 (i32.const {AT}) (i32.const 0)) "
        f"{store_string(out, f'(i32.load offset={at} (local.get 0))', f'(i32.load offset={at + 4} (local.get 0))')} (i32.const {AT})"
    )
    invoke = Function("invoke", {"ctx": exec_ctx, "op": S, "input": S}, result, body)
    return component(f"greentic:component/node@{version}", [invoke])


def runtime() -> bytes:
    """A component with only `run`, which answers with its input."""
    result = ("record", "run-result", {"output": BYTES, "new-state": BYTES})
    body = f"{store_string(AT, '(local.get 0)', '(local.get 1)')} {store_string(AT + 8, '(local.get 2)', '(local.get 3)')} (i32.const {AT})"
    return component(
        "greentic:component/component-runtime@0.6.0", [Function("run", {"input": BYTES, "state": BYTES}, result, body)]
    )


def provider() -> bytes:
    """A provider whose `invoke` answers with the JSON that it was given."""
    body = f"{store_string(AT, '(local.get 2)', '(local.get 3)')} (i32.const {AT})"
    return component(
        "greentic:provider-schema-core/schema-core-api@1.0.0",
        [Function("invoke", {"op": S, "input-json": BYTES}, BYTES, body)],
    )


def identity(t) -> bytes:
    """A component whose function `echo` gives its one argument back; the type must not be flat."""
    assert flat(t) > 16
    return component("test:echo/echo@1.0.0", [Function("echo", {"x": t}, t, "(local.get 0)")])


def spinning() -> bytes:
    return node_06(f"(loop $forever (br $forever)) {ok_06(*payload_06())}")


def busy(iterations: int) -> bytes:
    """A node that counts down before it echoes."""
    return node_06(
        f"(local.set $n (i64.const {iterations})) (loop $l (local.set $n (i64.sub (local.get $n) (i64.const 1))) (br_if $l (i64.ne (local.get $n) (i64.const 0)))) {ok_06(*payload_06())}"
    )


def trapping() -> bytes:
    return node_06("unreachable")


def hungry() -> bytes:
    """Allocates until it gets no more, then traps."""
    return node_06(
        "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) unreachable", pages=2
    )


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
