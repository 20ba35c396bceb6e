"""Looks at what is published, beside the loop: a place that does not answer holds up nothing that heals (formats: operator 1).

Rules:
1. One look at a time. What came of it is taken by the loop, which is woken.
2. What was asked for a wish that is another by now, or before the Lease was lost, is dropped and asked anew.
3. Where nothing can be had, the document that the cluster's pods have is what came of it, if the loop has none. A place that has said
   nothing for `SLOW_SECONDS` is not waited for: the loop heals by that document meanwhile.
4. What is not over after `UNANSWERED_SECONDS` is told as trouble then: giving up takes several times as long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from greentic.controller.desired import DesiredDocument, Publication
from greentic.controller.troubles import Trouble, told_as
from greentic.controller.wish import Wish
from greentic.ground.errors import GreenticError
from greentic.k8s.objects import Cluster
from greentic.net.addresses import shown
from greentic.telemetry.tracing import whole

SLOW_SECONDS, UNANSWERED_SECONDS = 2.0, 10.0


class Looked(NamedTuple):
    """What came of a look."""

    found: DesiredDocument | None
    """Nothing if it is the known one, or cannot be had."""
    error: GreenticError | None = None
    """Why it cannot be had."""


class Looking:
    """The looks of one operator; all but the look itself is called by the loop alone."""

    def __init__(self, publication: Publication, wake: Callable[[], None], log: Callable[[str], None]) -> None:
        self._publication, self._wake, self._log = publication, wake, log
        self._thread: threading.Thread | None = None
        self._came: list[Looked | BaseException] = []
        self._offered: list[tuple[threading.Thread | None, DesiredDocument]] = []
        self._unanswered: tuple[threading.Thread, Trouble] | None = None
        self._outdated = self._first = False

    @property
    def starts(self) -> bool:
        """Whether the loop is still to find out what should be: what was told before it started stays until it has."""
        return self.busy and self._first

    @property
    def busy(self) -> bool:
        """Whether a look runs, or what came of one was not taken yet."""
        return self._thread is not None

    def begin(self, wish: Wish, seen: int, cluster: Callable[[], Cluster] | None) -> None:
        """Look; `cluster` is where the document of pods is, if that will do."""

        def look() -> None:
            try:
                with whole("look"):
                    self._came.append(self._look(wish, seen, cluster))
            except BaseException as error:  # noqa: BLE001  the loop ends by it, as by any of its own
                self._came.append(error)
            self._wake()

        self._outdated, self._first = False, cluster is not None
        self._thread = threading.Thread(target=look, daemon=True, name="look")
        self._thread.start()

    def meanwhile(self) -> DesiredDocument | None:
        """The document of pods, once, while the first look takes long (rule 3); what it finds then is newer, or nothing."""
        look, document = self._offered.pop() if self._offered else (None, None)
        if document is None or look is not self._thread or self._outdated:
            return None
        self._first = False
        return document

    def unanswered(self) -> Trouble | None:
        """What there is to say of a look that runs and takes long (rule 4)."""
        if self._unanswered is None or self._unanswered[0] is not self._thread or self._outdated:
            return None
        self._first = False
        return self._unanswered[1]

    def ended(self) -> Looked | None:
        """What came of a look, once; nothing while it runs. An outdated one is as if nothing had come, and `busy` no more (rule 2)."""
        if not self._came:
            return None
        came, self._thread = self._came.pop(), None
        if isinstance(came, BaseException):
            raise came
        if not self._outdated:
            return came
        self._publication.forget()
        return None

    def forget(self) -> None:
        """Read the document anew with the next look, whatever one that runs finds."""
        self._outdated = True
        if not self.busy:
            self._publication.forget()

    def _look(self, wish: Wish, seen: int, cluster: Callable[[], Cluster] | None) -> Looked:
        # believing the document of pods notes its generation, below which nothing is taken
        of_pods = None if cluster is None else self._that_of_pods(wish, seen, cluster)
        this = threading.current_thread()
        timers = (
            threading.Timer(SLOW_SECONDS, self._offer, (this, of_pods)),
            threading.Timer(UNANSWERED_SECONDS, self._say, (this, wish.place)),
        )
        for timer in timers:
            timer.daemon = True
            timer.start()
        try:
            return Looked(self._publication.look(wish, seen))
        except GreenticError as error:
            return Looked(of_pods, error)
        finally:
            for timer in timers:
                timer.cancel()

    def _offer(self, look: threading.Thread, of_pods: DesiredDocument | None) -> None:
        if of_pods is not None:
            self._offered.append((look, of_pods))
            self._wake()

    def _say(self, look: threading.Thread, place: str) -> None:
        told = f"`{shown(place)}` has not answered for {UNANSWERED_SECONDS:.0f} s; it is still waited for"
        self._unanswered = look, Trouble("PublicationUnreachable", told)
        self._wake()

    def _that_of_pods(self, wish: Wish, seen: int, cluster: Callable[[], Cluster]) -> DesiredDocument | None:
        try:
            return self._publication.of_pods(cluster(), wish, seen)
        except GreenticError as error:
            self._log(f"the pods' own document is not used: {told_as(error)}")
            return None
