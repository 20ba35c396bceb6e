"""How far a reader walks through the house: which rooms and files a boot, a request and `deploy` go through.

    python scripts/walks.py [--source DIR] [--bundle DIR]

Counted over real programs, as functions are called: rooms and files that are entered, and steps, the different calls from a file into
one of another room. What runs only because a module is imported is not counted. `--source` is the `src/` of another version,
`--bundle` the directory of the bundle that is deployed: the same one for two versions that are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent


def _within(frame: FrameType | None, source: str) -> str | None:
    """The file of a function of the package, as `room/file.py`."""
    if frame is None or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return None
    name = frame.f_code.co_filename
    return name[len(source) :] if name.startswith(source) else None


def _imported(frame: FrameType | None, source: str) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(source):
            return True
        frame = frame.f_back
    return False


def traced(out: Path, source: Path, module: str, words: list[str]) -> None:
    """Run a program's `main` and write what it walked through, at SIGUSR1 (then it counts anew) and at its end."""
    prefix = f"{source / 'greentic'}/"
    steps: set[tuple[str, str]] = set()

    def seen(frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        here = _within(frame, prefix)
        if here is None:
            return
        back = frame.f_back
        while back is not None and _within(back, prefix) is None:
            back = back.f_back
        step = (_within(back, prefix) or "", here)
        if step not in steps and not _imported(frame, prefix):
            steps.add(step)

    def told(*_: object) -> None:
        half = out.with_suffix(".half")
        half.write_text(json.dumps(sorted(steps)))
        half.replace(out)
        steps.clear()

    signal.signal(signal.SIGUSR1, told)
    sys.argv = [module, *words]
    program = importlib.import_module(module)
    threading.setprofile(seen)
    sys.setprofile(seen)
    try:
        program.main()
    finally:
        sys.setprofile(None)
        if not out.exists():
            told()


def _room(file: str) -> str:
    return file.partition("/")[0]


def summed(out: Path) -> tuple[int, int, int]:
    """Rooms, files, steps between rooms."""
    steps = [tuple(step) for step in json.loads(out.read_text())]
    out.unlink()
    files = {here for _, here in steps}
    return len({_room(f) for f in files}), len(files), sum(bool(a) and _room(a) != _room(b) for a, b in steps)


def _asked(url: str, body: bytes | None = None) -> bytes:
    sent = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(sent, timeout=5) as answer:
        return bytes(answer.read())


def walk(source: Path, made_of: Path, directory: Path) -> dict[str, tuple[int, int, int]]:
    """Make a bundle, deploy it, take from the host what a pod does not have, boot, ask once."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(source), "HOME": str(directory), "GREENTIC_STRICT_PORT": "1",
        "GREENTIC_GATEWAY_LISTEN_ADDR": f"127.0.0.1:{port}",
    }  # fmt: skip
    bundle, out = directory / "hello.gtbundle", directory / "walk.json"

    def begun(module: str, *words: str) -> subprocess.Popen[bytes]:
        line = [sys.executable, __file__, "--trace", str(out), "--source", str(source), module, *words]
        return subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL)

    def ran(module: str, *words: str) -> tuple[int, int, int]:
        with begun(module, *words) as process:
            assert process.wait(120) == 0, words
        return summed(out)

    def told(process: subprocess.Popen[bytes]) -> tuple[int, int, int]:
        process.send_signal(signal.SIGUSR1)
        while not out.exists():
            time.sleep(0.05)
        return summed(out)

    found: dict[str, tuple[int, int, int]] = {}
    ran("greentic.cli.gtc", "bundle", "build", str(made_of), "--out", str(bundle))
    ran("greentic.cli.gtc", "op", "env", "init")
    line = ("--bundle", str(bundle), "--source-uri", bundle.as_uri(), "--path-prefix", "/")
    found["`gtc op deploy`"] = ran("greentic.cli.gtc", "op", "deploy", *line)
    store = directory / ".greentic" / "environments" / "local"
    for left in store.glob("revisions/*"):
        subprocess.run(["rm", "-r", str(left)], check=True)
    (store / "runtime-config.json").unlink(missing_ok=True)
    process = begun("greentic.cli.start", "start", "--env", "local")
    try:
        ready = False
        while not ready:
            assert process.poll() is None, "the worker ended"
            with contextlib.suppress(OSError):
                ready = bool(_asked(f"http://127.0.0.1:{port}/healthz"))
            time.sleep(0.1)
        found["`environment.json` to served"] = told(process)
        _asked(f"http://127.0.0.1:{port}/", b'{"text": "Ada"}')
        found["request to reply"] = told(process)
    finally:
        process.kill()
        process.wait()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=ROOT / "src")
    parser.add_argument("--bundle", type=Path, default=ROOT / "examples" / "hello-bundle")
    parser.add_argument("--trace", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.trace:
        traced(given.trace, given.source.resolve(), given.program[0], given.program[1:])
    else:
        with tempfile.TemporaryDirectory() as made:
            for name, (rooms, files, steps) in walk(given.source.resolve(), given.bundle, Path(made)).items():
                print(f"| {name} | {rooms} rooms, {files} files, {steps} steps |")
