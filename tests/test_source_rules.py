"""Where a bundle comes from, one rule at a time: which source opens an address, files, mirrors, more connections, errors that stick."""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from greentic.distribute import http_source, oci_source, parallel, sources
from greentic.distribute.file_source import FileSource
from greentic.distribute.http_source import HttpBody, HttpSource
from greentic.distribute.mirrors import check_mirror, first_of, hasty, references
from greentic.distribute.oci_source import OciSource
from greentic.distribute.parallel import CONNECTIONS, Helpers
from greentic.distribute.ranges import Ranges
from greentic.distribute.source import Body
from greentic.distribute.sources import check_source, is_relative, never_pulled, settled, source_for
from greentic.ground.errors import DigestMismatch, FetchError, InvalidArgument, ServerBusy, Truncated
from greentic.net.addresses import shown
from greentic.net.terms import Terms, may_pass
from greentic.registry import referrers
from simulators import FakeClock
from test_bundle_sources import answered, read_all
from waiting import until

DIGEST = f"sha256:{'ab' * 32}"


# -- which source opens an address ----------------------------------------------------------------------------------


def test_an_address_is_opened_by_what_its_scheme_says(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"bundle")
    (tmp_path / "b%20c").write_bytes(b"as it stands")
    (tmp_path / "b d").write_bytes(b"unescaped")
    for reference, kind, path in (
        ("http://a.test/b", HttpSource, "http://a.test/b"),
        (" HTTPS://a.test/B ", HttpSource, "https://a.test/B"),
        ("oci://r.test/a:1", OciSource, "oci://r.test/a:1"),
        ("repo://a:1", OciSource, "repo://a:1"),
        ("store://a:1", OciSource, "store://a:1"),
        (f"file://{tmp_path}/b", FileSource, f"{tmp_path}/b"),
        (f"File://localhost{tmp_path}/b", FileSource, f"{tmp_path}/b"),
        (f"file://{tmp_path}/b%20c", FileSource, f"{tmp_path}/b%20c"),
        (f"file://{tmp_path}/b%20d", FileSource, f"{tmp_path}/b d"),
        (f" {tmp_path}/b ", FileSource, f"{tmp_path}/b"),
    ):
        source, text = source_for(reference)
        assert isinstance(source, kind) and text == path


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("", "cannot be empty"), (" \n", "cannot be empty"), ("ftp://h/x", r"unsupported bundle reference ftp://h/x; expected local path, file://, .*store://$"),
        ("file:///no/such", r"file:///no/such; .* \(file not found\)$"), ("/no/such", r"/no/such; .* \(file not found\)$"),
        ("no-such", r"no-such; .* \(file not found below the directory that this program runs in\)$"), ("n" * 5000, "unsupported"), ("a\0b", "unsupported"),
    ],
)  # fmt: skip
def test_what_nothing_opens_is_refused_with_what_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FetchError, match=told):
        source_for(reference)


def test_terms_and_whose_credentials_go_along_are_handed_on() -> None:
    terms = Terms(idle=7)
    for mirror in (False, True):
        source = source_for("oci://r.test/a:1", terms, mirror=mirror)[0]
        assert isinstance(source, OciSource) and (source._terms, source._mirror) == (terms, mirror)
    plain = source_for("oci://r.test/a:1")[0]
    assert isinstance(plain, OciSource) and plain._mirror is False
    web = source_for("http://a.test/b", terms)[0]
    assert isinstance(web, HttpSource) and web._terms is terms


@pytest.mark.parametrize(
    ("reference", "relative"),
    [("a/b", True), ("file://a/b", True), ("./b", True), ("/a/b", False), ("file:///a/b", False), ("https://h/b", False), ("oci://r/a:1", False), ("", False)],
)  # fmt: skip
def test_a_path_that_does_not_begin_at_the_root_depends_on_where_a_program_runs(reference: str, relative: bool) -> None:
    assert is_relative(f" {reference} ") is relative


def test_what_is_written_down_means_the_same_everywhere(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    for reference in ("https://h.test/b", "oci://r.test/a:1", "/no/such", "file:///no/such", f"repo://a@{DIGEST}"):
        assert settled(reference, "it", tmp_path) == check_source(reference, "it", tmp_path) == reference
    assert settled("b", "it", tmp_path) == f"{tmp_path}/b"
    assert settled("file://b", "it", tmp_path) == f"file://{tmp_path}/b"
    with pytest.raises(
        InvalidArgument, match=f"^.*it `c` is a path from a directory, and no such file is in `{tmp_path}`"
    ):
        settled("c", "it", tmp_path)
    for empty in ("", "  "):
        with pytest.raises(InvalidArgument, match="it is empty"):
            settled(empty, "it", tmp_path)


@pytest.mark.parametrize("reference", ["https://u:s3cret@h.test/b", "oci://u:s3cret@r.test/a:1", "ftp://u:s3cret@h/x"])
def test_threat_secret_before_validation_no_address_is_written_down_with_a_password(reference: str) -> None:
    for writes in (settled, check_source):
        with pytest.raises(InvalidArgument, match="credentials do not belong") as error:
            writes(reference, "it")
        assert "s3cret" not in f"{error.value}{error.value.hint}"


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("https://h.test/b", None), ("http://h.test:8080/b", None), ("oci://r.test/a:1", None), ("/any/path", None), ("file:///any", None), ("repo://a:1", None),
        ("HTTPS://h.test/b", None), ("ftp://h.test/b", "no worker pulls from `ftp://`"), ("htps://h.test/b", "did you mean `https`"), ("https:///b", "names no host"),
        ("https://h.test:0/b", "no port that one could listen on"), ("https://h.test:x/b", "makes no sense"), ("https://[::1/b", "makes no sense"), ("oci://r.test/a@x", "digest"),
    ],
)  # fmt: skip
def test_what_no_worker_could_ever_pull_is_told_when_it_is_written(reference: str, told: str | None) -> None:
    reason = never_pulled(reference)
    if told is None:
        assert reason is None and check_source(reference, "it") == reference
        return
    assert reason is not None and told in reason
    with pytest.raises(InvalidArgument, match="^.*it `"):
        check_source(reference, "it")


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_file_can_be_given_in_parts_as_long_as_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.write_bytes(b"0123456789")
    first, second = FileSource().open(str(path)), FileSource().open(str(path), 4)
    assert first.resumable and first.digest is None and first.validator == second.validator is not None
    first.close()
    second.close()
    with pytest.raises(ValueError, match="closed"):
        first.read_into(memoryview(bytearray(1)))
    os.utime(path, ns=(1, 1))
    assert FileSource().open(str(path)).validator != first.validator


@pytest.mark.parametrize("failing", ["open", "readinto"])
def test_a_disk_that_cannot_be_read_is_told_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    (tmp_path / "b").write_bytes(b"x")
    body = FileSource().open(str(tmp_path / "b"))

    def fails(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    if failing == "open":
        monkeypatch.setattr(Path, "open", fails)
    else:
        monkeypatch.setattr(body, "_file", type("Damaged", (), {"readinto": fails, "name": str(tmp_path / "b")})())
    with pytest.raises(FetchError, match=f"read bundle {tmp_path}/b: Input/output error") as error:
        FileSource().open(str(tmp_path / "b")) if failing == "open" else body.read_into(memoryview(bytearray(1)))
    assert not may_pass(error.value)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, told in ((tmp_path, "is a directory; a .gtbundle"), (tmp_path / "fifo", "is not a regular file")):
        with pytest.raises(FetchError, match=told):
            FileSource().open(str(path))


# -- an answer over HTTP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "told", "passes"),
    [(TimeoutError("timed out"), "no answer within", True), (OSError(113, "No route to host"), "No route to host", True), (ValueError("odd"), "odd", False),
     (http.client.IncompleteRead(b""), "the connection ended after 0 bytes, announced 4 bytes", True), (ConnectionResetError(104, "reset"), "the connection ended after 0 bytes", True)],
)  # fmt: skip
def test_an_error_of_a_body_sticks_and_says_whether_it_may_pass(error: Exception, told: str, passes: bool) -> None:
    answer, connection = answered(200, b"0123")
    reads: list[int] = []

    def read1(count: int) -> bytes:
        reads.append(count)
        raise error

    answer.body.read1 = read1  # type: ignore[method-assign]
    body = HttpBody(answer, "r", 0)
    seen: list[FetchError] = []
    for _ in range(2):
        with pytest.raises(FetchError, match=f"read downloaded bundle body r: .*{told}") as raised:
            body.read_into(memoryview(bytearray(4)))
        seen.append(raised.value)
    assert seen[0] is seen[1] and len(reads) == 1 and may_pass(seen[0]) is passes
    assert isinstance(seen[0], Truncated) is ("ended" in told) and seen[0].__cause__ is error
    body.close()
    assert connection.closed == 1


def test_a_source_asks_for_what_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Terms, dict[str, str]]] = []
    parts = [answered(200, b"0123")[0], answered(206, b"56", Content_Range="bytes 5-6/10")[0]]

    def send(url: str, what: str, terms: Terms, *, headers: dict[str, str]) -> object:
        seen.append((url, terms, headers))
        return parts[len(seen) - 1]

    monkeypatch.setattr(http_source, "send", send)
    terms = Terms(idle=7)
    source = HttpSource(terms)
    assert (read_all(source.open("http://a.test/b")), source.open("http://a.test/b", 5, '"v"', 7).offset) == (
        b"0123",
        5,
    )
    assert seen == [
        ("http://a.test/b", terms, {}),
        ("http://a.test/b", terms, {"Range": "bytes=5-6", "If-Range": '"v"'}),
    ]


# -- mirrors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("https://u:s3cret@m.test/{sha256}", "the mirror `.*credentials do not belong"), ("https://m.test/{nam}/{digest}", "unknown `{nam}`; there are sha256, digest, name"),
        ("ftp://m.test/{name}", "has no scheme that a bundle may come from: "), ("https://m.test/b", "the same for every bundle"),
    ],
)  # fmt: skip
def test_what_is_no_mirror_is_refused_with_the_reason(template: str, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told) as error:
        check_mirror(template)
    assert "s3cret" not in str(error.value)


def test_a_mirror_may_be_of_any_scheme_in_any_letters() -> None:
    for scheme in ("http", "https", "file", "oci", "repo", "store"):
        assert check_mirror(f" {scheme.upper()}://m/{{name}}") == f"{scheme}://m/{{name}}"


def test_the_names_in_a_mirror_become_those_of_the_bundle() -> None:
    told = references("https://a.test/x/b c.gtbundle?sig=1#f", DIGEST, ["m/{sha256}/{digest}/{name}/{sha256}"])
    assert told[1] == f"m/{'ab' * 32}/{DIGEST}/b c.gtbundle/{'ab' * 32}"
    assert references("/x/y?z", DIGEST, ["m/{name}"])[1] == "m/y?z"  # a path has no question


@pytest.mark.parametrize("kind", [FetchError, DigestMismatch])
def test_each_source_that_did_not_serve_is_told_as_it_failed(kind: type[FetchError] | type[DigestMismatch]) -> None:
    told: list[tuple[str, str]] = []

    def fetch(reference: str, patient: bool) -> str:
        if reference.startswith("https://ok"):
            return reference
        raise kind("gone")

    bad = "https://h.test/b?sig=s3cret"
    assert first_of([bad, "https://ok.test/b"], fetch, lambda *seen: told.append(seen)) == "https://ok.test/b"
    assert told == [(shown(bad), kind("gone").message)] and "s3cret" not in shown(bad)
    with pytest.raises(kind, match="gone"):  # the only one: its own error, so that its kind is told
        first_of([bad], fetch, lambda *seen: told.append(seen))
    assert len(told) == 1
    with pytest.raises(FetchError, match=r"none of 2 sources has the bundle: .*gone; .*gone") as error:
        first_of([bad, bad], fetch, lambda *seen: told.append(seen))
    assert "s3cret" not in str(error.value) and len(told) == 3


def test_who_is_busy_hides_no_mirror_and_is_asked_patiently_once_all_were_asked() -> None:
    """A registry's `Retry-After`, or its silence, held up the mirrors for minutes."""
    asked: list[tuple[str, bool]] = []
    serves = ("b", False)

    def fetch(reference: str, patient: bool) -> str:
        asked.append((reference, patient))
        if (reference, patient) == serves:
            return reference
        raise ServerBusy("429") if reference == "a" else FetchError("404")

    assert first_of(["a", "b"], fetch, lambda *_: None) == "b" and asked == [("a", False), ("b", False)]
    serves, asked[:] = ("a", True), []
    assert first_of(["a", "b"], fetch, lambda *_: None) == "a" and asked == [("a", False), ("b", False), ("a", True)]
    serves, asked[:] = ("none", True), []
    with pytest.raises(FetchError, match=r"none of 2 sources has the bundle: a: .*429; b: .*404"):
        first_of(["a", "b"], fetch, lambda *_: None)
    assert asked == [("a", False), ("b", False), ("a", True)]
    serves, asked[:] = ("a", True), []
    assert first_of(["a"], fetch, lambda *_: None) == "a" and asked == [("a", True)]
    assert (hasty(Terms(idle=30)).idle, hasty(Terms(idle=2)).idle) == (5, 2)


def test_a_fault_of_our_own_is_no_reason_to_ask_a_mirror() -> None:
    def fetch(reference: str, patient: bool) -> str:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        first_of(["a", "b"], fetch, lambda *_: None)


# -- signatures -----------------------------------------------------------------------------------------------------


def test_a_registry_is_asked_for_what_refers_to_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Terms] = []

    class Registry:
        def __init__(self, reference: Any, terms: Terms, environ: object, *, mirror: bool) -> None:
            assert not mirror
            self.reference = reference
            made.append(terms)

    def attached(registry: object, subject: str, kind: str, limit: int) -> list[bytes]:
        assert (subject, kind, limit) == (DIGEST, "application/vnd.dsse.envelope.v1+json", 1 << 20)
        return [b"one", b"other"]

    monkeypatch.setattr(oci_source, "Registry", Registry)
    monkeypatch.setattr(referrers, "attached", attached)
    monkeypatch.setattr(
        oci_source,
        "resolve_manifest",
        lambda registry, wanted: type("Manifest", (), {"digest": DIGEST if wanted == "1" else ""})(),
    )
    assert sources.signatures_at("OCI://r.test/a:1", Terms(idle=7)) == [b"one", b"other"]
    assert [terms.idle for terms in made] == [7]


# -- more connections -----------------------------------------------------------------------------------------------

SEGMENT, ENOUGH, FRONT, BLOCK, END = 100, 300, 50, 16, 1050
WHOLE = bytes(n % 251 for n in range(2 * END))


class Part:
    """One answer to a helper, which may lie."""

    validator: str | None = None
    digest: str | None = None
    resumable, untold_end, coding = True, False, ""
    length: int | None = None

    def __init__(self, start: int, *, offset: int = 0, total: int | None = END, short: int = 0, end: int = END) -> None:
        self.offset, self.total, self._at = start + offset, total, start
        self._ends = end - short
        self.closed = False

    def read_into(self, buffer: memoryview) -> int:
        count = max(min(len(buffer), self._ends - self._at), 0)
        buffer[:count] = WHOLE[self._at : self._at + count]
        self._at += count
        return count

    def close(self) -> None:
        self.closed = True


class Helped:
    """Helpers of a slow download, over parts that `gives` makes of (start, end)."""

    def __init__(self, directory: Path, gives: Callable[[int, int], Part]) -> None:
        self.clock, self.asked, self.parts = FakeClock(), list[tuple[int, int | None, str | None]](), list[Part]()
        self.path = directory / "f"
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        self.gives = gives
        self.helpers = Helpers(self, "r", self.fd, '"v"', self.clock)

    def open(self, reference: str, offset: int = 0, validator: str | None = None, end: int | None = None) -> Body:
        assert reference == "r" and end is not None
        self.asked.append((offset, end, validator))
        self.parts.append(self.gives(offset, end))
        return cast("Body", self.parts[-1])

    def slowly(self) -> int:
        """The first connection is found slow; up to where it must read."""
        assert self.helpers.help(0, END) == END
        self.clock.sleep(1)
        return self.helpers.help(10, END)

    def all_done(self) -> Ranges:
        for thread in self.helpers._threads:
            thread.join()
        return self.helpers.finish()

    def bytes_of(self, start: int, end: int) -> bytes:
        return os.pread(self.fd, end - start, start)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SEGMENT", SEGMENT), ("ENOUGH", ENOUGH), ("_FRONT", FRONT), ("_BLOCK", BLOCK)):
        monkeypatch.setattr(parallel, name, value)
    monkeypatch.setattr(parallel, "SLOW_BYTES_PER_SECOND", 200)


def whole(start: int, end: int) -> Part:
    return Part(start, end=2 * END)  # a source that would go on beyond what it was asked for


def test_segments_come_from_the_back_and_the_front_keeps_its_room(tmp_path: Path) -> None:
    helped = Helped(tmp_path, whole)
    assert 150 <= helped.slowly() <= END
    done = helped.all_done()
    assert done.spans == ((150, END),) and helped.bytes_of(150, END) == WHOLE[150:END]
    assert sorted(helped.asked) == [(start, start + SEGMENT, '"v"') for start in range(150, END, SEGMENT)]
    assert helped.path.stat().st_size == END and all(part.closed for part in helped.parts)
    assert helped.helpers.help(140, END) == 150 and helped.helpers.help(140, 145) == 145
    assert len(helped.helpers._threads) == CONNECTIONS - 1


@pytest.mark.parametrize(
    ("first", "seconds", "position", "end", "helps"),
    [
        (0, 0.2, 10, END, False), (0, 0.3, 10, END, True), (0, 1, 10, 309, False), (0, 1, 10, 310, True), (0, 1, 210, END, False), (0, 1, 190, END, True),
        (500, 1, 510, END, True), (500, 1, 710, END + 200, False), (0, 2, 390, END, True), (0, 2, 410, END, False),
    ],
)  # fmt: skip
def test_only_a_slow_download_of_which_much_is_left_is_helped(
    tmp_path: Path, first: int, seconds: float, position: int, end: int, helps: bool
) -> None:
    helped = Helped(tmp_path, lambda start, end: Part(start, total=None))
    helped.helpers.help(first, end)
    helped.clock.sleep(seconds)
    helped.helpers.help(position, end)
    helped.all_done()
    assert bool(helped.asked) is helps


def test_a_download_that_becomes_slow_is_helped_from_then_on(tmp_path: Path) -> None:
    helped = Helped(tmp_path, whole)
    helped.helpers.help(0, END)
    helped.clock.sleep(1)
    assert helped.helpers.help(400, END) == END  # fast so far
    helped.clock.sleep(1)
    helped.helpers.help(500, END)  # in all it is fast still, of late it is not
    assert helped.all_done().spans == ((650, END),)


@pytest.mark.parametrize(
    "gives",
    [lambda start, end: Part(start, offset=1), lambda start, end: Part(start, total=None), lambda start, end: Part(start, total=end - 1)],
    ids=["begins elsewhere", "of no known whole", "of a shorter whole"],
)  # fmt: skip
def test_threat_lying_server_a_helper_takes_no_byte_of_what_is_not_its_part(
    tmp_path: Path, gives: Callable[[int, int], Part]
) -> None:
    helped = Helped(tmp_path, gives)
    helped.slowly()
    assert helped.all_done() == Ranges() and helped.path.stat().st_size == 0
    assert len(helped.asked) == CONNECTIONS - 1 and all(part.closed for part in helped.parts)


def test_what_came_of_a_segment_is_kept_and_the_rest_is_left_to_the_front(tmp_path: Path) -> None:
    helped = Helped(tmp_path, lambda start, end: Part(start, end=end, short=30))
    helped.slowly()
    done = helped.all_done()
    assert done.spans == tuple((start, start + 70) for start in (750, 850, 950))
    assert len(helped.asked) == CONNECTIONS - 1  # nobody goes on after a segment that failed


@pytest.mark.parametrize("error", [FetchError("refused"), OSError(28, "No space left on device")])
def test_a_segment_that_fails_is_given_up_without_a_word(tmp_path: Path, error: Exception) -> None:
    def gives(start: int, end: int) -> Part:
        raise error

    helped = Helped(tmp_path, gives)
    before = threading.excepthook
    failed: list[object] = []
    threading.excepthook = failed.append
    try:
        helped.slowly()
        assert helped.all_done() == Ranges() and len(helped.asked) == CONNECTIONS - 1
    finally:
        threading.excepthook = before
    assert not failed


def test_nobody_takes_another_segment_once_the_download_ends(tmp_path: Path) -> None:
    """Whoever is at one when the front is done is waited for, and takes no more."""

    def gives(start: int, end: int) -> Part:
        until(lambda: helped.helpers._stopped)
        return whole(start, end)

    helped = Helped(tmp_path, gives)
    helped.slowly()
    done = helped.helpers.finish()
    assert len(helped.asked) == CONNECTIONS - 1 and done.spans == ((750, END),)
    assert not any(thread.is_alive() for thread in helped.helpers._threads)


def test_a_disk_that_takes_little_at_once_is_given_the_rest_of_a_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(parallel.os, "pwrite", lambda fd, data, at: real(fd, data[:7], at))
    helped = Helped(tmp_path, whole)
    helped.slowly()
    assert helped.all_done().spans == ((150, END),) and helped.bytes_of(150, END) == WHOLE[150:END]


def test_a_file_is_read_to_its_end_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(WHOLE)
    for offset in (0, 1, len(WHOLE) - 1, len(WHOLE)):
        body = FileSource().open(str(tmp_path / "b"), offset)
        assert read_all(body, 1000) == WHOLE[offset:]
        body.close()
