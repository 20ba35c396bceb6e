#!/usr/bin/env bash
# The demo: author a deployment, strip the host to what a pod would have, boot a worker that pulls its bundle, serve it.
#   ./demo.sh host-pull [BUNDLE]   everything, and leave the worker running
#   ./demo.sh talk                 a conversation with the running worker (type; an empty line ends it)
#   ./demo.sh console              a page on the running worker (starts one if there is none); both are left running
#   ./demo.sh tamper               one byte differs at the distributor: the boot must refuse
#   ./demo.sh oci-pull [BUNDLE]    push the bundle to a local registry, and boot a worker from oci://
#   ./demo.sh resume               kill a worker in the middle of a large pull; the next one fetches the rest
#   ./demo.sh revoke [BUNDLE]      revoke a bundle: the boot must refuse
#   ./demo.sh outage               one of two distributors is dead: the other deployment answers, the first comes by itself
#   ./demo.sh canary               a ramp to a new revision under load, and one to a faulty revision that is aborted by itself
#   ./demo.sh host-stop            stop exactly what host-pull and console started
#   ./demo.sh kind-up              a Kubernetes cluster with the worker's image in it (kind; CLUSTER=lab or current)
#   ./demo.sh kind-serve           reconcile it: pods of routers and of a worker boot empty and serve /healthz
#   ./demo.sh kind-pull            pods pull their bundle from a pod, through the network policies, and answer
#   ./demo.sh kind-operator        an operator pulls what is published: no kubeconfig after the start
#   ./demo.sh kind-down            take the cluster away
# WORKER_PORT (8080), DISTRIBUTOR_PORT (8090) and CONSOLE_PORT (8070) choose the ports.
set -euo pipefail
export CALLED_FROM=$PWD NO_COLOR=1
cd "$(dirname "$0")"
WORKER_PORT=${WORKER_PORT:-8080}
DISTRIBUTOR_PORT=${DISTRIBUTOR_PORT:-8090}
CONSOLE_PORT=${CONSOLE_PORT:-8070}
export WORKER_PORT DISTRIBUTOR_PORT CONSOLE_PORT
state=$PWD/.demo
gtc=$PWD/.venv/bin/gtc
python=$PWD/.venv/bin/python
verb=${1:-}

step() { PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} "$python" -m demo "$@"; } # demo/ does the steps
bold() { step say "$*"; }
show() { printf '$ %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
field() { step field "$1"; }
get() { step get "$@"; }

stop_on() { trap 'step stop >&2' "$1"; } # stop_on ERR: leave it running if all went well; stop_on EXIT: never

host_pull() {
  scripts/setup.sh
  stop_on ERR
  step prepare "$@"
  step author
  step strip
  bold "3. Start a distributor, and a worker that has nothing"
  show "gtc distributor serve .demo/bundles --port $DISTRIBUTOR_PORT"
  step distributor
  step worker
  bold "4. Ask it"
  step ask /healthz
  bold "The worker keeps running. ./demo.sh console opens a page on it; ./demo.sh host-stop stops it"
}

console() {
  scripts/setup.sh
  [ -n "$(step running)" ] || host_pull
  stop_on ERR
  bold "A page on this machine that shows what runs, and talks to it"
  step console
  bold "Both keep running. Stop them with ./demo.sh host-stop"
}

tamper() {
  scripts/setup.sh
  stop_on EXIT
  step prepare "$@"
  step author
  step strip
  bold "3. Flip one byte of the bundle at the distributor"
  step flip
  step distributor
  bold "4. Boot: it must refuse"
  step refused "does not match revision"
  bold "Refused: the bytes are not the pinned ones, nothing was unpacked, nothing serves."
}

oci_pull() {
  scripts/setup.sh
  stop_on ERR
  step prepare "$@"
  bold "1. Start a registry (Debian's docker-registry) and push the bundle"
  step registry
  step author
  step strip
  bold "3. Start a worker that has nothing"
  step worker
  step ask
  step origin
}

resume() {
  scripts/setup.sh
  stop_on EXIT
  step prepare
  bold "0b. Make the bundle large: 96 MiB of assets that do not compress"
  step large
  step author
  step strip
  bold "3. Start a distributor on a thin line (24 MiB a second for each connection), and a worker"
  show "gtc distributor serve .demo/bundles --port $DISTRIBUTOR_PORT --rate 24MiB"
  step distributor --rate 24MiB
  step half
  bold "5. Start it again: it asks for the rest"
  step worker
  step rest
}

revoke() {
  scripts/setup.sh
  stop_on EXIT
  step prepare "$@"
  step author
  step strip
  bold "3. Publish a list of what is revoked, and tell the environment where it is"
  step revoke
  step distributor
  bold "4. Boot: it must refuse"
  step refused "is revoked"
  bold "Refused: the bundle is revoked, whoever still serves it."
}

outage() {
  scripts/setup.sh
  stop_on EXIT
  step prepare "$@"
  step two
  step strip
  bold "3. Boot while the distributor is dead"
  step worker
  step dead
  bold "4. The distributor comes back; nobody touches the worker"
  step distributor
  step back
}

canary() {
  scripts/setup.sh
  stop_on EXIT
  step prepare
  step author
  step strip
  bold "3. Start a distributor, and a worker that has nothing"
  step distributor
  step worker
  bold "4. Stage a second revision"
  step canary
}

# shellcheck source=scripts/demo-cluster.sh
. scripts/demo-cluster.sh
# shellcheck source=scripts/demo-operator.sh
. scripts/demo-operator.sh

case "$verb" in
  kind-up) kind_up ;;
  kind-serve) kind_serve ;;
  kind-pull) kind_pull ;;
  kind-operator) kind_operator ;;
  kind-down) kind_down ;;
  oci-pull) shift; oci_pull "$@" ;;
  resume) resume ;;
  outage) shift; outage "$@" ;;
  canary) canary ;;
  console) console ;;
  revoke) shift; revoke "$@" ;;
  host-pull) shift; host_pull "$@" ;;
  host-stop) [ ! -x "$python" ] || step stop ;; # without it nothing was ever started
  talk) step talk ;;
  tamper) shift; tamper "$@" ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; [ "${1:-}" = "-h" ] || [ "${1:-}" = "--help" ] || exit 2 ;;
esac
