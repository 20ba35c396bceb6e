"""Which revision of a deployment serves a request (formats: worker 9). Pure but for the numbers it is given.

Rules:
1. A client has a key: the session that a trusted caller names, else what its affinity cookie holds, else a new random one that a
   cookie carries from then on. The revision follows from key and weights (`activate/rendezvous`), the same in every replica.
2. The cookie holds the key, not the answer. So it survives changes of weights, new generations and restarts, and a client only moves
   when it must. It is not signed: a key that a client makes up belongs to some revision with weight as much as any other.
3. New clients never get a draining revision; those who are on it stay.
4. A cookie of the form that other workers write is still understood: if it is signed with our key, for this environment, tenant,
   deployment and generation, not expired, and its revision has weight, the client stays there, with a key that belongs there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

import msgspec

from greentic.activate.rendezvous import chosen, drawn_into
from greentic.ground.clock import Random
from greentic.ground.documents import decode
from greentic.model.ramp_record import ControlSlice

COOKIE_PREFIX = "_gt_rev_"
COOKIE_SECONDS = 30 * 86_400
KEY_BYTES = 16
_KEY_MARK = "k."
_KEY_CHARS = 22
_MINTED = 2048
"""How many keys are tried for one that belongs to a wanted revision."""


class Choice(msgspec.Struct, frozen=True):
    """One revision that may be drawn."""

    revision_id: str
    weight_bps: int
    draining: bool


class AffinityCookie(msgspec.Struct, frozen=True):
    """What a cookie says."""

    e: str
    t: str
    d: str
    r: str
    g: int
    x: int


class Client(msgspec.Struct, frozen=True):
    """Who asks, as far as choosing a revision goes."""

    key: bytes
    cookie: bool = False
    """Whether its key is new, so that a cookie must carry it."""


class Dispatcher:
    """The revisions of one deployment."""

    def __init__(
        self,
        env_id: str,
        deployment_id: str,
        choices: list[Choice],
        *,
        generation: int,
        key: bytes,
        control: ControlSlice | None = None,
    ) -> None:
        self.env_id, self.deployment_id, self.generation = env_id, deployment_id, generation
        self.control = control
        self._key = key
        self._choices = choices
        self.weights = {c.revision_id: c.weight_bps for c in choices}
        """Basis points by revision."""
        self._all = [(c.revision_id, c.weight_bps) for c in choices if c.weight_bps > 0]
        draining = {c.revision_id for c in choices if c.draining}
        self._open = [pair for pair in self._all if pair[0] not in draining] if draining else self._all
        self.cookie_name = f"{COOKIE_PREFIX}{deployment_id}"

    def equals(
        self, env_id: str, choices: list[Choice], generation: int, control: ControlSlice | None, key: bytes
    ) -> bool:
        """Whether one made from these would choose in all the same way."""
        mine = (self.env_id, self._choices, self.generation, self.control, self._key)
        return mine == (env_id, choices, generation, control, key)

    @property
    def open(self) -> bool:
        """Whether anything may be chosen at all; what follows asks for that."""
        return bool(self._open)

    def in_control(self, client: bytes, revision_id: str) -> bool:
        """Whether a turn of this client on this revision counts in the control slice of a ramp, too."""
        slice_ = self.control
        if slice_ is None or slice_.revision_id != revision_id:
            return False
        return slice_.share >= 1.0 or drawn_into(self.deployment_id, client, slice_.name, slice_.share)

    def of_session(self, session: str) -> str:
        """The revision of a named session."""
        return self._choose(client_of_session(session), self._open)

    def of_cookie(self, cookie: str | None, tenant: str, now: int, random: Random) -> tuple[str, Client]:
        """The revision of a caller with or without a cookie (rules 1 to 4)."""
        if cookie is not None:
            key = read_key(cookie)
            if key is not None:
                return self._choose(key, self._all), Client(key)
            held = self._held(cookie, tenant, now)
            if held is not None:
                return held, self._new_client(held, random.octets(KEY_BYTES))
        key = random.octets(KEY_BYTES)
        drawn = self._choose(key, self._open)
        return drawn, Client(key, cookie=True) if self._open is self._all else self._new_client(drawn, key)

    def _choose(self, client: bytes, among: list[tuple[str, int]]) -> str:
        found = chosen(self.deployment_id, client, among)
        assert found is not None, "nothing is open"  # whoever asks looked at `open`
        return found

    def set_cookie(self, client: Client) -> str:
        """The `Set-Cookie` value that lets a client keep its key."""
        value = _KEY_MARK + _b64(client.key)
        return f"{self.cookie_name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={COOKIE_SECONDS}"

    def _new_client(self, revision_id: str, key: bytes) -> Client:
        """A client whose key, the given one if possible, belongs to a revision, also when draining ones count again (rule 3)."""
        for _ in range(_MINTED):
            if chosen(self.deployment_id, key, self._all) == revision_id:
                return Client(key, cookie=True)
            key = hashlib.blake2b(key, digest_size=KEY_BYTES).digest()
        return Client(key)  # a share of almost nothing; without a cookie the next request is drawn anew

    def _held(self, cookie: str, tenant: str, now: int) -> str | None:
        """The revision that a cookie of the other form holds on to (rule 4)."""
        found = read_cookie(cookie, self._key)
        if found is None or (found.e, found.t, found.d, found.g) != (
            self.env_id,
            tenant,
            self.deployment_id,
            self.generation,
        ):
            return None
        return found.r if found.x > now and self.weights.get(found.r, 0) > 0 else None


def client_of_session(session: str) -> bytes:
    """The key of a client that a trusted caller names by its session."""
    return session.encode("utf-8", "surrogatepass")


def read_key(cookie: str) -> bytes | None:
    """The key that a cookie holds, if it is of our form."""
    text = cookie.removeprefix(_KEY_MARK)
    if len(text) != _KEY_CHARS or len(cookie) != _KEY_CHARS + len(_KEY_MARK) or not text.isascii():
        return None
    try:
        key = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    except ValueError:
        return None
    return key if len(key) == KEY_BYTES else None


def read_cookie(text: str, key: bytes) -> AffinityCookie | None:
    """What a cookie says, if it was signed with this key."""
    body, dot, mac = text.partition(".")
    if not dot or len(text) > 4096:
        return None
    expected = _b64(hmac.digest(key, body.encode(errors="replace"), hashlib.sha256))
    if not hmac.compare_digest(mac.encode(errors="replace"), expected.encode()):
        return None
    try:
        return decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), AffinityCookie)
    except ValueError:
        return None


def cookie_named(header: str, name: str) -> str | None:
    """One cookie of a `Cookie` header."""
    for part in header.split(";"):
        key, equals, value = part.strip().partition("=")
        if equals and key == name:
            return value
    return None


def _b64(data: bytes) -> str:
    return base64.b64encode(data, b"-_").decode().rstrip("=")
