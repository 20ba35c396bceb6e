"""A document that a worker may come to serve: read, but nothing acted on yet (threats: refused-import).

Rules:
1. It comes from the seed directory where there is one, else from the store. It is parsed and validated, and must be of the environment
   that this worker serves. A seed may hold a pointer instead, ours or the existing deployer's: the document comes from a registry then,
   and is the one of that digest.
2. What the seed brings is placed in the store only by `adopt`, which whoever checked the document calls.
3. Two candidates with the same digest are the same. It is the document's own (`document_digest`), unless a seed without a document adds
   to it.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from greentic.ground.documents import read_file
from greentic.ground.errors import BootError, GreenticError, NotFound
from greentic.materialize.seed import SEED_POINTER, Seed, place_seed, read_seed
from greentic.model.elements import Elements
from greentic.model.environment import DOCUMENT, Environment, document_digest
from greentic.model.pointer import MAX_POINTER, POINTER_FILE, read_pointer
from greentic.net.terms import Terms
from greentic.store.environments import EnvironmentStore, document_bytes, environment_of
from greentic.store.layout import EnvPaths
from greentic.worker.settings import Settings


class Candidate(NamedTuple):
    """A document, with where it came from."""

    env: Environment
    digest: str
    seed: Seed | None
    trust: str = ""
    """The state of what it is believed by and does not hold (`worker/trust_files.py`)."""

    def adopt(self, paths: EnvPaths) -> None:
        """Place what the seed brought (rule 2). Raises `BootError`."""
        if self.seed is not None:
            place_seed(self.seed, paths.root)


def _pointed(seed: Seed, paths: EnvPaths, terms: Terms) -> bytes | None:
    """The document that a seed only points to; one that is in the store already is not asked for again. Raises `GreenticError`."""
    document, own = seed.file(DOCUMENT), seed.file(POINTER_FILE)
    if document is not None and SEED_POINTER in document[:MAX_POINTER]:
        from greentic.publication.seed_pointer import read_seed_pointer, read_seeded

        theirs = read_seed_pointer(document)
        return None if theirs is None else _kept(paths, theirs.document) or read_seeded(theirs, terms)
    if document is None and own is not None:
        from greentic.publication.pointed import read_pointed

        pointer = read_pointer(own)
        return _kept(paths, pointer.document) or read_pointed(pointer, terms)
    return None


def _kept(paths: EnvPaths, digest: str) -> bytes | None:
    """The document of the store, if it is this one."""
    with contextlib.suppress(OSError, ValueError):
        kept = read_file(paths.environment)
        if document_digest(kept) == digest:
            return kept
    return None


def read_candidate(store: EnvironmentStore, settings: Settings, elements: Elements | None = None) -> Candidate:
    """The document that is there now (rule 1); `elements` are those of the one before. Raises `BootError`, whose cause is the reason."""
    name = settings.env_id
    paths = store.paths(name)
    context = f"loading environment `{name}` for bundle-less boot"
    seed = None if settings.seed is None else read_seed(settings.seed, paths.root)
    # What is wrong is mended where it came from: in the seed, not in the store that it is not placed in.
    told, added = (settings.seed or paths.root) / DOCUMENT, b""
    try:
        data = None if seed is None else seed.file(DOCUMENT)
        if seed is not None and (pointed := _pointed(seed, paths, settings.terms)) is not None:
            told = told if data is not None else told.with_name(POINTER_FILE)
            data, seed = pointed, seed.with_file(DOCUMENT, pointed)
        if data is None:
            added = b"" if seed is None else b"".join(content for _, content in seed.files)
            told = store.existing(name).environment
            data = document_bytes(told)
        env = environment_of(data, told, name, elements)
    except NotFound as error:
        missing = NotFound(f"environment `{name}` not found in `{store.root}`", hint=error.hint)
        raise BootError(context) from missing
    except OSError as error:
        raise BootError(f"{context}: `{paths.environment}`: {error.strerror}") from error
    except GreenticError as error:
        raise BootError(context) from error
    return Candidate(env, document_digest(data + added), seed)
