"""The directory that the processes of one worker share: gone with the last of them, and swept by the next start, but nobody else's."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from greentic.sessions.shared_directory import PREFIX, SharedDirectory, sweep

HOLDS = """
import os, subprocess, sys
from greentic.sessions.shared_directory import SharedDirectory
shared = SharedDirectory()
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(shared.fileno(),))
print(shared.path, child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "tmp"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


def test_a_directory_is_private_and_goes_with_its_process(top: Path) -> None:
    shared = SharedDirectory()
    assert shared.path.parent == top and shared.path.stat().st_mode & 0o777 == 0o700
    assert sweep(top) == 0, "it is in use"
    shared.close()
    assert list(top.iterdir()) == []


def test_what_a_killed_first_process_left_stays_while_another_uses_it_and_goes_then(top: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(top)},
    )  # fmt: skip
    assert first.stdout is not None
    left, _, child = first.stdout.readline().rstrip().rpartition(" ")
    (Path(left) / "conversation").write_bytes(b"x")
    reading = os.pidfd_open(int(child))
    first.kill()  # its pipe to the other process closes with it, and that one ends by itself
    first.wait()
    assert select.select([reading], [], [], 60)[0], "the other process ended"
    os.close(reading)
    second = SharedDirectory()
    assert not Path(left).exists() and second.path.exists()
    second.close()
    first.stdout.close()


def test_a_directory_that_is_used_by_another_process_alone_stays(top: Path) -> None:
    first = SharedDirectory()
    other = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(first.fileno(),),
    )  # fmt: skip
    assert other.stdout is not None and other.stdin is not None
    other.stdout.readline()
    first._file.close()  # as a killed first process does
    assert sweep(top) == 0 and first.path.exists()
    other.stdin.close()
    other.wait()
    other.stdout.close()
    assert sweep(top) == 1 and not first.path.exists()


def test_what_is_not_provably_ours_stays(top: Path) -> None:
    for name in ("", "a", "b"):
        (top / f"{PREFIX}{name}").mkdir()
    (top / f"{PREFIX}a" / "conversation").write_bytes(b"x")
    (top / f"{PREFIX}b" / ".used").symlink_to(top / "elsewhere")
    (top / "elsewhere").write_bytes(b"kept")
    (top / f"{PREFIX}link").symlink_to(top / f"{PREFIX}a")
    (top / f"{PREFIX}file").write_bytes(b"x")
    (top / f"{PREFIX}begun").mkdir()
    (top / f"{PREFIX}begun" / ".used").write_bytes(b"")  # made a moment ago, not locked yet
    (top / "other").mkdir()
    (top / "other" / ".used").write_bytes(b"used")
    before = sorted(path.relative_to(top) for path in top.rglob("*"))
    assert sweep(top) == 0
    assert sorted(path.relative_to(top) for path in top.rglob("*")) == before


def test_another_users_directory_stays(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / f"{PREFIX}x").mkdir()
    (top / f"{PREFIX}x" / ".used").write_bytes(b"used")
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    assert sweep(top) == 0
    monkeypatch.undo()
    assert sweep(top) == 1


def test_where_there_are_no_locks_nothing_is_swept(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / f"{PREFIX}x").mkdir()
    (top / f"{PREFIX}x" / ".used").write_bytes(b"used")
    monkeypatch.setattr("greentic.sessions.shared_directory.try_exclusive", lambda fd: True)
    assert sweep(top) == 0
