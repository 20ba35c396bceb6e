"""The storm, small enough for every run: nobody is lost while everything changes (threats: drain-race). `make bench` blows it a million turns long."""

from __future__ import annotations

import pytest

from conftest import need
from storm import storm

TURNS = 50_000
pytestmark = pytest.mark.e2e


def test_threat_drain_race_a_storm_loses_nobody(tmp_path):
    """Revisions flip, weights ramp, the distributor dies and comes back, processes are rolled, one is killed: 0 failed."""
    need("wrk", "wrk")
    with storm(tmp_path) as blowing:
        found = blowing.run(TURNS)
        assert found.turns >= TURNS and found.flips > 20 and found.held
        assert not found.failed, (found, blowing.worker.log.read_text()[-4000:])
        assert blowing.end() == 0
