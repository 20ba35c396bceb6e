"""The verbs that change the document of an environment itself: `env`, `trust-root`, `delivery`, `env-packs` and `config`.

What is deployed stands in `deployments/verbs.py`, what examines in `examine/verbs.py`, what also touches a cluster in
`deployer/verbs.py`, what renders objects in `manifests/verbs.py`, what is many changes at once in `release/verbs.py`.
"""

from __future__ import annotations

from greentic.operate.verb import ENV, Flag, Verb

_HOST_FLAGS = (
    Flag("--name", "name", "display name", "NAME"),
    Flag("--region", "region", "region tag", "REGION"),
    Flag("--tenant-org", "tenant_org_id", "tenant organization", "ID"),
    Flag("--listen-addr", "listen_addr", "where workers listen", "IP:PORT"),
    Flag("--public-url", "public_base_url", "public http(s) origin", "URL"),
)
_E, _I = "greentic.operate.env", "greentic.operate.env_init"
_P, _C, _K = "greentic.operate.env_packs", "greentic.operate.config", "greentic.operate.trust_root"
_L = "greentic.operate.delivery"
_UNBINDING = f"{_P}:EnvPackRemovePayload"

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
    Verb("env", "init", f"{_I}:init", f"{_I}:EnvInitPayload", "create or complete the environment `local`",
         "gtc op env init", positionals=(), schema_text="optional --public-url",
         flags=(Flag("--public-url", "public_url", "public http(s) origin", "URL"),),
         hint="gtc op deploy --bundle ./my.gtbundle"),
    Verb("env", "migrate-dev", f"{_I}:migrate_dev", f"{_I}:MigrateDevPayload", "rename the environment `dev` of old stores",
         "gtc op env migrate-dev local --check", positionals=("target",), required=("target",),
         flags=(Flag("--check", "check", "only look", switch=True), Flag("--apply", "apply", "do it", switch=True))),
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
    Verb("delivery", "set", f"{_L}:set_delivery", f"{_L}:DeliverySetPayload",
         "mirrors, what signatures are worth, where the revocation list is; seals the environment",
         "gtc op delivery set prod --signatures require --mirror https://mirror.example.com/{sha256}",
         flags=(Flag("--mirror", "mirrors", "a template of a mirror", "URL", repeat=True),
                Flag("--signatures", "signatures", "off, warn or require", "MODE"),
                Flag("--key", "keys", "a key id that counts", "HEX", repeat=True),
                Flag("--threshold", "threshold", "how many keys must have signed", "N"),
                Flag("--revocations", "revocations", "where the signed list is", "URL"),
                Flag("--revocations-required", "revocations_required", "refuse to boot without it", switch=True),
                Flag("--generation", "generation", "count on from here, above what workers have seen", "N"))),
    Verb("delivery", "show", f"{_L}:show", "", "mirrors, policy, generation, seal",
         "gtc op delivery show prod", required=(ENV,)),
    Verb("env-packs", "remove", f"{_P}:remove", _UNBINDING, "free a slot", "gtc op env-packs remove prod slot=deployer"),
    Verb("env-packs", "rollback", f"{_P}:rollback", _UNBINDING, "back to the binding before",
         "gtc op env-packs rollback prod slot=deployer"),
    Verb("env-packs", "list", f"{_P}:list_bindings", "", "the bindings", "gtc op env-packs list prod", required=(ENV,)),
    Verb("config", "show", f"{_C}:show", f"{_C}:ConfigShowFilter", "host fields, bindings and their answers",
         "gtc op config show prod"),
    Verb("config", "set", f"{_C}:set_config", f"{_C}:ConfigSetPayload", "set host fields",
         "gtc op config set prod listen_addr=0.0.0.0:8080"),
)  # fmt: skip
