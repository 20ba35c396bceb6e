"""`op env render`: the objects of an environment, printed or written as YAML (formats: cluster 5). Never asks a cluster.

Rules for a directory:
1. One file an object, `<NN>-<kind>-<name>.yaml`, all serialised before the first is written.
2. Other YAML files with a number in front are of an older rendering and are deleted; further YAML files are listed, not touched.
3. Texts are quoted where any reader could take them for something else (`1e3`, `0x10`, `no`); what is not ASCII is written out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from greentic.deployer.binding import public_url_warnings, resolve
from greentic.deployer.reconcile import push_pointed
from greentic.ground.disk import io_error, replace_file
from greentic.ground.documents import JsonObject, compact, replace
from greentic.ground.reply import Reply
from greentic.ground.yaml import yaml_of
from greentic.k8s.objects import ref_of
from greentic.k8s.render import pointed, render
from greentic.model.ids import check_env_id
from greentic.operate.change import Context
from greentic.operate.payload import Payload

_NUMBERED = re.compile(r"\d+-.*\.yaml\Z")


class EnvRenderPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    kind: Annotated[str | None, msgspec.Meta(description="another deployer than the bound one")] = None
    output: Annotated[str | None, msgspec.Meta(description="a directory to write YAML files to")] = None
    push: Annotated[bool, msgspec.Meta(description="push a document that the objects only point to")] = False


class Rendered(Reply, frozen=True, kw_only=True):
    environment_id: str
    kind: str
    """The deployer's descriptor."""
    object_count: int
    answers_ref: str | None
    manifests: list[JsonObject] | UnsetType = UNSET
    """Where no directory was named: the objects."""
    output_dir: str | UnsetType = UNSET
    files: list[str] | UnsetType = UNSET
    removed_stale_files: list[str] | UnsetType = UNSET
    unmanaged_files: list[str] | UnsetType = UNSET
    """YAML files in the directory that no rendering made."""
    warnings: list[str] | UnsetType = UNSET


class Written(NamedTuple):
    """What became of a directory: file names."""

    files: list[str]
    removed: list[str]
    unmanaged: list[str]


def render_objects(context: Context, payload: EnvRenderPayload) -> Rendered:
    """The objects, or the files that they were written to."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    deployer = resolve(context, env_id, payload.kind, live=False)
    objects = render(deployer.desired)
    warnings = [*deployer.answers.warnings(), *public_url_warnings(deployer.env, deployer.answers)]
    pointer = pointed(deployer.answers, deployer.desired.env, compact(deployer.desired.env))
    if pointer is not None and payload.push:
        push_pointed(deployer, context.view)
    elif pointer is not None:
        warnings = [*warnings, f"pods read document {pointer.document} from {pointer.repository}: --push puts it there"]
    told = Rendered(
        environment_id=env_id,
        kind=deployer.kind,
        object_count=len(objects),
        answers_ref=deployer.answers_ref,
        warnings=warnings or UNSET,
    )
    if payload.output is None:
        return replace(told, manifests=objects)
    written = write_files(objects, Path(payload.output))
    return replace(
        told,
        output_dir=payload.output,
        files=written.files,
        removed_stale_files=written.removed,
        unmanaged_files=written.unmanaged,
    )


def write_files(objects: list[JsonObject], directory: Path) -> Written:
    """Write one YAML file an object; what was written, removed and left alone. Raises `IoError`."""
    files = {file_name(index, thing): yaml_of(thing) for index, thing in enumerate(objects)}
    removed: list[str] = []
    foreign: list[str] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            replace_file(directory / name, text.encode())
        for path in sorted(directory.glob("*.yaml")):
            if path.name in files:
                continue
            if _NUMBERED.match(path.name):
                path.unlink()
                removed.append(path.name)
            else:
                foreign.append(path.name)
    except OSError as error:
        raise io_error(Path(error.filename or directory), error) from error
    return Written(list(files), removed, foreign)


def file_name(index: int, thing: JsonObject) -> str:
    ref = ref_of(thing)
    plain = re.sub(r"[^a-z0-9.-]", "-", f"{ref.kind}-{ref.name}".lower())
    return f"{index:02d}-{plain}.yaml"
