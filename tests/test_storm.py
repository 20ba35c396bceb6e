"""The storm, small enough for every run: nobody is lost while everything changes (threats: drain-race). `make bench` blows it a million turns long."""

from __future__ import annotations

import http.client
import signal

import pytest

from conftest import need
from storm import Worker, listens, storm
from waiting import until

TURNS = 50_000
pytestmark = pytest.mark.e2e


def test_threat_drain_race_a_storm_loses_nobody(tmp_path):
    """Revisions flip, weights ramp, the distributor dies and comes back, processes are rolled, one is killed: 0 failed."""
    need("wrk", "wrk")
    with storm(tmp_path) as blowing:
        found = blowing.run(TURNS)
        assert found.turns >= TURNS and found.flips > 5 and found.held
        assert not found.failed, (found, blowing.worker.log.read_text()[-4000:])
        assert blowing.end() == 0


def test_threat_drain_race_a_worker_that_is_asked_to_stop_loses_nobody(tmp_path, author, hello):
    """Not ready first, then polite: kept connections are answered and told to close, new ones are accepted, and the exit code is 0."""
    author.create()
    author.deployed(hello, hello.as_uri())
    worker = Worker(tmp_path / "worker", author.context.store.paths("local").environment.read_bytes(), processes=1)
    kept = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=30)
    assert asked(kept, "/readyz")[:2] == (200, None)
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: asked(http.client.HTTPConnection("127.0.0.1", worker.port, timeout=30), "/readyz")[0] == 503, "not ready")  # fmt: skip
    assert asked(http.client.HTTPConnection("127.0.0.1", worker.port, timeout=30), "/livez")[:2] == (200, "close")
    assert asked(kept, "/livez") == (200, "close", b"ok")
    assert worker.process.wait(60) == 0 and not listens(worker.port)


def asked(connection: http.client.HTTPConnection, path: str) -> tuple[int, str | None, bytes]:
    """Status, what is said of the connection, and body."""
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.headers.get("connection"), answer.read()
