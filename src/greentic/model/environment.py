"""The environment document and the records inside it (formats: environment 2, 3, 4, 5, 6, 7, 8, 9).

Every field is read and written as other programs do; unknown keys are kept (see `ground.documents`). Rules that span
several fields live in `validate`, state changes in `lifecycle` and `traffic`.
"""

# No `from __future__ import annotations` here: msgspec evaluates each annotation that is a text by itself, in every program.
from typing import ClassVar, Literal

import msgspec
from msgspec.structs import force_setattr

from greentic.ground.documents import Document, no_items
from greentic.model.ids import U32, U64, Semver, Timestamp, Ulid, digest_of_bytes

ENVIRONMENT_SCHEMA = "greentic.environment.v1"
REVISION_SCHEMA = "greentic.revision.v1"
DEPLOYMENT_SCHEMA = "greentic.bundle-deployment.v1"
SPLIT_SCHEMA = "greentic.traffic-split.v1"
ENDPOINT_SCHEMA = "greentic.messaging-endpoint.v1"

DOCUMENT = "environment.json"
"""The name of an environment's file wherever it lies: on a disk, in a ConfigMap, in an archive."""
DIGEST_PLACEHOLDER = "sha256:00"
"""What stands where a digest was never computed; it matches no bytes."""

Lifecycle = Literal["inactive", "staged", "warming", "ready", "draining", "failed", "archived"]
Slot = Literal["deployer", "secrets", "telemetry", "sessions", "state", "revocation", "messaging", "extension"]
Status = Literal["active", "paused", "archived"]


def document_digest(data: bytes) -> str:
    """What names one document: the SHA-256 of its bytes as they lie in `environment.json`, on a disk or in a ConfigMap."""
    return digest_of_bytes(data)


class HostConfig(Document, frozen=True, kw_only=True):
    env_id: str
    region: str | None = None
    tenant_org_id: str | None = None
    listen_addr: str | None = None
    public_base_url: str | None = None
    gui_enabled: bool | None = None
    default_bundle: str | None = None

    def __post_init__(self) -> None:
        if self.listen_addr is not None:
            from greentic.model.hosts import split_listen_addr

            split_listen_addr(self.listen_addr)


class EnvPackBinding(Document, frozen=True, kw_only=True):
    slot: Slot
    kind: str
    pack_ref: str
    answers_ref: str | None = None
    generation: U64 = 0
    previous_binding_ref: str | None = None


class ExtensionBinding(Document, frozen=True, kw_only=True):
    kind: str
    pack_ref: str
    instance_id: str | None = None
    answers_ref: str | None = None
    generation: U64 = 0
    previous_binding_ref: str | None = None


class TenantSelector(Document, frozen=True, kw_only=True):
    tenant: str
    team: str


class RouteBinding(Document, frozen=True, kw_only=True):
    hosts: list[str] = msgspec.field(default_factory=no_items)
    path_prefixes: list[str] = msgspec.field(default_factory=no_items)
    tenant_selector: TenantSelector


class RevenueShare(Document, frozen=True, kw_only=True):
    party_id: str
    basis_points: U32


class Usage(Document, frozen=True, kw_only=True):
    meter_endpoint: str
    last_seen_at: Timestamp | None = None


class BundleDeployment(Document, frozen=True, kw_only=True):
    omit_empty: ClassVar[tuple[str, ...]] = ("config_overrides",)

    schema: str
    deployment_id: Ulid
    env_id: str
    bundle_id: str
    customer_id: str
    status: Status
    current_revisions: list[Ulid] = msgspec.field(default_factory=no_items)
    route_binding: RouteBinding
    revenue_share: list[RevenueShare]
    revenue_policy_ref: str
    usage: Usage | None = None
    created_at: Timestamp
    authorization_ref: str
    config_overrides: dict[str, dict[str, object]] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        force_setattr(self, "deployment_id", self.deployment_id.upper())
        force_setattr(self, "current_revisions", [r.upper() for r in self.current_revisions])


class PackListEntry(Document, frozen=True, kw_only=True):
    pack_id: str
    version: Semver
    digest: str
    source_uri: str | None = None


class Revision(Document, frozen=True, kw_only=True):
    schema: str
    revision_id: Ulid
    env_id: str
    bundle_id: str
    deployment_id: Ulid
    sequence: U64
    created_at: Timestamp
    bundle_digest: str
    bundle_source_uri: str | None = None
    pack_list: list[PackListEntry]
    pack_list_lock_ref: str
    pack_config_refs: list[str] = msgspec.field(default_factory=no_items)
    config_digest: str
    signature_sidecar_ref: str
    lifecycle: Lifecycle
    staged_at: Timestamp | None = None
    warmed_at: Timestamp | None = None
    drain_seconds: U32 = msgspec.field(default_factory=int)
    abort_metrics: list[str] = msgspec.field(default_factory=no_items)

    def __post_init__(self) -> None:
        force_setattr(self, "revision_id", self.revision_id.upper())
        force_setattr(self, "deployment_id", self.deployment_id.upper())


class SplitEntry(Document, frozen=True, kw_only=True):
    revision_id: Ulid
    weight_bps: U32

    def __post_init__(self) -> None:
        force_setattr(self, "revision_id", self.revision_id.upper())


class TrafficSplit(Document, frozen=True, kw_only=True):
    schema: str
    env_id: str
    deployment_id: Ulid
    bundle_id: str
    generation: U64
    entries: list[SplitEntry]
    updated_at: Timestamp
    updated_by: str
    idempotency_key: str
    authorization_ref: str
    previous_split_ref: str | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "deployment_id", self.deployment_id.upper())


class WelcomeFlow(Document, frozen=True, kw_only=True):
    bundle_id: str
    pack_id: str
    flow_id: str


class MessagingEndpoint(Document, frozen=True, kw_only=True):
    schema: str
    env_id: str
    endpoint_id: Ulid
    provider_id: str
    provider_type: str
    display_name: str
    secret_refs: list[str] = msgspec.field(default_factory=list)
    webhook_secret_ref: str | None = None
    linked_bundles: list[str] = msgspec.field(default_factory=list)
    welcome_flow: WelcomeFlow | None = None
    generation: U64 = 0
    created_at: Timestamp
    updated_at: Timestamp
    updated_by: str

    def __post_init__(self) -> None:
        force_setattr(self, "endpoint_id", self.endpoint_id.upper())


class Revocation(Document, frozen=True, kw_only=True):
    required: bool = False
    list_ref: str | None = None


class Retention(Document, frozen=True, kw_only=True):
    keep_revisions: U32 | None = None
    audit_retention_days: U32 | None = None


class Health(Document, frozen=True, kw_only=True):
    state: Literal["unknown", "green", "yellow", "red"] = "unknown"
    message: str | None = None
    last_checked_at: Timestamp | None = None


class Environment(Document, frozen=True, kw_only=True):
    schema: str
    environment_id: str
    name: str
    host_config: HostConfig
    packs: list[EnvPackBinding]
    credentials_ref: str | None = None
    bundles: list[BundleDeployment] = msgspec.field(default_factory=list)
    revisions: list[Revision] = msgspec.field(default_factory=list)
    traffic_splits: list[TrafficSplit] = msgspec.field(default_factory=list)
    messaging_endpoints: list[MessagingEndpoint] = msgspec.field(default_factory=list)
    extensions: list[ExtensionBinding] = msgspec.field(default_factory=list)
    revocation: Revocation = msgspec.field(default_factory=Revocation)
    retention: Retention = msgspec.field(default_factory=Retention)
    health: Health = msgspec.field(default_factory=Health)

    def deployment(self, deployment_id: str) -> BundleDeployment | None:
        return next((d for d in self.bundles if d.deployment_id == deployment_id), None)

    def revision(self, revision_id: str) -> Revision | None:
        return next((r for r in self.revisions if r.revision_id == revision_id), None)

    def split(self, deployment_id: str) -> TrafficSplit | None:
        return next((s for s in self.traffic_splits if s.deployment_id == deployment_id), None)

    def binding(self, slot: str) -> EnvPackBinding | None:
        return next((b for b in self.packs if b.slot == slot), None)


def new_environment(environment_id: str, name: str, host: HostConfig) -> Environment:
    """An environment with nothing in it, as `env create` writes it."""
    return Environment(schema=ENVIRONMENT_SCHEMA, environment_id=environment_id, name=name, host_config=host, packs=[])
