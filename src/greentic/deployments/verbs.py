"""The verbs about what is deployed, row by row: `bundles`, `revisions` and `traffic`."""

from __future__ import annotations

from greentic.operate.verb import AT, DEPLOYMENT, ENV, KEY, UPDATED_BY, Flag, Verb

_B, _R, _T = "greentic.deployments.bundles", "greentic.deployments.revisions", "greentic.deployments.traffic"
_S = "greentic.deployments.stage"
_TRANSITION = f"{_R}:RevisionTransitionPayload"
_SHOW = f"{_T}:TrafficShowPayload"

VERBS: tuple[Verb, ...] = (
    Verb("bundles", "add", f"{_B}:add", f"{_B}:BundleAddPayload", "create a deployment: a route and a signed policy",
         "gtc op bundles add prod bundle_id=bot customer_id=acme route_binding.path_prefixes='[\"/\"]'",
         hint="gtc op revisions stage {environment_id} --deployment {bundle_id} --bundle FILE"),
    Verb("bundles", "update", f"{_B}:update", f"{_B}:BundleUpdatePayload", "replace parts of a deployment",
         "gtc op bundles update prod --deployment bot status=paused", flags=(DEPLOYMENT,)),
    Verb("bundles", "remove", f"{_B}:remove", f"{_B}:BundleRemovePayload", "delete a deployment that is no longer live",
         "gtc op bundles remove prod --deployment bot", flags=(DEPLOYMENT,)),
    Verb("bundles", "list", f"{_B}:list_deployments", "", "the deployments", "gtc op bundles list prod", required=(ENV,)),
    Verb("revisions", "stage", f"{_S}:stage", f"{_S}:RevisionStagePayload", "pin and unpack a bundle as a new revision",
         "gtc op revisions stage prod --deployment bot bundle_path=bot.gtbundle bundle_source_uri=https://…/bot.gtbundle",
         flags=(DEPLOYMENT, Flag("--bundle", "bundle_path", "the .gtbundle", "FILE"),
                Flag("--source-uri", "bundle_source_uri", "where workers pull it", "URI"),
                Flag("--verify-source", "verify_source", "compare the bundle with what its source has", switch=True), KEY),
         needs=((ENV, "<ENV_ID>"), ("deployment_id", "--deployment <NAME>"), ("bundle_path|bundle_source_uri", "--bundle <PATH>")),
         hint="gtc op revisions warm ENV {bundle_id}@{sequence}"),
    Verb("revisions", "archive", f"{_R}:archive", _TRANSITION, "end a revision that has no traffic",
         "gtc op revisions archive prod bot@1", positionals=(ENV, "revision_id"), options=f"{_R}:ArchiveOptions",
         flags=(AT, Flag("--wait", "wait", "wait until no worker that is asked has anybody on it", switch=True))),
    Verb("revisions", "retry", f"{_R}:retry", _TRANSITION, "a failed revision back to staged",
         "gtc op revisions retry prod bot@2", positionals=(ENV, "revision_id"),
         hint="gtc op revisions warm ENV {bundle_id}@{sequence}"),
    Verb("revisions", "list", f"{_R}:list_revisions", "", "the revisions", "gtc op revisions list prod", required=(ENV,)),
    Verb("traffic", "set", f"{_T}:set_traffic", f"{_T}:TrafficSetPayload", "route traffic to ready revisions",
         "gtc op traffic set prod bot@1=90 bot@2=10 --deployment bot --idempotency-key release-7",
         flags=(DEPLOYMENT, KEY, UPDATED_BY, Flag("--authorization-ref", "authorization_ref", "recorded with the split", "REF")),
         needs=((ENV, "<ENV_ID>"), ("deployment_id", "--deployment <NAME>"), ("idempotency_key", "--idempotency-key <KEY>"),
                ("entries", "<REV>=<PERCENT>")),
         hint="greentic-start start --env {environment_id}"),
    Verb("traffic", "show", f"{_T}:show", _SHOW, "the current split", "gtc op traffic show prod --deployment bot",
         flags=(DEPLOYMENT,)),
    Verb("traffic", "rollback", f"{_T}:rollback", _SHOW, "one step back, or to a retained revision",
         "gtc op traffic rollback prod --deployment bot", flags=(DEPLOYMENT, KEY, Flag("--to", "to", "any retained revision", "NAME")),
         options=f"{_T}:RollbackOptions"),
    Verb("traffic", "clear", f"{_T}:clear", f"{_T}:TrafficClearPayload", "all to one survivor, or no split for a retiring one",
         "gtc op traffic clear prod --deployment bot --survivor bot@2",
         flags=(DEPLOYMENT, Flag("--survivor", "survivor", "the revision that takes all", "NAME"), KEY, UPDATED_BY)),
)  # fmt: skip
