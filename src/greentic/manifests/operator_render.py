"""`op operator render`: what an operator needs in the cluster, made from a bound environment. Never asks a cluster.

Rules:
1. Answers, namespace and owner are those of the environment's binding, so an operator goes on where `env reconcile` stopped.
2. The trust anchor is the environment's trust root. Private keys and credentials are never part of what is rendered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, UnsetType

from greentic.deployer.binding import recorded_answers, resolve
from greentic.ground.documents import JsonObject, replace
from greentic.ground.errors import Conflict, InvalidArgument
from greentic.ground.reply import Reply
from greentic.ground.yaml import yaml_of
from greentic.k8s.names import namespace_of
from greentic.manifests.manifest_files import write_files
from greentic.manifests.operator_objects import Asked, rendered
from greentic.model.ids import check_env_id
from greentic.net.addresses import check_authored
from greentic.operate.change import Context
from greentic.operate.payload import Payload
from greentic.publication.place import is_directory

_NOT_WISHED = ("kubeconfig_context", "namespace", "operator")
"""Answers that are no part of a wish: how the cluster is asked from here, and what is rendered here."""


class OperatorRenderPayload(Payload, frozen=True, kw_only=True):
    environment_id: str
    place: Annotated[str, msgspec.Meta(description="where the environment is published")]
    image: Annotated[
        str | None, msgspec.Meta(description="the operator's image; default: the answered runtime_image")
    ] = None
    kind: Literal["Environment", "ConfigMap"] = "Environment"
    replicas: Annotated[int, msgspec.Meta(description="how many; one acts", ge=1, le=5)] = 2
    paused: bool = False
    dry_run: bool = False
    adopt: bool = False
    output: Annotated[str | None, msgspec.Meta(description="a directory to write YAML files to")] = None


class OperatorRendered(Reply, frozen=True, kw_only=True):
    environment_id: str
    namespace: str
    object_count: int
    manifests: list[JsonObject] | UnsetType = UNSET
    """Where no directory was named: the objects."""
    output_dir: str | UnsetType = UNSET
    files: list[str] | UnsetType = UNSET
    removed_stale_files: list[str] | UnsetType = UNSET
    unmanaged_files: list[str] | UnsetType = UNSET
    """YAML files in the directory that no rendering made."""


def render_operator(context: Context, payload: OperatorRenderPayload) -> OperatorRendered:
    """The objects, or the files that they were written to."""
    env_id = check_env_id(payload.environment_id, field="env_id")
    check_authored(payload.place, "--from")
    if is_directory(payload.place):
        raise InvalidArgument(
            "--from: a directory of this machine is in no cluster", hint="publish to a registry, or serve it over https"
        )
    deployer = resolve(context, env_id, None, live=False)
    answers = deployer.answers
    if not answers.image_answered:
        raise Conflict(
            f"environment `{env_id}` does not say which image its pods run, and there is no default",
            hint="answer runtime_image with its digest (docs/cloud.md)",
        )
    root = context.store.trust_root(env_id)
    if not root.keys:
        raise Conflict(f"environment `{env_id}` trusts nobody", hint=f"gtc op trust-root bootstrap {env_id}")
    given = {k: v for k, v in recorded_answers(context, env_id).items() if k not in _NOT_WISHED}
    spec: JsonObject = {
        "from": payload.place,
        "environment": env_id,
        "trustAnchor": "".join(k.public_key_pem.strip() + "\n" for k in root.keys),
        "store": deployer.owner.store,
        "answers": given,
    }
    for key, told in (("paused", payload.paused), ("dryRun", payload.dry_run), ("adopt", payload.adopt)):
        if told:
            spec[key] = True
    name = ref_name(env_id)
    asked = Asked(
        name=name,
        image=payload.image or answers.runtime_image,
        answers=answers,
        spec=spec,
        kind=payload.kind,
        replicas=payload.replicas,
        ports=_ports(payload.place, answers.oci_insecure_registries),
    )
    objects = rendered(asked, yaml_of(spec))
    told_of = OperatorRendered(environment_id=env_id, namespace=answers.namespace, object_count=len(objects))
    if payload.output is None:
        return replace(told_of, manifests=objects)
    written = write_files(objects, Path(payload.output))
    return replace(
        told_of,
        output_dir=payload.output,
        files=written.files,
        removed_stale_files=written.removed,
        unmanaged_files=written.unmanaged,
    )


def ref_name(env_id: str) -> str:
    """The name of the wish of an environment, legal as an object's name."""
    return namespace_of(env_id).removeprefix("gtc-")


def _ports(place: str, plain: tuple[str, ...]) -> tuple[int, ...]:
    """The port at which a place is asked."""
    try:
        parts = urlsplit(place)
        port = parts.port
    except ValueError:
        raise InvalidArgument("--from: the address cannot be read") from None
    if port is not None:
        return (port,)
    return (80,) if parts.scheme == "http" or parts.netloc in plain else ()
