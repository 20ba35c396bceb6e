"""A pointer to an environment document in a registry, for one that is too large for a ConfigMap (formats: publication 5). Pure.

The pointer names the document by its digest. Where it lies is only where to ask: what comes is that document, or it is refused.
"""

from __future__ import annotations

from greentic.ground.documents import Document, check_each_once, from_json, parse, pretty
from greentic.ground.errors import SpecViolation
from greentic.model.ids import is_digest

POINTER_FILE = "environment-pointer.json"
POINTER_SCHEMA = "greentic.environment-pointer.v1"
MAX_POINTER = 1 << 16


class Pointer(Document, frozen=True, kw_only=True):
    schema: str
    environment_id: str
    repository: str
    """`oci://registry/repository`."""
    document: str
    """The digest of the document."""
    generation: int = 0
    """The document's, for who has to know how old it is while it cannot be had; 0 where nobody counts."""


def pointer_to(environment_id: str, repository: str, document: str, generation: int = 0) -> Pointer:
    return Pointer(
        schema=POINTER_SCHEMA,
        environment_id=environment_id,
        repository=repository,
        document=document,
        generation=generation,
    )


def read_pointer(data: bytes) -> Pointer:
    """Raises `SpecViolation`."""
    try:
        found = from_json(Pointer, parse(data, limit=MAX_POINTER))
        check_each_once(data, pretty(found))
    except ValueError as error:
        raise SpecViolation(f"{POINTER_FILE} does not parse: {error}") from None
    if found.schema != POINTER_SCHEMA:
        raise SpecViolation(f"{POINTER_FILE}: schema `{found.schema[:80]}`, expected `{POINTER_SCHEMA}`")
    if not is_digest(found.document):
        raise SpecViolation(f"{POINTER_FILE}: the document is named by `{found.document[:80]}`, expected its sha256")
    if not found.repository.startswith("oci://"):
        raise SpecViolation(
            f"{POINTER_FILE}: the repository is `{found.repository[:80]}`, expected oci://registry/repository"
        )
    return found
