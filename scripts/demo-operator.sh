# The demo's third track: an operator in the cluster that pulls what is published. Sourced by demo.sh, after demo-cluster.sh.
#   ./demo.sh kind-operator   publish, the operator makes the pods, traffic moves, a hand-made change is healed, a rollback brings the old answer back

operator_bundle() { # operator_bundle NAME REPLY: build, publish, stage, warm; prints the revision
  local source=$state/cluster/source-$1 uri
  cp -r examples/hello-bundle "$source"
  grep -rl --include='*.ygtc' '{{node.shout}}!' "$source" | while read -r file; do sed -i "s/{{node.shout}}!/{{node.shout}}!$2/" "$file"; done
  "$gtc" bundle build "$source" --out "$state/cluster/$1.gtbundle" >/dev/null
  uri=$("$gtc" bundle publish "$state/cluster/$1.gtbundle" "oci://$here/bots/hello:$1" | field bundle_source_uri)
  rev=$("${op[@]}" revisions stage local --deployment "$dep" --bundle "$state/cluster/$1.gtbundle" --source-uri "${uri/$here/$there}" | field revision_id)
  "${op[@]}" revisions warm local revision_id="$rev" >/dev/null
  printf '%s\n' "$rev"
}

operator_traffic() { # operator_traffic REVISION: all traffic to it, and publish
  show "gtc op traffic set local $1=100 --deployment $dep; gtc op env publish local oci://REGISTRY/envs/local:prod"
  "${op[@]}" traffic set local "$1=100" --deployment "$dep" --idempotency-key "demo-$1" >/dev/null
  generation=$("${op[@]}" env publish local "oci://$here/envs/local:prod" | field generation)
}

operator_wait() { # operator_wait: until the operator says that what was published is served
  local told
  for _ in $(seq 600); do
    told=$(kubectl -n gtc-local get environment local -o 'jsonpath={.status.published.generation} {.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null || true)
    [ "$told" = "$generation True" ] && break
    sleep 0.5
  done
  [ "$told" = "$generation True" ] || { kubectl -n gtc-local describe environment local; fail "generation $generation is not served"; }
  kubectl -n gtc-local get environment local
}

operator_pods() { kubectl -n gtc-local get pods -l app.kubernetes.io/managed-by=greentic -o 'jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}' | sort; }

kind_operator() {
  local here there dep rev generation old new before forward image_of program
  kind_ready
  bold "0. A registry in the cluster, and a port of this machine that leads to it"
  read -r image_of program <<<"$("$python" lab/registry_image.py)"
  kubectl create namespace gtc-local >/dev/null
  sed -e "s#IMAGE#$image_of#" -e "s#PROGRAM#$program#" -e "s#PULL#$pull#" lab/registry.yaml | kubectl -n gtc-local apply -f - >/dev/null
  kubectl -n gtc-local wait --for=condition=Ready pod/registry --timeout=90s >/dev/null
  kubectl -n gtc-local port-forward pod/registry :5000 > "$state/cluster/registry.log" 2>&1 &
  forward=$!
  # shellcheck disable=SC2064
  trap "kill $forward 2>/dev/null || true" EXIT
  for _ in $(seq 100); do here=$(sed -n 's/.*\(127.0.0.1:[0-9]*\) .*/\1/p' "$state/cluster/registry.log" | head -n 1); [ -n "$here" ] && break; sleep 0.1; done
  there=registry.gtc-local.svc.cluster.local:5000
  export GREENTIC_OCI_INSECURE_REGISTRIES=$here

  bold "1. Author, as on a laptop, and bind the Kubernetes deployer"
  show "gtc op env create / trust-root bootstrap / bundles add / revisions stage / warm"
  kind_environment
  kind_bind "{\"runtime_image\": \"$image\", \"image_pull_policy\": \"$pull\", \"oci_insecure_registries\": [\"$there\"]}"
  dep=$("${op[@]}" bundles add local bundle_id=hello 'route_binding.path_prefixes=["/"]' | field deployment_id)
  old=$(operator_bundle one "")
  new=$(operator_bundle two " (the new one)")

  bold "2. Publish what pods may see, sealed"
  operator_traffic "$old"

  bold "3. An administrator starts the operator, once"
  show "gtc op operator render local --from oci://REGISTRY/envs/local:prod --output operator/; kubectl apply -f operator/00-customresourcedefinition-*; kubectl apply -f operator/"
  "${op[@]}" operator render local --from "oci://$there/envs/local:prod" --output "$state/cluster/operator" >/dev/null
  kubectl apply -f "$state/cluster/operator/"*customresourcedefinition* >/dev/null
  kubectl wait --for=condition=Established crd/environments.greentic.ai --timeout=60s >/dev/null
  kubectl apply -f "$state/cluster/operator" >/dev/null
  operator_wait
  kind_ask service/gtc-router POST / '{"text":"hi"}'
  before=$(operator_pods)

  bold "4. From here on nobody of us asks the API server, but to look. Traffic moves by publishing"
  operator_traffic "$new"
  operator_wait
  kind_ask service/gtc-router POST / '{"text":"hi"}'
  [ "$before" = "$(operator_pods)" ] || fail "a pod was replaced"
  printf 'no pod was replaced\n'

  bold "5. Somebody changes an object by hand"
  show "kubectl -n gtc-local delete service gtc-router; kubectl -n gtc-local scale deployment gtc-router --replicas=5"
  kubectl -n gtc-local delete service gtc-router >/dev/null
  kubectl -n gtc-local scale deployment gtc-router --replicas=5 >/dev/null
  for _ in $(seq 240); do
    [ "$(kubectl -n gtc-local get deployment gtc-router -o 'jsonpath={.spec.replicas}')" = 2 ] && kubectl -n gtc-local get service gtc-router >/dev/null 2>&1 && break
    sleep 0.5
  done
  [ "$(kubectl -n gtc-local get deployment gtc-router -o 'jsonpath={.spec.replicas}')" = 2 ] || fail "it was not healed"
  kubectl -n gtc-local get events --field-selector reason=DriftHealed -o 'jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}'

  bold "6. Back to what was published before"
  show "gtc op env rollback local oci://REGISTRY/envs/local:prod"
  generation=$("${op[@]}" env rollback local "oci://$here/envs/local:prod" | field generation)
  operator_wait
  kind_ask service/gtc-router POST / '{"text":"hi"}'
  show "gtc op env history local oci://REGISTRY/envs/local:prod"
  "${op[@]}" env history local "oci://$here/envs/local:prod" | "$python" -c '
import json, sys
for e in json.load(sys.stdin)["result"]["editions"]:
    print("generation %d%s" % (e["generation"], " (content of %d)" % e["rollback_of"] if e["rollback_of"] else ""))'
}
