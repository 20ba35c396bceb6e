"""The files of a source directory, as its author has them.

Rules:
1. Nobody is waited for: what is no regular file is refused where a file is expected, and told where it lies among others.
2. What leads out of the directory is refused: a source that was fetched from somewhere would pack what only its reader may see.
3. What systems, editors and version control leave behind is no part of a source (`_LEFT_OUT`), nor is what is built from it (`_BUILT`),
   which would be in itself the next time: it is left out, and told once.
4. A value of another type than its field is refused with what was expected, what was found, and where.
5. A directory is looked at once (`found_in`): what is packed and what is told to be left out cannot be two different trees.
6. What cannot be read is told in the same words whatever it is: not there is `NotFound`, not given by the system `IoError`, too large or
   no name of a file `InvalidArgument`.
7. An id that is none is told with the file and the member that it stands in.
8. Names that are one to somebody are told: to a file system that takes upper and lower case, or two forms of a letter, for the same.
9. What a person names is told by its ending in any case, as systems do that make `BOT.GTPACK` of it (`ends_with`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, TypeVar, cast
from unicodedata import normalize

import msgspec

from greentic.ground.disk import io_error, real_path
from greentic.ground.documents import Json, read_given, shown
from greentic.ground.errors import InvalidArgument, MalformedArtifact, NotFound
from greentic.ground.field_types import members, unknown_told
from greentic.ground.nearest import nearest
from greentic.ground.yaml import parse_yaml
from greentic.pack.manifest import check_id

S = TypeVar("S", bound=msgspec.Struct)

MAX_SOURCE = 4 << 20
_WHY = "members of one mapping begin in one column, and a text with `: ` or ` #` in it stands in quotes"
_LEFT_OUT = (
    ".git", ".gitignore", ".gitattributes", ".gitmodules", ".gitkeep", ".hg", ".hgignore", ".svn", ".bzr", "CVS",
    ".DS_Store", "._*", "__MACOSX", "Thumbs.db", "desktop.ini", ".directory", ".nfs*",
    "*~", "#*#", ".#*", ".*.sw[a-p]", ".*.un~", ".idea", ".vscode", "__pycache__", "*.pyc",
)  # fmt: skip
_BUILT = ("*.gtpack", "*.gtbundle", "*.gtpack.sig", "*.gtbundle.sig")
"""What is left out beside the source file of a pack; below `packs/` of a bundle packs are what it is made of."""
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
    return parsed(path, read_authored(path, MAX_SOURCE))


def parsed(path: Path, data: bytes) -> object:
    """What the bytes of a YAML source say. Raises `InvalidArgument`."""
    try:
        return parse_yaml(data, limit=MAX_SOURCE)
    except ValueError as error:
        raise InvalidArgument(f"{path}: YAML parse error: {error}", hint=_at_fault(data, str(error))) from None


def _at_fault(data: bytes, told: str) -> str | None:
    """The line of a source where reading it ended, with what most people have overlooked there."""
    places = re.findall(r"in line (\d+), column \d+", told)
    lines = data.decode(errors="replace").splitlines()
    number = int(places[-1]) if places else 0
    if not 0 < number <= len(lines):
        return None
    line = lines[number - 1]
    why = "YAML is indented by blanks, never by tabs" if "\t" in line[: len(line) - len(line.lstrip())] else _WHY
    return f"look at line {number}, `{shown(line.strip())}`, and the line before it: {why}"


def read_authored(path: Path, limit: int, what: str = "") -> bytes:
    """Its bytes. `what` stands before its name, as in "answers file ". Raises `NotFound`, `IoError` or `InvalidArgument`."""
    try:
        return read_given(path, limit)
    except FileNotFoundError:
        raise NotFound(f"{what}`{path}` does not exist") from None
    except NotADirectoryError:
        raise NotFound(f"{what}`{path}` does not exist: `{path.parent}` is no directory") from None
    except OSError as error:
        told = io_error(path, error)
        told.message = f"{what}{told.message}"
        raise told from None
    except ValueError as error:
        raise InvalidArgument(f"{what}`{path}`: {error}") from None


def typed(path: Path, form: type[S], raw: object) -> S:
    """A source as its struct. Raises `InvalidArgument` (rule 4)."""
    try:
        return msgspec.convert(raw, form)
    except msgspec.ValidationError as error:
        text = str(error)
    told = _MISTYPED.match(text)
    if told is None:
        missing = text.replace("Object missing required field", "missing field").replace("`$.", "`")
        raise InvalidArgument(f"{path}: {missing}{_written_instead(form, raw, missing)}") from None
    place, expected = told["place"] or "", told["expected"]
    value = _at(raw, place)
    hint = None
    if expected.split(" ")[0] == "str" and isinstance(value, bool | int | float):
        hint = "put it in quotes: YAML reads `1.0`, `017`, `true` and `null` as something else than a text"
    where = f"`{place}`" if place else "the document"
    wanted = " or ".join(_EXPECTED.get(word, word) for word in expected.split(" | "))
    raise InvalidArgument(f"{path}: {where}: expected {wanted}, found {_found(value, told['found'])}", hint=hint)


def _written_instead(form: object, raw: object, told: str) -> str:
    """What nothing takes, and may have been meant for the member that is missing."""
    wanted = re.match(r"missing field `([^`]+)`(?: - at `([^`]*)`)?", told)
    beside = _at(raw, wanted[2] or "") if wanted else None
    if wanted is None or not isinstance(beside, dict):
        return ""
    found = nearest(wanted[1], {str(key) for key in beside} - set(members(form, f".{wanted[2] or ''}".rstrip("."))))
    return f"; found `{found}`, which is none" if found else ""


def identifier(text: object, place: str) -> str:
    """An id of a pack, a flow or a component that stands at a place of a source. Raises `InvalidArgument` (rule 7)."""
    try:
        return check_id(text)
    except MalformedArtifact as error:
        raise InvalidArgument(f"{place}: {error.message}") from None


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


class Found(NamedTuple):
    """What a source directory has (rule 5), sorted."""

    files: list[Path]
    """Below the directories that were asked for, links as links; neither directories nor what was left behind."""
    loose: list[Path]
    """Beside the source file, those with a dot in front not among them."""
    left: list[str]
    """What is left out (rule 3), relative to the directory."""

    def told(self, directory: Path) -> list[str]:
        """What is left out, as warnings: one at most."""
        if not self.left:
            return []
        more = f" and {len(self.left) - _TOLD} more" if len(self.left) > _TOLD else ""
        return [f"{directory}: left out, as no part of a source: {', '.join(self.left[:_TOLD])}{more}"]


def one_somewhere(directory: Path, names: Iterable[str]) -> list[str]:
    """Names that some file systems take for one (rule 8), as warnings: there what holds them cannot be unpacked."""
    first: dict[str, str] = {}
    told: list[str] = []
    for name in names:
        alike = first.setdefault(normalize("NFC", normalize("NFC", name).casefold()), name)
        if alike != name:
            told.append(
                f"{directory}: `{alike}` and `{name}` are one file to systems that take upper and lower case, or two forms of a letter, "
                "for the same; rename one of them"
            )
    return told


def found_in(
    directory: Path, tops: tuple[str, ...], whole: Callable[[Path], bool] = _never, *, loose: bool = False
) -> Found:
    """All that a source has below these of its directories. `loose` says that the directory's own files belong to it, too.

    Directories that are `whole` are one thing: they are told, what is in them is not. Raises `InvalidArgument` (rules 1 and 2).
    """
    found = Found([], [], [])
    for path, left in _below(directory, tops, whole):
        if left:
            found.left.append(path.relative_to(directory).as_posix())
        elif path.is_symlink() or path.is_file() or whole(path):
            found.files.append(path)
        elif not path.is_dir():
            raise _odd(path)
    for path in sorted(directory.iterdir()) if loose else ():
        if path.name.startswith(".") or path.is_dir():
            continue
        if not path.is_file() and not path.is_symlink():
            raise _odd(path)
        if is_left_out(path.name) or is_built(path.name):
            found.left.append(path.name)
        else:
            found.loose.append(path)
    return found


def _odd(path: Path) -> InvalidArgument:
    return InvalidArgument(
        f"`{path}` is a fifo, a socket or a device; expected files and directories", hint="take it away"
    )


def check_outside(out: Path, directory: Path, tops: tuple[str, ...]) -> None:
    """Raise `InvalidArgument` for a place inside of what is packed: the next build would pack what this one makes."""
    real = real_path(out)
    if any(real.is_relative_to(real_path(directory / top)) for top in tops):
        raise InvalidArgument(
            f"`{out}` lies in what it is made of, so the next build would pack it, too",
            hint="write it elsewhere: --out FILE",
        )


def _below(directory: Path, tops: tuple[str, ...], whole: Callable[[Path], bool]) -> Iterator[tuple[Path, bool]]:
    """Everything below, and whether it was left behind; what is in something that was is not looked at, nor where links lead."""
    for top in tops:
        if (directory / top).is_dir():
            inside(directory, directory / top)
            yield from _in(directory / top, whole)


def _in(directory: Path, whole: Callable[[Path], bool]) -> Iterator[tuple[Path, bool]]:
    for path in sorted(directory.iterdir()):
        left = is_left_out(path.name)
        yield path, left
        if not left and path.is_dir() and not path.is_symlink() and not whole(path):
            yield from _in(path, whole)


def is_left_out(name: str) -> bool:
    """Whether a file or directory of this name is what systems, editors and version control leave behind."""
    return any(fnmatchcase(name, pattern) for pattern in _LEFT_OUT)


def is_built(name: str) -> bool:
    """Whether a file of this name is what is built from sources (rule 8)."""
    return any(fnmatchcase(name.lower(), pattern) for pattern in _BUILT)


def ends_with(path: Path, *suffixes: str) -> bool:
    """Whether a file that a person named is of a kind, by how its name ends (rule 8)."""
    return path.suffix.lower() in suffixes
