#!/usr/bin/env bash
# The demo: author a deployment, strip the host to what a pod would have, boot a worker that pulls its bundle, serve it.
#   ./demo.sh host-pull [BUNDLE]   everything, and leave the worker running
#   ./demo.sh talk                 a conversation with the running worker (type; an empty line ends it)
#   ./demo.sh tamper               one byte differs at the distributor: the boot must refuse
#   ./demo.sh oci-pull [BUNDLE]    push the bundle to a local registry, and boot a worker from oci://
#   ./demo.sh resume               kill a worker in the middle of a large pull; the next one fetches the rest
#   ./demo.sh revoke [BUNDLE]      revoke a bundle: the boot must refuse
#   ./demo.sh host-stop            stop exactly what host-pull started
#   ./demo.sh kind-up              a Kubernetes cluster with the worker's image in it (kind; CLUSTER=lab or current)
#   ./demo.sh kind-serve           reconcile it: pods boot empty and serve /healthz
#   ./demo.sh kind-pull            pods pull their bundle from a pod, through the network policies, and answer
#   ./demo.sh kind-down            take the cluster away
# WORKER_PORT (8080) and DISTRIBUTOR_PORT (8090) choose the ports.
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")"
WORKER_PORT=${WORKER_PORT:-8080}
DISTRIBUTOR_PORT=${DISTRIBUTOR_PORT:-8090}
state=$PWD/.demo
gtc=$PWD/.venv/bin/gtc
worker=$PWD/.venv/bin/greentic-start
python=$PWD/.venv/bin/python
export NO_COLOR=1

bold() { if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
show() { printf '$ %s\n' "$*"; }

field() { # field NAME: a member of the result in the envelope on stdin
  "$python" -c 'import json,sys; print(json.load(sys.stdin)["result"][sys.argv[1]])' "$1"
}

port_free() { # port_free PORT WHAT: an error that says by whom a port is taken, if it can
  "$python" - "$1" <<'PY' && return 0
import socket, sys
with socket.socket() as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        s.bind(("127.0.0.1", int(sys.argv[1])))
    except OSError:
        sys.exit(1)
PY
  local who=""
  if command -v ss >/dev/null 2>&1; then who=$(ss -Hltnp "sport = :$1" 2>/dev/null | grep -o 'users:.*' | head -n 1 || true); fi
  fail "port $1 ($2) is taken${who:+ by $who}. Stop it (./demo.sh host-stop, if it is an earlier demo), or choose another: $3=PORT ./demo.sh …"
}

is_ours() { # is_ours PIDFILE: whether the recorded process still is the one that was started
  local pid start
  read -r pid start < "$1" 2>/dev/null || return 1
  [ "$(started "$pid")" = "$start" ]
}
started() { cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null || ps -o lstart= -p "$1" 2>/dev/null | tr -d ' ' || true; }
remember() { printf '%s %s\n' "$1" "$(started "$1")" > "$2"; }

stop_one() { # stop_one NAME
  local file=$state/$1.pid pid
  [ -f "$file" ] || return 0
  if is_ours "$file"; then
    read -r pid _ < "$file"
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 200); do is_ours "$file" || break; sleep 0.05; done
    if is_ours "$file"; then kill -9 "$pid" 2>/dev/null || true; fi
    printf 'stopped %s (process %s)\n' "$1" "$pid"
  fi
  rm -f "$file"
}

host_stop() { stop_one worker; stop_one distributor; stop_one registry; }

start_distributor() { # start_distributor DIRECTORY [FLAGS…]
  "$gtc" distributor serve "$@" --port "$DISTRIBUTOR_PORT" > "$state/distributor.log" 2>&1 &
  remember $! "$state/distributor.pid"
  wait_for "http://127.0.0.1:$DISTRIBUTOR_PORT/" distributor "$state/distributor.log"
}

wait_for() { # wait_for URL NAME LOG: until it answers or its process ends
  "$python" - "$1" "$2" "$3" "$state/$2.pid" <<'PY'
import sys, time, urllib.request, urllib.error, pathlib
url, name, log, pidfile = sys.argv[1:]
pid = int(pathlib.Path(pidfile).read_text().split()[0])
deadline = time.monotonic() + 120
while time.monotonic() < deadline:
    try:
        urllib.request.urlopen(url, timeout=5).close()
        sys.exit(0)
    except urllib.error.HTTPError:
        sys.exit(0)
    except OSError:
        stat = pathlib.Path(f"/proc/{pid}/stat")
        if pathlib.Path("/proc/self").exists() and (not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"):
            break
        time.sleep(0.05)
print(f"demo: the {name} did not come up; its log:\n" + pathlib.Path(log).read_text(), file=sys.stderr)
sys.exit(1)
PY
}

author() { # author BUNDLE [URI]: the real verbs; sets $store and $op
  store=$state/environments
  op=("$gtc" op --store-root "$store")
  local uri=${2:-http://127.0.0.1:$DISTRIBUTOR_PORT/bundle.gtbundle} dep rev
  export GTC_OPERATOR_KEY_PATH=$state/operator/key.pem
  bold "1. Author the deployment (store: .demo/environments)"
  show gtc op env create local --name local
  "${op[@]}" env create local --name local
  show gtc op trust-root bootstrap local
  "${op[@]}" trust-root bootstrap local
  show "gtc op bundles add local bundle_id=demo route_binding.path_prefixes='[\"/\"]'"
  dep=$("${op[@]}" bundles add local bundle_id=demo 'route_binding.path_prefixes=["/"]' | tee /dev/stderr | field deployment_id)
  show "gtc op revisions stage local --deployment $dep bundle_path=$(basename "$1") bundle_source_uri=$uri"
  rev=$("${op[@]}" revisions stage local --deployment "$dep" bundle_path="$1" bundle_source_uri="$uri" | tee /dev/stderr | field revision_id)
  show gtc op revisions warm local revision_id="$rev"
  "${op[@]}" revisions warm local revision_id="$rev"
  show gtc op traffic set local "$rev=100" --deployment "$dep" --idempotency-key demo-1
  "${op[@]}" traffic set local "$rev=100" --deployment "$dep" --idempotency-key demo-1
  printf 'pinned digest: %s\n' "$("$python" -c 'import json,sys; print(json.load(open(sys.argv[1]))["revisions"][0]["bundle_digest"])' "$store/local/environment.json")"
  bold "2. Strip the host to what a pod gets: environment.json alone"
  show rm -rf runtime-config.json revisions/
  rm -rf "$store/local/runtime-config.json" "$store/local/revisions"
}

prepare() { # prepare [BUNDLE]: set-up, clean state, bundle in place; sets $bundle
  scripts/setup.sh
  host_stop
  port_free "$WORKER_PORT" "for the worker" WORKER_PORT
  port_free "$DISTRIBUTOR_PORT" "for the distributor" DISTRIBUTOR_PORT
  rm -rf "$state"
  mkdir -p "$state/bundles"
  if [ -n "${1:-}" ]; then
    bundle=$1
    [ "${bundle#/}" != "$bundle" ] || bundle=$called_from/$bundle
    [ -f "$bundle" ] || fail "there is no bundle at $1"
  else
    bold "0. Build the example bundle"
    bundle=$state/hello.gtbundle
    show gtc bundle build examples/hello-bundle --out hello.gtbundle
    "$gtc" bundle build examples/hello-bundle --out "$bundle"
  fi
  cp "$bundle" "$state/bundles/bundle.gtbundle"
}

start_worker() {
  show "greentic-start start --env local --store-root .demo/environments"
  env -u GREENTIC_REVISION_ID -u GREENTIC_SEED_DIR -u GREENTIC_GATEWAY_PORT -u PORT GREENTIC_BUNDLE_CACHE_DIR="$state/cache" GREENTIC_GATEWAY_LISTEN_ADDR="127.0.0.1:$WORKER_PORT" \
    "$worker" start --env local --store-root "$store" --strict-port > "$state/worker.log" 2>&1 &
  remember $! "$state/worker.pid"
}

get() { # get ARGUMENTS…: one request, status and body
  "$python" - "$@" <<'PY'
import sys, urllib.request, urllib.error
method, url, *body = sys.argv[1:]
request = urllib.request.Request(url, method=method, data=body[0].encode() if body else None, headers={"content-type": "application/json"} if body else {})
try:
    answer = urllib.request.urlopen(request, timeout=30)
except urllib.error.HTTPError as error:
    answer = error
print(f"HTTP {answer.status}\n{answer.read().decode()}")
sys.exit(0 if answer.status == 200 else 1)
PY
}

host_pull() {
  prepare "$@"
  trap 'host_stop >&2' ERR
  author "$bundle"
  bold "3. Start a distributor, and a worker that has nothing"
  show "gtc distributor serve .demo/bundles --port $DISTRIBUTOR_PORT"
  start_distributor "$state/bundles"
  start_worker
  wait_for "http://127.0.0.1:$WORKER_PORT/healthz" worker "$state/worker.log"
  cat "$state/worker.log"
  bold "4. Ask it"
  show curl "http://127.0.0.1:$WORKER_PORT/healthz"
  get GET "http://127.0.0.1:$WORKER_PORT/healthz"
  show curl "http://127.0.0.1:$WORKER_PORT/status"
  get GET "http://127.0.0.1:$WORKER_PORT/status"
  show "curl -X POST http://127.0.0.1:$WORKER_PORT/ -d '{\"text\":\"hi\"}'"
  get POST "http://127.0.0.1:$WORKER_PORT/" '{"text":"hi"}'
  trap - ERR
  bold "The worker keeps running. Stop it with ./demo.sh host-stop"
}

talk() {
  [ -f "$state/worker.pid" ] && is_ours "$state/worker.pid" || fail "no worker is running; start one with ./demo.sh host-pull"
  exec 7<&0
  TALK_FD=7 "$python" - "http://127.0.0.1:$WORKER_PORT/" <<'PY'
import json, os, sys, urllib.error, urllib.request

url, session = sys.argv[1], f"talk-{os.getpid()}"


def say(text):
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json", "x-greentic-session": session})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def texts(payload):
    if isinstance(payload, dict) and payload.get("status") == "pending":
        payload = payload["response"]
    for item in payload if isinstance(payload, list) else [payload]:
        yield str(item["text"]) if isinstance(item, dict) and "text" in item else json.dumps(item, ensure_ascii=False)


person = open("/dev/tty") if sys.stdout.isatty() and os.path.exists("/dev/tty") else os.fdopen(int(os.environ["TALK_FD"]))
print("Say something; the worker shouts it back. Say `order` and it asks what you would like. An empty line ends this.")
while True:
    print("you:    ", end="", flush=True)
    line = person.readline().strip()
    if not line:
        print()
        break
    if not sys.stdout.isatty():
        print(line)
    try:
        for reply in say(line):
            for text in texts(reply["payload"]):
                print(f"worker: {text}", flush=True)
    except (OSError, ValueError) as error:
        sys.exit(f"demo: the worker did not answer: {error}")
PY
}

tamper() {
  prepare "$@"
  trap host_stop EXIT
  author "$bundle"
  bold "3. Flip one byte of the bundle at the distributor"
  "$python" - "$state/bundles/bundle.gtbundle" <<'PY'
import pathlib, sys
path = pathlib.Path(sys.argv[1])
data = bytearray(path.read_bytes())
data[len(data) // 2] ^= 1
path.write_bytes(data)
PY
  start_distributor "$state/bundles"
  bold "4. Boot: it must refuse"
  start_worker
  expect_refusal "does not match revision"
  bold "Refused: the bytes are not the pinned ones, nothing was unpacked, nothing serves."
}

expect_refusal() { # expect_refusal TEXT: the worker that was started must end with 1 and say so
  local pid code=0
  read -r pid _ < "$state/worker.pid"
  wait "$pid" || code=$?
  cat "$state/worker.log"
  [ "$code" = 1 ] || fail "the worker ended with $code, expected 1"
  grep -q "$1" "$state/worker.log" || fail "the refusal does not say \`$1\`"
  [ ! -e "$store/local/runtime-config.json" ] || fail "a refused boot left a projection behind"
}

oci_pull() {
  command -v docker-registry >/dev/null 2>&1 || fail "this demo needs a registry: apt-get install docker-registry"
  prepare "$@"
  trap 'host_stop >&2' ERR
  local registry=127.0.0.1:$DISTRIBUTOR_PORT uri
  printf 'version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s/registry}}\nhttp: {addr: %s}\n' "$state" "$registry" > "$state/registry.yml"
  bold "1. Start a registry (Debian's docker-registry) and push the bundle"
  show docker-registry serve registry.yml
  docker-registry serve "$state/registry.yml" > "$state/registry.log" 2>&1 &
  remember $! "$state/registry.pid"
  wait_for "http://$registry/v2/" registry "$state/registry.log"
  export GREENTIC_OCI_INSECURE_REGISTRIES=$registry
  show "gtc bundle publish $(basename "$bundle") oci://$registry/bots/demo:1"
  uri=$("$gtc" bundle publish "$bundle" "oci://$registry/bots/demo:1" | tee /dev/stderr | field bundle_source_uri)
  author "$bundle" "$uri"
  bold "3. Start a worker that has nothing"
  start_worker
  wait_for "http://127.0.0.1:$WORKER_PORT/healthz" worker "$state/worker.log"
  cat "$state/worker.log"
  show "curl -X POST http://127.0.0.1:$WORKER_PORT/ -d '{\"text\":\"hi\"}'"
  get POST "http://127.0.0.1:$WORKER_PORT/" '{"text":"hi"}'
  trap - ERR
  bold "The worker runs from $uri. Stop it with ./demo.sh host-stop"
}

resume() {
  prepare
  trap host_stop EXIT
  bold "0b. Make the bundle large: 96 MiB of assets that do not compress"
  cp -r examples/hello-bundle "$state/large"
  mkdir -p "$state"/large/packs/*/assets
  head -c 100663296 /dev/urandom > "$(echo "$state"/large/packs/*/)assets/noise.bin"
  bundle=$state/bundles/bundle.gtbundle
  "$gtc" bundle build "$state/large" --out "$bundle"
  author "$bundle"
  bold "3. Start a distributor on a thin line (24 MiB a second for each connection), and a worker"
  show "gtc distributor serve .demo/bundles --port $DISTRIBUTOR_PORT --rate 24MiB"
  start_distributor "$state/bundles" --rate 24MiB
  start_worker
  local size half partial pid
  size=$(stat -c %s "$bundle")
  bold "4. Kill it (kill -9) when more than half has come"
  "$python" - "$state/cache/partial" "$size" <<'PY'
import json, pathlib, sys, time
directory, size = pathlib.Path(sys.argv[1]), int(sys.argv[2])
deadline = time.monotonic() + 120
while time.monotonic() < deadline:
    for journal in directory.glob("*.json"):
        try:
            done = sum(end - start for start, end in json.loads(journal.read_text())["done"])
        except (OSError, ValueError):
            continue
        if done * 2 > size:
            print(f"{done} of {size} bytes are there")
            sys.exit(0)
    time.sleep(0.01)
sys.exit("demo: the download did not get half way")
PY
  read -r pid _ < "$state/worker.pid"
  show "kill -9 $pid"
  kill -9 "$pid"; wait "$pid" 2>/dev/null || true
  rm -f "$state/worker.pid"
  bold "5. Start it again: it asks for the rest"
  start_worker
  wait_for "http://127.0.0.1:$WORKER_PORT/healthz" worker "$state/worker.log"
  cat "$state/worker.log"
  grep -q "resumed " "$state/worker.log" || fail "the second boot did not go on with the first one's download"
  "$python" - "$state/worker.log" <<'PY'
import re, sys
found = re.search(r"resumed \S+: (\d+) bytes fetched, (\d+) of (\d+) were here", open(sys.argv[1]).read())
moved, here, size = map(int, found.groups())
print(f"\nthe second boot moved {moved} of {size} bytes: {moved / size:.0%}")
sys.exit(0 if moved < size / 2 and moved + here == size else "demo: it moved more than the rest")
PY
}

revoke() {
  prepare "$@"
  trap host_stop EXIT
  author "$bundle"
  bold "3. Publish a list of what is revoked, and tell the environment where it is"
  local digest list=$state/bundles/revocations.json
  digest=$("$python" -c 'import json,sys; print(json.load(open(sys.argv[1]))["revisions"][0]["bundle_digest"])' "$store/local/environment.json")
  show "gtc bundle revoke $digest --list revocations.json --reason 'it answers with the wrong prices'"
  "$gtc" bundle revoke "$digest" --list "$list" --reason "it answers with the wrong prices"
  show "gtc op delivery set local --revocations http://127.0.0.1:$DISTRIBUTOR_PORT/revocations.json --revocations-required"
  "${op[@]}" delivery set local --revocations "http://127.0.0.1:$DISTRIBUTOR_PORT/revocations.json" --revocations-required
  start_distributor "$state/bundles"
  bold "4. Boot: it must refuse"
  start_worker
  expect_refusal "is revoked"
  bold "Refused: the bundle is revoked, whoever still serves it."
}

verb=${1:-}
# shellcheck source=scripts/demo-cluster.sh
. scripts/demo-cluster.sh

case "$verb" in
  kind-up) kind_up ;;
  kind-serve) kind_serve ;;
  kind-pull) kind_pull ;;
  kind-down) kind_down ;;
  oci-pull) shift; oci_pull "$@" ;;
  resume) resume ;;
  revoke) shift; revoke "$@" ;;
  host-pull) shift; host_pull "$@" ;;
  host-stop) host_stop ;;
  talk) talk ;;
  tamper) shift; tamper "$@" ;;
  *) sed -n '2,14p' "$0" | sed 's/^# \{0,1\}//'; [ "${1:-}" = "-h" ] || [ "${1:-}" = "--help" ] || exit 2 ;;
esac
