"""What the commands `gtc bundle`, `pack`, `flow` and `cache` share: a parser with verbs, the form of the answer, the exit.

Rules:
1. Every verb takes `--output`; without it a terminal gets a table and a program JSON.
2. A typed error is told on the standard error output, and the exit is 1. What the system refuses and nobody foresaw, such as a name that
   is too long, is told as one.
3. A number of a flag has bounds, told with the number that is outside of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from greentic.cli.parser import Help, Parser
from greentic.ground.digits import whole_number
from greentic.ground.disk import of_the_machine
from greentic.ground.documents import JsonObject
from greentic.ground.errors import GreenticError
from greentic.terminal.next_step import copyable, filled, with_next_step
from greentic.terminal.output import FOR_PROGRAMS, Form, chosen_form, print_failure, print_success, tell_lacks
from greentic.terminal.streams import answering

Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"


class Command(NamedTuple):
    """One noun of the command line."""

    noun: str
    parser: argparse.ArgumentParser
    verbs: Verbs

    def parsed(self, argv: list[str]) -> argparse.Namespace:
        """The arguments."""
        return self.with_output().parse_args([*argv[1:], "--help"] if argv[:1] == ["help"] else argv)

    def with_output(self) -> argparse.ArgumentParser:
        """The parser, `--output` added to every verb (rule 1)."""
        for verb in self.verbs.choices.values():
            verb.add_argument("--output", choices=("json", "table"), help="default: a table at a terminal, else JSON")
        return self.parser


def number(least: int, most: int) -> Callable[[str], int]:
    """The type of a flag that takes a whole number from `least` to `most` (rule 3)."""

    def read(text: str) -> int:
        found = whole_number(text.removeprefix("-"), max(abs(least), most))
        found = -found if found and text.startswith("-") else found
        if found is None or not least <= found <= most:
            raise argparse.ArgumentTypeError(f"`{text[:60]}` is no whole number from {least} to {most}")
        return found

    return read


PORT = number(0, 65535)


def command(noun: str, description: str, examples: str, verbs: str) -> Command:
    """A noun whose verbs are `verbs`, joined by `|`."""
    parser = Parser(
        prog=f"gtc {noun}",
        description=description,
        epilog=examples,
        formatter_class=Help,
    )
    return Command(noun, parser, parser.add_subparsers(title="verbs", dest="verb", required=True, metavar=verbs))


def answered(noun: str, arguments: argparse.Namespace, work: Callable[[], JsonObject], hint: str = "") -> int:
    """Do the work of a verb and print its result; the exit code."""

    def shown(form: Form) -> int:
        result = work()
        with answering():
            told_hint = copyable(filled(hint, result), getattr(arguments, "store_root", None))
            print_success(form, noun, arguments.verb, result, told_hint)
        return 0

    return told(noun, arguments, shown)


def told(noun: str, arguments: argparse.Namespace, work: Callable[[Form], int]) -> int:
    """The same for a verb that prints by itself, in the form that it is given."""
    form, store_root = chosen_form(arguments.output), getattr(arguments, "store_root", None)
    tell_lacks(form)
    try:
        return work(form)
    except GreenticError as error:
        print_failure(
            form,
            noun,
            arguments.verb,
            with_next_step(error, store_root, for_people=form not in FOR_PROGRAMS),
        )
        return 1
    except BrokenPipeError:
        raise  # who read us has gone
    except (OSError, UnicodeEncodeError) as error:
        print_failure(form, noun, arguments.verb, of_the_machine(error))
        return 1
