"""What is answered for all pods alike: limits of components, egress, signatures, authorities, user, sizes of volumes. Pure.

Rules:
1. The limits of components fit the memory of the pod: what all running calls may use together is, unless it is answered, what the pod's
   limit leaves beside the worker itself. So a component that takes too much is refused, and the pod is not killed.
2. What loosens a protection is accepted with a warning.
3. A pod that exceeds the size of a volume is evicted, so the sizes that nobody answered are ones that no pod of legal bundles reaches. How
   much a router holds grows with the revisions that are routed: its home has no size unless one is answered.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple, get_args

import msgspec
from msgspec import UNSET, UnsetType

from greentic.ground import variables
from greentic.ground.documents import Json, JsonObject
from greentic.net.egress import read_policy
from greentic.shape.pod_shape import Shape, typed
from greentic.shape.syntax import invalid, object_name, quantity

USER = 65532
WORKER_BYTES = 256 << 20
"""What a worker needs beside the calls of components: itself, what it loads, what it pulls and unpacks (docs/performance.md)."""
WORKER_HOME, TMP = "16Gi", "1Gi"
"""Sizes of volumes. One revision at worst: 4 GiB packed beside 3 GiB of others in the cache, 4 GiB unpacked, 4 GiB compiled; next to
nothing is written outside of the home."""
CA_KEY = "ca.crt"
MIB = 1 << 20
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{64}\Z")
Signatures = Literal["ignore", "warn", "require"]


class ComponentLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seconds: Annotated[float, msgspec.Meta(ge=0.001, le=3600)] | None = None
    memory_mb: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    total_mb: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] | None = None


class SizeLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Null takes a size away."""

    home: str | int | None | UnsetType = UNSET
    tmp: str | int | None | UnsetType = UNSET


class PodSettings(NamedTuple):
    """The settings of all pods."""

    limits: ComponentLimits = ComponentLimits()
    egress: str | None = None
    """As `GREENTIC_HTTP_EGRESS` has it."""
    signatures: Signatures | None = None
    signers: tuple[str, ...] = ()
    extra_ca: str | None = None
    """A ConfigMap."""
    user: int | None = USER
    """None: the namespace chooses, as OpenShift does."""
    router_home: str | None = None
    worker_home: str | None = WORKER_HOME
    tmp_size: str | None = TMP

    def variables(self, shape: Shape) -> dict[str, str]:
        """What pods of a shape are told of these."""
        told: dict[str, str] = {}
        total = self.limits.total_mb or room(shape)
        if self.limits.seconds is not None:
            told["GREENTIC_COMPONENT_SECONDS"] = f"{self.limits.seconds:g}"
        if self.limits.memory_mb is not None:
            told["GREENTIC_COMPONENT_MEMORY_MB"] = str(self.limits.memory_mb)
        if total is not None:
            told["GREENTIC_COMPONENT_TOTAL_MB"] = str(total)
        if self.egress is not None:
            told["GREENTIC_HTTP_EGRESS"] = self.egress
        if self.signatures is not None:
            told["GREENTIC_PACK_SIGNATURES"] = self.signatures
        if self.signers:
            told["GREENTIC_PACK_SIGNERS"] = ",".join(self.signers)
        return told

    def warnings(self) -> list[str]:
        """What is accepted and may still surprise."""
        found = []
        if self.egress == "unrestricted":
            found.append("component_egress `unrestricted`: components may ask private addresses, too")
        if self.signatures == "ignore":
            found.append("pack_signatures `ignore`: nobody looks at who signed a pack")
        return found


def room(shape: Shape) -> int | None:
    """MiB that the pod's limit leaves for calls of components; nothing where there is no limit."""
    return None if shape.memory_limit is None else (shape.memory_limit - WORKER_BYTES) // MIB


def read_settings(given: JsonObject, signers: tuple[str, ...], egress: str | None) -> PodSettings:
    """The settings of the answers, `signers` and `egress` as lists and texts already. Raises `Conflict`."""
    signatures = given.get("pack_signatures")
    if signatures is not None and signatures not in (words := get_args(Signatures)):
        raise invalid(f"pack_signatures `{signatures}` is not valid; expected {', '.join(words[:-1])} or {words[-1]}")
    if signatures == "require" and not signers:
        raise invalid(
            "pack_signatures: require needs somebody to trust", "answer pack_signers with the ids of their keys"
        )
    if egress is not None:
        try:
            read_policy(egress)
        except ValueError as error:
            raise invalid(f"component_egress: {error}") from None
    for index, signer in enumerate(signers):
        if not _FINGERPRINT.match(signer):
            raise invalid(
                f"pack_signers[{index}]: `{signer[:80]}` is no fingerprint of a key; expected 64 hex digits, as `gtc pack sign` prints"
            )
    sizes = typed(given.get("size_limit") or {}, SizeLimit, "size_limit")
    authority = given.get("extra_ca")
    return PodSettings(
        limits=typed(given.get("component_limits") or {}, ComponentLimits, "component_limits"),
        egress=egress,
        signatures=signatures,  # type: ignore[arg-type]  # one of the three, or nothing
        signers=signers,
        extra_ca=None if authority is None else object_name(str(authority), "extra_ca"),
        user=_user(given.get("uid")),
        router_home=_size(sizes.home, None, "size_limit.home"),
        worker_home=_size(sizes.home, WORKER_HOME, "size_limit.home"),
        tmp_size=_size(sizes.tmp, TMP, "size_limit.tmp"),
    )


def check_fit(settings: PodSettings, shape: Shape, where: str) -> None:
    """Raise `Conflict` if the limits of components do not fit the memory of these pods (rule 1)."""
    left = room(shape)
    one = settings.limits.memory_mb or int(variables.TABLE["GREENTIC_COMPONENT_MEMORY_MB"].default)
    total = settings.limits.total_mb
    if total is not None and total < one:
        raise invalid(f"component_limits.total_mb: {total} is below what one call may use, {one}")
    if left is None:
        return
    need = total or one
    if left < need:
        raise invalid(
            f"{where}.resources.limits.memory: {shape.limits['memory'].text} leaves {max(left, 0)} MiB for components beside the worker's "
            f"{WORKER_BYTES // MIB}, and they may use {need}",
            f"raise it to {need + WORKER_BYTES // MIB}Mi, or answer component_limits",
        )


def _user(value: Json) -> int | None:
    if value is None or value == USER or value == str(USER):
        return USER
    if value == "none":
        return None
    raise invalid(
        f"uid `{value}` is not valid; expected {USER}, the image's user, or none where the namespace chooses one"
    )


def _size(value: str | int | None | UnsetType, default: str | None, where: str) -> str | None:
    if value is UNSET:
        return default
    if value is None:
        return None
    found = quantity(value, where)
    if found.value < MIB or found.value != int(found.value):
        raise invalid(f"{where}: `{value}` is too little to write anything; expected a size such as 8Gi")
    return found.text
