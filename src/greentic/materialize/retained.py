"""Which bundles this host must be able to serve again without fetching them."""

from __future__ import annotations

import re

from greentic.ground.documents import open_file
from greentic.materialize.retention import needed_bundles
from greentic.model.environment import DOCUMENT
from greentic.model.ids import DIGEST
from greentic.store.environments import MAX_DOCUMENT, EnvironmentStore
from greentic.store.in_use import in_use

_DIGEST = re.compile(DIGEST.encode())


def needed_digests(store: EnvironmentStore) -> frozenset[str]:
    """The bundles that needed revisions of all environments have. Of a document that does not load, every digest that stands in it."""
    found: set[str] = set()
    good, broken = store.survey()
    for env in good:
        held = in_use(store.paths(env.environment_id).in_use, store.clock)
        everything = frozenset(r.revision_id for r in env.revisions)
        found |= needed_bundles(env, everything if held is None else held)
    for one in broken:
        with open_file(store.root / one.environment_id / DOCUMENT) as file:
            found.update(digest.decode() for digest in _DIGEST.findall(file.read(MAX_DOCUMENT)))
    return frozenset(found)
