"""The wasm of a component from its source: a `.wasm` as it is, a `.wat` translated, a directory of Python made a component.

Rules:
1. Python needs componentize-py (the extra `python-components`), takes seconds and makes about 18 MB; what it made is kept by the
   content of its source, so that building again is quick. A person at a terminal is told that it takes a while.
2. What a tool prints is not its reason. The author is shown the lines of the Python traceback that are about the source, and
   a mistake that everybody makes gets its own sentence.
"""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from greentic.author.source_files import ends_with, read_authored
from greentic.ground.disk import real_path, replace_file
from greentic.ground.errors import InvalidArgument, MalformedArtifact, NotFound
from greentic.ground.extras import need
from greentic.ground.user_cache import user_cache
from greentic.ground.variables import environment
from greentic.pack.limits import DEFAULT_PACK_LIMITS
from greentic.wasm.format import assembled, check_component

WORLD = "python-component"
ENTRY = "app.py"
TIMEOUT_SECONDS = 600
_SDK = Path(__file__).parent.parent / "sdk"


def component_bytes(directory: Path, source: str, component_id: str) -> bytes:
    """The wasm of a component. `source` is a path in `directory`. Raises `InvalidArgument` or `NotFound` that names it."""
    path = directory / source
    if not real_path(path).is_relative_to(real_path(directory)):
        raise InvalidArgument(f"component {component_id}: `{source}` leaves the pack")
    if path.is_dir():
        data = _from_python(path, component_id)
    elif ends_with(path, ".wat", ".wasm"):
        data = read_authored(path, DEFAULT_PACK_LIMITS.entry_bytes, f"component {component_id}: ")
        if ends_with(path, ".wat"):
            data = _from_text(path, data)
    else:
        raise InvalidArgument(
            f"component {component_id}: `{path}` is no component source; expected a .wasm or .wat file, or a directory with {ENTRY}"
        )
    try:
        check_component(data, component_id)
    except MalformedArtifact as error:
        raise InvalidArgument(f"{path}: {error.message}", hint=error.hint) from None
    return data


def _from_text(path: Path, text: bytes) -> bytes:
    need("wasmtime", f"reading {path.name}")
    try:
        return assembled(text)
    except MalformedArtifact as error:
        raise InvalidArgument(f"{path} does not parse: {error.message}") from None


def _from_python(directory: Path, component_id: str) -> bytes:
    if not (directory / ENTRY).is_file():
        raise NotFound(f"component {component_id}: `{directory / ENTRY}` does not exist")
    kept = _kept(_digest(directory))
    if kept.is_file():
        return kept.read_bytes()
    tool = Path(sys.executable).with_name("componentize-py")
    program = str(tool) if tool.is_file() else shutil.which("componentize-py")
    if program is None:
        raise InvalidArgument(
            f"component {component_id} is written in Python, and componentize-py is not installed",
            hint="pip install 'greentic[python-components]'",
        )
    with tempfile.TemporaryDirectory(prefix="greentic-component-") as scratch:
        out = Path(scratch) / "component.wasm"
        words = [
            program, "-d", str(_SDK / "wit"), "-w", WORLD, "componentize", ENTRY.removesuffix(".py"),
            "-p", str(real_path(directory)), "-p", str(_SDK / "guest"), "-o", str(out),
        ]  # fmt: skip
        # A backtrace of the tool itself would stand where the author's mistake is looked for.
        more = {"PYTHONDONTWRITEBYTECODE": "1", "RUST_BACKTRACE": "0", "RUST_LIB_BACKTRACE": "0"}
        _progress(f"building component {component_id} from Python, which takes some seconds …")
        try:
            done = subprocess.run(
                words,
                cwd=scratch,
                env={**environment(), **more},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InvalidArgument(f"component {component_id}: building took longer than {TIMEOUT_SECONDS} s") from None
        if done.returncode or not out.is_file():
            reason, hint = build_failure(done.stderr.strip() or done.stdout.strip())
            raise InvalidArgument(f"component {component_id} of `{directory}` does not build: {reason}", hint=hint)
        data = out.read_bytes()
    _keep(kept, data)
    return data


def offered(directory: Path) -> set[str] | None:
    """The operations that a component's Python offers, as far as its source says; `None` where it does not say."""
    found: set[str] = set()
    for path in sorted(directory.rglob("*.py")):
        if b"operation" not in (text := path.read_bytes()):
            continue
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):  # what the Python of components reads, and ours does not
            return None
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "operation":
                name = node.args[0] if node.args else None
                if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
                    return None
                found.add(name.value)
    return found or None


_EXCEPTION = re.compile(r"(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning)\b")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_MAX_LINES = 12
_NODE = "from greentic_component import Node"


def build_failure(said: str) -> tuple[str, str | None]:
    """Why a build from Python failed, out of what the tool printed, and what to do next (rule 2)."""
    lines = said.splitlines()
    if re.search(r"has no attribute ['\"`]Node['\"`]|\bNode\b.*(?:not (?:found|defined|exported)|missing)", said):
        return f"{ENTRY} has no `Node`, by which its operations are found", f"put `{_NODE}, operation` at its top"
    if "Exited with i32 exit status" in said:
        return f"{ENTRY} ends while it is imported", "let nothing at the level of a module call `sys.exit`"
    begin = next((at for at, line in enumerate(lines) if line.lstrip().startswith("Traceback")), None)
    end = next((at for at in range(len(lines) - 1, -1, -1) if _EXCEPTION.match(lines[at].strip())), None)
    if begin is not None and end is not None and end >= begin:
        kept = [line.strip() for line in lines[begin + 1 : end + 1] if line.strip(" ^~")]
        return " | ".join(_own(kept)[-_MAX_LINES:]), None
    if end is not None:
        return lines[end].strip(), None
    return " | ".join(line.strip() for line in lines[:_MAX_LINES] if line.strip()) or "the tool said nothing", None


def _own(lines: list[str]) -> list[str]:
    """The lines of a traceback from the author's first file on, without the tool's own."""
    frames = [
        (at, found) for at, line in enumerate(lines) if (found := _FRAME.search(line)) and _is_source(found["file"])
    ]
    if not frames:
        return lines
    first, found = frames[0]
    rest = [lines[first][found.start() :], *lines[first + 1 :]]
    cause = next((at for at, line in enumerate(rest) if line.startswith("Caused by")), len(rest))
    return rest[:cause]


def _is_source(file: str) -> bool:
    return file.endswith(".py") and "python3" not in file and not Path(file).name.startswith("componentize_py")


def _progress(text: str) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def _digest(directory: Path) -> str:
    """What the component depends on: its source, our part of it, and the tool."""
    digest = hashlib.sha256()
    for root in (directory, _SDK / "guest", _SDK / "wit"):
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                data = path.read_bytes()
                digest.update(f"{path.relative_to(root)}\0{len(data)}\0".encode() + data)
    tool = sorted(p.name for p in Path(sys.prefix).glob("lib/python*/site-packages/componentize_py-*.dist-info"))
    digest.update(repr(tool).encode())
    return digest.hexdigest()


def _kept(digest: str) -> Path:
    base = user_cache(environment()) or Path(tempfile.gettempdir()) / ".cache" / "greentic"
    return base / "built-components" / f"{digest}.wasm"


def _keep(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError:
        return  # a cache that cannot be written costs time, nothing else
