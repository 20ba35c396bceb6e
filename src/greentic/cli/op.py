"""`gtc op`: find the verb, make its payload, run it, print the envelope (formats: op 1).

Global flags stand before or after noun and verb. Wrong command lines exit with 2 and a text, failed verbs with 1 and an
envelope on stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgspec

from greentic.cli import op_table
from greentic.cli.op_parser import GLOBAL_SWITCHES, GLOBAL_VALUES, attribute, noun_help, overview, parser_of
from greentic.ground.disk import of_the_machine
from greentic.ground.documents import JsonObject
from greentic.ground.errors import AnswersParse, GreenticError, InvalidArgument
from greentic.ground.nearest import one_of
from greentic.ground.reply import reply_object
from greentic.operate.verb import ENV, Verb
from greentic.terminal.next_step import all_copyable, copyable, filled, with_names, with_next_step
from greentic.terminal.output import (
    FOR_PROGRAMS,
    FORMS,
    Form,
    chosen_form,
    print_failure,
    print_hint,
    print_success,
    print_warning,
    tell_lacks,
    tell_people,
)
from greentic.terminal.streams import answering, say

if TYPE_CHECKING:
    from greentic.operate.change import Context
    from greentic.operate.payload import Payload

_HELP = ("-h", "--help")


class Globals(msgspec.Struct, frozen=True):
    store_root: Path | None
    answers: Path | None
    schema: bool
    output: str | None


def main(argv: list[str]) -> int:
    """Run `gtc op <argv>`; returns the exit code."""
    options, words = _globals(argv)
    words = _asked_for_help(words)
    if not words or words[0] in _HELP:
        _help(overview())
        return 0 if words else _usage("a noun is missing")
    noun, rest = words[0], words[1:]
    if noun not in op_table.nouns():
        listed = one_of(noun, op_table.nouns(), (*GLOBAL_VALUES, *GLOBAL_SWITCHES))
        return _usage(f"unrecognized subcommand '{noun}'{listed}")
    if noun == op_table.DEPLOY.noun:
        return _run(op_table.DEPLOY, rest, options)
    if not rest or rest[0] in _HELP:
        _help(noun_help(noun))
        return 0 if rest else 2
    verb = op_table.named(noun, rest[0], rest[1:])
    if verb is None:
        known = [v.verb for v in op_table.VERBS if v.noun == noun]
        return _usage(f"unrecognized subcommand '{rest[0]}' of {noun}{one_of(rest[0], known)}", noun)
    return _run(verb, rest[1:], options)


def _help(text: str) -> None:
    from greentic.terminal.fitted import fitted_here

    say(fitted_here(text))


def _asked_for_help(words: list[str]) -> list[str]:
    """`help` before or behind the noun is `--help` behind all."""
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    is_help = words[1:2] == ["help"] and words[0] != "deploy"  # which takes a bundle of any name
    return [words[0], *words[2:], "--help"] if is_help else words


def _run(verb: Verb, words: list[str], options: Globals) -> int:
    told = _schema(verb, _load(verb.payload)) if verb.payload and set(_HELP) & set(words) else None
    parser = parser_of(verb, told)
    parser.members = lambda: _members(verb)
    arguments = vars(parser.parse_intermixed_args(words))
    from greentic.cli.op_payload import read_for
    from greentic.telemetry.tracing import whole

    form = chosen_form(options.output)
    tell_lacks(form)
    watched = bool(arguments.pop("watch", False)) and not options.schema
    called: _Call | None = None
    try:
        with whole(f"gtc op {verb.noun} {verb.verb}"):
            with read_for(verb, dict(arguments)):
                call = called = _call(verb, arguments, options)
            if watched:
                _watch(form, verb, call, options)
                return 0
            reply = call.make()
        result = call.told(reply)
        with answering():
            _print(form, verb, reply, result, options, call.env)
            _warn(form, verb, call.unknown)
        if verb.changes_member and result.get(verb.changes_member) is True:
            return 2
        if verb.codes and not options.schema:
            return int(dict(_load(verb.codes)).get(result.get("state"), 0))
    except GreenticError as error:
        for_people = form not in FOR_PROGRAMS
        if for_people and called is not None and called.env:
            with contextlib.suppress(GreenticError):  # what is told is why there is no store, if there is none
                error = with_names(error, _context(options).store.names(called.env))
        print_failure(form, verb.noun, verb.verb, with_next_step(error, options.store_root, for_people=for_people))
        return 1
    except BrokenPipeError:
        raise  # who read us has gone
    except (OSError, UnicodeEncodeError) as error:
        print_failure(form, verb.noun, verb.verb, of_the_machine(error))
        return 1
    except _Usage as error:
        return _usage(str(error), verb.name)
    return 0


def _members(verb: Verb) -> list[str]:
    """What may stand in a verb's payload."""
    from greentic.ground.field_types import members

    return members(_load(verb.payload), "") if verb.payload else []


class _Usage(Exception):
    pass


def _print(form: Form, verb: Verb, reply: object, result: JsonObject, options: Globals, env: str) -> None:
    if form == "table" and verb.changes_member and verb.changes_member in result:
        from greentic.terminal.changes_view import show_changes

        show_changes(result)
        return
    hint = "" if options.schema else copyable(_hint(verb, result, env), options.store_root)
    if form in FOR_PROGRAMS or options.schema:
        print_success("json" if form == "name" else form, verb.noun, verb.verb, result, hint)
        return
    from greentic.terminal import shown

    if form == "name":
        shown.print_names(_context(options), verb.noun, verb.verb, result)
    elif shown.has_picture(verb.noun, verb.verb):
        shown.show(form, _context(options), verb.noun, verb.verb, reply, result)
        print_hint(hint)
    else:
        told = all_copyable(result, options.store_root)
        print_success(form, verb.noun, verb.verb, told if isinstance(told, dict) else result, hint)


def _warn(form: Form, verb: Verb, unknown: list[str]) -> None:
    """Tell of what nobody took where the reply is not shown with its warnings: in a picture and in names."""
    if not unknown or form in FOR_PROGRAMS:
        return
    from greentic.terminal import shown

    if form == "name" or shown.has_picture(verb.noun, verb.verb):
        print_warning(_ignored(unknown))


def _ignored(unknown: list[str]) -> str:
    return f"unknown payload key(s) ignored: {', '.join(unknown)}"


def _watch(form: Form, verb: Verb, call: _Call, options: Globals) -> None:
    """Ask again and again: drawn in place at a terminal, a line each time for programs."""
    from greentic.terminal.shown import WATCH_SECONDS, watch

    context = _context(options)
    if form not in FOR_PROGRAMS:
        _warn(form, verb, call.unknown)
        watch(context, call.make)  # type: ignore[arg-type]  # the one row that is watched
        return
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            print_success(form, verb.noun, verb.verb, call.told(call.make()), "")
            sys.stdout.flush()
            context.clock.sleep(WATCH_SECONDS)


class _Call(NamedTuple):
    """What a command line asks for."""

    make: Callable[[], object]
    """The reply, as the verb answers it: what draws it knows its type."""
    unknown: list[str]
    """Members of the payload that nobody took."""
    env: str = ""
    """The environment that it is about; empty where it is about none."""

    def told(self, reply: object) -> JsonObject:
        """A reply as programs read it, with a warning of the members that nobody took, if there are any."""
        result = reply_object(reply)
        if not self.unknown:
            return result
        warnings = result.get("warnings")
        before = list(warnings) if isinstance(warnings, list) else []
        return result | {"warnings": [*before, _ignored(self.unknown)]}


def _call(verb: Verb, arguments: dict[str, object], options: Globals) -> _Call:
    """What is to be done for a command line: everything is read and checked by now, nothing was changed."""
    from greentic.cli import op_payload
    from greentic.deployments.ulids import with_ulids
    from greentic.ground.field_types import unknown_told
    from greentic.operate.payload import of_ids
    from greentic.operate.payload import read as read_payload

    form = _load(verb.payload) if verb.payload else of_ids(verb.positionals)
    options_form = _load(verb.options) if verb.options else None
    words = arguments.pop("words")
    flags = {k: v for k, v in arguments.items() if v not in (None, False, [])}
    settings = {k: flags.pop(k) for k in getattr(options_form, "_fields", ()) if k in flags}
    try:
        given = op_payload.inline(verb, form, words, _named(verb, flags))  # type: ignore[arg-type]
    except op_payload.UsageError as error:
        raise _Usage(str(error)) from None
    missing = [p for p in verb.required if p not in given.merged()]
    if missing and options.answers is None:
        named = ", ".join(f"<{p.upper()}>" for p in missing)
        raise _Usage(f"the following required arguments were not provided: {named}")
    if options.schema:
        told = _schema(verb, form)
        return _Call(lambda: told, [])
    raw = op_payload.laid_over(verb, given, options.answers)
    function, context = _load(verb.call), _context(options)
    if options.answers is not None:
        payload = read_payload(form, raw, AnswersParse, f"{options.answers}: json: ")
    else:
        payload = read_payload(form, raw, InvalidArgument, f"{verb.noun} {verb.verb}: ")
    payload = with_ulids(context, payload)
    unknown, env = unknown_told(form, raw), str(getattr(payload, ENV, None) or "")
    if not verb.payload:
        ids = [getattr(payload, name) for name in verb.positionals]
        return _Call(lambda: function(context, *ids), unknown, env)
    if options_form is None:
        return _Call(lambda: function(context, payload), unknown, env)
    if "base" in options_form._fields and options.answers is not None and not _is_handed_on(options.answers):
        settings["base"] = options.answers.parent
    return _Call(lambda: function(context, payload, options_form(**settings)), unknown, env)


def _schema(verb: Verb, form: type[Payload]) -> JsonObject:
    """What `--schema` tells of a verb."""
    from greentic.operate.payload import schema

    if not verb.payload or verb.schema_text:
        return {"input_schema": verb.schema_text or f"{' and '.join(verb.required)} positional"}
    return schema(form, description=verb.summary if verb.noun == "env" and verb.verb == "apply" else None)


def _is_handed_on(answers: Path) -> bool:
    """Whether a file is what a shell hands on, `/dev/stdin` or `<(program)`: nothing lies beside it."""
    return answers.is_absolute() and answers.parts[1:2] in (("dev",), ("proc",))


def _named(verb: Verb, flags: dict[str, object]) -> dict[str, object]:
    """Values of flags by payload field; flags that share a field go by their own name."""
    by_name = {attribute(f): f for f in verb.flags}
    out: dict[str, object] = {}
    for name, value in flags.items():
        flag = by_name[name]
        if not flag.field:
            continue
        out[flag.name if flag.field == "config_overrides" else flag.field] = value
    return out


def _context(options: Globals) -> Context:
    from greentic.operate.change import Context
    from greentic.store.environments import EnvironmentStore
    from greentic.store.layout import worked_on
    from greentic.terminal.live_view import fitting_view

    return Context(EnvironmentStore(worked_on(options.store_root)), fitting_view())


def _load(place: str):  # type: ignore[no-untyped-def]  # noqa: ANN202  the table names functions and payloads alike
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


# -- command lines --------------------------------------------------------------------------------------------------


def _globals(argv: list[str]) -> tuple[Globals, list[str]]:
    values: dict[str, str] = {}
    switches: set[str] = set()
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name in GLOBAL_VALUES and not _is_directory_option(argv, word):
            found = value if equals else next(words, None)
            if found is None:
                _exit_usage(f"a value is required for '{name}'")
            values[name] = found
        elif word in GLOBAL_SWITCHES:
            switches.add(word)
        else:
            rest.append(word)
    output = values.get("--output")
    if output not in (None, *FORMS):
        _exit_usage(f"invalid value '{output}' for '--output'{one_of(str(output), FORMS)}")
    root, answers = values.get("--store-root"), values.get("--answers")
    return Globals(
        Path(root) if root else None, Path(answers) if answers else None, "--schema" in switches, output
    ), rest


def _is_directory_option(argv: list[str], word: str) -> bool:
    """Whether `--output` names a directory, as verbs that write files have it, and not the form of the reply."""
    writes = any(
        v.noun in argv and v.verb in argv and any(f.name == "--output" for f in v.flags) for v in op_table.VERBS
    )
    if word.partition("=")[0] != "--output" or not writes:
        return False
    _, equals, value = word.partition("=")
    following = argv[argv.index(word) + 1 : argv.index(word) + 2]
    return (value if equals else "".join(following)) not in FORMS


def _hint(verb: Verb, result: JsonObject, env: str) -> str:
    """The next step, about the environment that the verb was about."""
    words = filled(verb.hint, result)
    return words.replace("ENV", shlex.quote(env)) if env else words


def _usage(message: str, about: str = "") -> int:
    """Tell what is wrong with a command line, and whose help has more: that of a noun, a noun with its verb, or of `gtc op`."""
    name = about and f" {about}"
    tell_people(f"error: {message}\n\nFor more information, try 'gtc op{name} --help'.")
    return 2


def _exit_usage(message: str) -> NoReturn:
    raise SystemExit(_usage(message))
