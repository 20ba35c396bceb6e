"""Which bundles this host must be able to serve again without fetching them."""

from __future__ import annotations

from greentic.store.environments import EnvironmentStore


def needed_digests(store: EnvironmentStore) -> frozenset[str]:
    """The bundles that routed or retained revisions need: everything that is not archived, and what retention keeps."""
    found: set[str] = set()
    for env in store.survey()[0]:
        keep = env.retention.keep_revisions
        routed = {e.revision_id for s in env.traffic_splits for e in s.entries}
        archived: dict[str, list[tuple[int, str]]] = {}
        for revision in env.revisions:
            if revision.lifecycle != "archived" or revision.revision_id in routed or keep is None:
                found.add(revision.bundle_digest)
            else:
                archived.setdefault(revision.deployment_id, []).append((revision.sequence, revision.bundle_digest))
        for entries in archived.values():
            found |= {digest for _, digest in sorted(entries, reverse=True)[:keep]}
    return frozenset(found)
