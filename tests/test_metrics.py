"""Metrics: families and text, processes that add up, and a real Prometheus that counts what was sent."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

from conftest import Author, make_bundle, need
from greentic.ground.errors import BootError, Conflict
from greentic.ground.optional import forget, lacking
from greentic.httpd.front import Answer
from greentic.httpd.http1 import Incoming, read_head
from greentic.ingress import metrics as told_by_metrics
from greentic.ingress.metrics import Metrics, answered
from greentic.operate.change import Context
from greentic.store.environments import EnvironmentStore
from greentic.telemetry.counts import BOUNDS, Counts
from greentic.telemetry.exposition import MAX_VALUE, OPEN, PLAIN, chosen, text
from greentic.telemetry.families import FAMILIES, OTHER
from greentic.telemetry.readings import FRAME_ROWS, NoSiblings, Others, Readings, Row, Told, packed, unpacked
from greentic.telemetry.siblings import SharedReadings, fold, leave_first
from greentic.telemetry.signals import METRICS
from greentic.telemetry.tallies import Tallies
from greentic.worker import settings
from storm import made_pack
from test_programs import Worker, ask
from waiting import until

HISTOGRAM = [*range(len(BOUNDS) + 1), 2.5]


def one_of_each(value: float = 2) -> list[Row]:
    """A row of every family there is."""
    return [
        (
            f.name,
            tuple(f"v{n}" for n, _ in enumerate(f.labels)),
            {"histogram": HISTOGRAM, "info": [1]}.get(f.kind, [value]),
        )
        for f in FAMILIES.values()
    ]


def shown(rows: list[Row], kind: str = PLAIN) -> str:
    readings = Readings()
    for row in rows:
        readings.add(row)
    return "".join(text(readings, kind))


def values(page: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples of a page by name and values of labels, as another reads it."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in read_plain(page):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


# -- the text -------------------------------------------------------------------------------------------------------


def test_every_family_is_read_by_others_in_both_formats():
    for kind, read in ((PLAIN, read_plain), (OPEN, read_open)):
        families = {f.name: f for f in read(shown(one_of_each(), kind))}
        for family in FAMILIES.values():
            told = families[family.name + ("_info" if family.kind == "info" and kind == PLAIN else "")]
            assert told.documentation == family.help and told.samples
            assert told.type == {"info": "info" if kind == OPEN else "gauge"}.get(family.kind, family.kind)
            if family.kind == "histogram":
                counts = [s.value for s in told.samples if s.name.endswith("_bucket")]
                assert counts == [sum(HISTOGRAM[: n + 1]) for n in range(len(BOUNDS) + 1)]
                assert [s.value for s in told.samples if s.name.endswith(("_count", "_sum"))] == [counts[-1], 2.5]
    assert shown(one_of_each(), OPEN).endswith("# EOF\n") and "# EOF" not in shown(one_of_each())


def test_promtool_finds_nothing_to_say():
    promtool = need("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=shown(one_of_each()), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@given(st.text(max_size=400))
def test_no_value_of_a_label_breaks_the_text(value):
    page = shown([("greentic_http_answers", (value,), [1]), ("greentic_turns_refused", ("x",), [2])])
    found = values(page)
    assert found["greentic_turns_refused_total"] == {("x",): 2.0}
    (labels,) = found["greentic_http_answers_total"]
    assert len(labels[0]) <= MAX_VALUE and page.count("\n") == 6
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", page)


@pytest.mark.parametrize(
    ("one", "other"), [("x" * 300 + "1", "x" * 300 + "2"), ("a\x01", "a\x02"), ("é" * 300, "é" * 299 + "e")]
)
def test_two_values_of_a_label_are_never_one(one, other):
    """Names of components have any length: two that began alike were one series that stood twice."""
    found = values(shown([("greentic_turns_refused", (one,), [1]), ("greentic_turns_refused", (other,), [2])]))
    assert sorted(found["greentic_turns_refused_total"].values()) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, PLAIN), ("*/*", PLAIN), ("text/html", PLAIN), ("application/openmetrics-text", OPEN), ("application/openmetrics-text;q=0, text/plain", PLAIN),
        ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", OPEN),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.9", PLAIN), ("application/openmetrics-text; version=9.0", PLAIN), ("x" * 5000, PLAIN), (",;q=,;;", PLAIN),
    ],
)  # fmt: skip
def test_accept_decides(accept, kind):
    assert chosen(accept) == kind


# -- adding up ------------------------------------------------------------------------------------------------------


def test_readings_add_up_and_the_dead_leave_their_counters():
    total = Readings()
    for row in one_of_each(2):
        total.add(row)
    for row in one_of_each(3):
        total.add(row)
    for row in one_of_each(100):
        total.add(row, alive=False)
    for family in FAMILIES.values():
        ((numbers),) = total.families[family.name].values()
        if family.kind == "histogram":
            assert numbers == [3 * n for n in HISTOGRAM]
        elif family.kind == "counter":
            assert numbers == [105]
        else:
            assert numbers == [{"sum": 5, "most": 1 if family.kind == "info" else 3, "least": 2}[family.adding]]


def test_a_file_of_readings_is_whole_or_ends_where_it_is_damaged():
    rows = [("greentic_turns", (f"{n}", "b", "r"), [n]) for n in range(FRAME_ROWS + 10)]
    data = b"".join(packed(rows))
    assert [row for frame in unpacked(data) for row in frame] == rows
    for cut in (b"", data[:3], data[:-1], b"\xff\xff\xff\xff", b"\0\0\0\2{}"):
        found = [row for frame in unpacked(cut) for row in frame]
        assert found == rows[: len(found)] and len(found) in (0, FRAME_ROWS)
    unknown = Readings()
    unknown.add(("greentic_unheard_of", (), [1]))
    assert not list(unknown.rows())


def test_beyond_the_cap_a_family_counts_under_other():
    tallies = Tallies(most=3)
    for n in range(10):
        tallies.add("greentic_component_calls", (f"d{n}", "c"))
    found = {labels: n for _, labels, (n,) in tallies.rows()}
    assert found == {("d0", "c"): 1, ("d1", "c"): 1, ("d2", "c"): 1, (OTHER, OTHER): 7}


def serving(number: int) -> SimpleNamespace:
    """Something that serves so many revisions, two a deployment."""
    told = [
        SimpleNamespace(revision_id=f"r{n}", deployment_id=f"d{n // 2}", bundle_id=f"b{n // 2}") for n in range(number)
    ]
    weights = {r.deployment_id: {} for r in told}
    for revision in told:
        weights[revision.deployment_id][revision.revision_id] = 5_000
    counts = {r.revision_id: Counts() for r in told}
    for one in counts.values():
        one.ended(0.003, None)
    dispatchers = {d: SimpleNamespace(weights=w) for d, w in weights.items()}
    activation = SimpleNamespace(revisions={r.revision_id: r for r in told}, dispatchers=dispatchers, unavailable={})
    return SimpleNamespace(
        activation=activation, counts=counts, draining={}, forgotten=Counts(), swaps=0, following=None, process="1.1", of=counts.get
    )  # fmt: skip


def test_threat_unbounded_labels_ten_thousand_deployments_are_a_bounded_page_and_no_series_goes_back():
    served = serving(20_000)
    metrics = Metrics(served, list, tallies=Tallies(), most=100)

    def turns() -> dict[tuple[str, ...], float]:
        return values(asyncio.run(metrics.page(None))[1].decode())["greentic_turns_total"]

    before = turns()
    assert len(before) == 101 and sum(before.values()) == 20_000 and before["other", "other", "other"] == 19_900
    for gone in ("r0", "r19999"):  # one that has a name, and one that has none, are forgotten
        del served.activation.revisions[gone]
        served.forgotten.take(served.counts.pop(gone))
    served.counts["r7"].ended(1.0, "flow")
    after = turns()
    assert sum(after.values()) == 20_001 and len(after) == 100
    assert all(after[labels] >= value for labels, value in before.items() if labels in after)


def test_a_large_page_is_written_in_pieces():
    metrics = Metrics(serving(2_000), list, tallies=Tallies())

    async def page() -> int:
        turns, going = 0, True

        async def beside() -> None:
            nonlocal turns
            while going:
                await asyncio.sleep(0)
                turns += 1

        other = asyncio.ensure_future(beside())
        await metrics.page(None)
        going = False
        await other
        return turns

    assert asyncio.run(page()) > 10


def by_name(metrics: Metrics) -> dict[str, dict[tuple[str, ...], list[float]]]:
    found: dict[str, dict[tuple[str, ...], list[float]]] = {}
    for name, labels, numbers in metrics.rows():
        found.setdefault(name, {})[tuple(labels)] = list(numbers)
    return found


def test_a_name_is_given_once_and_only_as_long_as_there_are_some():
    served = serving(3)
    metrics = Metrics(served, list, tallies=Tallies(), most=1)
    assert set(by_name(metrics)["greentic_turns"]) == {("d0", "b0", "r0"), (OTHER,) * 3}
    served.counts["late"] = Counts()  # a revision that neither serves nor drains is counted, too
    assert set(by_name(metrics)["greentic_turns"]) == {("d0", "b0", "r0"), (OTHER,) * 3}
    for gone in ("r0", "late"):
        served.activation.revisions.pop(gone, None)
        del served.counts[gone]
    assert set(by_name(metrics)["greentic_turns"]) == {(OTHER,) * 3}, "who never had one gets none"
    served.activation.revisions["new"] = SimpleNamespace(revision_id="new", deployment_id="d0", bundle_id="b0")
    served.counts["new"] = Counts()
    assert set(by_name(metrics)["greentic_turns"]) == {("d0", "b0", "new"), (OTHER,) * 3}
    drains = SimpleNamespace(revision=SimpleNamespace(revision_id="old", deployment_id="d9", bundle_id="b9"))
    served.draining["old"], served.counts["old"] = drains, Counts()
    assert ("d9", "b9", "old") in by_name(Metrics(served, list, tallies=Tallies()))["greentic_turns"]


def test_what_a_worker_counted_is_told_as_it_is():
    served, tallies = serving(2), Tallies()
    tallies.add("greentic_pulls", ("source",), 3)
    served.swaps, served.process = 4, "77.1790000000123456789"
    served.following = {"desired": {"generation": 9}, "serving": {"generation": 8}, "error": "away"}
    served.activation.dispatchers["d0"].weights["r1"] = 10_000
    served.activation.unavailable = {"d7": SimpleNamespace(why="digest"), "d8": SimpleNamespace(why="refused")}
    one = served.counts["r0"]
    one.ended(0.003, "gone")
    one.waits(2)
    one.waits(-1)
    one.in_flight = 5
    found = by_name(Metrics(served, lambda: [("greentic_draining", (), [1.0])], tallies=tallies))
    r0, r1 = ("d0", "b0", "r0"), ("d0", "b0", "r1")
    assert found["greentic_revision_weight_ratio"] == {r0: [0.5], r1: [1.0]}
    assert (found["greentic_turns"][r0], found["greentic_turns"][r1]) == ([2], [1])
    assert [found["greentic_turn_failures"][(*r0, kind)] for kind in ("flow", "no_flow", "gone")] == [[0], [0], [1]]
    assert found["greentic_turn_duration_seconds"][r0][-1] == 0.006 and found["greentic_turns_in_flight"][r0] == [5]
    assert found["greentic_conversations_parked"][r0] == [2] and found["greentic_conversations_resumed"][r0] == [1]
    assert (found["greentic_swaps"], found["greentic_pulls"], found["greentic_draining"]) == (
        {(): [4]},
        {("source",): [3]},
        {(): [1.0]},
    )
    assert (found["greentic_generation_desired"], found["greentic_generation_serving"]) == ({(): [9.0]}, {(): [8.0]})
    assert found["greentic_following_failed"] == {(): [1.0]} and found["process_start_time_seconds"] == {
        (): [1_790_000_000.1234567]
    }
    assert {k[0]: v for k, v in found["greentic_deployments_unavailable"].items()} == {
        "refused": [1], "absent": [0], "unreachable": [0], "broken": [0], "digest": [1],
    }  # fmt: skip
    (held,), (used,) = found["process_resident_memory_bytes"][()], found["process_cpu_seconds"][()]
    assert 1 << 20 < held < 1 << 40 and 0 < used < 1e6
    served.following = {"desired": {"generation": None}, "error": None}
    found = by_name(Metrics(served, list, tallies=tallies))
    assert "greentic_generation_desired" not in found and found["greentic_following_failed"] == {(): [0.0]}


def test_all_processes_are_told_together_or_why_not():
    class Two:
        wrong: Exception | None = None

        async def gathered(self) -> Others:
            if self.wrong is not None:
                raise self.wrong
            return Others(
                [b"".join(packed([("greentic_swaps", (), [5])]))],
                [b"".join(packed([("greentic_pulls", ("source",), [7])]))],
                2,
            )

    tallies, siblings = Tallies(), Two()
    tallies.add("greentic_pulls", ("source",), 3)
    metrics = Metrics(serving(1), list, tallies=tallies)
    frames = asyncio.run(metrics.packed())
    assert [row for frame in unpacked(b"".join(frames)) for row in frame if row[0] == "greentic_pulls"] == [
        ("greentic_pulls", ("source",), [3])
    ]
    alone = values(asyncio.run(metrics.page(None))[1].decode())
    assert alone["greentic_processes"] == {(): 1} and alone["greentic_swaps_total"] == {(): 0}
    metrics.siblings = siblings
    METRICS.failed("before")
    answer = asyncio.run(answered(metrics, b"text/plain"))
    page = values(bytes(answer.body).decode())
    assert (page["greentic_processes"], page["greentic_swaps_total"], page["greentic_pulls_total"]) == (
        {(): 3},
        {(): 5},
        {("source",): 10},
    )
    arrived = METRICS.told()
    assert answer.code == 200 and str(arrived["last_ok_at"]) > str(arrived["last_error_at"])
    for wrong in (Conflict("one does not answer"), OSError(5, "Input/output error")):
        siblings.wrong = wrong
        answer = asyncio.run(answered(metrics, None))
        assert answer.code == 503 and str(wrong).encode() in answer.body and METRICS.told()["last_error"] == str(wrong)
    assert METRICS.told()["last_ok_at"] == arrived["last_ok_at"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/livez", 200), ("GET", "/metrics", 200), ("HEAD", "/metrics", 200), ("POST", "/metrics", 405), ("GET", "/status", 404), ("GET", "/", 404)],
)  # fmt: skip
def test_the_address_for_scrapers_tells_metrics_and_nothing_else(method, path, code):
    handler = told_by_metrics.scraped(Metrics(serving(1), list, tallies=Tallies()))
    head = read_head(f"{method} {path} HTTP/1.1\r\nhost: h\r\n\r\n".encode())

    async def asked() -> Answer:
        found = handler(Incoming(head, b""), "10.0.0.1")
        return found if isinstance(found, Answer) else await found

    assert asyncio.run(asked()).code == code


# -- several processes ----------------------------------------------------------------------------------------------


def counted(number: int) -> Callable[[], object]:
    async def own() -> list[bytes]:
        return list(packed([("greentic_turns", ("d", "b", "r"), [number]), ("greentic_connections", (), [1])]))

    return own


def total_of(others: object) -> Readings:
    found = Readings()
    for alive, files in ((True, others.alive), (False, others.gone)):
        for data in files:
            for frame in unpacked(data):
                for row in frame:
                    found.add(row, alive=alive)
    return found


def test_processes_are_asked_and_those_that_are_gone_count_on(tmp_path):
    async def live() -> None:
        leave_first(tmp_path / "m", [("greentic_pulls", ("source",), [7]), ("greentic_boot_seconds", ("pull",), [3.0])])
        processes = [SharedReadings(tmp_path / "m", f"{n}.1", counted(10**n)) for n in range(3)]
        for process in processes:
            await process.start()
        asking = processes[0]
        found = total_of(others := await asking.gathered())
        assert others.answered == 2 and found.families["greentic_turns"] == {("d", "b", "r"): [110]}
        assert found.families["greentic_boot_seconds"] == {
            ("pull",): [3.0]
        }  # the first one only watches, and counts as alive
        assert {p.name for p in (tmp_path / "m").glob("*.counts")} == {
            "first.counts",
            "0.1.counts",
            "1.1.counts",
            "2.1.counts",
        }
        processes[1]._server.close()  # killed: the socket stays, and nobody is behind it
        (tmp_path / "m" / "1.1.sock").unlink(missing_ok=True)  # from Python 3.13 on its server takes it along
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / "m" / "1.1.sock"))
        for _ in range(2):
            found = total_of(others := await asking.gathered())
            assert others.answered == 1 and found.families["greentic_turns"] == {("d", "b", "r"): [110]}
            assert found.families["greentic_connections"] == {(): [1]}
            fold(tmp_path / "m")
        assert sorted(p.name for p in (tmp_path / "m").glob("*.counts")) == [
            "0.1.counts", "2.1.counts", "first.counts", "past.counts",
        ]  # fmt: skip
        for process in (processes[0], processes[2]):
            await process.close()

    asyncio.run(live())


def test_what_a_process_counted_is_told_unasked_too_and_outlives_it(tmp_path, monkeypatch):
    """Of a process that was killed before anybody had asked, nothing was known: half of all turns."""
    monkeypatch.setattr("greentic.telemetry.siblings.TELL_SECONDS", 0.01)

    async def live() -> None:
        killed = SharedReadings(tmp_path, "1.1", counted(5))
        await killed.start()
        async with asyncio.timeout(30):
            while not (tmp_path / "1.1.counts").exists():
                await asyncio.sleep(0.01)
        killed._telling.cancel()
        killed._server.close()
        await killed._server.wait_closed()
        (tmp_path / "1.1.sock").unlink(missing_ok=True)
        asking = SharedReadings(tmp_path, "2.1", counted(1))
        await asking.start()
        found = total_of(await asking.gathered())
        assert (
            found.families["greentic_turns"] == {("d", "b", "r"): [5]} and "greentic_connections" not in found.families
        )
        await asking.close()
        before = (tmp_path / "2.1.counts").stat().st_mtime_ns
        await asyncio.sleep(0.05)
        assert (tmp_path / "2.1.counts").stat().st_mtime_ns == before, "who closed tells no more"

    asyncio.run(live())


def test_a_process_that_does_not_answer_is_taken_as_it_told_last(tmp_path, monkeypatch):
    async def live() -> None:
        stuck = asyncio.Event()
        calls = 0

        async def own() -> list[bytes]:
            nonlocal calls
            calls += 1
            if calls > 1:
                await stuck.wait()
            return await counted(5)()

        first, second = SharedReadings(tmp_path, "1.1", counted(1)), SharedReadings(tmp_path, "2.1", own)
        await first.start()
        await second.start()
        assert (await first.gathered()).answered == 1
        monkeypatch.setattr("greentic.telemetry.siblings.PATIENCE", 0.05)
        found = total_of(others := await first.gathered())
        assert others.answered == 0 and found.families["greentic_turns"] == {("d", "b", "r"): [5]}
        stuck.set()
        await asyncio.gather(first.close(), second.close())

    asyncio.run(live())


def test_what_the_others_serve_they_say_themselves_and_a_silent_one_is_counted(tmp_path, monkeypatch):
    async def live() -> None:
        first, second, third = (
            SharedReadings(tmp_path, f"{n}.1", counted(1), lambda n=n: b'{"process":"%d"}' % n) for n in range(3)
        )
        for process in (first, second, third):
            await process.start()
        told = await first.statuses()
        assert sorted(told.statuses) == [b'{"process":"1"}', b'{"process":"2"}'] and told.silent == 0
        await third.close()  # who is gone is not silent
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / "3.1.sock"))  # nor is one that was killed
        assert await first.statuses() == Told([b'{"process":"1"}'])
        monkeypatch.setattr("greentic.telemetry.siblings.PATIENCE", 0.05)
        with socket.socket(socket.AF_UNIX) as mute:
            mute.bind(str(tmp_path / "4.1.sock"))
            mute.listen()
            assert (await first.statuses()).silent >= 1
        await asyncio.gather(first.close(), second.close())

    asyncio.run(live())


def test_without_a_place_for_a_socket_a_worker_tells_what_is_its_own(tmp_path):
    forget()
    deep = tmp_path / ("d" * 120)

    async def live() -> None:
        alone = SharedReadings(deep, "1.1", counted(1))
        await alone.start()
        assert any("adding up the metrics" in text for text in lacking())
        assert (await NoSiblings().gathered()).answered == 0

    asyncio.run(live())
    forget()


@pytest.mark.parametrize(
    ("told", "found"),
    [("", None), ("9464", ("127.0.0.1", 9464)), ("0.0.0.0:1", ("0.0.0.0", 1)), ("[::]:2", ("::", 2)), ("x", BootError), (":9", BootError), ("1.2.3.4", BootError), ("99999", BootError)],
)  # fmt: skip
def test_the_address_for_metrics(told, found):
    def read() -> object:
        return settings.read_settings(
            settings.StartOptions("local", metrics_addr=told), {"HOME": "/h"}
        ).ingress.metrics_addr

    if found is BootError:
        with pytest.raises(BootError, match="the address for metrics"):
            read()
    else:
        assert read() == found


# -- real parts -----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def scraped(port: int) -> dict[str, dict[tuple[str, ...], float]]:
    return values(fetched(f"http://127.0.0.1:{port}/metrics").decode())


def turns(port: int) -> float:
    return sum(scraped(port)["greentic_turns_total"].values())


def children(worker: Worker) -> list[int]:
    pid = worker.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Prometheus:
    """A real one that scrapes one worker."""

    def __init__(self, root: Path, target: int) -> None:
        program = need("prometheus", "prometheus")
        root.mkdir()
        (root / "prometheus.yml").write_text(
            "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
            f"scrape_configs: [{{job_name: worker, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        self.port = free_port()
        self.process = subprocess.Popen(
            [
                program, f"--config.file={root}/prometheus.yml", f"--storage.tsdb.path={root}/data",
                f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error",
            ],
            stdout=(root / "log").open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def value(self, query: str) -> float | None:
        try:
            answer = json.loads(fetched(f"http://127.0.0.1:{self.port}/api/v1/query?query={quote(query)}"))
        except OSError:
            return None
        found = answer["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.e2e
def test_prometheus_counts_what_wrk_sent_to_two_processes(tmp_path):
    wrk = need("wrk", "wrk")
    author = Author(Context(EnvironmentStore(tmp_path / "store"))).create()
    bundle = make_bundle(tmp_path, {"app": made_pack(0)})
    author.deployed(bundle, bundle.as_uri())
    author.strip()
    script = tmp_path / "post.lua"
    script.write_text("""
wrk.method, wrk.body = "POST", '{"text":"hi"}'
function setup(thread) threads = {thread} end
sent = -1  -- the first is asked for to look at, and not sent
function request() sent = sent + 1; return wrk.format() end
function done() print("sent " .. threads[1]:get("sent")) end
""")
    scrapes = free_port()
    worker = Worker(
        tmp_path / "store",
        tmp_path,
        "--workers",
        "2",
        "--metrics-addr",
        f"127.0.0.1:{scrapes}",
        GREENTIC_BUNDLE_CACHE_DIR=str(tmp_path / "cache"),
    )
    prometheus = None
    try:
        port = worker.port()
        prometheus = Prometheus(tmp_path / "prometheus", scrapes)
        done = subprocess.run(
            [wrk, "-t1", "-c8", "-d1s", "-s", str(script), f"http://127.0.0.1:{port}/"], capture_output=True, text=True, timeout=60
        )  # fmt: skip
        sent = int(re.search(r"sent (\d+)", done.stdout).group(1))
        assert sent and "Non-2xx" not in done.stdout, done.stdout
        until(lambda: turns(scrapes) == sent, f"as many turns as wrk sent: {sent}", 30)
        until(lambda: prometheus.value("sum(greentic_turns_total)") == sent, "Prometheus has scraped all of it", 30)
        assert prometheus.value("sum(greentic_turn_duration_seconds_count)") == sent
        assert prometheus.value("greentic_processes") == 2 and prometheus.value("up") == 1
        assert prometheus.value('greentic_boot_seconds{phase="pull"}') > 0
        assert (
            prometheus.value('greentic_pulls_total{from="source"}') == 1
        )  # by the first process, which serves nothing
        assert prometheus.value("count(greentic_pulled_bytes_total)") == 1
        victim = children(worker)[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in children(worker) and len(children(worker)) == 2, "another process was started")
        until(lambda: scraped(scrapes)["greentic_processes"][()] == 2, "the new one answers")
        assert turns(scrapes) == sent  # the killed one counts on
        assert ask(scrapes, "GET", "/status")[0] == 404 and ask(scrapes, "POST", "/metrics")[0] == 405
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for headers, code in (
            ({}, 200),
            ({"X-Forwarded-For": "203.0.113.9"}, 403),
            ({"Origin": "http://evil.example"}, 403),
        ):
            connection.request("GET", "/metrics", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == code and answer.getheader("access-control-allow-origin") is None
            assert (b"greentic_turns" in body) == (code == 200)
        connection.close()
    finally:
        if prometheus is not None:
            prometheus.stop()
        assert worker.stop() == 0


# -- what is made of them -------------------------------------------------------------------------------------------

MONITORING = Path(__file__).resolve().parent.parent / "examples" / "monitoring"


def test_the_alerts_fire_and_stay_silent_as_they_should():
    promtool = need("promtool", "prometheus")
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run([promtool, *words], cwd=MONITORING, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_dashboard_and_alerts_ask_for_what_there_is(tmp_path):
    promtool = need("promtool", "prometheus")
    asked = [t["expr"] for p in json.loads((MONITORING / "dashboard.json").read_text())["panels"] for t in p["targets"]]
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",), "gauge": ("",)}
    known = {f.name + end for f in FAMILIES.values() for end in endings[f.kind]}
    alerts = re.sub(r"(?m)^ +(summary|action):.*$", "", (MONITORING / "alerts.yml").read_text())
    assert set(re.findall(r"greentic_\w+", " ".join(asked) + alerts)) - known == set()
    rules = [
        {"record": f"r{n}", "expr": e.replace("$__rate_interval", "1m").replace("$bundle", ".*")} for n, e in enumerate(asked)
    ]  # fmt: skip
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
