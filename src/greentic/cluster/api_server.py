"""The real cluster: HTTP requests to an API server, repeated where that is safe.

Rules:
1. Too many requests, an overloaded or restarting server and lost connections are tried again, with growing pauses that chance
   spreads, or after the time that the server asks for; for `PATIENCE_SECONDS` in all, then the error is told. Who may write for a
   time only says how long a write is tried again.
2. Applying to what is there and deleting with preconditions may be repeated; both have the same effect twice. Creating may not, be it an
   apply on the condition that nothing is there: a repeated one that finds the object counts as the first one's success only to its caller.
3. Every answer is bounded in size; a watch ends by itself.
4. A server that starts says 404 for paths that it will serve. Such an answer counts when it is ready, and is asked for again before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypedDict, Unpack
from urllib.parse import quote

from greentic.cluster.call_spans import CallSpans, answered
from greentic.cluster.connect import Connection
from greentic.cluster.discovery import GROUPS, READY, Discovery
from greentic.cluster.error_status import AWAY, NO_SERVER, asked_to_wait, names_an_object, refusal
from greentic.cluster.relisting import unexpired
from greentic.ground.backoff import UNCOUNTED, Backoff, Patience
from greentic.ground.clock import CLOCK, RANDOM, Clock
from greentic.ground.documents import Json, JsonObject, compact, parse
from greentic.k8s.names import FIELD_MANAGER
from greentic.k8s.objects import (
    KINDS,
    ApiRefused,
    ClusterUnreachable,
    Event,
    Kind,
    Listed,
    Ref,
    metadata_of,
    objects_in,
    ref_of,
)
from greentic.k8s.plan import unconditioned

if TYPE_CHECKING:
    import httpx2

PATIENCE_SECONDS = 60.0
FIRST_PATIENCE_SECONDS = 10.0
"""The same for a server that never answered: it is more likely not there than away for a moment."""
_BACKOFF = Backoff(first=0.25, longest=8.0, longest_asked=30.0)
PAGE, SMALL_PAGE = 1000, 100
"""Objects of an answer to a list: where all are kept, and where they are looked at and let go."""
MAX_LISTED = 200_000
MAX_LOG_BYTES = 16 << 10
POD_SECONDS, MAX_POD_BYTES = 5.0, 16 << 20
"""For asking a pod."""
_AGAIN = frozenset({429, 500, 502, 503, 504})
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
"""What a write is answered with: the rest of the object is what was written."""
_APPLY, _MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


class How(TypedDict, total=False):
    """What a request carries beside its method and path."""

    parameters: dict[str, str | int]
    body: bytes
    media: str
    accept: str
    about: str
    """What it is about, for people."""


class ApiServer:
    """A `Cluster` over a connection. `requests` and `writes` count what was sent."""

    def __init__(
        self,
        connection: Connection,
        *,
        patience: float = PATIENCE_SECONDS,
        writing: float = PATIENCE_SECONDS,
        clock: Clock = CLOCK,
    ) -> None:
        self._clock, self._writing = clock, writing
        self._http, self._connection, self._patience = connection.client, connection, patience
        self._discovery = Discovery(self._until_ready, lambda: self._json("GET", GROUPS), clock)
        self._answered = False
        self._unconditional: set[str] = set()
        """Kinds that this server creates without a condition only."""
        self._calls = CallSpans()
        self.requests = 0
        self.writes = 0

    # -- reading ----------------------------------------------------------------------------------------------------

    def versions(self, group: str) -> tuple[str, ...]:
        return self._discovery.versions(group)

    def get(self, ref: Ref) -> JsonObject | None:
        try:
            return self._json("GET", self._path(ref), about=str(ref))
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str | None, selector: str | None = None) -> Listed:
        pages = unexpired(lambda: list(self._pages(kind, namespace, selector, PAGE)))
        return Listed([thing for page in pages for thing in page.items], pages[-1].resource_version)

    def pages(self, kind: str, namespace: str | None, selector: str | None = None) -> Iterator[Listed]:
        return self._pages(kind, namespace, selector, SMALL_PAGE)

    def _pages(self, kind: str, namespace: str | None, selector: str | None, size: int) -> Iterator[Listed]:
        found = KINDS[kind]
        path = self._collection(found, namespace)
        parameters: dict[str, str | int] = {"limit": size}
        if selector is not None:
            parameters["labelSelector"] = selector
        for _ in range(MAX_LISTED // size):
            answer = self._json("GET", path, parameters=parameters, about=f"{found.plural} in namespace `{namespace}`")
            version = self._version(found)
            listed = answer.get("items") or []
            metadata = metadata_of(answer)
            items: list[JsonObject] = [
                {"apiVersion": found.api_version(version), "kind": kind, **item} for item in objects_in(listed)
            ]
            named = all(isinstance(metadata_of(item).get("name"), str) for item in items)
            if not isinstance(listed, list) or len(items) != len(listed) or not named:
                why = ValueError(f"it answered no list of {found.plural}")
                raise ClusterUnreachable(self._unreachable(why), hint=NO_SERVER)
            del answer, listed
            yield Listed(items, str(metadata.get("resourceVersion", "")))
            going_on = metadata.get("continue")
            if not going_on:
                return
            parameters["continue"] = str(going_on)
        raise ApiRefused(f"{found.plural} in namespace `{namespace}` are more than {MAX_LISTED}", status=413)

    def watch(
        self, kind: str, namespace: str, selector: str | None, resource_version: str, seconds: float
    ) -> Iterator[Event]:
        import httpx2
        from lightkube.core.exceptions import ConfigError

        found = KINDS[kind]
        parameters: dict[str, str | int] = {
            "watch": "1",
            "resourceVersion": resource_version,
            "timeoutSeconds": max(1, int(seconds)),
        }
        if selector is not None:
            parameters["labelSelector"] = selector
        self.requests += 1
        path = self._collection(found, namespace)
        timeout = httpx2.Timeout(seconds + 5.0, connect=10.0)
        try:
            with self._http.stream("GET", path, params=parameters, timeout=timeout) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise refusal(answer, f"watching {found.plural} in namespace `{namespace}`", self._connection)
                for line in answer.iter_lines():
                    if not line.strip():
                        continue
                    told = parse(line)
                    thing = told.get("object") if isinstance(told, dict) else None
                    if not isinstance(told, dict) or not isinstance(thing, dict):
                        continue
                    if told.get("type") == "ERROR":
                        code, text = thing.get("code"), str(thing.get("message") or thing.get("reason"))
                        raise ApiRefused(text, status=code if isinstance(code, int) else 500)
                    yield Event(str(told.get("type")), thing)
        except (httpx2.TransportError, ConfigError, OSError, KeyError, ValueError) as error:
            raise ClusterUnreachable(self._unreachable(error), hint=self._hint(error)) from error

    def ask_pod(self, namespace: str, pod: str, port: int, path: str) -> JsonObject:
        import httpx2
        from lightkube.core.exceptions import ConfigError

        about = f"pod `{pod}` in namespace `{namespace}`"
        where = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}:{port}/proxy{path}"
        self.requests += 1
        data = b""
        try:
            with (
                self._calls.call("GET", where),
                self._http.stream("GET", where, headers={"Accept": _JSON}, timeout=POD_SECONDS) as answer,
            ):
                for part in answer.iter_bytes():
                    data += part
                    if len(data) > MAX_POD_BYTES:
                        raise ClusterUnreachable(f"{about} answered more than {MAX_POD_BYTES} bytes")
                answered(answer.status_code)
        except (httpx2.TransportError, OSError, ConfigError, KeyError, ValueError) as error:
            raise ClusterUnreachable(self._unreachable(error), hint=self._hint(error)) from error
        if answer.status_code >= 400:
            raise refusal(httpx2.Response(answer.status_code, content=data), about, self._connection)
        try:
            value: Json = parse(data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ClusterUnreachable(f"{about} answered {path} with no JSON object")
        return value

    def log(self, namespace: str, pod: str, container: str, *, previous: bool, lines: int) -> str:
        parameters: dict[str, str | int] = {"container": container, "tailLines": lines, "limitBytes": MAX_LOG_BYTES}
        if previous:
            parameters["previous"] = "true"
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/log"
        with contextlib.suppress(ApiRefused):
            return self._send("GET", path, parameters=parameters, about=f"log of pod `{pod}`").text
        return ""

    # -- writing ----------------------------------------------------------------------------------------------------

    def apply(self, thing: JsonObject, *, force: bool, dry_run: bool = False) -> JsonObject:
        ref = ref_of(thing)
        parameters: dict[str, str | int] = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        if dry_run:
            parameters["dryRun"] = "All"
        if ref.kind in self._unconditional:
            thing = unconditioned(thing)
        version = self._version(KINDS[ref.kind])
        body = compact({**thing, "apiVersion": KINDS[ref.kind].api_version(version)})
        try:
            told = self._json(
                "PATCH", self._path(ref), parameters=parameters, body=body, media=_APPLY, about=str(ref), writes=not dry_run,
                accept=_JSON if dry_run else _METADATA,
            )  # fmt: skip
        except ApiRefused as error:
            if not error.unconditional or "resourceVersion" not in metadata_of(thing):
                raise
            self._unconditional.add(ref.kind)
            return self.apply(thing, force=force, dry_run=dry_run)
        if dry_run or told.get("kind") == ref.kind:
            return told
        metadata = {key: value for key, value in metadata_of(told).items() if key != "managedFields"}
        return {**thing, "metadata": metadata}  # who manages what is as large as the object, and was looked at before

    def merge(self, ref: Ref, patch: JsonObject) -> None:
        parameters: dict[str, str | int] = {"fieldManager": FIELD_MANAGER}
        self._json(
            "PATCH", self._path(ref), parameters=parameters, body=compact(patch), media=_MERGE, accept=_METADATA, about=str(ref)
        )  # fmt: skip

    def create(self, thing: JsonObject) -> JsonObject:
        ref = ref_of(thing)
        path = self._collection(KINDS[ref.kind], ref.namespace)
        parameters: dict[str, str | int] = {"fieldManager": FIELD_MANAGER}
        return self._json("POST", path, parameters=parameters, body=compact(thing), about=str(ref), writes=True)

    def update(self, thing: JsonObject) -> JsonObject:
        ref = ref_of(thing)
        parameters: dict[str, str | int] = {"fieldManager": FIELD_MANAGER}
        return self._json(
            "PUT", self._path(ref), parameters=parameters, body=compact(thing), about=str(ref), writes=True
        )

    def patch_status(self, ref: Ref, status: JsonObject) -> JsonObject:
        parameters: dict[str, str | int] = {"fieldManager": FIELD_MANAGER}
        return self._json(
            "PATCH", f"{self._path(ref)}/status", parameters=parameters, body=compact({"status": status}), media=_MERGE,
            about=f"the status of {ref}", writes=True,
        )  # fmt: skip

    def delete(self, ref: Ref, *, uid: str, resource_version: str | None, foreground: bool = False) -> bool:
        preconditions: JsonObject = {"uid": uid}
        if resource_version:
            preconditions["resourceVersion"] = resource_version
        options: JsonObject = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": "Foreground" if foreground else "Background",
        }
        try:
            self._json("DELETE", self._path(ref), body=compact(options), about=str(ref), writes=True)
        except ApiRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    def post(self, path: str, body: JsonObject) -> JsonObject:
        return self._json("POST", path, body=compact(body), about=path.rpartition("/")[2])

    # -- requests ---------------------------------------------------------------------------------------------------

    def _version(self, kind: Kind) -> str:
        if len(kind.versions) == 1:
            return kind.versions[0]
        served = self.versions(kind.group)
        chosen = next((v for v in kind.versions if v in served), None)
        if chosen is None:
            raise ApiRefused(
                f"the cluster serves {kind.name} in {', '.join(served) or 'no version'} of `{kind.group}`; "
                f"this deployer writes {', '.join(kind.versions)}",
                status=404,
            )
        return chosen

    def _collection(self, kind: Kind, namespace: str | None) -> str:
        base = f"/apis/{kind.group}/{self._version(kind)}" if kind.group else "/api/v1"
        scope = f"/namespaces/{quote(namespace)}" if kind.namespaced and namespace else ""
        return f"{base}{scope}/{kind.plural}"

    def _path(self, ref: Ref) -> str:
        return f"{self._collection(KINDS[ref.kind], ref.namespace)}/{quote(ref.name)}"

    def _json(self, method: str, path: str, *, writes: bool = False, **how: Unpack[How]) -> JsonObject:
        answer = self._send(method, path, **how)
        if writes:
            self.writes += 1
        try:
            value: Json = parse(answer.content)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            told = f"{self._connection.server} answered {how.get('about', path)} with no JSON object"
            raise ClusterUnreachable(f"cannot reach the cluster: {told}", hint=NO_SERVER)
        return value

    def _send(self, method: str, path: str, **how: Unpack[How]) -> httpx2.Response:
        """One request, repeated as rule 1 says, with a span of who asks."""
        with self._calls.call(method, path):
            answer = self._repeated(method, path, **how)
            answered(answer.status_code)
            return answer

    def _repeated(self, method: str, path: str, **how: Unpack[How]) -> httpx2.Response:
        import httpx2
        from lightkube.core.exceptions import ConfigError

        from greentic.cluster.plugin import LOG_IN

        body, about = how.get("body"), how.get("about", path)
        headers = {"Accept": how.get("accept", _JSON)}
        if body is not None:
            headers["Content-Type"] = how.get("media", _JSON)
        began = self._clock.monotonic()
        longest = self._patience if method == "GET" else min(self._patience, self._writing)
        seconds = longest if self._answered else min(longest, FIRST_PATIENCE_SECONDS)
        # A server that is restarted comes back when it comes back.
        patience = Patience(_BACKOFF, UNCOUNTED, seconds, self._clock, RANDOM)
        while True:
            asked = 0.0
            failure: ApiRefused | ClusterUnreachable
            self.requests += 1
            try:
                answer = self._http.request(method, path, params=how.get("parameters"), content=body, headers=headers)
            except httpx2.TransportError as error:
                failure = ClusterUnreachable(self._unreachable(error), hint=self._hint(error))
                if self._hopeless(error):
                    raise failure from error
            except (OSError, ConfigError, KeyError, ValueError) as error:  # reading a token, running a plugin
                raise ClusterUnreachable(self._unreachable(error), hint=LOG_IN) from error
            else:
                if not self._answered:
                    self._answered, patience.ends = True, began + longest
                if answer.status_code < 400:
                    return answer
                failure = refusal(answer, about, self._connection)
                final = answer.status_code not in _AGAIN or failure.denied or failure.unconditional
                if final and not self._starting(path, answer):
                    raise failure
                asked = asked_to_wait(answer)
            if not patience.wait(asked):
                raise failure

    def _until_ready(self) -> None:
        with contextlib.suppress(ApiRefused):  # who may not ask, or waited long enough, is answered by what comes next
            self._send("GET", READY)

    def _starting(self, path: str, answer: httpx2.Response) -> bool:
        """Whether a path is not served because the server only begins to. A 404 that names an object is about that object."""
        import httpx2

        if answer.status_code != 404 or not path.startswith(f"{GROUPS}/") or names_an_object(answer):
            return False
        self.requests += 1
        try:
            return self._http.get(READY).status_code in _AGAIN
        except httpx2.TransportError:
            return True

    def _unreachable(self, error: BaseException) -> str:
        return f"cannot reach the cluster at {self._connection.where}: {error or type(error).__name__}"

    def _hopeless(self, error: BaseException) -> bool:
        """Whether trying again cannot help: the certificates are wrong."""
        return "CERTIFICATE_VERIFY_FAILED" in str(error) or "certificate" in str(error).lower()

    def _hint(self, error: BaseException) -> str:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return "the server's certificate is not signed by the kubeconfig's authority, or has ended; fetch the kubeconfig again"
        return AWAY
