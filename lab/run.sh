#!/usr/bin/env bash
# One cluster for tests, benchmarks and the demo, whatever kind it is.
#
#   lab/run.sh up            start it, with the worker's image loaded; print the path of its kubeconfig
#   lab/run.sh kubeconfig    print that path
#   lab/run.sh load FILE     load another image (a tar file)
#   lab/run.sh down          take it away
#
# CLUSTER=lab (default as root on Debian bookworm without kind): a real control plane and kubelet, built here
# CLUSTER=kind (default where kind and Docker are)
# CLUSTER=current: the current context of a cluster that may be used up; GREENTIC_TEST_IMAGE names an image that it can pull
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
image=dist/greentic-worker.tar
name=${KIND_CLUSTER:-greentic}

if [ -z "${CLUSTER:-}" ]; then
  if command -v kind >/dev/null && command -v docker >/dev/null && docker info >/dev/null 2>&1; then CLUSTER=kind; else CLUSTER=lab; fi
fi

case "$CLUSTER-${1:-}" in
  lab-up) [ -e "$image" ] || $python image/build.py >&2; $python lab/cluster.py up --image "$image" ;;
  lab-kubeconfig) echo "${GREENTIC_LAB_STATE:-/var/lib/greentic-lab}/pki/admin.kubeconfig" ;;
  lab-load) $python lab/cluster.py load "$2" ;;
  lab-down) $python lab/cluster.py down ;;
  kind-up)
    [ -e "$image" ] || $python image/build.py >&2
    mkdir -p build
    kind get clusters 2>/dev/null | grep -qx "$name" || kind create cluster --name "$name" --kubeconfig build/kind.kubeconfig >&2
    kind load image-archive "$image" --name "$name" >&2
    kind get kubeconfig --name "$name" > build/kind.kubeconfig
    echo "$PWD/build/kind.kubeconfig" ;;
  kind-kubeconfig) echo "$PWD/build/kind.kubeconfig" ;;
  kind-load) kind load image-archive "$2" --name "$name" >&2 ;;
  kind-down) kind delete cluster --name "$name" >&2 ;;
  current-up|current-kubeconfig) kubectl config current-context >/dev/null; echo "${KUBECONFIG:-$HOME/.kube/config}" ;;
  current-load) echo "images are not loaded into a cluster of yours; push them where it can pull" >&2; exit 1 ;;
  current-down) ;;
  *) echo "usage: [CLUSTER=lab|kind|current] lab/run.sh up|kubeconfig|load FILE|down" >&2; exit 2 ;;
esac
