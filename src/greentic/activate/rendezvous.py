"""Which revision of a deployment a client belongs to: weighted rendezvous hashing. Pure.

Rules:
1. Every revision gets a score from a hash of (deployment, client, revision) and its weight; the highest score has the client. So every
   replica decides the same without asking anybody, and a client stays while the weights do.
2. The score of a revision depends on its own weight alone. Raising one revision moves clients only to it, lowering it moves only its
   own away, and those who came with a raise go back with its undoing, exactly.
3. A share is right to the basis point: of many clients, `weight / sum of weights` belong to a revision. A weight of zero has nobody.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

_SCALE = 2.0**-64


def chosen(deployment_id: str, client: bytes, weights: Sequence[tuple[str, int]]) -> str | None:
    """The revision that a client belongs to; nothing if no weight is above zero. `weights` are (revision id, basis points)."""
    if len(weights) == 1 and weights[0][1] > 0:
        return weights[0][0]  # whatever the score
    best: str | None = None
    highest = -1.0
    asker = hashlib.blake2b(client, digest_size=32, salt=_salt(deployment_id)).digest()
    for revision_id, weight in weights:
        if weight <= 0:
            continue
        score = weight / -math.log(_fraction(asker, revision_id))
        if score > highest or (score == highest and best is not None and revision_id < best):
            best, highest = revision_id, score
    return best


def drawn_into(deployment_id: str, client: bytes, name: str, share: float) -> bool:
    """Whether a client is among a share of all that is drawn under a name; a larger share keeps whom a smaller one had."""
    asker = hashlib.blake2b(client, digest_size=32, salt=_salt(deployment_id)).digest()
    return _fraction(asker, name) < share


def _fraction(asker: bytes, revision_id: str) -> float:
    """A number in (0, 1) that is uniform over clients, and independent from revision to revision."""
    drawn = int.from_bytes(hashlib.blake2b(revision_id.encode(), key=asker, digest_size=8).digest(), "big")
    return min((drawn + 0.5) * _SCALE, 1.0 - 2.0**-53)


def _salt(deployment_id: str) -> bytes:
    return hashlib.blake2b(deployment_id.encode(), digest_size=16).digest()
