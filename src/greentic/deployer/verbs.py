"""The verbs that reach for a cluster, or may: what an environment that is bound to a deployer does beyond its document.

The verbs of `operate/` know no deployer. Where a binding changes what a verb does (`env destroy`, `env status`, `revisions warm --rollout`,
the warning of `env-packs add`), the row names a function of this room that calls the plain one.
"""

from __future__ import annotations

from greentic.operate.verb import AT, ENV, Flag, Verb

_B, _CR = "greentic.deployer.binding", "greentic.deployer.credentials"
_RE, _RO, _S = "greentic.deployer.reconcile", "greentic.deployer.rollout", "greentic.deployer.sweep"
_ST = "greentic.deployer.cluster_status"
_KIND = Flag("--kind", "kind", "the deployer's descriptor", "PATH@VERSION")
_ADOPT = Flag("--adopt", "adopt", "take over objects of others under our names", switch=True)
_FORCE = Flag("--force", "force", "take over fields that others manage", switch=True)
_NO_WAIT = Flag("--no-wait", "no_wait", "do not wait until pods are healthy", switch=True)
_TIMEOUT = Flag("--timeout", "timeout", "how long to wait for that", "SECONDS")
_ADMIN = Flag("--admin-profile", "admin_profile", "the kubeconfig context of an administrator", "CONTEXT")
_BINDING = "greentic.operate.env_packs:EnvPackBindingPayload"

VERBS: tuple[Verb, ...] = (
    Verb("env", "destroy", f"{_S}:destroy", f"{_S}:EnvDestroyPayload",
         "delete what runs in the cluster, take it out of the store; a copy is kept",
         "gtc op env destroy prod --confirm", required=(ENV,),
         flags=(Flag("--confirm", "confirm", "yes, really", switch=True),
                Flag("--namespace", "namespace", "delete the namespace in the cluster, too", switch=True),
                Flag("--store-only", "store_only", "leave what runs in a cluster", switch=True))),
    Verb("env", "status", f"{_ST}:status", "greentic.deployments.env_status:EnvStatusPayload",
         "what is wanted, what workers serve, and what is in the way of it in a cluster",
         "gtc op env status prod --at http://127.0.0.1:8080 --watch", flags=(AT,), watch=True),
    Verb("env", "reconcile", f"{_RE}:reconcile_environment", f"{_RE}:EnvReconcilePayload",
         "make the cluster match the environment, and wait until it is healthy", "gtc op env reconcile prod --dry-run",
         required=(ENV,), changes_member="changes_pending",
         flags=(_KIND, Flag("--dry-run", "dry_run", "only tell what would change; exit code 2 if anything", switch=True),
                _NO_WAIT, _TIMEOUT, _ADOPT, _FORCE,
                Flag("--recreate", "recreate", "delete and make again what cannot be changed in place", switch=True))),
    Verb("env", "diff", f"{_RE}:diff", f"{_RE}:EnvDiffPayload",
         "what a reconcile would change; exit code 2 if anything (between generations: --from N --to M, as `env changes`)",
         "gtc op env diff prod", required=(ENV,), changes_member="changes_pending", flags=(_KIND, _ADOPT, _FORCE)),
    Verb("env", "apply-revision", f"{_RO}:apply_revision", f"{_RO}:ApplyRevisionPayload",
         "one revision's worker: apply and wait, or delete",
         "gtc op env apply-revision prod bot@2", positionals=(ENV, "revision_id"), required=(ENV, "revision_id"),
         flags=(_KIND, _TIMEOUT, _NO_WAIT, _ADOPT, _FORCE)),
    Verb("env", "apply-traffic", f"{_RO}:apply_traffic", f"{_RO}:ApplyTrafficPayload",
         "for deployers with traffic of their own; not Kubernetes",
         "gtc op env apply-traffic prod bot", positionals=(ENV, "deployment_id"), required=(ENV, "deployment_id"), flags=(_KIND,)),
    Verb("env", "sweep", f"{_S}:sweep", f"{_S}:SweepPayload", "find workers of revisions that this store no longer knows",
         "gtc op env sweep prod --apply", required=(ENV,), flags=(_KIND, Flag("--apply", "apply", "delete them", switch=True))),
    Verb("credentials", "requirements", f"{_CR}:requirements", f"{_CR}:CredentialsRequirementsPayload",
         "what the bound identity may do in the cluster", "gtc op credentials requirements prod"),
    Verb("credentials", "bootstrap", f"{_CR}:bootstrap", f"{_CR}:CredentialsBootstrapPayload",
         "rules for a minimal service account, and binding it",
         "gtc op credentials bootstrap prod --admin-profile admin --bind",
         flags=(_ADMIN, Flag("--bind", "bind", "apply them and bind the new account", switch=True))),
    Verb("credentials", "rotate", f"{_CR}:rotate", f"{_CR}:CredentialsRotatePayload", "a new token for the bound account",
         "gtc op credentials rotate prod --admin-profile admin --if-needed",
         flags=(_ADMIN, Flag("--if-needed", "if_needed", "only near the end of its life", switch=True))),
    Verb("revisions", "warm", f"{_RO}:warm", f"{_RO}:RevisionWarmPayload", "load a staged revision and make it ready",
         "gtc op revisions warm prod bot@2 --rollout", positionals=(ENV, "revision_id"),
         flags=(Flag("--rollout", "rollout", "ready only once it runs in the cluster", switch=True), _TIMEOUT),
         hint="gtc op traffic set ENV {bundle_id}@{sequence}=100 --deployment {bundle_id} --idempotency-key KEY"),
    Verb("revisions", "drain", "greentic.deployer.drain:drain", "greentic.deployer.drain:RevisionDrainPayload",
         "no new sessions for a ready revision", "gtc op revisions drain prod bot@1 --rollout",
         positionals=(ENV, "revision_id"),
         flags=(Flag("--rollout", "rollout", "wait until nobody is on it, and scale its worker to nothing", switch=True), _TIMEOUT)),
    Verb("env-packs", "add", f"{_B}:add", _BINDING, "bind a free capability slot",
         "gtc op env-packs add prod slot=deployer kind=greentic.deployer.k8s@1.0.0 pack_ref=builtin"),
    Verb("env-packs", "update", f"{_B}:update", _BINDING, "bind a slot to something else",
         "gtc op env-packs update prod slot=deployer kind=greentic.deployer.k8s@1.0.0 pack_ref=builtin"),
)  # fmt: skip
