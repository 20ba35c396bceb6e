"""Addresses and URLs that an environment carries (formats: environment 3)."""

from __future__ import annotations

import ipaddress

from greentic.ground.digits import whole_number
from greentic.ground.errors import SpecViolation

DEFAULT_LISTEN = "127.0.0.1:8080"
MAX_PORT = 65535


def split_listen_addr(text: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8080` or `[::1]:8443`. Raises `ValueError`."""
    host, colon, port = text.rpartition(":")
    number = whole_number(port, MAX_PORT)
    if not colon or number is None or len(port) > 5:
        raise ValueError("invalid socket address syntax")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError("invalid socket address syntax") from None
    if bracketed != (address.version == 6):
        raise ValueError("invalid socket address syntax")
    return str(address), number


def join_listen_addr(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_public_base_url(url: str) -> str:
    """The origin without a trailing slash. Raises `SpecViolation` with the first rule that it breaks."""

    def refuse(reason: str) -> SpecViolation:
        return SpecViolation(f"public_base_url `{url}` is invalid: {reason}")

    text = url.strip()
    if not text:
        raise refuse("must not be empty")
    if any(c.isspace() for c in text):
        raise refuse("must not contain whitespace")
    if any(ord(c) < 33 or ord(c) > 126 or c in '<>"{}|\\^`' for c in text):
        raise refuse("is not a valid URI")
    scheme, colon, rest = text.partition("://")
    if not colon or scheme.lower() not in ("http", "https"):
        raise refuse("must start with http:// or https://")
    authority = rest
    for mark in "/?#":
        authority = authority.partition(mark)[0]
    tail = rest[len(authority) :]
    if not authority:
        raise refuse("must include a host")
    if "@" in authority:
        raise refuse("must not include userinfo")
    host, port = _split_authority(authority)
    if not host:
        raise refuse("must include a host")
    if port is not None and whole_number(port, MAX_PORT) is None:
        raise refuse("port is not a valid number")
    if "?" in tail.partition("#")[0]:
        raise refuse("must not include a query string")
    if "#" in tail:
        raise refuse("must not include a fragment")
    if tail not in ("", "/"):
        raise refuse("must be an origin without a path")
    return text.rstrip("/")


def _split_authority(authority: str) -> tuple[str, str | None]:
    if authority.startswith("["):
        host, bracket, rest = authority.partition("]")
        if not bracket:
            return "", None
        return host[1:], rest[1:] if rest.startswith(":") else (rest or None)
    host, colon, port = authority.partition(":")
    return host, port if colon else None


def host_without_port(header: str) -> str:
    """The `Host` header in lower case, without its port; brackets of an IPv6 literal respected."""
    text = header.strip().lower()
    if text.startswith("["):
        return text[: text.find("]") + 1] if "]" in text else text
    return text.partition(":")[0]


def is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
