"""A copy of a document that pods are only pointed to, in the operator's namespace (formats: operator 1).

A small document lies in the ConfigMap that pods read, so an operator that starts while its registry is away heals by that. A large one
lies in that registry; its copy is for the operator alone.

Rules:
1. What lies there is believed as any other document is: it is the one that the pointer names, by its digest, and sealed.
2. It is written once what points to it is applied, and only where another one lies there. That it cannot be written is told in the log
   and stops nothing: it is for a bad day.
3. It goes with the wish. It has no label of an environment, so that nothing prunes it, and nothing compares it.
"""

from __future__ import annotations

import binascii
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable

from greentic.ground.documents import JsonObject, compact
from greentic.ground.errors import GreenticError
from greentic.k8s.objects import Cluster, Ref, member, metadata_of
from greentic.k8s.render import MAX_DATA
from greentic.model.environment import Environment, document_digest
from greentic.model.pointer import POINTER_FILE, read_pointer
from greentic.publication.artifact import MAX_ENVIRONMENT, document_tag, press

KEPT = "greentic-operator-document"
_ENDING = ".gz"


def kept(cluster: Cluster, namespace: str, digest: str) -> bytes | None:
    """The document with this digest, if it lies there (rule 1)."""
    thing = cluster.get(Ref("ConfigMap", KEPT, namespace))
    packed = None if thing is None else member(thing, "binaryData").get(_key(digest))
    if not isinstance(packed, str):
        return None
    try:
        data = zlib.decompressobj(31).decompress(b64decode(packed), MAX_ENVIRONMENT)
    except (binascii.Error, zlib.error):
        return None
    return data if document_digest(data) == digest else None


def keep(
    cluster: Cluster, wish: JsonObject, env_store: JsonObject, env: Environment, log: Callable[[str], None]
) -> None:
    """Keep a copy of the document that the applied `gtc-env-store` points to, if it does (rule 2)."""
    namespace = str(metadata_of(wish).get("namespace"))
    pointer = member(env_store, "data").get(POINTER_FILE)
    if not isinstance(pointer, str):
        return
    digest = read_pointer(pointer.encode()).document
    try:
        thing = cluster.get(Ref("ConfigMap", KEPT, namespace))
        if thing is not None and _key(digest) in member(thing, "binaryData"):
            return
        packed = press(compact(env)).layer
        if len(_key(digest)) + len(packed) > MAX_DATA:
            log(f"document {digest} has {len(packed)} bytes, compressed, and no ConfigMap holds a copy of it")
            return
        cluster.apply(_holding(wish, namespace, _key(digest), packed), force=True)
    except GreenticError as error:
        log(f"no copy of document {digest} is kept: {error.message}")


def _key(digest: str) -> str:
    return f"{document_tag(digest)}{_ENDING}"


def _holding(wish: JsonObject, namespace: str, key: str, packed: bytes) -> JsonObject:
    """The ConfigMap, which the server takes away with the wish (rule 3)."""
    owner: JsonObject = {
        "apiVersion": str(wish.get("apiVersion") or "v1"),
        "kind": str(wish.get("kind")),
        "name": str(metadata_of(wish).get("name")),
        "uid": str(metadata_of(wish).get("uid")),
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": KEPT, "namespace": namespace, "ownerReferences": [owner]},
        "binaryData": {key: b64encode(packed).decode()},
    }
