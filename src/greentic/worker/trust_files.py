"""What a document is believed by and does not hold: the trust anchor and the revocation list, followed like the document.

Rules:
1. A change of either is a reason to examine the same document again. What that means is the trust rules' (`materialize/trusted.py`): a
   revision that is revoked now is no longer served; a document that the anchor no longer vouches for is refused, and the old set goes on
   with the reason in `/status`.
2. The anchor is a file and is read at each look. The list may lie anywhere: it is asked for every `LIST_SECONDS`. A list that cannot be had
   is no change, for what was believed of it is kept.
"""

from __future__ import annotations

import contextlib
import hashlib

from greentic.ground.clock import Clock
from greentic.ground.documents import read_file
from greentic.ground.errors import FetchError
from greentic.materialize.remembered import memory_of
from greentic.materialize.trusted import MAX_ANCHOR, Examiner
from greentic.model.environment import Environment
from greentic.net.document import read_small
from greentic.net.terms import Terms
from greentic.store.layout import EnvPaths
from greentic.trust.revocation import MAX_LIST
from greentic.worker.settings import Settings

LIST_SECONDS, ASK_SECONDS = 60.0, 5.0


def examiner_of(paths: EnvPaths, settings: Settings, clock: Clock) -> Examiner:
    """What the documents of a worker's environment are examined by."""
    memory = memory_of(paths, settings.state_directory)
    return Examiner(memory, settings.trust_anchor, settings.terms, clock, settings.allow_rollback)


def shortly(terms: Terms) -> Terms:
    """How a list is asked for while something serves: every other change waits meanwhile, and it is asked for again soon."""
    return terms._replace(total=ASK_SECONDS, tries=1)


class TrustFiles:
    """The newest that was seen of both."""

    def __init__(self, examiner: Examiner) -> None:
        self._anchor, self._clock = examiner.anchor, examiner.clock
        self._terms = shortly(examiner.terms)
        self._ask_at = self._clock.monotonic() + LIST_SECONDS
        lists = examiner.memory.recall().lists
        self._list = lists[0][1] if lists else b""

    def digest(self, env: Environment) -> str:
        """What tells one state of them from another."""
        reference = env.revocation.list_ref
        if reference and self._clock.monotonic() >= self._ask_at:
            with contextlib.suppress(FetchError):  # told where the document is examined
                self._list = read_small(reference, MAX_LIST, self._terms) or self._list
            self._ask_at = self._clock.monotonic() + LIST_SECONDS
        seen = hashlib.sha256(self._list if reference else b"")
        seen.update(self._anchored())
        return seen.hexdigest()

    def _anchored(self) -> bytes:
        if self._anchor is None:
            return b""
        try:
            return read_file(self._anchor, MAX_ANCHOR)
        except (OSError, ValueError) as error:
            return str(error).encode()  # one that is gone is a change, too
