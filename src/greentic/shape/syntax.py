"""How Kubernetes writes names, labels, hosts and quantities, and what is told of a text that does not follow. Pure.

Rules:
1. What is accepted here an API server accepts, and the other way round, but for what is a mistake in an answer: parts of a byte, and
   CPU finer than a thousandth.
2. A quantity is written as a server writes it back (`1024Mi` is `1Gi`, `0.5` is `500m`), so that a comparison finds nothing to change.
3. Each refusal says where (`router.resources.limits.cpu`), what was found and what was expected.
"""

from __future__ import annotations

import ipaddress
import re
from fractions import Fraction
from typing import NamedTuple

from greentic.ground.errors import Conflict

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\Z")
_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\Z")
_QUANTITY = re.compile(r"\+?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?[0-9]{1,2}|)\Z")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_UNIT = {unit: Fraction(1024) ** i for i, unit in enumerate(_BINARY)} | {
    unit: Fraction(1000) ** (i - 3) for i, unit in enumerate(_DECIMAL)
}
_LARGEST = 1 << 63
MAX_NAME = 253


def invalid(message: str, hint: str | None = None) -> Conflict:
    """The refusal of an answer."""
    return Conflict(f"invalid binding answers: {message}", hint=hint)


class Quantity(NamedTuple):
    """An amount of a resource."""

    value: Fraction
    text: str
    """As a server writes it (rule 2)."""


def quantity(given: str | int | float, where: str) -> Quantity:
    """The quantity of a text or number. Raises `Conflict`."""
    found = _QUANTITY.match(str(given).strip()) if not isinstance(given, bool) else None
    if found is None:
        raise invalid(f"{where}: `{given}` is no quantity such as 250m, 1 or 512Mi")
    number, unit = found[1], found[2]
    factor = _UNIT[unit] if unit in _UNIT else Fraction(10) ** int(unit[1:])
    value = Fraction(number.rstrip(".") if number != "." else "0") * factor
    if value * 10**9 != int(value * 10**9) or value >= _LARGEST:
        raise invalid(f"{where}: `{given}` is finer or larger than a cluster can count")
    binary = unit.endswith("i") and value == int(value)
    return Quantity(
        value, _text(value, Fraction(1), 1024, _BINARY) if binary else _text(value, Fraction(1, 10**9), 1000, _DECIMAL)
    )


def _text(value: Fraction, smallest: Fraction, step: int, units: tuple[str, ...]) -> str:
    if not value:
        return "0"
    count, place = int(value / smallest), 0
    while place + 1 < len(units) and count % step == 0:
        count, place = count // step, place + 1
    return f"{count}{units[place]}"


def object_name(text: str, where: str) -> str:
    """The name of most objects: a DNS subdomain. Raises `Conflict`."""
    if len(text) > MAX_NAME or not _SUBDOMAIN.match(text):
        raise invalid(f"{where}: `{text}` is not a valid name of a Kubernetes object (a-z, 0-9, `-`, `.`)")
    return text


def is_dns_label(text: str) -> bool:
    """Whether a text is one label of a name: RFC 1123."""
    return bool(_LABEL.match(text))


def is_label_value(text: str) -> bool:
    """Whether a text, which is not empty, can be the value of a label."""
    return bool(_PART.match(text))


def namespace_name(text: str, where: str) -> str:
    """The name of a namespace: a DNS label. Raises `Conflict`."""
    if not is_dns_label(text):
        raise invalid(f"{where}: `{text}` is not a valid RFC 1123 label")
    return text


def qualified(key: str, where: str) -> str:
    """The key of a label, an annotation or a resource: `name` or `domain/name`. Raises `Conflict`."""
    prefix, slash, name = key.rpartition("/")
    if not _PART.match(name) or (slash and (len(prefix) > MAX_NAME or not _SUBDOMAIN.match(prefix))):
        raise invalid(f"{where}: `{key}` is no key such as `team` or `example.com/team`")
    return key


def label_value(text: str, where: str) -> str:
    """The value of a label; it may be empty. Raises `Conflict`."""
    if text and not is_label_value(text):
        raise invalid(f"{where}: `{text}` is no value of a label (at most 63 of A-Z, a-z, 0-9, `-`, `_`, `.`)")
    return text


def host_name(text: str, where: str) -> str:
    """A name that requests ask for, in lower case; `*.` may stand before it. Raises `Conflict`."""
    name = text.lower()
    if "://" in name:
        raise invalid(
            f"{where}: `{text}` has a scheme", f"write the name alone: {name.partition('://')[2].split('/')[0]}"
        )
    if any(c in name for c in "/?#"):
        raise invalid(f"{where}: `{text}` has a path; write the name alone")
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        pass
    else:
        raise invalid(f"{where}: `{text}` is an address; expected a name")
    if ":" in name:
        raise invalid(f"{where}: `{text}` has a port; write the name alone")
    plain = name.removeprefix("*.")
    if len(name) > MAX_NAME or not _SUBDOMAIN.match(plain) or any(len(part) > 63 for part in plain.split(".")):
        raise invalid(f"{where}: `{text}` is no host name such as bots.example.com or *.example.com")
    return name
