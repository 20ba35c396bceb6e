"""A cookie of the form that other workers write; ours read it and write another."""

from __future__ import annotations

import base64
import hashlib
import hmac

import msgspec

from greentic.activate.dispatch import AffinityCookie


def make_cookie(affinity: AffinityCookie | None, key: bytes) -> str:
    body = _b64(msgspec.json.encode(affinity))
    return f"{body}.{_b64(hmac.digest(key, body.encode(), hashlib.sha256))}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
