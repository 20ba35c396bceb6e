#!/usr/bin/env bash
# The demo: author a deployment, strip the host to what a pod would have, boot a worker that pulls its bundle, serve it.
#   ./demo.sh host-pull [BUNDLE]   everything, and leave the worker running
#   ./demo.sh talk                 a conversation with the running worker (type; an empty line ends it)
#   ./demo.sh tamper               one byte differs at the distributor: the boot must refuse
#   ./demo.sh host-stop            stop exactly what host-pull started
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

host_stop() { stop_one worker; stop_one distributor; }

start_distributor() { # start_distributor DIRECTORY
  "$gtc" distributor serve "$1" --port "$DISTRIBUTOR_PORT" > "$state/distributor.log" 2>&1 &
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

author() { # author BUNDLE: the real verbs; sets $store
  store=$state/environments
  local op=("$gtc" op --store-root "$store") uri=http://127.0.0.1:$DISTRIBUTOR_PORT/bundle.gtbundle dep rev
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
  env -u GREENTIC_REVISION_ID -u GREENTIC_SEED_DIR -u GREENTIC_GATEWAY_PORT -u PORT GREENTIC_GATEWAY_LISTEN_ADDR="127.0.0.1:$WORKER_PORT" \
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
  local pid code=0
  read -r pid _ < "$state/worker.pid"
  wait "$pid" || code=$?
  cat "$state/worker.log"
  [ "$code" = 1 ] || fail "the worker ended with $code, expected 1"
  grep -q "does not match revision" "$state/worker.log" || fail "the refusal does not name the digest"
  [ ! -e "$store/local/runtime-config.json" ] || fail "a refused boot left a projection behind"
  bold "Refused: the bytes are not the pinned ones, nothing was unpacked, nothing serves."
}

case "${1:-}" in
  host-pull) shift; host_pull "$@" ;;
  host-stop) host_stop ;;
  talk) talk ;;
  tamper) shift; tamper "$@" ;;
  *) sed -n '2,7p' "$0" | sed 's/^# \{0,1\}//'; [ "${1:-}" = "-h" ] || [ "${1:-}" = "--help" ] || exit 2 ;;
esac
