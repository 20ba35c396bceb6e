"""The one-file manifest of `env apply` (formats: op 5): its shape, and the rules across its fields.

The only input whose unknown keys are refused: a typing error must not silently leave something out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar, get_args

import msgspec

from greentic.deployments.bundles import RouteBindingPayload
from greentic.distribute.sources import check_source
from greentic.ground.errors import InvalidArgument
from greentic.ground.repeated import repeated
from greentic.model.environment import Status
from greentic.model.traffic import WHOLE, equal_weights
from greentic.operate.payload import ClosedPayload


def _null(text: str, kind: str = "string") -> msgspec.Meta:
    return msgspec.Meta(description=text, extra_json_schema={"type": [kind, "null"]})


class ManifestEnvironment(ClosedPayload, frozen=True, kw_only=True):
    id: Annotated[str, msgspec.Meta(description="`local` is created; any other id must exist")]
    public_base_url: Annotated[str | None, _null("http(s) origin; absent leaves it as it is")] = None
    name: Annotated[str | None, _null("absent leaves it as it is")] = None
    region: Annotated[str | None, _null("absent leaves it as it is")] = None
    tenant_org_id: Annotated[str | None, _null("absent leaves it as it is")] = None
    listen_addr: Annotated[str | None, _null("socket address; absent leaves it as it is")] = None
    gui_enabled: Annotated[bool | None, _null("serve the console", "boolean")] = None


class ManifestSecret(ClosedPayload, frozen=True, kw_only=True):
    path: Annotated[str, msgspec.Meta(description="<tenant>/<team>/<pack>/<name>")]
    from_env: Annotated[str | None, msgspec.Meta(description="variable that holds the value")] = None


class ManifestPack(ClosedPayload, frozen=True, kw_only=True):
    slot: Annotated[str, msgspec.Meta(description="capability slot")]
    kind: Annotated[str, msgspec.Meta(description="<path>@<semver>")]
    pack_ref: Annotated[str, msgspec.Meta(description="registry id or path")]
    answers_ref: Annotated[str | None, _null("answers file beside the manifest")] = None
    answers: Annotated[dict[str, object] | None, msgspec.Meta(description="the answers themselves")] = None


class ManifestShare(ClosedPayload, frozen=True, kw_only=True):
    party_id: str
    basis_points: Annotated[int, msgspec.Meta(description="all together 10000")]


class ManifestRevision(ClosedPayload, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(description="unique within the bundle")]
    bundle_path: Annotated[str, msgspec.Meta(description="a .gtbundle, relative to the manifest")]
    weight_percent: Annotated[int | None, _null("0 to 100; not with weight_bps", "integer")] = None
    weight_bps: Annotated[int | None, _null("0 to 10000; not with weight_percent", "integer")] = None
    drain_seconds: Annotated[int | None, _null("drain window", "integer")] = None
    abort_metrics: Annotated[list[str], msgspec.Meta(description="kept with the revision")] = []
    bundle_source_uri: Annotated[str | None, _null("where a worker pulls the same bytes")] = None
    bundle_digest: Annotated[str | None, _null("sha256:<hex> that the bundle must have")] = None


class ManifestSelector(ClosedPayload, frozen=True, kw_only=True):
    tenant: str
    team: str


class ManifestRoute(ClosedPayload, frozen=True, kw_only=True):
    hosts: list[str] = []
    path_prefixes: list[str] = []
    tenant_selector: Annotated[
        ManifestSelector | None, msgspec.Meta(extra_json_schema={"type": ["object", "null"]})
    ] = None


class ManifestBundle(ClosedPayload, frozen=True, kw_only=True):
    bundle_id: str
    bundle_path: Annotated[str | None, _null("a .gtbundle, relative to the manifest; not with revisions")] = None
    revisions: Annotated[list[ManifestRevision], msgspec.Meta(description="several revisions that share traffic")] = []
    bundle_source_uri: Annotated[str | None, _null("where a worker pulls; alone, it is pulled once for its digest")] = (
        None
    )
    bundle_digest: Annotated[str | None, _null("sha256:<hex> that the bundle must have")] = None
    customer_id: Annotated[str | None, _null("who is billed; needed but for `local`")] = None
    revenue_share: Annotated[
        list[ManifestShare] | None,
        msgspec.Meta(description="absent leaves it as it is", extra_json_schema={"type": ["array", "null"]}),
    ] = None
    status: Annotated[
        Status | None,
        msgspec.Meta(
            description="absent leaves it as it is",
            extra_json_schema={"type": ["string", "null"], "enum": [*get_args(Status), None]},
        ),
    ] = None
    config_overrides: Annotated[
        dict[str, dict[str, object]] | None, _null("absent leaves them, {} clears them", "object")
    ] = None
    route_binding: Annotated[ManifestRoute | None, msgspec.Meta(extra_json_schema={"type": ["object", "null"]})] = None


class ManifestExtension(ClosedPayload, frozen=True, kw_only=True):
    kind: Annotated[str, msgspec.Meta(description="<path>@<semver>")]
    pack_ref: Annotated[str, msgspec.Meta(description="registry id or path")]
    instance_id: Annotated[str | None, _null("[a-z0-9-], for several of one kind")] = None
    answers_ref: Annotated[str | None, _null("answers file beside the manifest")] = None


class ManifestWelcome(ClosedPayload, frozen=True, kw_only=True):
    bundle_id: str
    pack_id: str
    flow_id: str


class ManifestEndpoint(ClosedPayload, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(description="display name")]
    provider_type: str
    links: list[str] = []
    welcome_flow: Annotated[ManifestWelcome | None, msgspec.Meta(extra_json_schema={"type": ["object", "null"]})] = None
    secret_refs: list[str] = []


class EnvManifest(ClosedPayload, frozen=True, kw_only=True):
    schema: Literal["greentic.env-manifest.v1"]
    environment: ManifestEnvironment
    trust_root: Annotated[
        Literal["bootstrap"] | None,
        msgspec.Meta(description="trust the operator's key", extra_json_schema={"enum": ["bootstrap", None]}),
    ] = None
    secrets: Annotated[list[ManifestSecret], msgspec.Meta(description="dev-store secrets")] = []
    packs: Annotated[list[ManifestPack], msgspec.Meta(description="capability bindings")] = []
    bundles: list[ManifestBundle] = []
    extensions: Annotated[list[ManifestExtension], msgspec.Meta(description="extension bindings")] = []
    messaging_endpoints: list[ManifestEndpoint] = []
    cluster: dict[str, object] | None = None
    updates: dict[str, object] | None = None
    vault_bootstrap: dict[str, object] | None = None


B = TypeVar("B", ManifestBundle, ManifestRevision)


class WantedRevision(NamedTuple):
    """One revision that a bundle of the manifest asks for."""

    name: str
    path: str | None
    source_uri: str | None
    digest: str | None
    weight_bps: int
    drain_seconds: int | None
    abort_metrics: list[str]


UNSUPPORTED = ("secrets", "messaging_endpoints", "cluster", "updates", "vault_bootstrap")
"""Sections that belong to subsystems which this program does not have."""


def unsupported_sections(manifest: EnvManifest) -> list[str]:
    return [name for name in UNSUPPORTED if getattr(manifest, name)]


def check_manifest(manifest: EnvManifest, base: Path = Path()) -> EnvManifest:
    """The manifest with its sources as they are written down, from `base` on. Raises `InvalidArgument` for rules that span fields."""
    _unique([b.bundle_id for b in manifest.bundles], "bundle_id")
    _unique([p.slot for p in manifest.packs], "pack slot")
    _unique([f"{e.kind.partition('@')[0]}/{e.instance_id or ''}" for e in manifest.extensions], "extension")
    for pack in manifest.packs:
        if pack.answers is not None and pack.answers_ref is not None:
            raise InvalidArgument(f"pack `{pack.slot}`: answers and answers_ref are mutually exclusive")
    for bundle in manifest.bundles:
        _check_bundle(bundle)
    return msgspec.structs.replace(manifest, bundles=[_settled(bundle, base) for bundle in manifest.bundles])


def _settled(bundle: ManifestBundle, base: Path) -> ManifestBundle:
    """The bundle with sources that mean the same everywhere. Raises `InvalidArgument` for one that no worker could ever pull from."""
    what = f"bundle `{bundle.bundle_id}`: bundle_source_uri"
    revisions = [_of_source(revision, what, base) for revision in bundle.revisions]
    return msgspec.structs.replace(_of_source(bundle, what, base), revisions=revisions)


def _of_source(told: B, what: str, base: Path) -> B:
    if told.bundle_source_uri is None:
        return told
    return msgspec.structs.replace(told, bundle_source_uri=check_source(told.bundle_source_uri, what, base))


def _check_bundle(bundle: ManifestBundle) -> None:
    where = f"bundle `{bundle.bundle_id}`"
    if bundle.revisions:
        if bundle.bundle_path or bundle.bundle_source_uri or bundle.bundle_digest:
            raise InvalidArgument(f"{where}: bundle_path, bundle_source_uri and bundle_digest go into its revisions")
        _unique([r.name for r in bundle.revisions], f"revision name of {where}")
    elif not bundle.bundle_path and not bundle.bundle_source_uri:
        raise InvalidArgument(f"{where}: needs bundle_path, bundle_source_uri or revisions")
    if "" in (bundle.bundle_path, *(r.bundle_path for r in bundle.revisions)):
        raise InvalidArgument(
            f"{where}: bundle_path is empty; expected a .gtbundle", hint="leave it out where there is none"
        )
    for digest in [bundle.bundle_digest, *(r.bundle_digest for r in bundle.revisions)]:
        if digest is not None and not digest.startswith("sha256:"):
            raise InvalidArgument(f"{where}: bundle_digest `{digest}` must start with `sha256:`")
    for revision in bundle.revisions:
        if revision.drain_seconds is not None and not 0 <= revision.drain_seconds < 1 << 32:
            raise InvalidArgument(
                f"{where}: drain_seconds {revision.drain_seconds} of revision `{revision.name}`: expected 0 to {(1 << 32) - 1}"
            )
    binding = bundle.route_binding
    if binding is not None:
        for prefix in binding.path_prefixes:
            if not prefix.startswith("/"):
                raise InvalidArgument(f"{where}: path prefix `{prefix}` must start with `/`")
        if binding.tenant_selector and not binding.hosts and not binding.path_prefixes:
            raise InvalidArgument(f"{where}: route_binding: tenant_selector requires at least one host or path_prefix")
    if bundle.revenue_share is not None:
        _unique([s.party_id for s in bundle.revenue_share], f"revenue party of {where}")
    wanted_revisions(bundle)


def wanted_revisions(bundle: ManifestBundle) -> list[WantedRevision]:
    """What the bundle asks for, weights resolved. Raises `InvalidArgument` for weights that make no whole."""
    if not bundle.revisions:
        return [WantedRevision("", bundle.bundle_path, bundle.bundle_source_uri, bundle.bundle_digest, WHOLE, None, [])]
    weights: list[int] = []
    for revision in bundle.revisions:
        if revision.weight_bps is not None and revision.weight_percent is not None:
            raise InvalidArgument(f"revision `{revision.name}`: weight_bps and weight_percent are mutually exclusive")
        if revision.weight_bps is not None:
            weights.append(revision.weight_bps)
        elif revision.weight_percent is not None:
            weights.append(revision.weight_percent * 100)
    if weights and len(weights) != len(bundle.revisions):
        raise InvalidArgument(f"bundle `{bundle.bundle_id}`: give a weight to all revisions or to none")
    weights = weights or equal_weights(len(bundle.revisions))
    if sum(weights) != WHOLE or min(weights) < 0:
        raise InvalidArgument(f"bundle `{bundle.bundle_id}`: weights sum to {sum(weights)} bps, expected {WHOLE}")
    return [
        WantedRevision(r.name, r.bundle_path, r.bundle_source_uri, r.bundle_digest, w, r.drain_seconds, r.abort_metrics)
        for r, w in zip(bundle.revisions, weights, strict=True)
    ]


def route_payload(route: ManifestRoute | None) -> RouteBindingPayload:
    if route is None:
        return RouteBindingPayload()
    return msgspec.convert(msgspec.to_builtins(route), RouteBindingPayload)


def _unique(values: list[str], what: str) -> None:
    twice = repeated(values)
    if twice is not None:
        raise InvalidArgument(f"duplicate {what} `{twice}` in the manifest")
