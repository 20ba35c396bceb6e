"""Whether a peer may say who it speaks for (formats: worker 7; threats: browser-on-loopback, unauthenticated-invoke). Pure.

Rules:
1. Only a loopback peer can be trusted at all, and none where that is switched off.
2. Loopback is not enough. A web page in a browser on this machine connects from there too, and so does a proxy or tunnel beside the
   worker. So the `Host` must be one of ours (a loopback name or address, the address that we listen on, a host that the environment
   routes, or one that the operator allows), the `Origin` must be absent or one of those, and the browser must not say that the
   request came from another site, nor anything that we do not know.
3. A request that a proxy passed on (`Forwarded`, `X-Forwarded-*`, `Via`, and what tunnels add) is nobody special.
4. What strangers send is not kept: only short questions of loopback peers are remembered, so many at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from greentic.model.hosts import is_loopback

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", ""})
_PASSED_ON = frozenset({
    b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip", b"cdn-loop", b"fastly-client-ip",
    b"fly-client-ip", b"x-azure-clientip",
})  # fmt: skip
_PASSED_ON_BEGIN = (b"x-forwarded", b"x-original-", b"x-envoy-", b"cf-", b"tailscale-")
OWN_SITE = frozenset({b"", b"same-origin", b"none"})
"""What `Sec-Fetch-Site` may say: nothing, a page of ours, or somebody who typed the address."""
_MANY = 1024
_SHORT = 512
"""Bytes of a question that is remembered."""


class TrustedPeers:
    """Decides about requests; what it was asked before it need not think about again."""

    def __init__(self, hosts: Iterable[str], *, trust_loopback: bool) -> None:
        """`hosts` are names and addresses beside the loopback ones, without ports."""
        self._hosts = _LOCAL_NAMES | {host.lower().strip("[]") for host in hosts}
        self._trust_loopback = trust_loopback
        self._known: dict[tuple[str, bytes, bytes, bytes], bool] = {}

    def trusts(self, peer: str, fields: Mapping[bytes, bytes]) -> bool:
        """Whether the sender of a request is trusted. `peer` is its address, `fields` have names in lower case."""
        if not self._trust_loopback:
            return False
        asked = (peer, fields.get(b"host", b""), fields.get(b"origin", b""), fields.get(b"sec-fetch-site", b""))
        answer = self._known.get(asked)
        if answer is None:
            answer = self._judge(*asked)
            if is_loopback(peer) and sum(map(len, asked)) <= _SHORT:
                if len(self._known) >= _MANY:
                    self._known.clear()
                self._known[asked] = answer
        return answer and not _passed_on(fields)

    def _judge(self, peer: str, host: bytes, origin: bytes, site: bytes) -> bool:
        if not is_loopback(peer) or not self._is_ours(_name(host)):
            return False
        if origin and not self._is_ours(_name(origin.partition(b"://")[2] or b"?")):
            return False
        return site.lower() in OWN_SITE

    def _is_ours(self, name: str) -> bool:
        return name in self._hosts or (name[:4] == "127." and is_loopback(name))


def _passed_on(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a proxy or a tunnel handed a request on (rule 3)."""
    for name in fields:  # noqa: SIM110  asked for every request; a generator costs three times as much
        if name in _PASSED_ON or name.startswith(_PASSED_ON_BEGIN):
            return True
    return False


def _name(authority: bytes) -> str:
    """The host of an authority, without its port and brackets; nothing that could pass for one if it is none."""
    text = authority.decode("latin-1").lower()
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        return name if rest[:1] in ("", ":") and (not rest[1:] or rest[1:].isdigit()) else "?"
    name, _, port = text.partition(":")
    return name.rstrip(".") if not port or port.isdigit() else "?"
