"""The log: shapes of a line, requests that are named, components that say too much, the access log."""

from __future__ import annotations

import http.client
import io
import json
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Author, make_bundle
from greentic.ground.errors import BootError
from greentic.operate.change import Context
from greentic.store.environments import EnvironmentStore
from greentic.telemetry import request_id
from greentic.telemetry.component_output import ComponentOutput
from greentic.telemetry.line_measure import AT_ONCE, EACH_SECOND, MANY
from greentic.telemetry.log import LOOK_SECONDS, OF_REQUESTS_EACH_SECOND, OperatorLog
from greentic.telemetry.log_lines import Record, json_line, text_line
from greentic.telemetry.tallies import TALLIES
from greentic.worker import settings
from simulators import FakeClock
from storm import made_pack
from test_programs import Worker


@given(st.text(max_size=200), st.text(max_size=50))
def test_a_record_is_one_inert_line_in_both_shapes(message, value):
    record = Record("t", "Warn", "m", message, b"r-1", {"path": value, "code": 200, "message": "not this"})
    for line in (text_line(record), json_line(record)):
        assert line.endswith("\n") and not re.search(
            r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", line[:-1]
        )
        assert len(line.splitlines()) == 1
        line.encode()
    told = json.loads(json_line(record))
    assert list(told) == ["time", "level", "source", "message", "request_id", "path", "code"]
    assert (told["level"], told["source"], told["request_id"], told["code"]) == ("warn", "greentic.m", "r-1", 200)
    assert told["message"] != "not this" or message == "not this"
    assert text_line(record).startswith("t [Warn] greentic.m - ") and text_line(record).endswith(" [r-1]\n")


def test_threat_log_injection_nothing_turns_the_direction_of_a_line():
    turned = "refused \u202egniht-yna\u202c \u2066x\u2069 \u061c\u200f"
    for line in (
        text_line(Record("t", "Info", "m", turned)),
        json_line(Record("t", "Info", "m", turned, None, {"v": turned})),
    ):
        assert line.isascii() and "202e" in line and "gniht-yna" in line


def test_stderr_has_what_people_must_see_or_everything_as_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for shape, told in (("text", ["seen", "loud"]), ("json", ["quiet", "seen", "loud"])):
        stderr = io.StringIO()
        log = OperatorLog(tmp_path / shape, FakeClock(), stderr=stderr, shape=shape)
        log.info("m", "quiet", number=1)
        log.info("m", "seen", show=True)
        log.warn("m", "loud")
        lines = stderr.getvalue().splitlines()
        assert [json.loads(line)["message"] if shape == "json" else line.rpartition(" - ")[2] for line in lines] == told
        assert len((tmp_path / shape / "operator.log").read_text().splitlines()) == 3
    (tmp_path / "file").write_text("")
    stderr = io.StringIO()
    OperatorLog(tmp_path / "file", FakeClock(), stderr=stderr, shape="json")
    assert "unable to write operator.log" in json.loads(stderr.getvalue().splitlines()[0])["message"]


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_log_that_was_rotated_goes_on_in_a_file_of_its_name(tmp_path, how):
    """`logrotate` moves the file aside: the worker wrote on in that one, also when it had been deleted, until its end."""
    clock, logs, name = FakeClock(), tmp_path / "env" / "logs", "operator.log"
    log = OperatorLog(logs, clock, stderr=io.StringIO())
    log.info("m", "before")
    if how == "moved":
        (logs / name).rename(logs / "operator.log.1")
    else:
        (logs / name).unlink()
    clock.sleep(LOOK_SECONDS)
    log.info("m", "behind")
    log.info("m", "later")
    told = (logs / name).read_text()
    assert "before" not in told and told.index("behind") < told.index("later") and log.dropped == 0
    assert how == "deleted" or "behind" not in (logs / "operator.log.1").read_text()


def test_no_directory_is_made_where_a_store_was_moved_away(tmp_path):
    clock = FakeClock()
    log = OperatorLog(tmp_path / "env" / "logs", clock, stderr=io.StringIO())
    (tmp_path / "env").rename(tmp_path / "away")
    clock.sleep(LOOK_SECONDS)
    log.info("m", "meanwhile")
    assert not (tmp_path / "env").exists() and "meanwhile" in (tmp_path / "away/logs/operator.log").read_text()
    (tmp_path / "away").rename(tmp_path / "env")
    clock.sleep(LOOK_SECONDS)
    log.info("m", "back")
    assert len((tmp_path / "env/logs/operator.log").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("stated", "taken"),
    [
        (b"abc-1.2:3/4=", True), (b"x" * 128, True), (b"x" * 129, False), (b"", False), (b"-x", False), (b"a b", False), (b'a"b', False),
        (b"a\x1b[31m", False), (b"\xe4", False), (None, False), (b"a,b", False), (b"<script>", False),
    ],
)  # fmt: skip
def test_threat_log_injection_only_an_inert_request_id_is_taken(stated, taken):
    found = request_id.begin(stated)
    assert (found == stated) == taken and re.fullmatch(rb"[A-Za-z0-9][A-Za-z0-9._:+=/-]{0,127}", found)
    assert request_id.begin(None) != request_id.begin(None)


def test_threat_log_flood_a_component_that_says_too_much_is_cut_and_counted(tmp_path):
    clock, stderr = FakeClock(), io.StringIO()
    output = ComponentOutput(OperatorLog(tmp_path, clock, stderr=stderr, shape="json"), clock)
    TALLIES.forget()
    request_id.go_on(None)
    told = threading.Thread(target=lambda: [output("loud", "stdout", f"{n}") for n in range(1_000)])
    told.start()
    told.join()
    output("calm", "stderr", "one")
    lines = [json.loads(line) for line in stderr.getvalue().splitlines()]
    assert len(lines) == AT_ONCE + 1 and TALLIES.of("greentic_log_lines_dropped", ("component",)) == 1_000 - AT_ONCE
    assert lines[-1] | {"time": ""} == {
        "time": "", "level": "info", "source": "greentic.component", "message": "component calm (stderr): one", "component": "calm", "stream": "stderr",
    }  # fmt: skip
    clock.sleep(1.0)
    output("loud", "stdout", "again")
    later = [json.loads(line) for line in stderr.getvalue().splitlines()][len(lines) :]
    assert [line["message"] for line in later] == [
        f"component loud: {1_000 - int(AT_ONCE)} lines were left out",
        "component loud (stdout): again",
    ]
    assert EACH_SECOND >= 1
    for n in range(MANY + 50):
        output(f"c{n}", "stdout", "x")
    assert len(output._measure._measures) == MANY + 1  # and one for all others


def test_threat_log_flood_requests_that_fail_alike_are_cut_and_counted(tmp_path):
    """While Redis was away each message was a line: 2,400 a second."""
    TALLIES.forget()
    clock, stderr = FakeClock(), io.StringIO()
    log = OperatorLog(tmp_path, clock, stderr=stderr, shape="json")
    try:
        request_id.begin(b"r-1")
        for number in range(1_000):
            log.warn("turn", f"flow main: failed {number}")
            log.info("access", f"{number}")  # who asks for a line for each request gets it
        log.error("serve", "deployment `D`: another thing")
        clock.sleep(1 / OF_REQUESTS_EACH_SECOND)
        log.warn("turn", "flow main: failed again")
        request_id.go_on(None)
        for number in range(1_000):
            log.warn("follow", f"not of a request: {number}")
    finally:
        request_id.go_on(None)
    told = [json.loads(line) for line in stderr.getvalue().splitlines()]
    of = {
        source: [t["message"] for t in told if t["source"] == f"greentic.{source}"]
        for source in ("turn", "access", "serve", "follow")
    }
    left_out = 1_000 - int(AT_ONCE)
    assert of["turn"][-1] == f"flow main: failed again ({left_out} lines like this were left out before it)"
    assert [len(lines) for lines in of.values()] == [AT_ONCE + 1, 1_000, 1, 1_000]
    assert TALLIES.of("greentic_log_lines_dropped", ("request",)) == left_out
    assert len((tmp_path / "operator.log").read_text().splitlines()) == len(told)


@pytest.mark.parametrize(
    ("words", "environ", "shape"),
    [
        ((None, False), {}, None), (("json", True), {}, "json"), ((None, False), {"GREENTIC_LOG_FORMAT": "text"}, "text"),
        (("text", False), {"GREENTIC_LOG_FORMAT": "json"}, "text"), ((None, False), {"GREENTIC_LOG_FORMAT": "xml"}, BootError),
    ],
)  # fmt: skip
def test_the_shape_that_is_asked_for(words, environ, shape):
    options = settings.StartOptions("local", log_format=words[0], access_log=words[1])
    if shape is BootError:
        with pytest.raises(BootError, match="GREENTIC_LOG_FORMAT"):
            settings.read_settings(options, {"HOME": "/h", **environ})
        return
    told = settings.read_settings(options, {"HOME": "/h", **environ})
    assert told.log_shape == shape and told.ingress.access_log == words[1]
    assert ("--access-log" in options.arguments(), "--log-format" in options.arguments()) == (
        words[1],
        words[0] is not None,
    )


@pytest.mark.e2e
def test_a_worker_tells_json_lines_with_the_request_that_is_in_the_answer(tmp_path):
    author = Author(Context(EnvironmentStore(tmp_path / "store"))).create()
    bundle = make_bundle(tmp_path, {"app": made_pack(0)})
    author.deployed(bundle, bundle.as_uri())
    worker = Worker(
        tmp_path / "store", tmp_path, "--access-log", "--workers", "2", GREENTIC_SECRET_PLANTED="planted-9d1c"
    )
    try:
        connection = http.client.HTTPConnection("127.0.0.1", worker.port(), timeout=30)
        ids = []
        for stated, path in (("my-id.7", "/"), ("bad id\x7f", "/x?token=planted-9d1c"), (None, "/livez")):
            headers = {} if stated is None else {"X-Request-Id": stated.replace("\x7f", " ")}
            connection.request(
                "GET" if path == "/livez" else "POST", path, None if path == "/livez" else b'{"text":"hi"}', headers
            )
            answer = connection.getresponse()
            answer.read()
            ids.append(answer.getheader("x-request-id"))
            assert answer.status == 200
        assert ids[0] == "my-id.7" and len(set(ids)) == 3 and " " not in ids[1]
        connection.close()
    finally:
        assert worker.stop() == 0
    lines = [line for line in worker.out.read_text().splitlines() if line.startswith("{")]
    told = [json.loads(line) for line in lines]
    access = {r["request_id"]: r for r in told if r["source"] == "greentic.access"}
    assert [access[i]["path"] for i in ids] == ["/", "/x", "/livez"] and {r["code"] for r in access.values()} == {200}
    assert all(r["seconds"] >= 0 and r["peer"] == "127.0.0.1" for r in access.values())
    served = author.context.store.load("local").revisions[0]
    names = [(access[i]["deployment"], access[i]["revision"]) for i in ids]
    assert names == [(served.deployment_id, served.revision_id)] * 2 + [(None, None)]
    assert any(r["message"].startswith("serving 1 revision(s)") for r in told)
    assert "planted-9d1c" not in worker.out.read_text()
    operator = (tmp_path / "store" / "local" / "logs" / "operator.log").read_text()
    assert "[Info] greentic.access - 127.0.0.1 POST / 200" in operator and "[my-id.7]" in operator
