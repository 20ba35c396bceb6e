"""Which `op` verbs exist and how their words become a payload. A table, so that starting one verb loads one module.

Each verb names its module and function as text; they are imported when the verb runs.
"""

from __future__ import annotations

from typing import NamedTuple


class Flag(NamedTuple):
    """A command line flag that fills a payload field."""

    name: str
    field: str
    help: str
    metavar: str = "VALUE"
    switch: bool = False
    repeat: bool = False


class Verb(NamedTuple):
    """One verb. `call` is `module:function`; `payload` is `module:Struct`, or empty for verbs that take an id alone."""

    noun: str
    verb: str
    call: str
    payload: str
    summary: str
    example: str
    positionals: tuple[str, ...] = ("environment_id",)
    """Payload fields that may be given as plain words, in order."""
    required: tuple[str, ...] = ()
    """Positionals without which the command line is wrong."""
    flags: tuple[Flag, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()
    """Fields that the inline form must have, with how to give them."""
    exclusive: bool = False
    """Whether inline words and --answers together are an error."""
    schema_text: str = ""
    """What `--schema` prints where there is no payload."""
    changes_member: str = ""
    """A member of the result that, when true, makes the exit code 2: there is something to do."""
    hint: str = ""
    """The next step, shown at a terminal after success; fields of the result stand in braces."""


ENV = "environment_id"
DEPLOYMENT = Flag("--deployment", "deployment_id", "the deployment's ULID", "ULID")
KEY = Flag("--idempotency-key", "idempotency_key", "makes a repeated call safe", "KEY")
UPDATED_BY = Flag("--updated-by", "updated_by", "who is recorded as the author", "WHO")
_HOST_FLAGS = (
    Flag("--name", "name", "display name", "NAME"),
    Flag("--region", "region", "region tag", "REGION"),
    Flag("--tenant-org", "tenant_org_id", "tenant organization", "ID"),
    Flag("--listen-addr", "listen_addr", "where workers listen", "IP:PORT"),
    Flag("--public-url", "public_base_url", "public http(s) origin", "URL"),
)
_E, _I, _D = "greentic.operate.env", "greentic.operate.env_init", "greentic.operate.env_doctor"
_B, _R, _T = "greentic.operate.bundles", "greentic.operate.revisions", "greentic.operate.traffic"
_P, _C, _K = "greentic.operate.env_packs", "greentic.operate.config", "greentic.operate.trust_root"
_N, _RO, _RE = "greentic.deployer.env_render", "greentic.deployer.rollout", "greentic.deployer.reconcile"
_S, _CR = "greentic.deployer.sweep", "greentic.deployer.credentials"
KIND = Flag("--kind", "kind", "the deployer's descriptor", "PATH@VERSION")
ADOPT = Flag("--adopt", "adopt", "take over objects of others under our names", switch=True)
FORCE = Flag("--force", "force", "take over fields that others manage", switch=True)
NO_WAIT = Flag("--no-wait", "no_wait", "do not wait until pods are healthy", switch=True)
TIMEOUT = Flag("--timeout", "timeout", "how long to wait for that", "SECONDS")
ADMIN = Flag("--admin-profile", "admin_profile", "the kubeconfig context of an administrator", "CONTEXT")
_TRANSITION = f"{_R}:RevisionTransitionPayload"
_SHOW = f"{_T}:TrafficShowPayload"
_BINDING, _UNBINDING = f"{_P}:EnvPackBindingPayload", f"{_P}:EnvPackRemovePayload"

VERBS: tuple[Verb, ...] = (
    Verb("env", "create", f"{_E}:create", f"{_E}:EnvCreatePayload", "write a new, empty environment",
         "gtc op env create prod --name Production", flags=_HOST_FLAGS, exclusive=True,
         needs=((ENV, "--environment-id"), ("name", "--name")), hint="gtc op trust-root bootstrap {environment_id}"),
    Verb("env", "show", f"{_E}:show", "", "the whole document", "gtc op env show prod", required=(ENV,)),
    Verb("env", "list", f"{_E}:list_all", "", "every environment of the store", "gtc op env list", positionals=(),
         schema_text="no input"),
    Verb("env", "update", f"{_E}:update", f"{_E}:EnvCreatePayload", "set the name and host fields, or clear them",
         "gtc op env update prod --name Production --clear region", exclusive=True,
         flags=(*_HOST_FLAGS, Flag("--clear", "clear", "unset a host field", "FIELD", repeat=True)),
         needs=((ENV, "--environment-id"), ("name", "--name"))),
    Verb("env", "set-public-url", f"{_E}:set_public_url", f"{_E}:SetPublicUrlPayload", "overwrite the public URL",
         "gtc op env set-public-url prod https://bot.example.com", positionals=(ENV, "url"), required=(ENV, "url")),
    Verb("env", "doctor", f"{_D}:doctor", "", "examine an environment, even one that does not load",
         "gtc op env doctor prod", required=(ENV,)),
    Verb("env", "repair", f"{_D}:repair", f"{_D}:RepairPayload", "archive routed revisions whose files are gone",
         "gtc op env repair prod --check", required=(ENV,),
         flags=(Flag("--check", "check", "only look", switch=True), Flag("--apply", "apply", "do it", switch=True))),
    Verb("env", "init", f"{_I}:init", f"{_I}:EnvInitPayload", "create or complete the environment `local`",
         "gtc op env init", positionals=(), schema_text="optional --public-url",
         flags=(Flag("--public-url", "public_url", "public http(s) origin", "URL"),),
         hint="gtc op deploy --bundle ./my.gtbundle"),
    Verb("env", "migrate-dev", f"{_I}:migrate_dev", f"{_I}:MigrateDevPayload", "rename the environment `dev` of old stores",
         "gtc op env migrate-dev local --check", positionals=("target",), required=("target",),
         flags=(Flag("--check", "check", "only look", switch=True), Flag("--apply", "apply", "do it", switch=True))),
    Verb("env", "destroy", f"{_E}:destroy", f"{_E}:DestroyPayload",
         "delete what runs in the cluster, take it out of the store; a copy is kept",
         "gtc op env destroy prod --confirm", required=(ENV,),
         flags=(Flag("--confirm", "confirm", "yes, really", switch=True),
                Flag("--namespace", "namespace", "delete the namespace in the cluster, too", switch=True),
                Flag("--store-only", "store_only", "leave what runs in a cluster", switch=True))),
    Verb("env", "render", f"{_N}:render_objects", f"{_N}:EnvRenderPayload", "the Kubernetes objects, without asking a cluster",
         "gtc op env render prod --output manifests/", required=(ENV,),
         flags=(KIND, Flag("--output", "output", "write one YAML file an object there", "DIR"))),
    Verb("env", "reconcile", f"{_RE}:reconcile_environment", f"{_RE}:EnvReconcilePayload",
         "make the cluster match the environment, and wait until it is healthy", "gtc op env reconcile prod --dry-run",
         required=(ENV,), changes_member="changes_pending",
         flags=(KIND, Flag("--dry-run", "dry_run", "only tell what would change; exit code 2 if anything", switch=True),
                NO_WAIT, TIMEOUT, ADOPT, FORCE,
                Flag("--recreate", "recreate", "delete and make again what cannot be changed in place", switch=True))),
    Verb("env", "diff", f"{_RE}:diff", f"{_RE}:EnvDiffPayload", "what a reconcile would change; exit code 2 if anything",
         "gtc op env diff prod", required=(ENV,), changes_member="changes_pending", flags=(KIND, ADOPT, FORCE)),
    Verb("env", "apply-revision", f"{_RO}:apply_revision", f"{_RO}:ApplyRevisionPayload",
         "one revision's worker: apply and wait, or delete",
         "gtc op env apply-revision prod 01J…", positionals=(ENV, "revision_id"), required=(ENV, "revision_id"),
         flags=(KIND, TIMEOUT, NO_WAIT, ADOPT, FORCE)),
    Verb("env", "apply-traffic", f"{_RO}:apply_traffic", f"{_RO}:ApplyTrafficPayload",
         "for deployers with traffic of their own; not Kubernetes",
         "gtc op env apply-traffic prod 01J…", positionals=(ENV, "deployment_id"), required=(ENV, "deployment_id"), flags=(KIND,)),
    Verb("env", "sweep", f"{_S}:sweep", f"{_S}:SweepPayload", "find workers of revisions that this store no longer knows",
         "gtc op env sweep prod --apply", required=(ENV,), flags=(KIND, Flag("--apply", "apply", "delete them", switch=True))),
    Verb("env", "apply", "greentic.release.env_apply:apply", "greentic.release.env_manifest:EnvManifest",
         "make an environment what one file says", "gtc op env apply --answers env.yaml --dry-run", positionals=(),
         flags=(Flag("--dry-run", "dry_run", "only show the plan", switch=True),
                Flag("--check", "check", "fail if anything is to do", switch=True),
                Flag("--yes", "yes", "accepted for scripts; nothing is asked", switch=True),
                Flag("--non-interactive", "non_interactive", "accepted for scripts", switch=True), UPDATED_BY)),
    Verb("trust-root", "bootstrap", f"{_K}:bootstrap", f"{_K}:TrustRootBootstrapPayload",
         "trust the operator's key, generating it if there is none", "gtc op trust-root bootstrap prod",
         hint="gtc op bundles add {environment_id} bundle_id=ID customer_id=WHO route_binding.path_prefixes='[\"/\"]'"),
    Verb("trust-root", "list", f"{_K}:list_keys", "", "the trusted keys", "gtc op trust-root list prod", required=(ENV,)),
    Verb("trust-root", "add", f"{_K}:add", f"{_K}:TrustRootAddPayload", "trust another key",
         "gtc op trust-root add prod --key-id 21fe… --public-key-file ops.pub",
         flags=(Flag("--key-id", "key_id", "the key's id", "HEX"),
                Flag("--public-key-pem", "public_key_pem", "the key", "PEM"),
                Flag("--public-key-file", "public_key_file", "a file that holds it", "FILE"))),
    Verb("trust-root", "remove", f"{_K}:remove", f"{_K}:TrustRootRemovePayload", "stop trusting a key",
         "gtc op trust-root remove prod --key-id 21fe…", flags=(Flag("--key-id", "key_id", "the key's id", "HEX"),)),
    Verb("credentials", "requirements", f"{_CR}:requirements", f"{_CR}:CredentialsRequirementsPayload",
         "what the bound identity may do in the cluster", "gtc op credentials requirements prod"),
    Verb("credentials", "bootstrap", f"{_CR}:bootstrap", f"{_CR}:CredentialsBootstrapPayload",
         "rules for a minimal service account, and binding it",
         "gtc op credentials bootstrap prod --admin-profile admin --bind",
         flags=(ADMIN, Flag("--bind", "bind", "apply them and bind the new account", switch=True))),
    Verb("credentials", "rotate", f"{_CR}:rotate", f"{_CR}:CredentialsRotatePayload", "a new token for the bound account",
         "gtc op credentials rotate prod --admin-profile admin --if-needed",
         flags=(ADMIN, Flag("--if-needed", "if_needed", "only near the end of its life", switch=True))),
    Verb("delivery", "set", "greentic.operate.delivery:set_delivery", "greentic.operate.delivery:DeliverySetPayload",
         "mirrors, what signatures are worth, where the revocation list is; seals the environment",
         "gtc op delivery set prod --signatures require --mirror https://mirror.example.com/{sha256}",
         flags=(Flag("--mirror", "mirrors", "a template of a mirror", "URL", repeat=True),
                Flag("--signatures", "signatures", "off, warn or require", "MODE"),
                Flag("--key", "keys", "a key id that counts", "HEX", repeat=True),
                Flag("--threshold", "threshold", "how many keys must have signed", "N"),
                Flag("--revocations", "revocations", "where the signed list is", "URL"),
                Flag("--revocations-required", "revocations_required", "refuse to boot without it", switch=True))),
    Verb("delivery", "show", "greentic.operate.delivery:show", "", "mirrors, policy, generation, seal",
         "gtc op delivery show prod", required=(ENV,)),
    Verb("bundles", "add", f"{_B}:add", f"{_B}:BundleAddPayload", "create a deployment: a route and a signed policy",
         "gtc op bundles add prod bundle_id=bot customer_id=acme route_binding.path_prefixes='[\"/\"]'",
         hint="gtc op revisions stage {environment_id} --deployment {deployment_id} --bundle FILE"),
    Verb("bundles", "update", f"{_B}:update", f"{_B}:BundleUpdatePayload", "replace parts of a deployment",
         "gtc op bundles update prod deployment_id=01J… status=paused", flags=(DEPLOYMENT,)),
    Verb("bundles", "remove", f"{_B}:remove", f"{_B}:BundleRemovePayload", "delete a deployment that is no longer live",
         "gtc op bundles remove prod --deployment 01J…", flags=(DEPLOYMENT,)),
    Verb("bundles", "list", f"{_B}:list_deployments", "", "the deployments", "gtc op bundles list prod", required=(ENV,)),
    Verb("bundles", "retire", "greentic.release.retire:retire", "greentic.release.retire:BundleRetirePayload",
         "take a deployment out of service, all steps", "gtc op bundles retire prod bot --customer acme",
         positionals=(ENV, "bundle"),
         flags=(Flag("--customer", "customer_id", "whose deployment", "ID"),
                Flag("--store-only", "store_only", "leave what a deployer runs", switch=True),
                Flag("--force-drain", "force_drain", "do not wait for sessions", switch=True), KEY)),
    Verb("revisions", "stage", f"{_R}:stage", f"{_R}:RevisionStagePayload", "pin and unpack a bundle as a new revision",
         "gtc op revisions stage prod --deployment 01J… bundle_path=bot.gtbundle bundle_source_uri=https://…/bot.gtbundle",
         flags=(DEPLOYMENT, Flag("--bundle", "bundle_path", "the .gtbundle", "FILE"),
                Flag("--source-uri", "bundle_source_uri", "where workers pull it", "URI"),
                Flag("--verify-source", "verify_source", "compare the bundle with what its source has", switch=True), KEY),
         needs=((ENV, "<ENV_ID>"), ("deployment_id", "--deployment <ULID>"), ("bundle_path|bundle_source_uri", "--bundle <PATH>")),
         hint="gtc op revisions warm ENV revision_id={revision_id}"),
    Verb("revisions", "warm", f"{_R}:warm", f"{_R}:RevisionWarmPayload", "load a staged revision and make it ready",
         "gtc op revisions warm prod revision_id=01J… --rollout", positionals=(ENV, "revision_id"),
         flags=(Flag("--rollout", "rollout", "ready only once it runs in the cluster", switch=True), TIMEOUT),
         hint="gtc op traffic set ENV {revision_id}=100 --deployment {deployment_id} --idempotency-key KEY"),
    Verb("revisions", "drain", f"{_R}:drain", _TRANSITION, "no new sessions for a ready revision",
         "gtc op revisions drain prod revision_id=01J…", positionals=(ENV, "revision_id")),
    Verb("revisions", "archive", f"{_R}:archive", _TRANSITION, "end a revision that has no traffic",
         "gtc op revisions archive prod revision_id=01J…", positionals=(ENV, "revision_id")),
    Verb("revisions", "retry", f"{_R}:retry", _TRANSITION, "a failed revision back to staged",
         "gtc op revisions retry prod revision_id=01J…", positionals=(ENV, "revision_id"),
         hint="gtc op revisions warm ENV revision_id={revision_id}"),
    Verb("revisions", "list", f"{_R}:list_revisions", "", "the revisions", "gtc op revisions list prod", required=(ENV,)),
    Verb("traffic", "set", f"{_T}:set_traffic", f"{_T}:TrafficSetPayload", "route traffic to ready revisions",
         "gtc op traffic set prod 01J…=90 01K…=10 --deployment 01J… --idempotency-key release-7",
         flags=(DEPLOYMENT, KEY, UPDATED_BY, Flag("--authorization-ref", "authorization_ref", "recorded with the split", "REF")),
         needs=((ENV, "<ENV_ID>"), ("deployment_id", "--deployment <ULID>"), ("idempotency_key", "--idempotency-key <KEY>"),
                ("entries", "<REV>=<PERCENT>")),
         hint="greentic-start start --env {environment_id}"),
    Verb("traffic", "show", f"{_T}:show", _SHOW, "the current split", "gtc op traffic show prod --deployment 01J…",
         flags=(DEPLOYMENT,)),
    Verb("traffic", "rollback", f"{_T}:rollback", _SHOW, "one step back", "gtc op traffic rollback prod --deployment 01J…",
         flags=(DEPLOYMENT, KEY)),
    Verb("traffic", "clear", f"{_T}:clear", f"{_T}:TrafficClearPayload", "all to one survivor, or no split for a retiring one",
         "gtc op traffic clear prod --deployment 01J… --survivor 01K…",
         flags=(DEPLOYMENT, Flag("--survivor", "survivor", "the revision that takes all", "ULID"), KEY, UPDATED_BY)),
    Verb("env-packs", "add", f"{_P}:add", _BINDING, "bind a free capability slot",
         "gtc op env-packs add prod slot=deployer kind=greentic.deployer.k8s@1.0.0 pack_ref=builtin"),
    Verb("env-packs", "update", f"{_P}:update", _BINDING, "bind a slot to something else",
         "gtc op env-packs update prod slot=deployer kind=greentic.deployer.k8s@1.0.0 pack_ref=builtin"),
    Verb("env-packs", "remove", f"{_P}:remove", _UNBINDING, "free a slot", "gtc op env-packs remove prod slot=deployer"),
    Verb("env-packs", "rollback", f"{_P}:rollback", _UNBINDING, "back to the binding before",
         "gtc op env-packs rollback prod slot=deployer"),
    Verb("env-packs", "list", f"{_P}:list_bindings", "", "the bindings", "gtc op env-packs list prod", required=(ENV,)),
    Verb("config", "show", f"{_C}:show", f"{_C}:ConfigShowFilter", "host fields, bindings and their answers",
         "gtc op config show prod"),
    Verb("config", "set", f"{_C}:set_config", f"{_C}:ConfigSetPayload", "set host fields",
         "gtc op config set prod listen_addr=0.0.0.0:8080"),
    Verb("deploy", "run", "greentic.release.deploy:deploy", "greentic.release.deploy:BundleDeployPayload",
         "add, stage, warm and route a bundle in one call", "gtc op deploy --bundle bot.gtbundle --path-prefix /",
         positionals=(),
         flags=(Flag("--bundle", "bundle_path", "the .gtbundle", "FILE"), Flag("--env", ENV, "environment (local)", "ID"),
                Flag("--bundle-id", "bundle_id", "default: the file's stem", "ID"),
                Flag("--customer-id", "customer_id", "who is billed", "ID"), KEY,
                Flag("--source-uri", "bundle_source_uri", "where workers pull it", "URI"),
                Flag("--path-prefix", "route_binding.path_prefixes", "route this prefix", "PREFIX", repeat=True),
                Flag("--host", "route_binding.hosts", "route this host", "HOST", repeat=True),
                Flag("--tenant", "route_binding.tenant_selector.tenant", "tenant", "ID"),
                Flag("--team", "route_binding.tenant_selector.team", "team", "ID"),
                Flag("--config-override", "config_overrides", "a text for a pack", "PACK:KEY=VALUE", repeat=True),
                Flag("--config-override-json", "config_overrides", "JSON for a pack", "PACK:KEY=JSON", repeat=True),
                Flag("--config-overrides-from", "config_overrides", "a JSON file of them", "FILE")),
         hint="greentic-start start --env {environment_id}"),
)  # fmt: skip


def nouns() -> list[str]:
    return list(dict.fromkeys(v.noun for v in VERBS))


def find(noun: str, verb: str) -> Verb | None:
    return next((v for v in VERBS if (v.noun, v.verb) == (noun, verb)), None)
