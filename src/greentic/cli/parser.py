"""The parser of every command: argparse, which says what a mistyped verb, flag or choice may have meant.

Rules:
1. What is beside argparse is imported once a command line is wrong.
2. Words of a command line are repeated as those of anybody: they may have been pasted.
3. No flag is taken by its beginning: what is short today may mean two things tomorrow, and a typing mistake is none of them.
4. Help is an answer: where it cannot be printed the program fails and says so, which argparse keeps to itself.
5. A flag that nobody knows is told by the parser of the verb that it stands behind, and what may have been meant is one that this verb
   takes. A choice that was written as a flag of its own (`json` of `--output json`) is one, too, and so is a member of the payload, which
   this verb takes as a word.
6. A private key that stands where its file is to be named is refused, and not repeated.
7. A path is never empty: joined to a directory it would be the directory, which nobody named (an unset `$OUT`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_UNKNOWN = "unrecognized arguments: "
_KEY = "-----BEGIN "
EMPTY_PATH = "it is empty; expected the name of a file or directory"


class Help(argparse.RawDescriptionHelpFormatter):
    """argparse's help, fitted; the verbs of a noun stand in a list of their own, without a line that names all of them."""

    def _set_color(self, *_: object, **__: object) -> None:
        """Python 3.14 paints help, by characters that nobody sees and that would be counted here."""
        getattr(super(), "_set_color", bool)(False)

    def format_help(self) -> str:
        from greentic.terminal.fitted import fitted

        return fitted(super().format_help(), self._width)

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):
            return "".join(self._format_action(verb) for verb in action._get_subactions())
        return super()._format_action(action)


class Parser(argparse.ArgumentParser):
    """A parser and, by way of it, those of its verbs."""

    def _get_formatter(self) -> argparse.HelpFormatter:
        """argparse asks for one with each argument that is added, which asks the terminal how wide it is; only help needs to know."""
        return self.formatter_class(prog=self.prog) if self._tells else argparse.HelpFormatter(self.prog, width=80)

    _tells = False
    """Whether help or usage is made now."""

    def format_help(self) -> str:
        self._tells = True
        return super().format_help()

    def format_usage(self) -> str:
        self._tells = True
        return super().format_usage()

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Print help, a version, or what is wrong with a command line (rule 4)."""
        if file is not sys.stdout:
            super()._print_message(message, file)
        elif message:
            from greentic.terminal.streams import say

            say(message.removesuffix("\n"))

    def error(self, message: str) -> NoReturn:
        super().error(self.with_meaning(message))

    def with_meaning(self, message: str) -> str:
        """An error, harmless (rule 2), with the flag that was meant, if it is about a flag that nobody knows."""
        from greentic.terminal.output import printed

        plain, key, _ = message.partition(_KEY)
        told = printed(f"{plain}(withheld: it is a key)" if key else message)
        word = message.removeprefix(_UNKNOWN).split(" ")[0].partition("=")[0]
        if not message.startswith(_UNKNOWN) or not word.startswith("-"):
            return told
        from greentic.ground.nearest import did_you_mean

        shown = [action for action in self._actions if action.help != argparse.SUPPRESS]
        known = [name for action in shown for name in action.option_strings if name.startswith("--")]
        as_flags = {f"--{c}": f"{a.option_strings[-1]} {c}" for a in shown if a.option_strings for c in a.choices or ()}
        members = {f"--{name.replace('_', '-')}": f"{name}=…" for name in self.members()}
        chosen = as_flags.get(word) or self.beside.get(word) or members.get(word.replace("_", "-"))
        if chosen:
            return f"{told}; did you mean `{chosen}`?"
        return told + did_you_mean(word, [*known, *self.beside.values(), *members.values()])

    beside: Mapping[str, str] = {}
    """What is taken before this parser sees it, by how it may be written."""
    members: Callable[[], Iterable[str]] = tuple
    """What is taken as `name=value`, asked for by who wrote it as a flag."""

    def parse_known_args(  # type: ignore[override]  # argparse types the namespace by overloads
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,  # noqa: ANN401
    ) -> tuple[Any, list[str]]:
        """For a verb's parser all that is there; argparse would hand what is left to the parser of its noun (rule 4)."""
        found, left = super().parse_known_args(args, namespace)
        if left and not self._mixed:
            self.error(_UNKNOWN + " ".join(left))
        return found, left

    def parse_known_intermixed_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,  # noqa: ANN401
    ) -> tuple[Any, list[str]]:
        """Parses twice; what the first time leaves is for the second."""
        self._mixed = True
        return super().parse_known_intermixed_args(args, namespace)

    _mixed = False

    def _get_option_tuples(self, option_string: str) -> list[tuple[argparse.Action, str, str | None]]:
        """The flags that begin like this (rule 3)."""
        return []

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Raises `ArgumentError` for what is none of the choices."""
        if action.choices is None or value in action.choices:
            return
        from greentic.ground.nearest import one_of

        known = [str(choice) for choice in action.choices]
        raise argparse.ArgumentError(action, f"invalid choice: '{value}'{one_of(str(value), known)}")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:  # noqa: ANN401  as argparse has it
        """Raises `ArgumentError` for a key (rule 6) and for no path (rule 7)."""
        if action.type is Path and not arg_string:
            raise argparse.ArgumentError(action, EMPTY_PATH)
        if action.type is Path and _KEY in arg_string:
            text = "this is a key itself, which others can read in the list of processes; name the file that holds it"
            raise argparse.ArgumentError(action, text)
        return super()._get_value(action, arg_string)
