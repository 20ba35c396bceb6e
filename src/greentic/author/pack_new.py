"""`gtc pack new`: a pack to start from, with a flow and a component written in Python. It is there whole, or not at all."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from greentic.ground.disk import io_error, place, real_path
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict, InvalidArgument, MalformedArtifact
from greentic.ground.yaml import text_in_yaml
from greentic.pack.manifest import check_id

_TEMPLATE = Path(__file__).parent.parent / "sdk" / "template"
_BLANK = re.compile(r"\b(?:PACK_ID|PUBLISHER)\b")


def new_pack(directory: Path, pack_id: str | None, publisher: str) -> JsonObject:
    """Write the template into a directory that is not there yet or empty. Raises `Conflict` or `InvalidArgument`."""
    name = pack_id or real_path(directory).name
    try:
        check_id(name)
    except MalformedArtifact as error:
        raise InvalidArgument(f"{error.message}", hint="choose one: gtc pack new DIR --id ID") from None
    if not publisher.strip() or not publisher.isprintable():
        raise InvalidArgument("--publisher: expected a name", hint="gtc pack new DIR --publisher NAME")
    if os.path.lexists(directory) and (not directory.is_dir() or any(directory.iterdir())):
        raise Conflict(f"`{directory}` is there already and not empty", hint="choose another directory")
    try:
        written = _write(directory, {"PACK_ID": text_in_yaml(name), "PUBLISHER": text_in_yaml(publisher)})
    except OSError as error:
        raise io_error(directory, error) from None
    return {"directory": str(directory), "pack_id": name, "files": [*written]}


def _write(directory: Path, blanks: dict[str, str]) -> list[str]:
    """The template with its blanks filled in, first beside its place; which files it has."""
    there = directory.is_dir()
    beside = (directory if there else directory.parent) / f".{real_path(directory).name}.{os.getpid()}.new"
    moved: list[Path] = []
    try:
        written = []
        for source in sorted(p for p in _TEMPLATE.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            relative = source.relative_to(_TEMPLATE)
            (beside / relative).parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text(encoding="utf-8")
            (beside / relative).write_text(_BLANK.sub(lambda blank: blanks[blank[0]], text), encoding="utf-8")
            written.append(str(relative))
        if not there:
            place(beside, directory)
            return written
        for top in sorted(beside.iterdir(), reverse=True):
            moved.append(directory / top.name)
            place(top, moved[-1])
    except BaseException:
        for path in moved:
            _remove(path)
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return written


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
