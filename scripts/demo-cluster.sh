# The demo's second track: the same authoring, and a cluster. Sourced by demo.sh.
#   ./demo.sh kind-up      a cluster with the worker's image in it
#   ./demo.sh kind-serve   env-packs add, env reconcile: pods of routers and of one revision's worker boot and serve /healthz
#   ./demo.sh kind-pull    pods pull their bundle from another pod, through the network policies, and answer a POST
#   ./demo.sh kind-down    take the cluster away
# On kind where kind and Docker are; CLUSTER=lab uses the lab (root, Debian bookworm), CLUSTER=current the current context.

cluster_kind() {
  if [ -n "${CLUSTER:-}" ]; then echo "$CLUSTER"; return; fi
  if command -v kind >/dev/null 2>&1 && docker info >/dev/null 2>&1; then echo kind; return; fi
  fail "there is no cluster to use. Install one of:
  * kind (https://kind.sigs.k8s.io) and a running Docker: then this command as it is
  * as root on Debian bookworm: apt-get install build-essential rsync jq iproute2 nftables iptables conntrack, then CLUSTER=lab $0 $verb
  * a cluster that may be used up: CLUSTER=current $0 $verb (GREENTIC_TEST_IMAGE names an image that it can pull)"
}

kind_up() {
  scripts/setup.sh --dev
  CLUSTER=$(cluster_kind); export CLUSTER
  command -v kubectl >/dev/null 2>&1 || fail "kubectl is missing: it shows what happened (https://kubernetes.io/docs/tasks/tools)"
  bold "1. The worker's image: CPython, the package, nothing else"
  show make image
  "$python" image/build.py
  bold "2. A cluster ($CLUSTER)"
  show "CLUSTER=$CLUSTER lab/run.sh up"
  KUBECONFIG=$(lab/run.sh up); export KUBECONFIG
  show kubectl get nodes
  kubectl get nodes
  bold "Next: ./demo.sh kind-serve, ./demo.sh kind-pull; ./demo.sh kind-down takes it away"
}

kind_down() { CLUSTER=$(cluster_kind); export CLUSTER; show "CLUSTER=$CLUSTER lab/run.sh down"; lab/run.sh down; }

kind_ready() { # sets KUBECONFIG, $image and $pull
  CLUSTER=$(cluster_kind); export CLUSTER
  KUBECONFIG=$(lab/run.sh kubeconfig); export KUBECONFIG
  kubectl get nodes >/dev/null 2>&1 || fail "no cluster answers at $KUBECONFIG; start it: ./demo.sh kind-up"
  image=${GREENTIC_TEST_IMAGE:-greentic.local/worker:dev}
  pull=IfNotPresent; [ "$CLUSTER" = lab ] && pull=Never
  scripts/setup.sh --dev
  rm -rf "$state/cluster"; mkdir -p "$state/cluster"
  store=$state/cluster/environments
  op=("$gtc" op --store-root "$store")
  export GTC_OPERATOR_KEY_PATH=$state/cluster/operator/key.pem
  kubectl delete namespace gtc-local --ignore-not-found >/dev/null
}

kind_environment() {
  "${op[@]}" env create local --name local >/dev/null
  "${op[@]}" trust-root bootstrap local >/dev/null
}

kind_bind() { # kind_bind ANSWERS: the Kubernetes deployer
  printf '%s\n' "$1" > "$store/local/deployer-answers.json"
  show "gtc op env-packs add local slot=deployer kind=greentic.deployer.k8s@1.0.0 pack_ref=builtin answers_ref=deployer-answers.json"
  cat "$store/local/deployer-answers.json"
  "${op[@]}" env-packs add local slot=deployer kind=greentic.deployer.k8s@1.0.0 pack_ref=builtin answers_ref=deployer-answers.json >/dev/null
}

kind_author() { # kind_author [URI]: the verbs of the first track, and the binding of the deployer; without a URI nothing is routed. Sets $rev
  local uri=${1:-} dep
  bold "1. Author, as on a laptop"
  show "gtc op env create / trust-root bootstrap / bundles add / revisions stage / warm${uri:+ / traffic set}"
  kind_environment
  dep=$("${op[@]}" bundles add local bundle_id=hello 'route_binding.path_prefixes=["/"]' | field deployment_id)
  rev=$("${op[@]}" revisions stage local --deployment "$dep" --bundle "$state/cluster/hello.gtbundle" ${uri:+--source-uri "$uri"} | field revision_id)
  "${op[@]}" revisions warm local revision_id="$rev" >/dev/null
  if [ -n "$uri" ]; then "${op[@]}" traffic set local "$rev=100" --deployment "$dep" --idempotency-key demo >/dev/null; fi
  bold "2. Bind the Kubernetes deployer"
  kind_bind "{\"runtime_image\": \"$image\", \"image_pull_policy\": \"$pull\"}"
}

kind_reconcile() {
  show "gtc op env reconcile local"
  "${op[@]}" env reconcile local --timeout 180 | "$python" -c '
import json, sys
told = json.load(sys.stdin)["result"]
print("applied %d, pruned %d, writes %d; ready: %s" % (told["applied_count"], told["pruned_count"], told["writes"], ", ".join(told["ready"])))'
}

kind_ask() { # kind_ask SERVICE METHOD PATH [BODY]: through kubectl port-forward
  local port pid
  kubectl -n gtc-local port-forward "$1" :8080 > "$state/cluster/forward.log" 2>&1 &
  pid=$!
  for _ in $(seq 100); do port=$(sed -n 's/.*127.0.0.1:\([0-9]*\) .*/\1/p' "$state/cluster/forward.log" | head -n 1); [ -n "$port" ] && break; sleep 0.1; done
  get "$2" "http://127.0.0.1:$port$3" ${4:+"$4"} || { kill "$pid"; return 1; }
  kill "$pid"; wait "$pid" 2>/dev/null || true
}

kind_serve() {
  kind_ready
  "$gtc" bundle build examples/hello-bundle --out "$state/cluster/hello.gtbundle" >/dev/null
  kind_author
  bold "3. Make the cluster match the environment: 12 objects, and the pair of a warmed revision that no traffic goes to"
  kind_reconcile
  show kubectl -n gtc-local get pods
  kubectl -n gtc-local get pods
  bold "4. Pods boot empty and serve"
  show "kubectl -n gtc-local port-forward service/gtc-router; curl /healthz"
  kind_ask service/gtc-router GET /healthz
  bold "5. So does the worker of the revision, in a pod of its own; it has nowhere to pull from yet, ./demo.sh kind-pull shows that"
  local worker
  worker=gtc-worker-$(printf %s "$rev" | tr "[:upper:]" "[:lower:]")
  show "kubectl -n gtc-local port-forward service/$worker; curl /healthz"
  kind_ask "service/$worker" GET /healthz
}

kind_pull() {
  kind_ready
  "$gtc" bundle build examples/hello-bundle --out "$state/cluster/hello.gtbundle" >/dev/null
  bold "0. A distributor in the cluster, and whether pods reach pods at all"
  kubectl create namespace gtc-local >/dev/null
  kubectl -n gtc-local create configmap bundles --from-file=hello.gtbundle="$state/cluster/hello.gtbundle" >/dev/null
  sed -e "s#IMAGE#$image#" -e "s#PULL#$pull#" lab/distributor.yaml | kubectl -n gtc-local apply -f - >/dev/null
  kubectl -n gtc-local rollout status deployment/distributor --timeout=90s
  kubectl -n gtc-local wait --for=condition=Ready pod/probe --timeout=90s >/dev/null
  pod_ip=$(kubectl -n gtc-local get pod -l app=distributor -o 'jsonpath={.items[0].status.podIP}')
  if ! kubectl -n gtc-local exec -i probe -- /usr/local/bin/python3 - "$pod_ip" <<'PY'
import socket, sys, time
for _ in range(10):
    try:
        socket.create_connection((sys.argv[1], 8080), 2).close()
        break
    except OSError as error:
        last = error
        time.sleep(0.5)
else:
    sys.exit(f"{sys.argv[1]}:8080 is not reached: {last}")
PY
  then
    fail "a pod does not reach another pod on this machine. That is the cluster's network, not the worker: some combinations of kernel and
  container engine lose what is sent between pods of one node, while kubelet still reaches every pod. ./demo.sh kind-serve works
  there, and ./demo.sh host-pull shows the same pull without a cluster."
  fi
  kubectl -n gtc-local delete pod probe --wait=false >/dev/null
  printf 'pods reach pods\n'
  kind_author "http://distributor.gtc-local.svc.cluster.local:8080/hello.gtbundle"
  bold "3. Make the cluster match, and wait: pods boot with nothing but environment.json, pull, verify, serve"
  kind_reconcile
  show "kubectl -n gtc-local logs deployment/gtc-router | tail -2"
  kubectl -n gtc-local logs deployment/gtc-router 2>/dev/null | tail -n 2
  bold "4. Ask the router"
  show "curl -X POST …/ -d '{\"text\":\"hi\"}'"
  kind_ask service/gtc-router POST / '{"text":"hi"}'
  bold "5. Again: nothing to do. Archive, and the pair goes"
  kind_reconcile
  "${op[@]}" bundles retire local hello --store-only >/dev/null
  show "gtc op bundles retire local hello --store-only"
  kind_reconcile
}
