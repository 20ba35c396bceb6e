"""The files of a source directory, as its author has them.

Rules:
1. Nobody is waited for: what is no regular file is refused where a file is expected, and told where it lies among others.
2. What leads out of the directory is refused: a source that was fetched from somewhere would pack what only its reader may see.
3. What systems, editors and version control leave behind is no part of a source (`_LEFT_BEHIND`): it is left out, and told once.
4. A value of another type than its field is refused with what was expected, what was found, and where.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar, cast

import msgspec

from greentic.ground.disk import io_error, real_path
from greentic.ground.documents import Json, read_file, shown
from greentic.ground.errors import InvalidArgument, NotFound
from greentic.ground.field_types import unknown_told
from greentic.ground.yaml import parse_yaml

S = TypeVar("S", bound=msgspec.Struct)

MAX_SOURCE = 4 << 20
_LEFT_BEHIND = (
    ".git", ".gitignore", ".gitattributes", ".gitmodules", ".gitkeep", ".hg", ".hgignore", ".svn", ".bzr", "CVS",
    ".DS_Store", "._*", "__MACOSX", "Thumbs.db", "desktop.ini", ".directory", ".nfs*",
    "*~", "#*#", ".#*", ".*.sw[a-p]", ".*.un~", ".idea", ".vscode", "__pycache__", "*.pyc",
)  # fmt: skip
_TOLD = 5
_EXPECTED = {
    "str": "a text", "int": "a whole number", "object": "a mapping", "array": "a list", "bool": "true or false", "null": "nothing",
}  # fmt: skip
_FOUND = {
    "object": "a mapping", "array": "a list", "null": "nothing", "str": "the text", "int": "the number", "float": "the number",
    "bool": "the truth",
}  # fmt: skip
_MISTYPED = re.compile(r"Expected `(?P<expected>[^`]+)`, got `(?P<found>[^`]+)`(?: - at `\$\.?(?P<place>[^`]*)`)?\Z")


def _never(path: Path) -> bool:
    return False


def read_yaml(path: Path) -> object:
    """Parse a YAML source. Raises `NotFound`, `IoError` or `InvalidArgument`."""
    try:
        return parse_yaml(content(path, MAX_SOURCE), limit=MAX_SOURCE)
    except ValueError as error:
        raise InvalidArgument(f"{path}: YAML parse error: {error}") from None


def content(path: Path, limit: int) -> bytes:
    """The bytes of a source. Raises `NotFound`, `IoError` or `InvalidArgument`."""
    try:
        return read_file(path, limit)
    except FileNotFoundError:
        raise NotFound(f"`{path}` does not exist") from None
    except OSError as error:
        raise io_error(path, error) from None
    except ValueError as error:
        raise InvalidArgument(f"{path}: {error}") from None


def typed(path: Path, form: type[S], raw: object) -> S:
    """A source as its struct. Raises `InvalidArgument` (rule 4)."""
    try:
        return msgspec.convert(raw, form)
    except msgspec.ValidationError as error:
        text = str(error)
    told = _MISTYPED.match(text)
    if told is None:
        missing = text.replace("Object missing required field", "missing field").replace("`$.", "`")
        raise InvalidArgument(f"{path}: {missing}") from None
    place, expected = told["place"] or "", told["expected"]
    value = _at(raw, place)
    hint = None
    if expected.split(" ")[0] == "str" and isinstance(value, bool | int | float):
        hint = "put it in quotes: YAML reads `1.0`, `017`, `true` and `null` as something else than a text"
    where = f"`{place}`" if place else "the document"
    wanted = " or ".join(_EXPECTED.get(word, word) for word in expected.split(" | "))
    raise InvalidArgument(f"{path}: {where}: expected {wanted}, found {_found(value, told['found'])}", hint=hint)


def _found(value: object, kind: str) -> str:
    name = _FOUND.get(kind, kind)
    return name if isinstance(value, dict | list) or value is None else f"{name} {shown(value)}"


def _at(raw: object, place: str) -> object:
    """What is at a place such as `flows[0].file`; nothing where the way cannot be told."""
    for step in re.findall(r"[^.\[\]]+", place):
        if isinstance(raw, dict):
            raw = raw.get(step)
        elif isinstance(raw, list) and step.isdigit() and int(step) < len(raw):
            raw = raw[int(step)]
        else:
            return None
    return raw


def ignored(path: Path, form: type[msgspec.Struct], raw: object) -> list[str]:
    """What a source has that nobody reads, as warnings."""
    found = unknown_told(form, cast(Json, raw))
    return [f"{path}: unknown member(s) ignored: {', '.join(found)}"] if found else []


def inside(directory: Path, path: Path) -> Path:
    """The path, unless it leads out of the directory (rule 2). Raises `InvalidArgument`."""
    if not real_path(path).is_relative_to(real_path(directory)):
        raise InvalidArgument(f"`{path}` leads out of `{directory}`", hint="put a copy there instead of a link")
    return path


def files_below(directory: Path, tops: tuple[str, ...], whole: Callable[[Path], bool] = _never) -> Iterator[Path]:
    """All that a source has below these of its directories, links as links; neither directories nor what was left behind.

    Directories that are `whole` are one thing: they are told, what is in them is not.
    """
    for path, left in _below(directory, tops, whole):
        if left:
            continue
        if path.is_symlink() or path.is_file() or whole(path):
            yield path
        elif not path.is_dir():
            raise InvalidArgument(
                f"`{path}` is a fifo, a socket or a device; expected files and directories", hint="take it away"
            )


def left_behind(directory: Path, tops: tuple[str, ...], whole: Callable[[Path], bool] = _never) -> list[str]:
    """What is left out (rule 3), as warnings: one at most."""
    names = [path.relative_to(directory).as_posix() for path, left in _below(directory, tops, whole) if left]
    if not names:
        return []
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return [f"{directory}: left out, as no part of a source: {', '.join(names[:_TOLD])}{more}"]


def _below(directory: Path, tops: tuple[str, ...], whole: Callable[[Path], bool]) -> Iterator[tuple[Path, bool]]:
    """Everything below, and whether it was left behind; what is in something that was is not looked at, nor where links lead."""
    for top in tops:
        if (directory / top).is_dir():
            inside(directory, directory / top)
            yield from _in(directory / top, whole)


def _in(directory: Path, whole: Callable[[Path], bool]) -> Iterator[tuple[Path, bool]]:
    for path in sorted(directory.iterdir()):
        left = is_left_behind(path.name)
        yield path, left
        if not left and path.is_dir() and not path.is_symlink() and not whole(path):
            yield from _in(path, whole)


def is_left_behind(name: str) -> bool:
    """Whether a file or directory of this name is what systems, editors and version control leave behind."""
    return any(fnmatchcase(name, pattern) for pattern in _LEFT_BEHIND)
