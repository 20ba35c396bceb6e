"""`op env render`: the objects of an environment, printed or written as YAML (formats: cluster 5). Never asks a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from greentic.deployer.binding import public_url_warnings, resolve
from greentic.deployer.reconcile import push_pointed
from greentic.ground.documents import JsonObject, compact, replace
from greentic.ground.reply import Reply
from greentic.k8s.render import pointed, render
from greentic.manifests.manifest_files import write_files
from greentic.model.ids import check_env_id
from greentic.operate.change import Context
from greentic.operate.payload import Payload


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
