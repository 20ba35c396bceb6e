"""`gtc pack new`: a pack to start from, with a flow and a component written in Python."""

from __future__ import annotations

from pathlib import Path

from greentic.ground.disk import io_error, real_path
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict, InvalidArgument, MalformedArtifact
from greentic.pack.manifest import check_id

_TEMPLATE = Path(__file__).parent.parent / "sdk" / "template"


def new_pack(directory: Path, pack_id: str | None, publisher: str) -> JsonObject:
    """Write the template into a directory that is not there yet or empty. Raises `Conflict` or `InvalidArgument`."""
    name = pack_id or real_path(directory).name
    try:
        check_id(name)
    except MalformedArtifact as error:
        raise InvalidArgument(f"{error.message}", hint="choose one: gtc pack new DIR --id ID") from None
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Conflict(f"`{directory}` is there already and not empty", hint="choose another directory")
    written: list[str] = []
    try:
        for source in sorted(p for p in _TEMPLATE.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            target = directory / source.relative_to(_TEMPLATE)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text(encoding="utf-8").replace("PACK_ID", name).replace("PUBLISHER", publisher)
            target.write_text(text, encoding="utf-8")
            written.append(str(target.relative_to(directory)))
    except OSError as error:
        raise io_error(directory, error) from None
    return {"directory": str(directory), "pack_id": name, "files": [*written]}
