"""The verbs that carry out many changes as one wish."""

from __future__ import annotations

import msgspec

from greentic.operate.verb import AT, DEPLOYMENT, ENV, KEY, UPDATED_BY, Flag, Verb

_A, _D, _R = "greentic.release.env_apply", "greentic.release.deploy", "greentic.release.retire"
_P, _Q = "greentic.release.env_publish", "greentic.release.env_prune"
_W = "greentic.rollout.ramp_run"

_GENERATION = Flag("--generation", "generation", "which one; default: the newest", "N")


VERBS: tuple[Verb, ...] = (
    Verb("env", "apply", f"{_A}:apply", "greentic.release.env_manifest:EnvManifest",
         "make an environment what one file says", "gtc op env apply --answers env.yaml --dry-run", positionals=(),
         options=f"{_A}:ApplyOptions",
         flags=(Flag("--dry-run", "dry_run", "only show the plan", switch=True),
                Flag("--check", "check", "fail if anything is to do", switch=True),
                Flag("--prune", "prune", "retire deployments that the file does not name, once that is confirmed", switch=True),
                Flag("--confirm", "confirm", "the digest of the plan of what goes, as --prune shows it", "DIGEST"),
                Flag("--yes", "", "accepted for scripts; nothing is asked", switch=True),
                Flag("--non-interactive", "", "accepted for scripts", switch=True), UPDATED_BY)),
    Verb("env", "publish", f"{_P}:publish", f"{_P}:EnvPublishPayload",
         "push what pods may see, sealed, for workers and operators that follow it",
         "gtc op env publish prod oci://registry.example.com/envs/prod:prod", positionals=(ENV, "place"), required=(ENV, "place"),
         hint="greentic-start --env-from {place} --trust-anchor FILE"),
    Verb("env", "pull", f"{_P}:pull", f"{_P}:EnvPullPayload", "read a published environment and check its seal",
         "gtc op env pull prod oci://registry.example.com/envs/prod:prod --output seed/", positionals=(ENV, "place"),
         required=(ENV, "place"),
         flags=(Flag("--output", "output", "write environment.json there", "DIR"), _GENERATION,
                Flag("--trust-anchor", "trust_anchor", "the keys that must have sealed it", "FILE"))),
    Verb("env", "history", f"{_P}:told_history", f"{_P}:EnvHistoryPayload", "the published generations, newest first",
         "gtc op env history prod oci://registry.example.com/envs/prod:prod", positionals=(ENV, "place"), required=(ENV, "place")),
    Verb("env", "rollback", f"{_P}:rollback", f"{_P}:EnvRollbackPayload", "publish the content of an older generation again",
         "gtc op env rollback prod oci://registry.example.com/envs/prod:prod --generation 11", positionals=(ENV, "place"),
         required=(ENV, "place"), flags=(msgspec.structs.replace(_GENERATION, help="whose content; default: one step back"),)),
    Verb("env", "prune", f"{_Q}:prune", f"{_Q}:EnvPrunePayload", "let go what retention does not keep and nobody needs",
         "gtc op env prune prod --keep-revisions 3 --audit-days 90 --dry-run",
         flags=(Flag("--keep-revisions", "keep_revisions", "archived revisions of each deployment that stay unpacked", "N"),
                Flag("--audit-days", "audit_days", "days of audit log and backups that stay", "N"),
                Flag("--dry-run", "dry_run", "only tell what would go", switch=True))),
    Verb("bundles", "retire", f"{_R}:retire", f"{_R}:BundleRetirePayload",
         "take a deployment out of service, all steps", "gtc op bundles retire prod bot --customer acme",
         positionals=(ENV, "bundle"),
         flags=(Flag("--customer", "customer_id", "whose deployment", "ID"),
                Flag("--store-only", "store_only", "leave what a deployer runs", switch=True),
                Flag("--force-drain", "force_drain", "do not wait for sessions", switch=True), KEY)),
    Verb("traffic", "ramp", f"{_W}:ramp", f"{_W}:TrafficRampPayload",
         "move traffic to a new revision step by step, or back at once",
         "gtc op traffic ramp prod --deployment bot --to bot@2 --steps 1%,10%,50%,100% --pause 5m --at http://10.0.0.7:8080",
         flags=(DEPLOYMENT, Flag("--to", "to", "the new revision", "NAME"), Flag("--steps", "steps", "shares, rising", "LIST"),
                Flag("--pause", "pause", "how long each step is watched at least", "TIME"),
                Flag("--max-errors", "max_errors", "failed turns beyond those of the control slice", "PERCENT"),
                Flag("--max-p99", "max_p99", "slower than the control slice's p99", "PERCENT"),
                Flag("--min-turns", "min_turns", "turns of each side without which a step holds", "N"), AT,
                Flag("--resume", "resume", "go on with a ramp that was interrupted", switch=True),
                Flag("--status", "status", "only tell how far it is", switch=True)),
         needs=((ENV, "<ENV_ID>"), ("deployment_id", "--deployment <NAME>")), codes=f"{_W}:CODES"),
    Verb("deploy", "run", f"{_D}:deploy", f"{_D}:BundleDeployPayload",
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
