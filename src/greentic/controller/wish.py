"""What an operator is asked for: the `spec` of an `Environment`, or the same in a ConfigMap (formats: operator 1). Pure.

Rules:
1. A wish names where the environment is published, by whom it must be sealed, and the deployer's answers. A key that is not in the
   table is refused, with its path: a misspelt one must not be passed over in silence.
2. The namespace is the operator's own. An answer that names another is refused: the operator has no rights there.
"""

from __future__ import annotations

from typing import NamedTuple

from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import GreenticError, InvalidArgument
from greentic.ground.yaml import parse_yaml
from greentic.k8s.answers import Answers, read_answers
from greentic.k8s.names import label_value
from greentic.k8s.objects import member, metadata_of
from greentic.model.ids import is_env_id

SPEC_KEY = "spec.yaml"
"""Where a ConfigMap holds the wish."""
KEYS: dict[str, str] = {
    "from": "where the environment is published: oci://…, https://…, or a directory",
    "trustAnchor": "the keys that must have sealed it, as PEM or as a trust root document",
    "answers": "the deployer's answers, as `deployer-answers.json` has them",
    "environment": "the environment's id (default: the one that is published)",
    "store": "who owns the objects, in their labels (default: op-<name>)",
    "everySeconds": "how often what is published is looked at (default: 30)",
    "paused": "true: nothing is written",
    "dryRun": "true: only tell what would be written",
    "adopt": "true: take over objects of others under our names",
}
DEFAULT_EVERY = 30.0


class Wish(NamedTuple):
    """One wish, read."""

    generation: int
    place: str
    anchor: str
    answers: Answers
    env_id: str | None
    store: str
    every: float
    paused: bool
    dry_run: bool
    adopt: bool


def read_wish(thing: JsonObject) -> Wish:
    """The wish of an `Environment` or a ConfigMap. Raises `InvalidArgument` with the path of the field."""
    metadata = metadata_of(thing)
    name, namespace = str(metadata.get("name")), str(metadata.get("namespace"))
    where, spec = _spec(thing)
    for key in spec:
        if key not in KEYS:
            raise InvalidArgument(f"{where}.{key}: unknown; known are {', '.join(KEYS)}")
    place = _text(spec, where, "from")
    if not place:
        raise InvalidArgument(
            f"{where}.from: missing; expected the place of a published environment",
            hint="if it stands in your file, the cluster's definition of Environment is older: apply that of gtc op operator render",
        )
    env_id = _text(spec, where, "environment") or None
    if env_id is not None and not is_env_id(env_id):
        raise InvalidArgument(f"{where}.environment: `{env_id[:80]}` is no environment's id")
    generation = metadata.get("generation")
    return Wish(
        generation=generation if isinstance(generation, int) else 0,
        place=place,
        anchor=_text(spec, where, "trustAnchor"),
        answers=_answers(spec.get("answers"), where, env_id or name, namespace),
        env_id=env_id,
        store=label_value(_text(spec, where, "store") or f"op-{name}"),
        every=_seconds(spec.get("everySeconds"), where),
        paused=_switch(spec, where, "paused"),
        dry_run=_switch(spec, where, "dryRun"),
        adopt=_switch(spec, where, "adopt"),
    )


def _spec(thing: JsonObject) -> tuple[str, JsonObject]:
    """The wish, and what its place is called."""
    if thing.get("kind") != "ConfigMap":
        return "spec", member(thing, "spec")
    where = f"data.{SPEC_KEY}"
    text = member(thing, "data").get(SPEC_KEY)
    try:
        spec = parse_yaml(text.encode()) if isinstance(text, str) else None
    except ValueError as error:
        raise InvalidArgument(f"{where}: no YAML ({error})") from None
    if not isinstance(spec, dict):
        raise InvalidArgument(f"{where}: expected an object with `from` and `answers`")
    return where, spec


def _answers(raw: Json, where: str, name: str, namespace: str) -> Answers:
    given = {} if raw is None else raw
    if isinstance(given, dict):
        told = given.get("namespace")
        if told not in (None, "", namespace):
            raise InvalidArgument(
                f"{where}.answers.namespace: `{told}` is not the namespace `{namespace}`, where this operator has its rights"
            )
        if given.get("kubeconfig_context"):
            raise InvalidArgument(f"{where}.answers.kubeconfig_context: an operator asks its own cluster")
        given = {**given, "namespace": namespace}
    try:
        answers = read_answers(given, name)
    except GreenticError as error:
        raise InvalidArgument(f"{where}.answers: {error.message}", hint=error.hint) from error
    if not isinstance(given, dict) or not given.get("runtime_image"):
        raise InvalidArgument(f"{where}.answers.runtime_image: missing; there is no default for what pods run")
    return answers


def _text(spec: JsonObject, where: str, key: str) -> str:
    value = spec.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgument(f"{where}.{key}: expected a text, found `{str(value)[:80]}`")
    return value.strip()


def _switch(spec: JsonObject, where: str, key: str) -> bool:
    value = spec.get(key, False)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{where}.{key}: expected true or false, found `{str(value)[:80]}`")
    return value


def _seconds(value: Json, where: str) -> float:
    if value is None:
        return DEFAULT_EVERY
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 86_400:
        raise InvalidArgument(f"{where}.everySeconds: expected 1 to 86400, found `{str(value)[:80]}`")
    return float(value)
