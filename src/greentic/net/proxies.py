"""Proxies that the usual variables name.

Rules:
1. `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` in both spellings, the lower one first, as the programs of the field read
   them. `NO_PROXY` lists hosts, domains, addresses and networks, each with a port or without; `*` is all.
2. Loopback is never asked through a proxy.
3. A proxy resolves names itself, so the address behind a name cannot be checked: it is checked as text, and said once.
4. Only http proxies are spoken to. One of another kind is done without, and said once.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import msgspec

from greentic.ground import variables
from greentic.ground.digits import whole_number
from greentic.ground.errors import InvalidArgument
from greentic.ground.host_name import ascii_host
from greentic.ground.optional import done_without
from greentic.net.addresses import is_address, parsed, shown


class Proxy(msgspec.Struct, frozen=True):
    """Where a proxy listens."""

    host: str
    port: int
    authorization: str | None
    """The value of `Proxy-Authorization`."""
    variable: str

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port} of {self.variable}"


class Proxies(msgspec.Struct, frozen=True):
    """The proxies of a process."""

    http: Proxy | None = None
    https: Proxy | None = None
    bypass: tuple[str, ...] = ()


NONE = Proxies()


def proxies_of(environ: Mapping[str, str]) -> Proxies:
    """The proxies that the variables name (rule 1). Raises `InvalidArgument` for an address that cannot be read."""
    everything = _proxy("ALL_PROXY", environ)
    return Proxies(
        _proxy("HTTP_PROXY", environ) or everything,
        _proxy("HTTPS_PROXY", environ) or everything,
        tuple(_comparable(p.strip()) for p in variables.either("NO_PROXY", environ).split(",") if p.strip()),
    )


def _comparable(entry: str) -> str:
    """An entry of `NO_PROXY` in lower case and ASCII; one that is no host lets none past."""
    if entry.isascii():
        return entry.lower()
    host = entry.lstrip("*.").partition(":")[0]
    try:
        return entry.replace(host, ascii_host(host), 1)
    except ValueError:
        return entry


def _proxy(variable: str, environ: Mapping[str, str]) -> Proxy | None:
    told = variables.either(variable, environ)
    if not told:
        return None
    text = told if "://" in told else f"http://{told}"
    try:
        parts = urlsplit(text)
        host, port = ascii_host(parts.hostname or ""), parts.port
    except ValueError:
        host, port = "", None
        parts = urlsplit("http:")
    if not host:
        raise InvalidArgument(f"{variable} is no address of a proxy; expected http://host:port")
    if parts.scheme != "http":
        done_without(f"the proxy of {variable}", f"`{shown(text)}` is no http proxy")
        return None
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(host, port or 80, authorization, variable)


def proxy_for(proxies: Proxies, scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy through which a host is asked, if any (rules 1, 2)."""
    found = proxies.https if scheme == "https" else proxies.http
    name = host.lower().rstrip(".")
    address = literal(name)
    if found is None or name == "localhost" or (address is not None and parsed(address).is_loopback):
        return None
    return None if any(_covers(entry, name, address, port) for entry in proxies.bypass) else found


def literal(host: str) -> str | None:
    """The address that a host is, in any spelling that a resolver takes for one (`2852039166`, `0x7f.1`); nothing for a name."""
    if is_address(host.partition("%")[0]):
        return host.partition("%")[0]
    try:
        return str(ipaddress.IPv4Address(socket.inet_aton(host)))
    except (OSError, ValueError):
        return None


def _covers(entry: str, name: str, address: str | None, port: int) -> bool:
    if entry == "*":
        return True
    if address is not None and "/" in entry:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        found = parsed(address)
        return found.version == network.version and found in network
    host, colon, told = entry.rpartition(":")
    if colon and told.isascii() and told.isdigit() and (host.startswith("[") or ":" not in host):
        if whole_number(told, 65535) != port:
            return False
        entry = host
    entry = entry.strip("[]").removeprefix("*").rstrip(".")
    if address is not None:
        return is_address(entry) and parsed(entry) == parsed(address)
    return name == entry.removeprefix(".") or name.endswith(f".{entry.removeprefix('.')}")
