"""Objects as files of a directory, for `kubectl apply -f`, Flux, Argo CD and Kustomize (formats: cluster 5).

Rules:
1. One file an object, `<NN>-<kind>-<name>.yaml`, numbered in the order of rendering, as the existing program names them
   (`docs/decisions/0078`). `kubectl apply -f` goes by file names: what others stand on is rendered before them.
2. All is serialised before the first file is written.
3. Other YAML files with a number in front are of an older rendering and are deleted, but for those that read as an object that no rendering
   of this environment made (another's, or one without its labels). They and all other YAML files are told, not touched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from greentic.ground.disk import io_error, replace_file
from greentic.ground.documents import JsonObject, read_file
from greentic.ground.yaml import parse_yaml, yaml_of
from greentic.k8s import names
from greentic.k8s.objects import labels_of, ref_of

_NUMBERED = re.compile(r"\d+-(.*\.yaml)\Z")
INSTANCE = "app.kubernetes.io/instance"
"""Of an operator's own objects: whose operator."""


class Written(NamedTuple):
    """What became of a directory: file names."""

    files: list[str]
    removed: list[str]
    unmanaged: list[str]


def file_name(index: int, thing: JsonObject) -> str:
    """The name of the file of an object in its place (rule 1)."""
    ref = ref_of(thing)
    plain = re.sub(r"[^a-z0-9.-]", "-", f"{ref.kind}-{ref.name}".lower())
    return f"{index:02d}-{plain}.yaml"


def write_files(objects: Sequence[JsonObject], directory: Path) -> Written:
    """Write one YAML file an object; what was written, removed and left alone. Raises `IoError`."""
    files = {file_name(index, thing): yaml_of(thing) for index, thing in enumerate(objects)}
    kept_names = {name.partition("-")[2] for name in files}
    marks = {mark for thing in objects for mark in _marks(thing)}
    removed: list[str] = []
    foreign: list[str] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            replace_file(directory / name, text.encode())
        for path in sorted(directory.glob("*.yaml")):
            if path.name in files:
                continue
            numbered = _NUMBERED.match(path.name)
            if numbered and path.is_file() and (numbered[1] in kept_names or not _is_of_others(path, marks)):
                path.unlink()
                removed.append(path.name)
            else:
                foreign.append(path.name)
    except OSError as error:
        raise io_error(Path(error.filename or directory), error) from error
    return Written(list(files), removed, foreign)


def _is_of_others(path: Path, marks: set[tuple[str, str]]) -> bool:
    """Whether a file reads as an object, or several, that carry nothing of what is rendered here (rule 3)."""
    try:
        thing = parse_yaml(read_file(path))
    except ValueError:  # several documents, or none that we would write
        return True
    return isinstance(thing, dict) and "kind" in thing and not marks & _marks(thing)


def _marks(thing: JsonObject) -> set[tuple[str, str]]:
    """The labels that say whose an object is."""
    return {(k, str(v)) for k, v in labels_of(thing).items() if k in (names.ENV, INSTANCE)}
