"""What `pack.yaml` may say of what a component asks for, and of secrets (formats: pack 4).

Rules:
1. Some of it restricts: a component may make requests unless `http.client` is `false`. So what has another type is refused, wherever it
   stands; a name that nobody knows is told, as everywhere in a source.
2. What goes into a pack is what was written, not these forms.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

SecretKey = Annotated[str, msgspec.Meta(min_length=1)]


class SecretForm(msgspec.Struct, frozen=True):
    """A secret that a pack or a component needs."""

    key: SecretKey
    required: bool | None = None
    description: str | None = None
    scope: dict[str, object] | None = None
    format: str | None = None
    schema: object = None
    examples: list[object] | None = None


class FilesystemForm(msgspec.Struct, frozen=True):
    mode: Literal["none", "read_only", "sandbox"] | None = None
    mounts: list[dict[str, object]] | None = None


class EnvForm(msgspec.Struct, frozen=True):
    allow: list[str] | None = None


class WasiForm(msgspec.Struct, frozen=True):
    filesystem: FilesystemForm | None = None
    env: EnvForm | None = None
    random: bool | None = None
    clocks: bool | None = None


class SecretsForm(msgspec.Struct, frozen=True):
    required: list[SecretForm | SecretKey] | None = None


class StateForm(msgspec.Struct, frozen=True):
    read: bool | None = None
    write: bool | None = None
    delete: bool | None = None


class WaysForm(msgspec.Struct, frozen=True):
    inbound: bool | None = None
    outbound: bool | None = None


class HttpForm(msgspec.Struct, frozen=True):
    client: bool | None = None
    server: bool | None = None


class TelemetryForm(msgspec.Struct, frozen=True):
    scope: Literal["tenant", "pack", "node"] | None = None


class IacForm(msgspec.Struct, frozen=True):
    write_templates: bool | None = None
    execute_plans: bool | None = None


class HostForm(msgspec.Struct, frozen=True):
    secrets: SecretsForm | None = None
    state: StateForm | None = None
    messaging: WaysForm | None = None
    events: WaysForm | None = None
    http: HttpForm | None = None
    telemetry: TelemetryForm | None = None
    iac: IacForm | None = None


class CapabilitiesForm(msgspec.Struct, frozen=True):
    """`capabilities` of a component."""

    wasi: WasiForm | None = None
    host: HostForm | None = None
