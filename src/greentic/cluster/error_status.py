"""What an API server says when it does not do what it was asked: its `Status`, as this program's error. Pure.

Rules:
1. The error carries what programs decide by (code, reason, whose field it is), the server's words, and the next step where one is known.
2. What is no `Status` (a proxy's page, a plain line) is quoted, shortened. It says nothing of rights: no API server said no.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from greentic.cluster.connect import Connection
from greentic.ground.documents import Json, JsonObject, parse
from greentic.ground.errors import worded
from greentic.k8s.objects import ApiRefused, FieldConflict, member, objects_in

if TYPE_CHECKING:
    import httpx2

_QUOTED = 300
_NO_PATH = "404 page not found"
"""What an API server says, in no `Status`, of a path of a group or kind that it does not serve."""
NO_SERVER = (
    "something else than an API server answers there, such as a proxy or a login: kubectl get --raw /version shows what"
)
AWAY = "see whether it runs and whether this machine reaches it: kubectl get --raw /readyz; kubeconfig_context answers another context"
_NOT_SERVED = "the cluster does not serve this kind, as where its definition is not installed: kubectl api-resources lists what it serves"
_LACKS = "gtc op credentials requirements lists what this identity lacks"
_BUSY = "the API server refuses for now, as it has too much to do{when}; the same command later goes on"
_FAILING = "the API server, or what stands before it, fails: kubectl get --raw /readyz shows what; the same command later goes on"
_WEBHOOK = (
    "the admission webhook that it names gives no answer, and nothing is written without one: see whether its pods run"
)
_AGAIN = "log in again, or fetch the kubeconfig again; a bound token is renewed with gtc op credentials rotate"


def refusal(answer: httpx2.Response, about: str, connection: Connection) -> ApiRefused:
    """The error for an answer of 400 and above, about an object or a path."""
    status = _status(answer)
    message = str(status.get("message") or answer.text[:_QUOTED] or answer.reason_phrase)
    code = answer.status_code
    text = f"{worded(about, 'Kubernetes API error', message)} (status {code})"
    hint = None
    if code == 401:
        ends = connection.certificate_ends()
        text = (
            f"the API server at {connection.server} does not accept the credentials of context `{connection.context}`"
        )
        text += f"; their certificate ends at {ends}" if ends else ""
        hint = _AGAIN
    causes = objects_in(member(status, "details").get("causes"))
    conflicts = tuple(
        FieldConflict(_manager(str(c.get("message", ""))), str(c.get("field", "")))
        for c in causes
        if c.get("reason") == "FieldManagerConflict"
    )
    refused = ApiRefused(text, status=code, reason=str(status.get("reason", "")), conflicts=conflicts, hint=hint)
    if not status and code in (403, 404):
        refused.hint = _NOT_SERVED if answer.text.startswith(_NO_PATH) else NO_SERVER
    elif code == 429 and not hint:
        seconds = asked_to_wait(answer)
        refused.hint = _BUSY.format(when=f" (it asks for {seconds:g} s)" if seconds else "")
    elif code >= 500 and not hint:
        refused.hint = _WEBHOOK if "failed calling webhook" in message else _FAILING
    elif refused.forbidden:
        refused.hint = _LACKS
    return refused


def names_an_object(answer: httpx2.Response) -> bool:
    """Whether a refusal is about an object, and not about its path."""
    return bool(member(_status(answer), "details").get("name"))


def asked_to_wait(answer: httpx2.Response) -> float:
    """The seconds that a server asks to wait; none if it does not say."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0


def _status(answer: httpx2.Response) -> JsonObject:
    """The `Status` of a refusal; empty if it is none."""
    try:
        decoded: Json = parse(answer.content)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _manager(message: str) -> str:
    """The manager in the server's `conflict with "<manager>" …`."""
    parts = message.split('"')
    return parts[1] if len(parts) > 1 else message
