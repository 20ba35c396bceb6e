"""What is optional is told once and done without (threats: optional-fatal)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from conftest import Author, booted
from greentic.cli import op, operator, start
from greentic.ground import disk, optional
from greentic.ground.disk import RealDisk, replace_file, sync_directory, try_exclusive
from greentic.ground.user_cache import user_cache, user_state
from greentic.telemetry.log import OperatorLog, tell
from greentic.wasm.compiled_files import default_directory
from simulators import FakeClock


@pytest.fixture(autouse=True)
def nothing_noted():
    optional.forget()
    yield
    optional.forget()


@pytest.mark.parametrize(("where", "variable"), [(user_cache, "XDG_CACHE_HOME"), (user_state, "XDG_STATE_HOME")])
def test_a_place_of_the_user_is_an_absolute_one_and_the_home_is_whichever_is_told(where, variable):
    default = where({"HOME": "/h"})
    assert default is not None and default.is_relative_to("/h") and default == where({"HOME": "/h", variable: " "})
    assert where({"USERPROFILE": "/h"}) == default and where({"HOME": "/h", "USERPROFILE": "/other"}) == default
    assert where({"HOME": "/h", variable: "/x"}) == Path("/x/greentic") and where({}) is None
    assert not optional.lacking()
    assert where({"HOME": "/h", variable: "cache"}) == default and where({variable: "./cache"}) is None
    assert [text for text in optional.lacking() if variable in text and "absolute" in text]


def refusing(number: int):
    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_lack_is_told_once_and_kept():
    told: list[str] = []
    optional.done_without("hard links", "no")
    optional.on_lack(told.append)
    optional.done_without("hard links", "still no")
    optional.done_without("file locks", "none")
    assert told == ["done without hard links: no", "done without file locks: none"]
    assert optional.lacking() == tuple(told)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_threat_optional_fatal_a_file_system_without_locks(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    with (tmp_path / "f").open("wb") as file:
        assert try_exclusive(file.fileno())
    assert [text.split(":")[0] for text in optional.lacking()] == ["done without file locks"]


def test_a_lock_that_another_holds_is_no_lack(tmp_path):
    with (tmp_path / "f").open("wb") as one, (tmp_path / "f").open("wb") as two:
        assert try_exclusive(one.fileno()) and not try_exclusive(two.fileno())
    assert not optional.lacking()


def test_threat_optional_fatal_a_directory_that_cannot_be_synced(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
    sync_directory(tmp_path)
    assert "the sync of directories" in optional.lacking()[0]
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):  # a broken disk is no lack
        sync_directory(tmp_path)


def test_threat_optional_fatal_no_hard_links(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    RealDisk().link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"x" and "hard links" in optional.lacking()[0]
    with pytest.raises(FileExistsError):
        RealDisk().link(tmp_path / "a", tmp_path / "b")


def test_a_platform_without_fdatasync_appends_all_the_same(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "fdatasync", raising=False)
    RealDisk().append(tmp_path / "log", b"line\n")
    assert (tmp_path / "log").read_bytes() == b"line\n"


def test_a_replaced_file_is_durable_only_where_its_directory_was_synced_after_the_rename(tmp_path, monkeypatch):
    order: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync"), real_fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append("rename"), real_replace(self, to))[1])
    replace_file(tmp_path / "f", b"x", durable=True)
    assert order == ["sync", "rename", "sync"]  # the bytes, the name, the directory
    order.clear()
    disk.place(tmp_path / "f", tmp_path / "g")
    assert order == ["sync"] and not list(tmp_path.glob(".f*"))


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_threat_optional_fatal_a_log_that_takes_nothing(tmp_path):
    stderr = Full()
    log = OperatorLog(tmp_path, FakeClock(), stderr=stderr)
    log.warn("m", "not heard")  # and not an error
    closed = io.StringIO()
    closed.close()
    assert not tell(stderr, "x") and not tell(closed, "x") and not tell(None, "x")
    assert "not heard" in (tmp_path / "operator.log").read_text()


@pytest.fixture
def unread() -> Iterator[tuple[TextIO, int]]:
    """A pipe that is full, for writing, and its other end; waiting for it ends the tests."""
    signal.alarm(60)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * select.PIPE_BUF)
    os.set_blocking(writing, True)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        yield stream, reading
    os.close(reading)
    signal.alarm(0)


def emptied(reading: int) -> bytes:
    """What is in the pipe by now."""
    os.set_blocking(reading, False)
    found = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(reading, 1 << 16):
            found += piece
    return found


def test_threat_optional_fatal_a_reader_that_does_not_read(unread: tuple[TextIO, int], tmp_path: Path) -> None:
    """A worker whose log nobody took answered nobody any more, not even its probes, and could not be stopped."""
    stream, reading = unread
    log = OperatorLog(tmp_path, FakeClock(), stderr=stream)
    for number in range(1_000):
        log.warn("m", f"not heard {number}")
    assert (tmp_path / "operator.log").read_text().count("not heard") == 1_000
    assert any("nobody reads" in text for text in optional.lacking())
    assert b"not heard" not in emptied(reading)
    log.warn("m", "heard again")
    assert emptied(reading).endswith(b"heard again\n")


def test_a_line_that_was_begun_when_nobody_read_any_more_does_not_swallow_the_next(
    unread: tuple[TextIO, int],
) -> None:
    stream, reading = unread
    emptied(reading)
    long = "é" * (1 << 20)
    assert not tell(stream, long + "\n") and not tell(stream, "lost\n")
    begun = emptied(reading).decode(errors="ignore")
    assert begun and set(begun) == {"é"}
    assert tell(stream, "next\n") and tell(stream, "last\n") and emptied(reading) == b"\nnext\nlast\n"


@pytest.mark.parametrize("kind", ["full", "gone"])
def test_a_worker_that_nobody_could_hear_ends_as_it_should(kind: str) -> None:
    """It ended with 120: what was not written stood in a buffer, and failed once more at the end."""
    words = [
        sys.executable,
        "-c",
        "import sys; from greentic.cli import start; from greentic.telemetry.log import tell; "
        "start.run = lambda argv: tell(sys.stdout, 'served') or None; start.main()",
    ]
    reading, writing = os.pipe()
    os.close(reading)
    target = open("/dev/full", "w") if kind == "full" else os.fdopen(writing, "w")  # noqa: SIM115
    with target:
        buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        done = subprocess.run(words, stdout=target, stderr=subprocess.PIPE, env=buffered, check=False)
    assert done.returncode == 0 and done.stderr == b""


def test_threat_optional_fatal_a_worker_without_home_cache_or_log(author: Author, hello, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    author.create()
    author.deployed(hello)
    store = author.context.store
    logs = store.paths("local").root / "logs"
    logs.write_text("in the way")
    monkeypatch.delenv("HOME")
    assert len(booted(store, cache_directory=None).activation.revisions) == 1


def test_threat_optional_fatal_a_user_without_a_home(author: Author, hello, tmp_path, monkeypatch):
    author.create()
    author.deployed(hello, uri=hello.as_uri())
    store = author.context.store
    shutil.rmtree(store.paths("local").revisions)  # so that it pulls, which makes room in the caches first
    for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # nor has it an entry among the users, as in a container
    assert default_directory() is None
    assert len(booted(store, cache_directory=None).activation.revisions) == 1


@pytest.mark.parametrize(
    ("met", "told"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/store/x"),
            "Error: io error on /store/x: Permission denied",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory"),
            "Error: io error on the file system: No usable",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "`ulimit -n` tells how many"),
        (MemoryError(), "Error: io error on memory: there is no more"),
    ],
)
@pytest.mark.parametrize("program", [start, operator])
def test_what_the_machine_refuses_a_program_is_told_in_a_sentence(program, met, told, monkeypatch, capsys):
    def refuses(_: object) -> None:
        raise met

    monkeypatch.setattr(program, "run" if program is start else "_run", refuses)
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 1 and told in capsys.readouterr().err


@pytest.mark.e2e
def test_closed_standard_descriptors_are_given_to_nobody(tmp_path):
    program = (
        "import os, sys; from greentic.terminal.streams import claim_standard_streams; claim_standard_streams();"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT); os.write(fd, str(fd).encode())"
    )
    for closed in ("<&-", ">&- 2>&-", "<&- >&- 2>&-"):
        out = tmp_path / "number"
        subprocess.run(["sh", "-c", f'"$0" -c "$1" "$2" {closed}', sys.executable, program, str(out)], check=True)
        assert int(out.read_text()) > 2


def _streams(words: str, how: str, store: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`gtc words` in a shell, with its streams as told."""
    line = f'"$0" -m greentic.cli.gtc {words} {how}'
    environ = {**os.environ, "PYTHONUNBUFFERED": "", "HOME": str(store), **variables}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, sys.executable], env=environ, capture_output=True, text=True, check=False
    )


ANSWERS = (
    "--help",
    "--version",
    "op --help",
    "op env create --help",
    "bundle --help",
    "completion bash",
    "op env list",
)


@pytest.mark.e2e
@pytest.mark.parametrize("words", [*ANSWERS, "op env show nope", "nope"])
@pytest.mark.parametrize("how", [">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full", "| true"])
def test_no_stream_that_is_closed_full_or_gone_ends_in_a_traceback(tmp_path, words, how):
    done = _streams(words, how, tmp_path)
    assert done.returncode in (0, 1, 2), done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("words", ANSWERS)
def test_an_answer_that_cannot_be_printed_is_told(tmp_path, words):
    done = _streams(words, ">/dev/full", tmp_path)
    assert done.returncode == 1 and "standard output" in done.stderr, done.stderr


@pytest.mark.e2e
def test_a_change_whose_answer_is_lost_is_not_told_to_be_nothing(tmp_path):
    done = _streams("op env create local --name x", ">/dev/full", tmp_path)
    assert done.returncode == 1 and (tmp_path / ".greentic/environments/local/environment.json").is_file()
    assert "nothing was changed" not in done.stderr and "what was asked for is done" in done.stderr


@pytest.mark.parametrize("form", ["json", "yaml", "table", "name"])
def test_what_a_verb_did_without_is_told_once(tmp_path, monkeypatch, capsys, form):
    """Two writers at once on a file system without locks are not kept apart: their operators have to know."""
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    words = ["--store-root", str(tmp_path), "--output", form, "env", "create", "e", "--name", "e"]
    assert op.main(words) == 0
    told = capsys.readouterr()
    lack = "done without file locks: No locks available; two programs at once are not kept apart"
    if form in ("json", "yaml"):
        assert lack in told.out and not told.err
    else:
        assert told.err.splitlines() == [f"warning: {lack}"]
    if form == "json":
        assert json.loads(told.out)["result"]["warnings"] == [lack]


def test_where_nothing_is_lacking_no_warning_is_told(tmp_path, capsys):
    assert op.main(["--store-root", str(tmp_path), "env", "create", "e", "--name", "e"]) == 0
    told = capsys.readouterr()
    assert "warnings" not in json.loads(told.out)["result"] and not told.err
