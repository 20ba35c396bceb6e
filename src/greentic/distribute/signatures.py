"""Signatures that stand beside a bundle, wherever that is.

A file and a web server have them at the bundle's address with `.sig` behind it, a registry as referrers of its manifest.
Having none is no error; what they prove is not decided here.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from greentic.distribute.publish import SIGNATURE, SIGNATURE_SUFFIX
from greentic.ground import variables
from greentic.ground.errors import FetchError
from greentic.net.addresses import REGISTRIES, WEB, lower_scheme, shown
from greentic.net.document import read_small
from greentic.net.terms import Terms
from greentic.registry.client import Registry
from greentic.registry.manifests import resolve_manifest
from greentic.registry.reference import mapped
from greentic.registry.referrers import attached

MAX_SIGNATURE = 1 << 20


def signatures_at(reference: str, terms: Terms) -> list[bytes]:
    """The signature files of a bundle. Raises `FetchError` for a place that cannot be asked."""
    reference = lower_scheme(reference)
    if reference.startswith(REGISTRIES):
        environ = variables.environment()
        registry = Registry(mapped(reference, environ), terms, environ)
        subject = resolve_manifest(registry, registry.reference.wanted)
        return attached(registry, subject.digest, SIGNATURE, MAX_SIGNATURE)
    data = read_small(_beside(reference), MAX_SIGNATURE, terms)
    return [] if data is None else [data]


def _beside(reference: str) -> str:
    if not reference.startswith(WEB):
        return f"{reference}{SIGNATURE_SUFFIX}"
    try:
        parts = urlsplit(reference)
    except ValueError as error:
        raise FetchError(f"`{shown(reference)}` is no address: {error}") from None
    return urlunsplit(parts._replace(path=f"{parts.path}{SIGNATURE_SUFFIX}"))
