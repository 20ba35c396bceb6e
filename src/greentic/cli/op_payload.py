"""From command line words and an answers file to a payload (formats: op 1).

Rules:
1. The answers file is the base; flags, plain words and `key=value` words are laid over it. Verbs that are `exclusive`
   refuse flags or plain words beside a file.
2. `key=value` sets a field, `a.b=value` a field inside one. A text field takes the value as it stands, any other field
   takes JSON.
3. `.json` files are JSON, `.yaml` and `.yml` YAML, others JSON and then YAML.
4. What is told twice is refused, in a file as on the command line: nobody knows which of the two was meant.
5. Whoever wrote what no verb takes is shown how this one is written, unless the error has a nearer next step.
"""

from __future__ import annotations

import re
import shlex
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast, get_args, get_origin

import msgspec

from greentic.cli.parser import EMPTY_PATH
from greentic.ground.digits import whole_number
from greentic.ground.disk import of_the_machine
from greentic.ground.documents import Json, JsonObject, parse, read_given, repeated_key, unmarked
from greentic.ground.errors import AnswersParse, InvalidArgument
from greentic.ground.nearest import one_of
from greentic.operate.payload import Payload
from greentic.operate.verb import Verb

MAX_ANSWERS = 16 << 20


@contextmanager
def read_for(verb: Verb, given: Mapping[str, object]) -> Iterator[None]:
    """For reading what a verb is told (rule 5): the arguments of the command line, of which its example takes the names."""
    named = [str(given.get("environment_id") or ""), *(w for w in cast("list[str]", given["words"]) if "=" not in w)]
    env, deployment = next(filter(None, named), ""), str(given.get("deployment") or "")
    try:
        yield
    except InvalidArgument as error:
        text = re.sub(r"\bprod\b", lambda found: shlex.quote(env) if env else found[0], verb.example, count=1)
        text = re.sub(r"\bbot(?=[@ ]|$)", lambda found: shlex.quote(deployment) if deployment else found[0], text)
        error.hint = error.hint or text
        raise
    except AnswersParse as error:
        error.hint = error.hint or f"what it takes: gtc op {verb.name} --schema"
        raise


class Inline(msgspec.Struct, frozen=True):
    """What stood on the command line."""

    positional: dict[str, Json]
    flags: dict[str, Json]
    words: dict[str, Json]

    @property
    def fixed(self) -> bool:
        """Whether flags or plain words were given."""
        return bool(self.positional or self.flags)

    def merged(self) -> JsonObject:
        out: JsonObject = {}
        for part in (self.positional, self.flags, self.words):
            for key, value in part.items():
                _put(out, key, value)
        return out


def read_answers(path: Path) -> Json:
    """Parse an answers file. Raises `IoError` or `AnswersParse`."""
    from greentic.ground.disk import io_error

    try:
        data = unmarked(read_given(path, MAX_ANSWERS))
    except OSError as error:
        raise io_error(path, error) from None
    except ValueError as error:
        raise AnswersParse(f"{path}: {error}") from None
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return _yaml(data, path, "")
    try:
        answers = parse(data)
    except ValueError as error:
        if suffix == ".json":
            raise AnswersParse(f"{path}: json: {error}") from None
        return _yaml(data, path, f"json: {error}; ")
    twice = repeated_key(data)
    if twice is not None:
        raise AnswersParse(f"{path}: json: the key `{twice}` stands twice in one object")
    return answers


def _yaml(data: bytes, path: Path, before: str) -> Json:
    from greentic.ground.yaml import parse_yaml

    try:
        return parse(msgspec.json.encode(parse_yaml(data)))
    except (TypeError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise AnswersParse(f"{path}: {before}yaml: {text}") from None


def inline(verb: Verb, form: type[Payload], words: list[str], flags: dict[str, Json]) -> Inline:
    """Sort the words of a command line. Raises `InvalidArgument`, or `UsageError` for a word too many."""
    fields = {f.encode_name: f.type for f in msgspec.structs.fields(form)}
    positional: dict[str, Json] = {}
    given: dict[str, Json] = {}
    entries: list[Json] = []
    open_positions = list(verb.positionals)
    for word in [*words, *(v for v in flags.values() if isinstance(v, str))]:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise of_the_machine(error) from None
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key.split(".")[0] in fields:
            if key in given:
                raise InvalidArgument(f"`{key}` is given twice: a second time in `{word}`")
            given[key] = typed(key, value, fields.get(key))
        elif equals and "entries" in fields:
            entry = _shorthand(key, value, given)
            if entry is not None:
                entries.append(entry)
        elif equals and fields and not open_positions:
            raise InvalidArgument(f"unknown key `{key}` in `{word}`{one_of(key.split('.')[0], sorted(fields))}")
        elif open_positions:
            positional[open_positions.pop(0)] = word
        else:
            raise UsageError(f"unexpected argument `{word}`; as in `{verb.example}`")
    if "revision_id" in given and "entries" in fields:
        entries.append(_single(given))
    if entries:
        given["entries"] = entries
    told = {key: typed(key, v, fields[key]) if isinstance(v, str) and key in fields else v for key, v in flags.items()}
    return Inline(positional, told, given)


class UsageError(Exception):
    """A command line that no verb takes; exit code 2."""


def typed(key: str, value: str, kind: object) -> Json:
    """The value of a `key=value` word or flag, by the type of its field (rule 2)."""
    if _takes_text(kind):
        return value
    try:
        return parse(value)
    except ValueError:
        if kind is None:
            return value  # a field inside another; the payload's own check tells
        raise InvalidArgument(f"`{key}={value}`: expected {_wanted(kind)}") from None


def _wanted(kind: object) -> str:
    """What a field takes that is no text, in words."""
    if get_origin(kind) is Annotated:
        return _wanted(get_args(kind)[0])
    if get_origin(kind) in (types.UnionType, typing.Union):
        return _wanted(next(k for k in get_args(kind) if k is not types.NoneType))
    simple = {int: "a whole number", float: "a number", bool: "true or false"}
    if isinstance(kind, type) and kind in simple:
        return simple[kind]
    return """a list, as in '["a", "b"]'""" if get_origin(kind) is list else """an object, as in '{"a": 1}'"""


def _takes_text(kind: object) -> bool:
    """Whether a field holds a text, or a text or nothing."""
    if get_origin(kind) is Annotated:
        return _takes_text(get_args(kind)[0])
    if get_origin(kind) in (types.UnionType, typing.Union):
        return any(_takes_text(k) for k in get_args(kind))
    if get_origin(kind) is typing.Literal:
        return all(isinstance(k, str) for k in get_args(kind))
    return kind is str


def _shorthand(key: str, value: str, given: dict[str, Json]) -> Json | None:
    """`REV=50`, `REV=50%` or `REV=2500bps`; `revision_id=` and `weight_bps=` make one entry together."""
    if key in ("revision_id", "weight_bps", "weight_percent"):
        given[key] = value if key == "revision_id" else typed(key, value, int)
        return None
    return parse_entry(f"{key}={value}")


def _single(given: dict[str, Json]) -> Json:
    entry: JsonObject = {"revision_id": given.pop("revision_id")}
    for key in ("weight_bps", "weight_percent"):
        if key in given:
            entry[key] = given.pop(key)
    if len(entry) == 1:
        entry["weight_bps"] = 10_000
    return entry


def parse_entry(word: str) -> JsonObject:
    """A traffic entry of the command line. Raises `InvalidArgument`."""
    revision, _, weight = word.partition("=")
    unit, field, what = weight.removesuffix("%"), "weight_percent", "percent"
    if weight.endswith("bps"):
        unit, field, what = weight.removesuffix("bps"), "weight_bps", "bps"
    number = whole_number(unit, 2**53)
    if number is None:
        raise InvalidArgument(
            f"entry `{word[:100]}`: parse {what}: `{unit[:60]}` is no whole number",
            hint="write REV=50, REV=50% or REV=2500bps",
        )
    return {"revision_id": revision, field: number}


def check_needs(verb: Verb, payload: JsonObject) -> None:
    """Raise `InvalidArgument` for what the inline form lacks, with how to give it."""
    for fields, how in verb.needs:
        if not any(payload.get(f) not in (None, "") for f in fields.split("|")):
            if verb.exclusive:
                raise InvalidArgument(
                    f"{verb.noun} {verb.verb}: inline-flag form requires --environment-id and --name; missing: {how}"
                )
            raise InvalidArgument(f"{verb.noun} {verb.verb}: missing `{how}`")


def laid_over(verb: Verb, given: Inline, answers: Path | None) -> Json:
    """The payload as it was told (rule 1). Raises `InvalidArgument`, or as `read_answers` does."""
    if verb.exclusive and answers is not None and given.fixed:
        raise InvalidArgument(
            f"{verb.noun} {verb.verb}: inline flags and --answers are mutually exclusive; use one or the other"
        )
    raw = given.merged()
    if verb.noun == "deploy":
        _deploy_defaults(raw)
    if answers is not None:
        whole = lay_over(read_answers(answers), raw)
        check_paths(verb, whole)
        return whole
    optional = verb.noun == "env" and verb.verb == "init"
    if not raw and verb.positionals + verb.flags and not optional:
        raise InvalidArgument("no payload provided: pass --answers <path> or supply the payload directly")
    check_needs(verb, raw)
    check_paths(verb, raw)
    return raw


def check_paths(verb: Verb, payload: Json) -> None:
    """Raise `InvalidArgument` for a path that is empty, which joined to a directory would be the directory."""
    told = payload if isinstance(payload, dict) else {}
    for flag in verb.flags:
        if flag.metavar in ("FILE", "DIR") and told.get(flag.field) == "":
            raise InvalidArgument(f"{flag.name} (`{flag.field}`): {EMPTY_PATH}")


def _deploy_defaults(raw: JsonObject) -> None:
    overrides(raw)
    path = raw.get("bundle_path")
    if "bundle_id" not in raw and isinstance(path, str):
        raw["bundle_id"] = Path(path).stem


def overrides(values: JsonObject) -> None:
    """Turn the three override flags of `deploy` into the payload's `config_overrides`, in place."""
    collected: dict[str, JsonObject] = {}
    file = values.pop("--config-overrides-from", None)
    if isinstance(file, str):
        loaded = read_answers(Path(file))
        if not isinstance(loaded, dict) or not all(isinstance(v, dict) for v in loaded.values()):
            raise InvalidArgument(f"--config-overrides-from {file}: expected an object of objects")
        collected = {pack: dict(keys) for pack, keys in loaded.items() if isinstance(keys, dict)}
    for flag, as_json in (("--config-override", False), ("--config-override-json", True)):
        for word in _texts(values.pop(flag, None)):
            place, equals, value = word.partition("=")
            pack, colon, key = place.partition(":")
            if not equals or not colon or not pack or not key:
                raise InvalidArgument(f"{flag} `{word}`: expected PACK:KEY=VALUE")
            collected.setdefault(pack, {})[key] = typed(word, value, None if not as_json else dict)
            if not as_json:
                collected[pack][key] = value
    if collected:
        values["config_overrides"] = dict(collected)


def _texts(value: Json | None) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else []


def _put(out: JsonObject, dotted: str, value: Json) -> None:
    *path, last = dotted.split(".")
    for part in path:
        inner = out.setdefault(part, {})
        if not isinstance(inner, dict):
            raise InvalidArgument(f"`{dotted}`: `{part}` is no object")
        out = inner
    out[last] = value


def lay_over(base: Json, over: JsonObject) -> Json:
    """`over` laid on `base`, objects merged key by key (rule 1)."""
    if not isinstance(base, dict):
        return over or base
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = lay_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out
