"""What stands behind the seams in tests: a clock and chance that hold still, a disk that dies, a distributor that lies,
a cluster in memory."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from greentic.expressions.paths import MISSING
from greentic.flow import engine
from greentic.flow.ports import ComponentCall, ProviderCall
from greentic.flow.state import Snapshot
from greentic.ground.disk import RealDisk
from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import FetchError, FlowFailure, LimitExceeded, ServerBusy, Truncated
from greentic.ground.going import in_place
from greentic.k8s.names import FIELD_MANAGER
from greentic.k8s.objects import (
    KINDS,
    ApiRefused,
    Event,
    Listed,
    Ref,
    labels_of,
    member,
    metadata_of,
    objects_in,
    ref_of,
)


class FakeClock:
    """Every look at the clock is a microsecond later; sleeping only moves it."""

    def __init__(self, start_ns: int = 1_790_000_000_123_456_789) -> None:
        self.now = start_ns

    def now_ns(self) -> int:
        self.now += 1_000
        return self.now

    def monotonic(self) -> float:
        self.now += 1_000
        return self.now / 1e9

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)


class CountingRandom:
    """Chance that never repeats and is the same in every run."""

    def __init__(self) -> None:
        self.count = 0

    def octets(self, count: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(count, "big")

    def fraction(self) -> float:
        self.count += 1
        return (self.count * 0.6180339887498949) % 1.0


class Killed(BaseException):
    """The process died here. Not an `Exception`: nothing may catch it and carry on."""


class DyingDisk(RealDisk):
    """Does what the real one does until the n-th change, at which the process dies.

    With `torn`, a write that dies leaves half of its bytes behind.
    """

    def __init__(self, die_at: int | None = None, *, torn: bool = False) -> None:
        self.die_at, self.torn = die_at, torn
        self.changes: list[str] = []

    def _step(self, name: str, path: Path) -> None:
        self.changes.append(f"{name} {path.name}")
        if self.die_at is not None and len(self.changes) >= self.die_at:
            raise Killed(self.changes[-1])

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        try:
            self._step("write", path)
        except Killed:
            if self.torn:
                super().write_new(path, data[: len(data) // 2], mode)
            raise
        super().write_new(path, data, mode)

    def append(self, path: Path, data: bytes) -> None:
        try:
            self._step("append", path)
        except Killed:
            if self.torn:
                super().append(path, data[: len(data) // 2])
            raise
        super().append(path, data)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename", target)
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._step("link", target)
        super().link(source, target)

    def remove(self, path: Path) -> None:
        self._step("remove", path)
        super().remove(path)

    def remove_tree(self, path: Path) -> None:
        self._step("remove_tree", path)
        super().remove_tree(path)


class FullDisk(RealDisk):
    """Refuses new bytes like a full or read-only file system."""

    def __init__(self, errno: int) -> None:
        self.errno = errno

    def write_new(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        raise OSError(self.errno, "no", str(path))


class SimulatedDistributor:
    """A source whose answers a test scripts, one per opening; the last one repeats."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.opened = 0
        self.asked: list[tuple[int, str | None, int | None]] = []
        self.bodies: list[SimulatedBody] = []

    def open(
        self, reference: str, offset: int = 0, validator: str | None = None, end: int | None = None
    ) -> SimulatedBody:
        self.asked.append((offset, validator, end))
        answer = self.answers[min(self.opened, len(self.answers) - 1)]
        self.opened += 1
        if answer.busy is not None:
            raise ServerBusy("http status: 503", retry_after=answer.busy)
        if answer.refuse is not None:
            raise FetchError(answer.refuse) from (OSError(111, "Connection refused") if answer.passing else None)
        self.bodies.append(SimulatedBody(answer, offset, end))
        return self.bodies[-1]


class Answer:
    """One scripted answer: the bytes, what length is announced, after how many it breaks off, whether it gives parts."""

    def __init__(
        self, data: bytes = b"", *, length: int | None = -1, cut_at: int | None = None, refuse: str | None = None,
        passing: bool = False, stall: Callable[[], None] | None = None, chunk: int = 1 << 16, parts: bool = False,
        validator: str | None = None, busy: float | None = None, total: int | None = None, digest: str | None = None,
        untold_end: bool = False, coding: str = "",
    ) -> None:  # fmt: skip
        self.data, self.cut_at, self.refuse, self.passing, self.stall, self.chunk = (
            data,
            cut_at,
            refuse,
            passing,
            stall,
            chunk,
        )
        self.length = len(data) if length == -1 else length
        self.parts, self.validator, self.busy, self.total, self.digest = parts, validator, busy, total, digest
        self.untold_end, self.coding = untold_end, coding


class SimulatedBody:
    def __init__(self, answer: Answer, offset: int, end: int | None) -> None:
        self._answer = answer
        self.digest, self.untold_end, self.coding = answer.digest, answer.untold_end, answer.coding
        self.closed = False
        self._at = self.offset = offset if answer.parts else 0
        self._end = end if answer.parts and end is not None else len(answer.data)
        self.length = answer.length if answer.length is None else answer.length - self.offset
        self.total, self.validator, self.resumable = (
            answer.length if answer.total is None else answer.total,
            answer.validator,
            answer.parts,
        )

    def read_into(self, buffer: memoryview) -> int:
        answer = self._answer
        if answer.stall is not None:
            answer.stall()
        end = self._end if answer.cut_at is None else min(max(answer.cut_at, self.offset), self._end)
        count = min(len(buffer), end - self._at, answer.chunk)
        buffer[:count] = answer.data[self._at : self._at + count]
        self._at += count
        if not count and answer.cut_at is not None and end < self._end:
            raise Truncated(f"the connection ended after {self._at} bytes, announced {answer.length}")
        return count

    def close(self) -> None:
        self.closed = True


def start(run: engine.Run, payload: object) -> engine.Outcome:
    """A run from its start, in a thread without a loop."""
    return in_place(engine.start(run, payload))


def resume(run: engine.Run, snapshot: Snapshot, payload: object) -> engine.Outcome:
    """A parked run, in a thread without a loop."""
    return in_place(engine.resume(run, snapshot, payload))


class SimulatedComponents:
    """Components as Python functions of a call, and providers likewise."""

    def __init__(self, components: dict[str, Callable[..., object]]) -> None:
        self.components = components
        self.providers: dict[str, Callable[..., object]] = {}
        self.calls: list[object] = []

    async def call(self, call: ComponentCall) -> object:
        self.calls.append(call)
        if call.component not in self.components:
            raise FlowFailure(f"component '{call.component}' not found in pack")
        return self.components[call.component](call)

    async def call_provider(self, call: ProviderCall) -> object:
        return self.providers[call.provider_type or ""](call)


class SimulatedAssets:
    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = files or {}

    def read(self, path: str, limit: int) -> bytes | None:
        while path.startswith("assets/"):
            path = path.removeprefix("assets/")
        data = self.files.get(path)
        if data is not None and len(data) > limit:
            raise LimitExceeded(f"`{path}` has more than {limit} bytes")
        return data


class SimulatedState:
    local = True

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], object] = {}

    def get(self, scope: str, key: str) -> object:
        return self.values.get((scope, key), MISSING)

    def set(self, scope: str, key: str, value: object) -> None:
        self.values[scope, key] = value

    def delete(self, scope: str, key: str) -> bool:
        return self.values.pop((scope, key), MISSING) is not MISSING


class SimulatedCluster:
    """A `Cluster` in memory: server-side apply with its bookkeeping, lists by selector, deletions with preconditions.

    What other managers have of an object stays theirs, beside what is stated; a field of theirs that is stated otherwise is taken from them.

    `refuse` maps a kind to the text that the server refuses it with. `requests` and `writes` count as the real one does.
    """

    def __init__(self, refuse: dict[str, str] | None = None) -> None:
        self.objects: dict[Ref, JsonObject] = {}
        self.refuse = refuse or {}
        self.requests = self.writes = self.version = 0
        self.listed: list[str] = []
        self._discovered = False

    def versions(self, group: str) -> tuple[str, ...]:
        self.requests += 0 if self._discovered else 2  # whether it is ready, and one answer for all groups
        self._discovered = True
        return ("v1",)

    def get(self, ref: Ref) -> JsonObject | None:
        self.requests += 1
        return copy.deepcopy(self.objects.get(ref))

    def list(self, kind: str, namespace: str | None, selector: str | None = None) -> Listed:
        if len(KINDS[kind].versions) > 1:
            self.versions(KINDS[kind].group)
        self.requests += 1
        self.listed.append(kind)
        wanted = dict(part.split("=", 1) for part in selector.split(",")) if selector else {}
        found = [
            copy.deepcopy(thing)
            for ref, thing in list(self.objects.items())  # other threads write
            if ref.kind == kind and ref.namespace == namespace and wanted.items() <= labels_of(thing).items()
        ]
        return Listed(found, str(self.version))

    def pages(self, kind: str, namespace: str | None, selector: str | None = None) -> Iterator[Listed]:
        whole = self.list(kind, namespace, selector)
        for at in range(0, max(len(whole.items), 1), 3):
            yield Listed(whole.items[at : at + 3], whole.resource_version)

    def apply(self, thing: JsonObject, *, force: bool, dry_run: bool = False) -> JsonObject:
        ref = ref_of(thing)
        self.requests += 1
        if ref.kind in self.refuse:
            raise ApiRefused(self.refuse[ref.kind], status=422)
        old = self.objects.get(ref)
        thing = _on_condition(thing, old)
        made = copy.deepcopy(thing)
        body = {k: v for k, v in thing.items() if k not in ("apiVersion", "kind")}
        body["metadata"] = {k: v for k, v in metadata_of(thing).items() if k not in ("name", "namespace")}
        others = [m for m in objects_in(metadata_of(old or {}).get("managedFields")) if m["manager"] != FIELD_MANAGER]
        trees = [member(m, "fieldsV1") for m in others]
        made = _beside(old or {}, made, trees)
        left: list[Json] = [
            {**m, "fieldsV1": _untouched(t, old or {}, made)} for m, t in zip(others, trees, strict=True)
        ]
        told: JsonObject = {
            "uid": metadata_of(old)["uid"] if old else f"uid-{self.version + 1}",
            "managedFields": [{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": _fields(body)}, *left],
        }
        made["metadata"] = {**metadata_of(made), **told}
        same = old is not None and _without_version(old) == made
        version = metadata_of(old)["resourceVersion"] if same and old is not None else str(self.version + 1)
        made["metadata"] = {**metadata_of(made), "resourceVersion": version}
        if not dry_run:
            self.writes += 1
            self.version += not same
            self.objects[ref] = made
        return copy.deepcopy(made)

    def create(self, thing: JsonObject) -> JsonObject:
        return self.apply(thing, force=False)

    def delete(self, ref: Ref, *, uid: str, resource_version: str | None, foreground: bool = False) -> bool:
        self.requests += 1
        self.writes += 1
        return self.objects.pop(ref, None) is not None

    def watch(self, *_: object) -> Iterator[Event]:
        return iter(())

    def log(self, *_: object, **__: object) -> str:
        return ""

    def post(self, path: str, body: JsonObject) -> JsonObject:
        raise ApiRefused(f"{path}: not simulated", status=404)

    def ask_pod(self, *_: object) -> JsonObject:
        raise ApiRefused("pods are not simulated", status=404)

    def merge(self, ref: Ref, patch: JsonObject) -> None:
        """What is set is not kept book of, but for the book itself."""
        self.requests += 1
        told = {key: value for key, value in metadata_of(patch).items() if key in ("uid", "resourceVersion")}
        _on_condition(
            {"kind": ref.kind, "metadata": {"name": ref.name, "namespace": ref.namespace, **told}},
            self.objects.get(ref),
        )
        made = copy.deepcopy(self.objects[ref])
        self.version += 1
        _merge(made, patch)
        made["metadata"] = {**metadata_of(made), "resourceVersion": str(self.version)}
        self.objects[ref] = made

    def update(self, thing: JsonObject) -> JsonObject:
        raise ApiRefused("not simulated", status=404)

    def patch_status(self, ref: Ref, status: JsonObject) -> JsonObject:
        raise ApiRefused("not simulated", status=404)


def _on_condition(thing: JsonObject, old: JsonObject | None) -> JsonObject:
    """What is stated without its condition, which must hold: refused as a real server does (1.20 and newer were asked)."""
    told, there = metadata_of(thing), metadata_of(old or {})
    uid, version = told.get("uid"), told.get("resourceVersion")
    if uid is not None and old is None:
        raise ApiRefused(f"{ref_of(thing)}: uid mismatch: no existing object was found", status=409, reason="Conflict")
    if uid is not None and uid != there.get("uid"):
        raise ApiRefused(
            f"{ref_of(thing)}: metadata.uid: Invalid value: {uid}: field is immutable", status=422, reason="Invalid"
        )
    if version is not None and old is not None and version != there.get("resourceVersion"):
        raise ApiRefused(f"{ref_of(thing)}: the object has been modified", status=409, reason="Conflict")
    return {**thing, "metadata": {k: v for k, v in told.items() if k not in ("uid", "resourceVersion")}}


class LivingCluster(SimulatedCluster):
    """A `SimulatedCluster` that tells its watches, keeps versions apart, and that several may work in at once.

    `fault` is called with (verb, kind) before each request, and may raise. Deployments are complete at once, unless their names are in
    `stuck`. Pods do not exist.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fault: Callable[[str, str], object] = lambda verb, kind: None
        self.stuck: set[str] = set()
        self.told: list[tuple[int, Event]] = []
        self.news = threading.Condition(threading.RLock())
        self.written: list[tuple[str, Ref]] = []
        self.events: list[JsonObject] = []
        self.ended = 0
        """How often the watches that ran were ended, as by a server that restarts."""
        self.prunes_status = False
        """Whether the definition is an older one, which keeps nothing of a status but `observedGeneration`."""

    def get(self, ref: Ref) -> JsonObject | None:
        self.fault("get", ref.kind)
        with self.news:
            return super().get(ref)

    def list(self, kind: str, namespace: str | None, selector: str | None = None) -> Listed:
        self.fault("list", kind)
        with self.news:
            return super().list(kind, namespace, selector)

    def apply(self, thing: JsonObject, *, force: bool, dry_run: bool = False) -> JsonObject:
        ref = ref_of(thing)
        self.fault("patch", ref.kind)
        with self.news:
            before = self.objects.get(ref)
            made = super().apply(thing, force=force, dry_run=dry_run)
            if not dry_run:
                self.written.append(("apply", ref))
                self._completed(self.objects[ref])
                self._tell("ADDED" if before is None else "MODIFIED", ref)
            return made

    def create(self, thing: JsonObject) -> JsonObject:
        ref = ref_of(thing)
        self.fault("create", ref.kind)
        with self.news:
            if ref.kind == "Event":
                self.events.append(thing)
                return thing
            if ref in self.objects:
                raise ApiRefused(f"{ref} already exists", status=409)
            return self.put(thing, "create")

    def update(self, thing: JsonObject) -> JsonObject:
        ref = ref_of(thing)
        self.fault("update", ref.kind)
        with self.news:
            old = self.objects.get(ref)
            if old is None or metadata_of(old)["resourceVersion"] != metadata_of(thing).get("resourceVersion"):
                raise ApiRefused(f"{ref} was changed meanwhile", status=409)
            return self.put(thing, "replace")

    def patch_status(self, ref: Ref, status: JsonObject) -> JsonObject:
        self.fault("patch", f"{ref.kind}/status")
        with self.news:
            old = self.objects.get(ref)
            if old is None:
                raise ApiRefused(f"{ref} not found", status=404)
            kept = {"observedGeneration": status.get("observedGeneration")} if self.prunes_status else status
            return self.put({**old, "status": copy.deepcopy(kept)}, "status")

    def merge(self, ref: Ref, patch: JsonObject) -> None:
        self.fault("patch", ref.kind)
        with self.news:
            super().merge(ref, patch)
            self.writes += 1
            self.written.append(("merge", ref))
            self._tell("MODIFIED", ref)

    def delete(self, ref: Ref, *, uid: str, resource_version: str | None, foreground: bool = False) -> bool:
        self.fault("delete", ref.kind)
        with self.news:
            there = metadata_of(self.objects.get(ref, {}))
            if there and (there["uid"] != uid or resource_version not in (None, there["resourceVersion"])):
                raise ApiRefused(f"{ref}: the object was changed meanwhile", status=409)
            return self.remove(ref)

    def put(self, thing: JsonObject, how: str = "by hand") -> JsonObject:
        """Write an object as it is, as somebody else would."""
        ref = ref_of(thing)
        with self.news:
            before = self.objects.get(ref)
            made = copy.deepcopy(thing)
            self.version += 1
            uid = metadata_of(before)["uid"] if before is not None else f"uid-{self.version}"
            made["metadata"] = {**metadata_of(made), "uid": uid, "resourceVersion": str(self.version)}
            self.objects[ref] = made
            if how != "by hand":
                self.writes += 1
                self.written.append((how, ref))
            self._tell("ADDED" if before is None else "MODIFIED", ref)
            return copy.deepcopy(made)

    def remove(self, ref: Ref) -> bool:
        with self.news:
            gone = self.objects.get(ref)
            if gone is None:
                return False
            self.version += 1
            self.told.append((self.version, Event("DELETED", copy.deepcopy(gone))))
            del self.objects[ref]
            self.news.notify_all()
            return True

    def watch(self, *how: object) -> Iterator[Event]:
        kind, _, selector, version, seconds = how
        self.fault("watch", str(kind))
        wanted = dict(part.split("=", 1) for part in str(selector).split(",")) if selector else {}
        at, ends, begun = int(str(version)), time.monotonic() + min(float(str(seconds)), 20), self.ended
        while time.monotonic() < ends and self.ended == begun:
            with self.news:
                fresh = [(v, e) for v, e in self.told if v > at]
                if not fresh:
                    self.news.wait(0.2)
                    continue
            at = fresh[-1][0]
            for _, event in fresh:
                if event.thing["kind"] == kind and wanted.items() <= labels_of(event.thing).items():
                    yield event

    def end_watches(self) -> None:
        with self.news:
            self.ended += 1
            self.news.notify_all()

    def _tell(self, type_: str, ref: Ref) -> None:
        self.told.append((self.version, Event(type_, copy.deepcopy(self.objects[ref]))))
        self.news.notify_all()

    def _completed(self, thing: JsonObject) -> None:
        if thing["kind"] == "Deployment":
            done = 0 if metadata_of(thing)["name"] in self.stuck else 1
            thing["spec"] = {**member(thing, "spec")}
            count = member(thing, "spec").get("replicas", 1)
            number = count if isinstance(count, int) else 1
            thing["status"] = {
                "observedGeneration": 0, "updatedReplicas": number, "replicas": number, "availableReplicas": number * done,
            }  # fmt: skip


def _fields(value: object) -> JsonObject:
    """The ownership tree of a value, every list whole."""
    return {f"f:{k}": _fields(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _beside(old: JsonObject, made: JsonObject, trees: list[JsonObject]) -> JsonObject:
    """What is stated, with what others manage beside it."""
    out = dict(made)
    for key, value in old.items():
        inner = [member(tree, f"f:{key}") for tree in trees if f"f:{key}" in tree]
        stated = out.get(key)
        if inner and key not in out:
            out[key] = value
        elif inner and isinstance(value, dict) and isinstance(stated, dict):
            out[key] = _beside(value, stated, inner)
    return out


def _untouched(tree: JsonObject, old: JsonObject, made: JsonObject) -> JsonObject:
    """What is left to another manager once fields have other values."""
    out: JsonObject = {}
    for step, inner in tree.items():
        before, after = old.get(step[2:]), made.get(step[2:])
        if isinstance(before, dict) and isinstance(after, dict) and isinstance(inner, dict) and inner:
            left = _untouched(inner, before, after)
            out |= {step: left} if left else {}  # an empty tree would be the whole of it
        elif before == after:
            out[step] = inner
    return out


def applied_by(thing: JsonObject, manager: str, operation: str) -> JsonObject:
    """An object as it is after somebody else applied it whole."""
    body: JsonObject = {k: v for k, v in thing.items() if k not in ("apiVersion", "kind")}
    body["metadata"] = {k: v for k, v in metadata_of(thing).items() if k not in ("name", "namespace")}
    managed: list[Json] = [{"manager": manager, "operation": operation, "fieldsV1": _fields(body)}]
    return {**thing, "metadata": {**metadata_of(thing), "managedFields": managed}}


def _merge(value: JsonObject, patch: JsonObject) -> None:
    for key, told in patch.items():
        inner = value.get(key)
        if told is None:
            value.pop(key, None)
        elif isinstance(told, dict):
            inner = inner if isinstance(inner, dict) else {}
            value[key] = inner
            _merge(inner, told)
        else:
            value[key] = told


def _without_version(thing: JsonObject) -> JsonObject:
    return {**thing, "metadata": {k: v for k, v in metadata_of(thing).items() if k != "resourceVersion"}}
