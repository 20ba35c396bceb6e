"""Templates in the mappings of nodes (formats: flows 7).

Rules, for each text inside a value; keys and other scalars stay as they are:
1. Where pointers are allowed, a text that starts with `/` and has no `{{` is a JSON pointer; what is not there is an error.
2. A text that is one `{{path}}` becomes the value itself, with its type; what is missing becomes the empty text.
3. Any other text with `{{` is Handlebars, a single call of a helper (`{{len x}}`) too. One that consists of tags from its first
   character to its last is the empty text if a value that it prints is missing, as single paths are.
4. Values are compiled once, when a flow is loaded; a mistake is kept and told when the node runs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import NamedTuple, Protocol

import msgspec

from greentic.expressions import handlebars
from greentic.expressions.handlebars_helpers import HELPERS, TemplateError
from greentic.expressions.handlebars_render import (
    MAX_OUTPUT,
    MAX_PRINTED,
    MissingValue,
    Pause,
    printed,
    render,
    render_gently,
    walk,
)
from greentic.expressions.paths import MISSING, Step, follow, parse_path, pointer_steps
from greentic.ground.errors import FlowFailure

MAX_VALUE_DEPTH = 100
_FAILURES = (MissingValue, ValueError, RecursionError)
"""How reading or rendering fails; `TemplateError` is a `ValueError`."""


class Names(Protocol):
    """What templates see."""

    def named(self, name: str) -> object:
        """The value of a name, or `MISSING`."""
        ...


Renderer = Callable[[Names], object]
Gently = Callable[[Names, Pause], Coroutine[object, object, object]]


class Asked(NamedTuple):
    """A path that a text follows."""

    path: tuple[Step, ...]
    text: str


class Compiled(msgspec.Struct, frozen=True):
    """A value whose texts may be templates."""

    render: Renderer
    constant: bool
    faults: tuple[str, ...]
    """Texts that cannot be rendered, for a load report."""
    asked: tuple[Asked, ...] = ()
    """What the templates ask for, for a load report."""
    gently: Gently | None = None
    """The same as `render` in pieces, where there is a template that may take long: one with blocks."""

    async def rendered(self, names: Names, pause: Pause) -> object:
        """What the value becomes, with a pause now and then if that takes long."""
        return self.render(names) if self.gently is None else await self.gently(names, pause)


def compile_value(value: object, *, pointers: bool = False, depth: int = 0) -> Compiled:
    """Compile a mapping. Never raises: a fault is told by `faults`, and by `FlowFailure` when it is rendered."""
    if depth > MAX_VALUE_DEPTH:
        return _faulty("nested too deeply")
    if isinstance(value, str):
        return _text(value, pointers)
    if isinstance(value, dict):
        items = [(key, compile_value(item, pointers=pointers, depth=depth + 1)) for key, item in value.items()]
        faults = tuple(f for _, item in items for f in item.faults)
        if all(item.constant for _, item in items):
            return Compiled(lambda _: value, True, faults)
        pairs = [(key, item.render) for key, item in items]
        asked = tuple(a for _, item in items for a in item.asked)

        async def object_gently(names: Names, pause: Pause) -> object:
            return {key: await item.rendered(names, pause) for key, item in items}

        gently = object_gently if any(item.gently for _, item in items) else None
        return Compiled(lambda names: {key: render(names) for key, render in pairs}, False, faults, asked, gently)
    if isinstance(value, list):
        parts = [compile_value(item, pointers=pointers, depth=depth + 1) for item in value]
        faults = tuple(f for part in parts for f in part.faults)
        if all(part.constant for part in parts):
            return Compiled(lambda _: value, True, faults)
        renders = [part.render for part in parts]
        asked = tuple(a for part in parts for a in part.asked)

        async def list_gently(names: Names, pause: Pause) -> object:
            return [await part.rendered(names, pause) for part in parts]

        gently = list_gently if any(part.gently for part in parts) else None
        return Compiled(lambda names: [render(names) for render in renders], False, faults, asked, gently)
    return Compiled(lambda _: value, True, ())


def _text(text: str, pointers: bool) -> Compiled:
    if pointers and text.startswith("/") and "{{" not in text:
        return Compiled(_pointed(text), False, (), (Asked(pointer_steps(text), text),))
    if "{{" not in text:
        return Compiled(lambda _: text, True, ())
    trimmed = text.strip()
    enclosed = trimmed.startswith("{{") and trimmed.endswith("}}")
    try:
        if enclosed:
            inner = trimmed.lstrip("{").rstrip("}").strip()
            steps = None if "{{" in inner or "}}" in inner or is_call(inner) else parse_path(inner)
            if steps is not None:
                return Compiled(_exact(steps), False, (), (Asked(steps, text),) if steps else ())
        template = handlebars.parse(text)
    except _FAILURES as error:
        return _faulty(f"template render failed: {error} in `{text[:80]}`")
    asked = tuple(Asked(path, text) for path in handlebars.outer_paths(template) if path)
    simple = handlebars.simple_parts(template)
    if simple is not None and not enclosed:
        return Compiled(_joined(simple), False, (), asked)
    blocks = any(isinstance(part, handlebars.Block) for part in template)
    gently = _rendered_gently(template, tell_missing=enclosed) if blocks else None
    return Compiled(_rendered(template, tell_missing=enclosed), False, (), asked, gently)


def is_call(inner: str) -> bool:
    """Whether the inside of a single tag calls a helper, and so is no path."""
    words = inner.split(maxsplit=1)
    return len(words) > 1 and words[0] in HELPERS


def _exact(steps: tuple[Step, ...]) -> Renderer:
    if not steps:
        return lambda _: ""
    first, rest = str(steps[0]), steps[1:]

    def render(names: Names) -> object:
        value = names.named(first)
        if rest:
            try:
                value = follow(value, rest)
            except _FAILURES as error:
                return _instead(error)
        return "" if value is MISSING else value

    return render


def _pointed(pointer: str) -> Renderer:
    steps = pointer_steps(pointer)

    def render(names: Names) -> object:
        value = follow(names.named(str(steps[0])), steps[1:])
        if value is MISSING:
            raise FlowFailure(f"mapping path `{pointer}` not found")
        return value

    return render


def _rendered(template: handlebars.Template, *, tell_missing: bool) -> Renderer:
    def rendered(names: Names) -> object:
        try:
            return render(template, names.named, tell_missing=tell_missing)
        except _FAILURES as error:
            return _instead(error)

    return rendered


def _rendered_gently(template: handlebars.Template, *, tell_missing: bool) -> Gently:
    async def rendered(names: Names, pause: Pause) -> object:
        try:
            return await render_gently(template, names.named, pause, tell_missing=tell_missing)
        except _FAILURES as error:
            return _instead(error)

    return rendered


def _joined(parts: handlebars.Simple) -> Renderer:
    """Texts and plain paths, which is what most templates are, without the machinery of blocks."""

    def render(names: Names) -> object:
        left = [MAX_PRINTED]
        try:
            text = "".join(
                [p if isinstance(p, str) else printed(walk(names.named(p.steps[0]), p, 1), left) for p in parts]
            )
        except _FAILURES as error:
            return _instead(error)
        return text if len(text) <= MAX_OUTPUT else _instead(TemplateError(f"more than {MAX_OUTPUT} characters"))

    return render


def _instead(error: Exception) -> str:
    """What becomes of a text that cannot be rendered (rule 3). Raises `FlowFailure` unless a value is missing."""
    if isinstance(error, MissingValue):
        return ""
    raise FlowFailure(f"template render failed: {error}") from None


def _faulty(fault: str) -> Compiled:
    def render(_: Names) -> object:
        raise FlowFailure(fault)

    return Compiled(render, False, (fault,))
