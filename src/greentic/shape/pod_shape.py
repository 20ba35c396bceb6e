"""The shape of routers, of workers, or of the operator: how many, how large, where, as whom, and with which variables. Pure.

Rules:
1. Answers are read into typed values; a member that is not there, or of another type, is refused with the path of the field.
2. Answered resources go over the defaults, one by one; `null` takes a default away. A default gives way to what is answered: a limit that
   was not answered is at least the request, a request that was not answered at most the limit. What was answered both ways has to fit.
3. Replicas or an autoscaler, never both: with an autoscaler they are not ours.
4. Variables are those of the program in the pod that are for people, of OpenTelemetry, and proxies, with values of their kind: a pod that
   is told another does not start. A secret has no place among them.
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from greentic.ground import variables
from greentic.ground.documents import Json
from greentic.ground.errors import InvalidArgument
from greentic.model.secret_text import secret_in
from greentic.shape.placement import (
    Affinity,
    Spread,
    Toleration,
    check_affinity,
    check_spread,
    check_tolerations,
)
from greentic.shape.syntax import Quantity, invalid, label_value, object_name, qualified, quantity

CPU, MEMORY, STORAGE = "cpu", "memory", "ephemeral-storage"
DEFAULT_REQUESTS = {CPU: "100m", MEMORY: "128Mi"}
"""An idle worker has 45 MiB, and while it unpacks a bundle of 512 MiB 54 MiB (docs/performance.md); the rest is for a first component."""
DEFAULT_LIMITS = {CPU: "1", MEMORY: "1Gi"}
_OWN_LABELS = ("greentic.ai/", "app.kubernetes.io/managed-by", "app.kubernetes.io/component")
_ANNOTATION_BYTES = 256 << 10
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_AT = re.compile(r"(?s)(.*) - at `(key in )?\$(.*)`\Z")

T = TypeVar("T")
Amount = str | int | float | None
Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the answers."""


class Resources(_Answer, frozen=True):
    requests: dict[str, Amount] = {}
    limits: dict[str, Amount] = {}


class Autoscale(_Answer, frozen=True):
    min: Count
    max: Count
    cpu: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    """Percent of the requested CPU."""
    in_flight: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    """Requests that a pod has in flight, on average."""


class Account(_Answer, frozen=True):
    """A service account that is made, with what a cloud's workload identity reads."""

    name: str
    annotations: dict[str, str] = {}


class _Answered(_Answer, frozen=True):
    resources: Resources = Resources()
    replicas: Count | None = None
    autoscale: Autoscale | None = None
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    affinity: Affinity | None = None
    topology_spread: list[Spread] | None = None
    priority_class: str | None = None
    service_account: str | Account | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    env: dict[str, str | int | bool] = {}


class Shape(NamedTuple):
    """The shape of one kind of pods, with its defaults."""

    requests: dict[str, Quantity]
    limits: dict[str, Quantity]
    replicas: int
    autoscale: Autoscale | None = None
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    affinity: Affinity | None = None
    topology_spread: list[Spread] | None = None
    priority_class: str | None = None
    account: Account | None = None
    """Whose account the pods have."""
    makes_account: bool = False
    """Whether that account is made, or was there before."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    env: dict[str, str] = {}

    @property
    def memory_limit(self) -> int | None:
        """Bytes."""
        found = self.limits.get(MEMORY)
        return None if found is None else int(found.value)

    def warnings(self, where: str) -> list[str]:
        """What is accepted and may still surprise."""
        found = []
        if self.autoscale is not None and self.autoscale.in_flight is not None:
            found.append(
                f"{where}.autoscale.in_flight: the cluster needs an adapter that serves the pods' metric `{IN_FLIGHT}` "
                "(docs/kubernetes.md); without one nothing is scaled"
            )
        for name in self.env:
            row = variables.TABLE.get(name)
            if row is not None and row.loosens:
                found.append(f"{where}.env.{name} loosens a protection: {row.line}")
        return found


IN_FLIGHT = "greentic_in_flight"
"""The metric that pods are scaled by where `in_flight` is answered."""


class Program(NamedTuple):
    """What runs in pods of one kind."""

    name: str
    readers: tuple[variables.Reader, ...]
    requests: dict[str, str]
    limits: dict[str, str]
    labels: tuple[str, ...] = _OWN_LABELS
    """Which are ours, or begin so."""


WORKER = Program("a worker", ("worker", "both"), DEFAULT_REQUESTS, DEFAULT_LIMITS)
OPERATOR = Program(
    "the operator",
    ("both",),
    {CPU: "50m", MEMORY: "96Mi"},
    {CPU: "1", MEMORY: "512Mi"},
    (*_OWN_LABELS, "app.kubernetes.io/name", "app.kubernetes.io/instance"),
)


def read_operator_shape(raw: Json) -> Shape:
    """The shape of the operator's pods. Raises `Conflict`."""
    given = raw if isinstance(raw, dict) else {}
    for key in ("replicas", "autoscale", "service_account"):
        if key in given:
            raise invalid(
                f"operator.{key}: cannot be answered", "one operator acts, as the account that is rendered with it"
            )
    return read_shape(raw, "operator", least=1, program=OPERATOR)


def read_shape(raw: Json, where: str, *, least: int, replicas: int | None = None, program: Program = WORKER) -> Shape:
    """The shape of the pods that `where` names. `least` replicas must be left, `replicas` is what an older key answered.

    Raises `Conflict`.
    """
    found = typed({} if raw is None else raw, _Answered, where)
    if replicas is not None and found.replicas is not None:
        raise invalid(f"{where}.replicas and router_replicas are the same; answer one of them")
    count = found.replicas if found.replicas is not None else replicas
    if found.autoscale is not None:
        _check_autoscale(found.autoscale, f"{where}.autoscale", least, count)
    elif count is not None and count < least:
        raise invalid(f"{where}.replicas must be >= {least}, got {count}")
    for key, value in found.node_selector.items():
        label_value(value, f"{where}.node_selector.{qualified(key, f'{where}.node_selector')}")
    check_tolerations(found.tolerations, f"{where}.tolerations")
    if found.affinity is not None:
        check_affinity(found.affinity, f"{where}.affinity")
    check_spread(found.topology_spread or [], f"{where}.topology_spread")
    account, makes = _account(found.service_account, f"{where}.service_account")
    requests, limits = _resources(found.resources, f"{where}.resources", program)
    if found.autoscale is not None and found.autoscale.cpu is not None and CPU not in requests:
        raise invalid(
            f"{where}.autoscale.cpu is a share of the requested CPU, and resources.requests.cpu is taken away"
        )
    return Shape(
        requests=requests,
        limits=limits,
        replicas=count or least,
        autoscale=found.autoscale,
        node_selector=found.node_selector,
        tolerations=found.tolerations,
        affinity=found.affinity,
        topology_spread=found.topology_spread,
        priority_class=_optional_name(found.priority_class, f"{where}.priority_class"),
        account=account,
        makes_account=makes,
        labels=_labels(found.labels, f"{where}.labels", program),
        annotations=checked_annotations(found.annotations, f"{where}.annotations"),
        env=_env(found.env, f"{where}.env", program),
    )


def typed(raw: Json, form: type[T], where: str) -> T:
    """An answer as a typed value. Raises `Conflict` with the path of the field."""
    try:
        return msgspec.convert(raw, form)
    except msgspec.ValidationError as error:
        found = _AT.match(str(error))
        message, path = (found[1], found[3]) if found else (str(error), "")
        raise invalid(f"{where}{path}: {message[0].lower()}{message[1:]}") from None


def _check_autoscale(found: Autoscale, where: str, least: int, replicas: int | None) -> None:
    if replicas is not None:
        raise invalid(
            f"{where}: replicas are answered as well, and with an autoscaler they are not ours; answer one of them"
        )
    if found.min < least:
        raise invalid(f"{where}.min must be >= {least}, got {found.min}")
    if found.max < found.min:
        raise invalid(f"{where}.max: {found.max} is below min {found.min}")
    if (found.cpu is None) == (found.in_flight is None):
        told = "neither is there" if found.cpu is None else "both are there"
        raise invalid(f"{where}: an autoscaler goes by one metric, cpu or in_flight; {told}")


def _resources(found: Resources, where: str, program: Program) -> tuple[dict[str, Quantity], dict[str, Quantity]]:
    """Requests and limits (rule 2)."""
    requests, limits = ({k: quantity(v, where) for k, v in d.items()} for d in (program.requests, program.limits))
    answered: dict[str, dict[str, Quantity]] = {"requests": {}, "limits": {}}
    for part, told, into in (("requests", found.requests, requests), ("limits", found.limits, limits)):
        for name, amount in told.items():
            place = f"{where}.{part}.{name}"
            if name not in (CPU, MEMORY, STORAGE) and "/" not in name:
                raise invalid(f"{place}: unknown resource; expected {CPU}, {MEMORY}, {STORAGE} or one with a domain")
            qualified(name, f"{where}.{part}")
            if amount is None:
                into.pop(name, None)
                continue
            into[name] = answered[part][name] = _amount(name, amount, place)
    for name in {*requests, *limits}:
        asked, most = requests.get(name), limits.get(name)
        if asked is None or most is None or asked.value <= most.value:
            continue
        if name in answered["requests"] and name in answered["limits"]:
            raise invalid(f"{where}.limits.{name}: {most.text} is below the request, {asked.text}")
        if name in answered["requests"]:
            limits[name] = asked
        else:
            requests[name] = most
    for name in requests:
        if "/" in name and (name not in limits or limits[name].value != requests[name].value):
            raise invalid(f"{where}.requests.{name}: of this resource the limit has to be the same")
    return requests, limits


def _amount(name: str, amount: str | int | float, where: str) -> Quantity:
    found = quantity(amount, where)
    if name == CPU and found.value * 1000 != int(found.value * 1000):
        raise invalid(f"{where}: `{amount}` is finer than a thousandth of a CPU (1m)")
    if name != CPU and found.value != int(found.value):
        hint = "m is a thousandth; mebibytes are written Mi" if str(amount).endswith("m") else None
        raise invalid(f"{where}: `{amount}` is not a whole number", hint)
    if not found.value:
        raise invalid(f"{where}: `{amount}` is nothing; null takes a default away")
    return found


def _account(found: str | Account | None, where: str) -> tuple[Account | None, bool]:
    if isinstance(found, str):
        return (Account(object_name(found, where)), False) if found else (None, False)
    if found is None:
        return None, False
    object_name(found.name, f"{where}.name")
    checked_annotations(found.annotations, f"{where}.annotations")
    return found, True


def _optional_name(text: str | None, where: str) -> str | None:
    return object_name(text, where) if text else None


def _labels(found: dict[str, str], where: str, program: Program) -> dict[str, str]:
    for key, value in found.items():
        if qualified(key, where).startswith(program.labels):
            raise invalid(f"{where}.{key}: this label says whose objects these are and cannot be answered")
        label_value(value, f"{where}.{key}")
    return found


def checked_annotations(found: dict[str, str], where: str) -> dict[str, str]:
    """Annotations that were answered. Raises `Conflict`."""
    for key in found:
        if qualified(key, where).startswith("greentic.ai/"):
            raise invalid(f"{where}.{key}: annotations of greentic.ai/ are the deployer's own")
    if sum(len(k) + len(v.encode()) for k, v in found.items()) > _ANNOTATION_BYTES:
        raise invalid(f"{where}: annotations hold at most {_ANNOTATION_BYTES} bytes together")
    return found


def _env(found: dict[str, str | int | bool], where: str, program: Program) -> dict[str, str]:
    """The variables (rule 4)."""
    out: dict[str, str] = {}
    for name, value in found.items():
        place = f"{where}.{name}"
        if not _VARIABLE.match(name):
            raise invalid(f"{place}: no name of a variable")
        if name.startswith(variables.SECRET_PREFIX) or name in ("OCI_PASSWORD", "OCI_USERNAME"):
            raise invalid(
                f"{place}: a secret would stand in the pod for everybody to read",
                "answer secrets_secret or registry_secret",
            )
        row = variables.TABLE.get(name)
        if name.startswith("GREENTIC_") and (row is None or row.reader not in program.readers):
            raise invalid(f"{place}: no variable that {program.name} reads", "docs/variables.md has them all")
        if not name.startswith(("GREENTIC_", "OTEL_")) and name.upper() not in _PROXIES:
            raise invalid(f"{place}: only GREENTIC_*, OTEL_* and {', '.join(sorted(_PROXIES))} can be answered")
        out[name] = told = str(value).lower() if isinstance(value, bool) else str(value)
        if (held := secret_in(told)) is not None:
            raise invalid(
                f"{place}: holds {held[1]}, which would stand in the pod for everybody to read",
                "let a proxy know pods by their network; redis_secret, secrets_secret and registry_secret take what is secret",
            )
        try:
            variables.check(row or variables.Variable(name, "text", "", "worker", ""), told)
        except InvalidArgument as error:
            raise invalid(f"{where}: {error.message}", error.hint) from None
    return out
