"""A chat with a deployment, through the HTTP front of a worker as any caller has it.

Rules:
1. The page says what is meant (a text, or the data of a card), and which deployment; address, host and path come from the environment.
2. The worker decides whom it believes. On its own machine this program is a trusted caller: it names its session, and asks for the
   steps. Elsewhere it is a stranger, who keeps the cookies that it is given, and gets no steps.
3. Conversations are bounded in number; the one that was longest ago is forgotten.
4. What a worker tells of the steps of a turn has the form that the page draws (formats: worker 10), or that is what the page tells.
"""

from __future__ import annotations

import http.cookies
import re
from collections import OrderedDict
from typing import Annotated

import msgspec

from greentic.deployments.worker_status import asking, url_of
from greentic.ground.clock import CLOCK, Clock
from greentic.ground.documents import Json, JsonObject, compact, parse
from greentic.ground.errors import FetchError, InvalidArgument, NotFound
from greentic.model.environment import Environment
from greentic.net.request import read_body, send

MAX_ANSWER = 4 << 20
SAY_SECONDS = 60.0
MAX_CONVERSATIONS = 64
MAX_ROWS = 1_000
"""Steps, or lines, of one turn; a worker tells fewer."""
_NAME = re.compile(r"[A-Za-z0-9-]{8,64}")
_COOKIE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]{0,4096}")


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the page sends."""

    deployment_id: str
    conversation: str
    message_id: str
    text: Annotated[str, msgspec.Meta(max_length=20_000)] = ""
    data: dict[str, object] | None = None
    """The inputs of a card with the data of the button that was pressed."""
    revision_id: str | None = None
    """A revision to talk to instead of the one that the split draws."""


class Line(msgspec.Struct, frozen=True):
    """What a component wrote."""

    source: str = ""
    text: str = ""


Lines = Annotated[list[Line], msgspec.Meta(max_length=MAX_ROWS)]


class Step(msgspec.Struct, frozen=True):
    """One node that ran."""

    node: str = ""
    kind: str = ""
    seconds: float = 0.0
    input: object = None
    output: object = None
    then: str = ""
    log: Lines = []


class Trace(msgspec.Struct, frozen=True):
    """How a turn went (rule 4)."""

    steps: Annotated[list[Step], msgspec.Meta(max_length=MAX_ROWS)]
    left_out: int = 0
    log: Lines = []
    lines_left_out: int = 0
    revision_id: str | None = None
    waits: bool | None = None


class Chats:
    """What the console says to workers, and the cookies that it was given."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self._cookies: OrderedDict[str, dict[str, str]] = OrderedDict()

    def say(self, env: Environment, address: str, message: ChatMessage) -> JsonObject:
        """What a worker answers. Raises `InvalidArgument`, `NotFound` or `FetchError`."""
        for name in (message.conversation, message.message_id):
            if _NAME.fullmatch(name) is None:
                raise InvalidArgument("a conversation and a message have names of 8 to 64 letters, digits and dashes")
        deployment = env.deployment(message.deployment_id)
        if deployment is None:
            raise NotFound(f"deployment `{message.deployment_id}` in env `{env.environment_id}`")
        binding = deployment.route_binding
        prefix = (binding.path_prefixes or ["/"])[0]
        headers = {
            "Content-Type": "application/json",
            "X-Greentic-Session": f"console-{message.conversation}",
            "X-Greentic-Steps": "1",
            "X-Message-Id": message.message_id,
        }
        if binding.hosts:
            headers["Host"] = binding.hosts[0]
        if message.revision_id is not None:
            headers["X-Greentic-Revision"] = message.revision_id
        jar = self._jar(f"{message.conversation} {address} {message.deployment_id}")
        if jar:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        began = self._clock.monotonic()
        status, body = self._sent(url_of(address, prefix), address, headers, body_of(message), jar)
        return answer_of(status, body) | {"seconds": round(self._clock.monotonic() - began, 6), "at": address}

    def _jar(self, key: str) -> dict[str, str]:
        jar = self._cookies.setdefault(key, {})
        self._cookies.move_to_end(key)
        while len(self._cookies) > MAX_CONVERSATIONS:
            self._cookies.popitem(last=False)
        return jar

    def _sent(
        self, url: str, address: str, headers: dict[str, str], body: bytes, jar: dict[str, str]
    ) -> tuple[int, bytes]:
        terms = asking(self._clock, SAY_SECONDS)._replace(idle=SAY_SECONDS)
        try:
            answer = send(url, address, terms, method="POST", headers=headers, body=body)
            for line in answer.headers.get_all("set-cookie", []):
                jar.update(_cookie(line))
            return answer.status, read_body(answer, f"the answer of `{address}`", MAX_ANSWER)
        except FetchError as error:
            cause = error.__cause__
            raise FetchError(f"the worker at `{address}` did not answer: {cause or error.message}") from cause


def body_of(message: ChatMessage) -> bytes:
    """The request body: a message of a text, or one whose metadata are what a card submits."""
    if message.data is None:
        return compact({"text": message.text})
    return msgspec.json.encode({"text": message.text, "metadata": message.data})


def answer_of(status: int, body: bytes) -> JsonObject:
    """What the page shows of a worker's answer: the replies, and the steps if it told them."""
    if status != 200:
        return {"ok": False, "status": status, "error": body[:2_000].decode(errors="replace")}
    try:
        told = parse(body)
    except ValueError as error:
        return {"ok": False, "status": status, "error": f"the answer is no JSON: {error}"}
    rows = told.get("replies") if isinstance(told, dict) else told
    replies: list[Json] = (
        [r.get("payload") if isinstance(r, dict) else r for r in rows] if isinstance(rows, list) else []
    )
    trace: JsonObject | None = None
    if isinstance(told, dict) and "steps" in told:
        try:
            trace = msgspec.to_builtins(msgspec.convert(told, Trace))
        except msgspec.ValidationError as error:
            return {"ok": False, "status": status, "error": f"the steps that it tells are none: {error}"}
    return {"ok": True, "status": status, "replies": replies, "trace": trace}


def _cookie(line: str) -> dict[str, str]:
    """The name and value that a `Set-Cookie` line sets; nothing of what cannot be sent back."""
    try:
        found = http.cookies.SimpleCookie(line)
    except http.cookies.CookieError:
        return {}
    return {name: part.coded_value for name, part in found.items() if _COOKIE.fullmatch(part.coded_value)}
