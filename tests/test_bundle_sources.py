"""The rules of each source of bundles, of ranges and journals, of helpers and of the cache: quick, without a program or a name."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import io
import os
import random
import socket
import threading
from email.message import Message
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentic.distribute import bundle_cache, oci_source, publish
from greentic.distribute import fetch as fetching
from greentic.distribute.bundle_cache import BundleCache
from greentic.distribute.fetch import Fetched, FetchLimits, fetch_into, fetch_limits
from greentic.distribute.file_source import FileSource
from greentic.distribute.http_source import HttpBody, body_of, range_headers
from greentic.distribute.journal import Journal, Progress
from greentic.distribute.mirrors import check_mirror, first_of, references
from greentic.distribute.oci_source import OciSource
from greentic.distribute.parallel import Helpers
from greentic.distribute.ranges import Ranges, read_ranges
from greentic.distribute.serve_directory import DirectoryServer
from greentic.distribute.sources import signatures_at, source_for
from greentic.ground.errors import FetchError, InvalidArgument, PartRefused, ServerBusy, TooLarge, Truncated
from greentic.net import request
from greentic.net.request import Answer as HttpAnswer
from greentic.net.terms import Terms, own_terms
from greentic.registry.manifests import Layer
from simulators import Answer, FakeClock, SimulatedDistributor

MiB = 1 << 20
DIGEST = f"sha256:{'ab' * 32}"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def read_all(body: Any, size: int = 4) -> bytes:
    got, buffer = b"", memoryview(bytearray(size))
    while count := body.read_into(buffer):
        got += bytes(buffer[:count])
    return got


# -- a file ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read_from_where_it_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.write_bytes(b"0123456789")
    whole = FileSource().open(str(path))
    assert (whole.offset, whole.length, whole.total, read_all(whole)) == (0, 10, 10, b"0123456789")
    assert not whole.read_into(memoryview(bytearray(4)))  # the end stays the end
    part = FileSource().open(str(path), 7)
    assert (part.offset, part.length, part.total, read_all(part)) == (7, 3, 10, b"789")
    assert FileSource().open(str(path), 11).length == 0
    for body in (whole, part):
        body.close()


@pytest.mark.parametrize("left", [0, 1, 9])
def test_threat_truncation_a_file_that_became_shorter_is_cut_and_not_whole(tmp_path: Path, left: int) -> None:
    path = tmp_path / "b"
    path.write_bytes(b"0123456789")
    body = FileSource().open(str(path))
    os.truncate(path, left)
    with pytest.raises(Truncated, match="became shorter"):
        read_all(body)
    body.close()


def test_what_is_no_file_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="is a directory"):
        FileSource().open(str(tmp_path))
    for name in ("x" * 5000, str(tmp_path / "none"), "a\0b"):
        for reference in (name, f"file://{name}"):
            with pytest.raises(FetchError, match="unsupported bundle reference"):
                source_for(reference)


# -- an answer over HTTP --------------------------------------------------------------------------------------------


class Bytes(io.BytesIO):
    length: int | None = None
    chunked = False


class Connection:
    closed = 0

    def close(self) -> None:
        self.closed += 1


def answered(status: int, data: bytes = b"", length: int | None = -1, **fields: str) -> tuple[HttpAnswer, Connection]:
    headers, body, connection = http.client.HTTPMessage(), Bytes(data), Connection()
    for name, value in fields.items():
        Message.__setitem__(headers, name.replace("_", "-"), value)
    body.length = len(data) if length == -1 else length
    return HttpAnswer(status, headers, cast("Any", body), cast("Any", connection), "http://a.test/b"), connection


def test_a_body_says_whether_it_came_packed() -> None:
    assert "Content-Encoding: gzip" in body_of(answered(200, b"x", Content_Encoding="gzip")[0], "r", 0, None).coding
    assert body_of(answered(200, b"x")[0], "r", 0, None).coding == ""


def test_a_part_is_believed_only_if_it_is_the_one_that_was_asked_for() -> None:
    answer, _ = answered(206, b"56789", Content_Range="bytes 5-9/10", ETag='"v"')
    body = body_of(answer, "r", 5, None)
    assert (body.offset, body.length, body.total, body.resumable, body.validator) == (5, 5, 10, True, '"v"')
    assert read_all(body) == b"56789" and not body.read_into(memoryview(bytearray(1)))
    answer, _ = answered(206, b"56789", None, Content_Range="bytes 5-9/10")
    assert body_of(answer, "r", 5, None).length == 5
    answer, _ = answered(206, b"5", Content_Range=f"bytes 5-5/{10**18 - 1}")
    assert body_of(answer, "r", 5, 6).total == 10**18 - 1


@pytest.mark.parametrize(
    "stated",
    [
        "", "bytes 4-8/10", "bytes 6-9/10", "bytes 5-4/10", "bytes 5-9/9", "bytes 5-9/*", "bytes 5-8/10", "bytes 5-10/11", "bytes 5-9/10 ",
        "octets 5-9/10", f"bytes 5-9/{10**18}", "bytes 5-9/10x",
    ],
)  # fmt: skip
def test_threat_lying_server_another_part_is_refused_and_the_connection_closed(stated: str) -> None:
    answer, connection = answered(206, b"56789", Content_Range=stated)
    if stated.strip() == "bytes 5-9/10":
        assert body_of(answer, "r", 5, None).offset == 5
        return
    with pytest.raises(PartRefused):
        body_of(answer, "r", 5, None)
    assert connection.closed == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, PartRefused), (403, PartRefused), (416, PartRefused), (499, PartRefused), (501, PartRefused), (505, PartRefused),
     (404, FetchError), (408, ServerBusy), (410, FetchError), (425, ServerBusy), (429, ServerBusy), (500, ServerBusy), (502, ServerBusy), (503, ServerBusy), (504, ServerBusy)],
)  # fmt: skip
def test_a_refusal_of_a_part_leaves_the_whole_to_be_asked_for(status: int, kind: type[FetchError]) -> None:
    for offset, end in ((5, None), (0, 5)):
        answer, connection = answered(status)
        with pytest.raises(FetchError) as error:
            body_of(answer, "r", offset, end)
        assert type(error.value) is kind and connection.closed == 1
    answer, _ = answered(status)
    with pytest.raises(FetchError) as error:
        body_of(answer, "r", 0, None)
    assert type(error.value) is not PartRefused


@pytest.mark.parametrize("status", [206, 207, 204])
def test_a_whole_that_nobody_asked_to_be_a_part_is_no_part(status: int) -> None:
    answer, _ = answered(status, b"x", Content_Range="bytes 0-0/1")
    with pytest.raises(FetchError, match=str(status)):
        body_of(answer, "r", 0, None)


def test_a_whole_instead_of_a_part_begins_at_its_beginning() -> None:
    answer, _ = answered(200, b"0123456789", Content_Range="bytes 5-9/10", Accept_Ranges="Bytes")
    body = body_of(answer, "r", 5, None)
    assert (body.offset, body.total, body.resumable) == (0, 10, True)


@pytest.mark.parametrize(
    ("length", "told", "resumable"), [(4, "bytes", True), (4, "none", False), (4, "", False), (None, "bytes", False)]
)
def test_parts_are_asked_for_where_they_are_offered_and_the_size_is_known(
    length: int | None, told: str, resumable: bool
) -> None:
    answer, _ = answered(200, b"0123", length, Accept_Ranges=told)
    assert HttpBody(answer, "r", 0).resumable is resumable


@pytest.mark.parametrize("missing", [0, 1, 4])
def test_a_body_that_ends_early_is_cut_and_stays_so(missing: int) -> None:
    answer, _ = answered(200, b"0123", 4 + missing)
    body = HttpBody(answer, "r", 0)
    for _ in range(2):
        if missing:
            with pytest.raises(Truncated, match=f"after 4 bytes, announced {4 + missing} bytes"):
                read_all(body)
        else:
            read_all(body)


@pytest.mark.parametrize(
    ("etag", "strong"),
    [('"a"', True), ('W/"a"', False), ('""', False), ('"a', False), ('a"', False), ('"', False), ("", False),
     (f'"{"a" * 254}"', True), (f'"{"a" * 255}"', False)],
)  # fmt: skip
def test_only_a_validator_of_every_byte_vouches_for_a_part(etag: str, strong: bool) -> None:
    answer, _ = answered(200, b"x", ETag=etag)
    assert HttpBody(answer, "r", 0).validator == (etag if strong else None)


def test_a_part_is_asked_for_by_its_bytes() -> None:
    assert range_headers(0, '"v"', None) == {}
    assert range_headers(5, None, None) == {"Range": "bytes=5-"}
    assert range_headers(0, None, 5) == {"Range": "bytes=0-4"}
    assert range_headers(5, '"v"', 9) == {"Range": "bytes=5-8", "If-Range": '"v"'}


# -- a registry -----------------------------------------------------------------------------------------------------


class Blobs:
    """A registry that has one layer; what it was asked is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int | None, *answers: HttpAnswer) -> None:
        self.answers, self.headers, self.made = list(answers), list[dict[str, str]](), list[tuple[object, bool]]()
        self.resolved = 0
        self.reference = type("Reference", (), {"wanted": "1"})()
        monkeypatch.setattr(oci_source, "Registry", self.make)
        monkeypatch.setattr(oci_source, "resolve_manifest", self.resolve)
        monkeypatch.setattr(oci_source, "layer_of", lambda *_: Layer(DIGEST, size, "application/octet-stream"))

    def make(self, reference: object, terms: Terms, environ: object, *, mirror: bool) -> Blobs:
        self.made.append((environ, mirror))
        return self

    def resolve(self, *_: object) -> None:
        self.resolved += 1

    def url(self, path: str) -> str:
        return f"http://r.test/v2/a/{path}"

    def request(self, url: str, terms: Terms, *, headers: dict[str, str]) -> HttpAnswer:
        self.headers.append(headers)
        return self.answers.pop(0)


def test_a_layer_is_resolved_once_and_asked_for_whole_or_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    part = answered(206, b"56789", Content_Range="bytes 5-9/10")[0]
    blobs, environ = Blobs(monkeypatch, 10, answered(200, b"0123456789", ETag='"v"')[0], part), {"OCI_USERNAME": "bot"}
    source = OciSource(Terms(), environ)
    whole = source.open("oci://r.test/a:1")
    assert (whole.offset, whole.digest, whole.validator, whole.resumable) == (0, DIGEST, None, True)
    assert source.open("oci://r.test/a:1", 5, '"v"').offset == 5
    assert blobs.headers == [{}, {"Range": "bytes=5-"}]
    assert blobs.resolved == 1 and blobs.made == [(environ, False)]


def test_credentials_of_a_mirror_are_those_of_a_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(monkeypatch, None, answered(200, b"x")[0])
    OciSource(Terms(), {}, mirror=True).open("oci://r.test/a:1")
    assert blobs.made == [({}, True)]


@pytest.mark.parametrize(("said", "length", "taken"), [(4, 4, True), (5, 4, False), (None, 4, True), (4, None, True)])
def test_threat_lying_server_a_layer_of_another_size_is_not_read(
    monkeypatch: pytest.MonkeyPatch, said: int | None, length: int | None, taken: bool
) -> None:
    answer, connection = answered(200, b"0123", length)
    Blobs(monkeypatch, said, answer)
    source = OciSource(Terms(), {})
    if taken:
        assert read_all(source.open("oci://r.test/a:1")) == b"0123" and not connection.closed
        return
    with pytest.raises(FetchError, match="the layer has 4 bytes, the manifest says 5"):
        source.open("oci://r.test/a:1")
    assert connection.closed == 1


@pytest.mark.parametrize("said", [4, None])
def test_threat_truncation_a_layer_without_a_length_is_as_long_as_its_manifest_says(
    monkeypatch: pytest.MonkeyPatch, said: int | None
) -> None:
    Blobs(monkeypatch, said, answered(200, b"01", None)[0])
    body = OciSource(Terms(), {}).open("oci://r.test/a:1")
    assert (body.total, body.length, body.untold_end) == (said, said, said is None)
    if said is None:
        assert read_all(body) == b"01"
        return
    with pytest.raises(Truncated):
        read_all(body)


def test_an_answer_says_whether_anything_tells_its_end() -> None:
    assert HttpBody(answered(200, b"0123", None)[0], "r", 0).untold_end
    assert not HttpBody(answered(200, b"0123", 4)[0], "r", 0).untold_end


# -- mirrors and ranges ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["{sha256}", "{digest}", "{name}", "{sha256}/{name}", "{digest}/{sha256}/{name}"])
def test_a_mirror_names_the_bundle_in_one_way_at_least(place: str) -> None:
    assert check_mirror(f" https://m.test/{place} ") == f"https://m.test/{place}"
    for wrong in (f"https://m.test/{place}/{{odd}}", "https://m.test/b", f"ftp://m.test/{place}", f"/{place}"):
        with pytest.raises(InvalidArgument):
            check_mirror(wrong)


def test_the_references_of_a_bundle_are_its_own_and_then_the_mirrors() -> None:
    uri = "https://a.test/x/b.gtbundle?sig=1"
    mirrors = [
        "https://m.test/{name}",
        "https://n.test/{sha256}/{digest}",
        "https://m.test/{name}",
        "https://o.test/{odd}",
    ]
    assert references(uri, DIGEST, mirrors) == [
        uri, "https://m.test/b.gtbundle", f"https://n.test/{'ab' * 32}/{DIGEST}", "https://o.test/{odd}",
    ]  # fmt: skip
    assert references("/x/c.gtbundle", DIGEST, mirrors[:1])[1] == "https://m.test/c.gtbundle"
    for without in ("https://[::1/b", "https://a.test/"):
        assert references(without, DIGEST, mirrors[:1])[1] == "https://m.test/bundle.gtbundle"


def test_no_mirror_is_asked_after_one_that_gave() -> None:
    asked: list[str] = []

    def give(reference: str, patient: bool) -> int:
        asked.append(reference)
        if reference == "a":
            raise FetchError("gone")
        return len(asked)

    assert first_of(["a", "b", "c"], give, lambda *_: None) == 2 and asked == ["a", "b"]
    with pytest.raises(FetchError, match="none of 2 sources has the bundle: a: gone; a: gone"):
        first_of(["a", "a"], give, lambda *_: None)
    with pytest.raises(FetchError, match="gone$"):
        first_of(["a"], give, lambda *_: None)


POSITIONS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12)


@given(POSITIONS, st.integers(0, 45))
def test_ranges_are_the_set_of_their_positions(added: list[tuple[int, int]], total: int) -> None:
    found, there = Ranges(), set[int]()
    for start, end in added:
        found, there = found.add(start, end), there | set(range(start, end))
    assert {n for start, end in found.spans for n in range(start, end)} == there
    assert found.covered == len(there) and found.within(total) == all(n < total for n in there)
    assert read_ranges([list(span) for span in found.spans]) == found
    assert Ranges().joined(found) == found.joined(found) == found
    gap, missing = found.first_gap(total), sorted(set(range(total)) - there)
    if found.within(total):
        assert (gap is None) == (not missing)
        if gap is not None:
            following = [n for n in there if n > missing[0]]
            assert gap == (missing[0], min(following) if following else total)


@pytest.mark.parametrize(
    "raw",
    [[[0, 5], [5, 8]], [[0, 5], [4, 8]], [[5, 5]], [[5, 4]], [[-1, 5]], [[0, 5, 6]], [[0]], [(0, 5)], [[0, True]], [[0.0, 5]], [None], [[3, 4], [0, 1]]],
)  # fmt: skip
def test_what_is_no_ranges_is_none(raw: list[object]) -> None:
    with pytest.raises(ValueError, match="range"):
        read_ranges(raw)


# -- the journal of a download --------------------------------------------------------------------------------------


def test_a_journal_says_where_a_download_is_until_it_is_cleared(tmp_path: Path) -> None:
    partial, path = tmp_path / "p", tmp_path / "j"
    partial.write_bytes(bytes(10))
    journal = Journal(path, partial)
    for progress in (
        Progress(Ranges(((0, 4), (6, 10))), 12, '"v"', "name"), Progress(Ranges(((0, 10),)), None, None, ""), Progress(Ranges(((0, 10),)), 10, None, "n"),
    ):  # fmt: skip
        journal.save(progress)
        assert journal.load() == progress
    assert path.stat().st_mode & 0o777 == 0o600
    journal.clear()
    assert not path.exists() and journal.load() is None
    journal.clear()


@pytest.mark.parametrize(
    "progress",
    [
        Progress(Ranges(((0, 11),)), 20, None, ""),
        Progress(Ranges(((0, 10),)), 9, None, ""),
        Progress(Ranges(((0, 4),)), cast("int", "12"), None, ""),
        Progress(Ranges(((0, 4),)), cast("int", True), None, ""),
        Progress(Ranges(), cast("int", "12"), None, ""),
    ],
)
def test_threat_no_way_back_a_journal_that_does_not_fit_its_file_is_none(tmp_path: Path, progress: Progress) -> None:
    (tmp_path / "p").write_bytes(bytes(10))
    journal = Journal(tmp_path / "j", tmp_path / "p")
    journal.save(progress)
    assert (tmp_path / "j").exists() and journal.load() is None


# -- more connections -----------------------------------------------------------------------------------------------

LARGE = random.Random(5).randbytes(MiB) * 20


class Helped:
    def __init__(self, directory: Path, *answers: Answer) -> None:
        self.clock, self.source = FakeClock(), SimulatedDistributor(*answers)
        self.path = directory / "f"
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        self.helpers = Helpers(self.source, "r", self.fd, '"v"', self.clock)

    def is_what_came(self, done: Ranges) -> bool:
        return all(os.pread(self.fd, end - start, start) == LARGE[start:end] for start, end in done.spans)


def test_helpers_take_the_back_of_a_slow_download_and_leave_the_front_its_room(tmp_path: Path) -> None:
    helped = Helped(tmp_path, Answer(LARGE, parts=True))
    end = 17 * MiB
    assert helped.helpers.help(0, end) == end and not helped.source.asked
    helped.clock.sleep(1)
    until = helped.helpers.help(MiB // 2, end)
    assert 5 * MiB <= until <= end
    for thread in helped.helpers._threads:
        thread.join()
    done = helped.helpers.finish()
    assert done.spans == ((5 * MiB, end),) and helped.is_what_came(done)
    assert helped.helpers.help(MiB, end) == 5 * MiB
    assert sorted(start for start, _, _ in helped.source.asked) == [5 * MiB, 9 * MiB, 13 * MiB]
    assert {validator for _, validator, _ in helped.source.asked} == {'"v"'}


@pytest.mark.parametrize(
    ("first", "seconds", "position", "end"),
    [
        (0, 0.2, 0, 20 * MiB),
        (0, 1, 8 * MiB, 20 * MiB),
        (0, 1, 200 * MiB, 300 * MiB),
        (100 * MiB, 1, 101 * MiB, 110 * MiB),
    ],
)
def test_nobody_helps_a_download_that_is_young_nearly_done_or_fast(
    tmp_path: Path, first: int, seconds: float, position: int, end: int
) -> None:
    helped = Helped(tmp_path, Answer(LARGE, parts=True))
    assert helped.helpers.help(first, end) == end
    helped.clock.sleep(seconds)
    assert helped.helpers.help(position, end) == end
    assert helped.helpers.finish() == Ranges() and not helped.source.asked


@pytest.mark.parametrize(
    "answer",
    [Answer(LARGE), Answer(LARGE, parts=True, total=MiB), Answer(LARGE, length=None, parts=True), Answer(refuse="no"), Answer(busy=1)],
)  # fmt: skip
def test_threat_lying_server_a_helper_believes_no_part_of_another_whole(tmp_path: Path, answer: Answer) -> None:
    helped = Helped(tmp_path, answer)
    helped.helpers.help(0, 20 * MiB)
    helped.clock.sleep(1)
    helped.helpers.help(1, 20 * MiB)
    for thread in helped.helpers._threads:
        thread.join()
    assert helped.helpers.finish() == Ranges() and not helped.path.stat().st_size


def test_nobody_writes_into_the_file_after_the_helpers_are_done(tmp_path: Path) -> None:
    gate = threading.Event()
    helped = Helped(tmp_path, Answer(LARGE, parts=True, stall=lambda: cast("None", gate.wait(20))))
    helped.helpers.help(0, 20 * MiB)
    helped.clock.sleep(1)
    helped.helpers.help(1, 20 * MiB)
    release = threading.Timer(0.05, gate.set)
    release.start()
    done = helped.helpers.finish()
    alive = [thread for thread in helped.helpers._threads if thread.is_alive()]
    gate.set()
    assert not alive and done == helped.helpers.done and helped.is_what_came(done)


# -- a download -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blocks", "room", "fits"), [(5000, 999, False), (5000, 1000, True), (0, 0, True)])
def test_room_is_asked_for_before_a_byte_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, room: int, fits: bool
) -> None:
    """A file system in memory without a limit says that it has no blocks, none of them free."""
    status = type("Status", (), {"f_blocks": blocks, "f_bavail": room, "f_frsize": 1})()
    monkeypatch.setattr(fetching.os, "fstatvfs", lambda fd: status)
    reads: list[int] = []
    source = SimulatedDistributor(Answer(bytes(1000), stall=lambda: reads.append(1)))
    with (tmp_path / "f").open("w+b") as file:
        if fits:
            assert fetch_into(file, "r", source=source).size == 1000
            return
        with pytest.raises(OSError, match="No space left for a bundle of 1000 bytes"):
            fetch_into(file, "r", source=source)
    assert not reads and not (tmp_path / "f").stat().st_size


@pytest.mark.parametrize("size", [9, 10, 11])
@pytest.mark.parametrize("announced", [False, True])
def test_threat_bomb_a_bundle_may_have_its_limit_and_no_more(tmp_path: Path, size: int, announced: bool) -> None:
    source = SimulatedDistributor(Answer(bytes(size), length=-1 if announced else None))
    with (tmp_path / "f").open("w+b") as file:
        if size <= 10:
            assert fetch_into(file, "r", source=source, limits=FetchLimits(bundle_bytes=10)).size == size
            return
        with pytest.raises(TooLarge):
            fetch_into(file, "r", source=source, limits=FetchLimits(bundle_bytes=10), clock=FakeClock())
    assert source.opened == 1


WHOLE = random.Random(9).randbytes(3 * MiB)


def test_a_refusal_is_told_and_not_asked_again(tmp_path: Path) -> None:
    source = SimulatedDistributor(Answer(refuse="http status: 403"), Answer(WHOLE))
    with (tmp_path / "f").open("w+b") as file, pytest.raises(FetchError, match="403"):
        fetch_into(file, "r", source=source, clock=FakeClock())
    assert source.opened == 1 and not (tmp_path / "f").stat().st_size


@pytest.mark.parametrize("kept", [b"", WHOLE[:MiB], bytes(MiB)])
@pytest.mark.parametrize("parts", [True, False])
def test_threat_no_way_back_what_is_kept_is_gone_on_with_or_dropped(tmp_path: Path, kept: bytes, parts: bool) -> None:
    journal = Journal(tmp_path / "j", tmp_path / "f")
    (tmp_path / "f").write_bytes(kept)
    if kept:
        journal.save(Progress(Ranges(((0, len(kept)),)), len(WHOLE), None, ""))
    source = SimulatedDistributor(Answer(WHOLE, parts=parts))
    with (tmp_path / "f").open("r+b") as file:
        found = fetch_into(file, "r", source=source, clock=FakeClock(), journal=journal, wanted=sha256(WHOLE))
    assert (tmp_path / "f").read_bytes() == WHOLE and (found.digest, found.size) == (sha256(WHOLE), len(WHOLE))
    right = bool(kept) and parts and WHOLE.startswith(kept)
    assert found.resumed == (len(kept) if right else 0)
    assert source.opened == (2 if kept and parts and not right else 1)


def test_the_limits_of_a_download_are_told_by_variables() -> None:
    assert fetch_limits({}) == FetchLimits()
    told = fetch_limits({"GREENTIC_FETCH_MAX_BYTES": "1", "GREENTIC_FETCH_TOTAL_SECONDS": "0.5"})
    assert (told.bundle_bytes, told.total_seconds) == (1, 0.5)
    assert fetch_limits({"GREENTIC_FETCH_MAX_BYTES": str(1 << 60)}).bundle_bytes == fetching.MAX_BUNDLE_BYTES
    with pytest.raises(InvalidArgument):
        fetch_limits({"GREENTIC_FETCH_MAX_BYTES": "0"})


def test_who_names_no_limits_goes_by_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stages, applies and exports pulls as a worker does; it took an hour and 4 GiB whatever was asked."""
    clock = FakeClock()
    with (tmp_path / "f").open("w+b") as file:
        monkeypatch.setenv("GREENTIC_FETCH_MAX_BYTES", str(len(WHOLE) - 1))
        with pytest.raises(TooLarge):
            fetch_into(file, "r", source=SimulatedDistributor(Answer(WHOLE)), clock=clock)
        monkeypatch.delenv("GREENTIC_FETCH_MAX_BYTES")
        monkeypatch.setenv("GREENTIC_FETCH_TOTAL_SECONDS", "5")
        source = SimulatedDistributor(Answer(busy=60.0))
        with pytest.raises(ServerBusy):
            fetch_into(file, "r", source=source, clock=clock)
    assert source.opened == 1 and clock.monotonic() - FakeClock().monotonic() < 5, "a wait behind the end is not begun"


# -- the cache ------------------------------------------------------------------------------------------------------


def test_the_cache_belongs_to_its_user_alone(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "new" / "c")
    data = b"bundle"
    assert cache.add(sha256(data), io.BytesIO(data)) and not cache.add(sha256(data), io.BytesIO(data))
    for directory in (cache.directory, cache.directory / "partial", cache.directory / "locks"):
        assert directory.stat().st_mode & 0o777 == 0o700
    assert cache.path(sha256(data)).stat().st_mode & 0o777 == 0o400
    assert cache.path(sha256(data)).read_bytes() == data and not list((cache.directory / "partial").iterdir())
    for mode in (0o720, 0o702):
        cache.directory.chmod(mode)
        with pytest.raises(PermissionError):
            BundleCache(cache.directory)


def test_a_bundle_at_hand_is_put_over_what_was_there_of_it(tmp_path: Path) -> None:
    cache, data = BundleCache(tmp_path / "c"), b"bundle"
    partial = cache.directory / "partial" / sha256(data).removeprefix("sha256:")
    partial.write_bytes(b"another and longer")
    Journal(partial.with_name(f"{partial.name}.json"), partial).save(Progress(Ranges(((0, 9),)), 20, None, ""))
    assert cache.add(sha256(data), io.BytesIO(data))
    assert cache.path(sha256(data)).read_bytes() == data and not list((cache.directory / "partial").iterdir())


def test_a_bundle_is_whole_when_it_is_put_on_stable_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, data, sizes = BundleCache(tmp_path / "c"), b"bundle", list[int]()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: sizes.append(os.fstat(fd).st_size) or real(fd))
    cache.add(sha256(data), io.BytesIO(data))
    assert sizes[0] == len(data)


def test_nobody_is_asked_what_is_needed_while_everything_fits(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "c")
    for data in (b"one", b"other"):
        cache.add(sha256(data), io.BytesIO(data))
    assert cache.prune(8, lambda: pytest.fail("asked")) == []
    assert [entry.digest for entry in cache.prune(7, lambda: frozenset({sha256(b"one")}))] == [sha256(b"other")]
    assert [entry.digest for entry in cache.entries()] == [sha256(b"one")]


def test_an_entry_is_hashed_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, data = BundleCache(tmp_path / "c"), b"bundle"
    cache.add(sha256(data), io.BytesIO(data))
    hashed: list[object] = []
    real = bundle_cache.digest_of
    monkeypatch.setattr(bundle_cache, "digest_of", lambda file: hashed.append(file) or real(file))
    bundle_cache._verified.clear()
    for _ in range(3):
        found = cache.find(sha256(data))
        assert found is not None and (found.digest, found.size, found.file.read()) == (sha256(data), 6, data)
        found.file.close()
    assert len(hashed) == 1
    path = cache.path(sha256(data))
    path.chmod(0o600)
    path.write_bytes(b"bundlf")
    assert cache.find(sha256(data)) is None and not path.exists() and len(hashed) == 2


@pytest.mark.parametrize(("age", "held", "gone"), [(59, False, False), (61, False, True), (61, True, False)])
def test_a_download_is_given_up_only_when_nobody_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int, held: bool, gone: bool
) -> None:
    cache, name = BundleCache(tmp_path / "c"), DIGEST.removeprefix("sha256:")
    partial, journal = cache.directory / "partial" / name, cache.directory / "partial" / f"{name}.json"
    partial.write_bytes(b"x")
    journal.write_bytes(b"{}")
    monkeypatch.setattr(bundle_cache, "unix_seconds", lambda: partial.stat().st_mtime + age)
    assert cache.partials() == [(DIGEST, 1)]
    with (cache.directory / "locks" / name).open("ab") as lock:
        if held:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        assert cache.give_up(DIGEST, 60) is gone
    assert partial.exists() is journal.exists() is (not gone)
    assert not cache.give_up(f"sha256:{'cd' * 32}", 0)


def test_what_is_not_the_wanted_bundle_leaves_nothing(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "c")

    def other(file: Any, journal: Journal) -> Fetched:
        file.write(b"other")
        journal.save(Progress(Ranges(), 5, None, ""))
        return Fetched(sha256(b"other"), 5, 5, 0)

    with pytest.raises(Exception, match="expected"):
        cache.obtain(DIGEST, other)
    assert not list((cache.directory / "partial").iterdir()) and not cache.entries()


# -- publishing, signatures and the embedded distributor ------------------------------------------------------------


def test_publishing_into_a_directory_writes_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(fd) or real(fd))
    target, data = tmp_path / "new" / "place", b"bundle"
    bundle = publish.Bundle("b.gtbundle", io.BytesIO(data), sha256(data), len(data), b"signed", {})
    first = publish.publish(bundle, str(target))
    assert first.moved and first.uri == f"file://{target}/b.gtbundle" and first.digest == sha256(data)
    before = len(synced)
    second = publish.publish(bundle, f"file://{target}")
    assert not second.moved and second.signature == f"{target}/b.gtbundle.sig"
    assert len(synced) > before  # the signature is on stable storage, too
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        "b.gtbundle": data,
        "b.gtbundle.sig": b"signed",
    }


@pytest.mark.parametrize("target", ["ftp://u:s3cret@h.test/x", "oci://u:s3cret@r.test/a:1"])
def test_threat_secret_leak_a_place_to_publish_to_has_no_password(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setattr(publish, "Registry", lambda *_, **__: pytest.fail("a registry was asked"))
    bundle = publish.Bundle("b", io.BytesIO(b""), DIGEST, 0, None, {})
    with pytest.raises(InvalidArgument) as error:
        publish.publish(bundle, target)
    assert "s3cret" not in f"{error.value}{error.value.hint}"


def test_a_registry_is_asked_for_the_right_to_push(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def registry(*_: object, push: bool = False, **__: object) -> None:
        raise Asked(push)

    monkeypatch.setattr(publish, "Registry", registry)
    with pytest.raises(Asked, match="True"):
        publish.publish(publish.Bundle("b", io.BytesIO(b""), DIGEST, 0, None, {}), "oci://r.test/a:1")


def test_a_signature_stands_beside_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, asked = tmp_path / "b", list[str]()
    assert signatures_at(str(bundle), Terms()) == signatures_at(f"file://{bundle}", Terms()) == []
    (tmp_path / "b.sig").write_bytes(bytes(1 << 20))
    assert signatures_at(str(bundle), Terms()) == signatures_at(f"file://{bundle}", Terms()) == [bytes(1 << 20)]
    (tmp_path / "b.sig").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(FetchError, match="larger than 1048576 bytes"):
        signatures_at(str(bundle), Terms())
    monkeypatch.setattr(request, "send", lambda url, *_, **_how: asked.append(url) or answered(404)[0])
    assert signatures_at("https://a.test/b?sig=x#f", Terms()) == []
    assert asked == ["https://a.test/b.sig?sig=x#f"]
    with pytest.raises(FetchError, match="is no address"):
        signatures_at("http://[::1/b", Terms())
    assert len(asked) == 1


def test_a_signature_is_asked_for_on_the_terms_that_were_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        request, "send", lambda url, what, terms, **_: pytest.fail(str(terms)) if terms.idle != 3 else answered(404)[0]
    )
    assert signatures_at("http://a.test/b", Terms(idle=3)) == []
    monkeypatch.setenv("GREENTIC_FETCH_IDLE_SECONDS", "3")
    assert signatures_at("http://a.test/b", own_terms()) == []


def asked_over_a_wire(server: DirectoryServer, request: str) -> tuple[str, bytes]:
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20) as wire:
        wire.sendall(f"{request}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        with wire.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    return head.decode(), body


def test_the_embedded_distributor_sends_every_byte_once_and_none_for_a_head(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(10_000)
    (tmp_path / "b").write_bytes(data)
    server = DirectoryServer(tmp_path, "127.0.0.1", 0, rate=200_000)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        assert asked_over_a_wire(server, "GET /b HTTP/1.1")[1] == data
        for path, size in (("/b", len(data)), ("/none", None), ("/", None)):
            head, body = asked_over_a_wire(server, f"HEAD {path} HTTP/1.1")
            assert body == b"" and (size is None or f"Content-Length: {size}" in head)
    finally:
        server.shutdown()
        server.server_close()
