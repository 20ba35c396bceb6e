"""What the log says while bundles are pulled; a program that draws for people adds its view (`terminal/pull_view.py`)."""

from __future__ import annotations

from greentic.distribute.fetch import Fetched
from greentic.ground.clock import CLOCK
from greentic.materialize.pull import Moved
from greentic.model.environment import Revision
from greentic.net.addresses import shown
from greentic.telemetry.log import OperatorLog

_EVERY_SECONDS = 5.0


class LoggedPull:
    """Tells the log: a line when a download begins, and one every few seconds."""

    def __init__(self, log: OperatorLog) -> None:
        self._log = log

    def pulling(self, reference: str) -> Moved:
        self._log.info("pull", f"pulling {reference}", show=True)
        told = CLOCK.monotonic()

        def moved(done: int, total: int | None) -> None:
            nonlocal told
            if CLOCK.monotonic() - told >= _EVERY_SECONDS:
                told = CLOCK.monotonic()
                of = "" if total is None else f" of {total / 2**20:.1f} MiB"
                self._log.info("pull", f"pulling {reference}: {done / 2**20:.1f} MiB{of}", show=True)

        return moved

    def passed_over(self, revision: Revision, reference: str, why: str) -> None:
        self._log.warn("pull", f"`{reference}` does not have the bundle of revision `{revision.revision_id}`: {why}")

    def here_already(self, revision: Revision) -> None:
        self._log.info("pull", f"revision `{revision.revision_id}`: the bundle was here already", show=True)

    def resumed(self, revision: Revision, fetched: Fetched) -> None:
        self._log.info(
            "pull",
            f"resumed {shown(revision.bundle_source_uri or '')}: {fetched.moved} bytes fetched, "
            f"{fetched.resumed} of {fetched.size} were here",
            show=True,
        )

    def close(self) -> None:
        """Nothing is left open."""
