"""Rendering a template that `handlebars` read (formats: flows 7).

Rules:
1. Nothing is escaped. A missing value prints nothing; a name as the index of a list is an error.
2. A text prints as it is, a number or boolean as JSON, null as nothing, a list as `[a, b]`, an object as `[object]`.
3. Rendering is bounded in steps and in the size of what it makes; what costs anything costs steps.
4. One that may be long is made in pieces (`render_gently`): a worker does something else in between. What is done in one piece is small.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from greentic.expressions.handlebars import Block, Expression, Literal, Lookup, Print, Template
from greentic.expressions.handlebars_helpers import COMPARING, HELPERS, TemplateError, truthy
from greentic.expressions.paths import MISSING, follow
from greentic.ground.going import in_place

MAX_OUTPUT = 1 << 20
"""Characters that one template may make."""
MAX_STEPS = 100_000
"""Tags and arguments of helpers that one rendering may execute. What a comparison goes through counts as well, and turns of an `each`
without a tag."""
PIECE = 2_000
"""Steps after which the loop may do something else: two milliseconds and a half."""
MAX_PRINTED = 20_000
"""Members of lists that a tag of a template with blocks may print, or all tags of one without: five milliseconds, and more than anybody
reads."""


class _Scope(msgspec.Struct, frozen=True):
    value: object
    data: dict[str, object]
    """`@index`, `@key`, `@first`, `@last`."""
    named: dict[str, object]
    """Block parameters."""


Pause = Callable[[], Awaitable[None]]
"""Lets others go on."""
Root = Callable[[str], object]
"""A value of the outermost scope by name, or `MISSING`."""


class MissingValue(Exception):
    """A printed path leads nowhere, in a rendering that asked to be told."""


def render(template: Template, root: Root, *, tell_missing: bool = False) -> str:
    """The text of a template. Raises `TemplateError`; `MissingValue` if asked to and a printed path leads nowhere."""
    return in_place(_Renderer(root, tell_missing, None).render(template))


async def render_gently(template: Template, root: Root, pause: Pause, *, tell_missing: bool = False) -> str:
    """The same with a pause after each piece (rule 4)."""
    return await _Renderer(root, tell_missing, pause).render(template)


class _Renderer:
    def __init__(self, root: Root, tell_missing: bool, pause: Pause | None) -> None:
        self._root, self._tell, self._pause = root, tell_missing, pause
        self._next = PIECE
        self._scopes: list[_Scope] = []
        self._out: list[str] = []
        self._size = self._steps = 0

    async def render(self, template: Template) -> str:
        await self._parts(template)
        return "".join(self._out)

    def _write(self, text: str, times: int = 1) -> None:
        self._size += len(text) * times
        if self._size > MAX_OUTPUT:
            raise TemplateError(f"the text is longer than {MAX_OUTPUT} characters")
        self._out.append(text * times)

    def _step(self, count: int) -> None:
        self._steps += count
        if self._steps > MAX_STEPS:
            raise TemplateError(f"more than {MAX_STEPS} steps")

    async def _parts(self, parts: Template) -> None:
        for part in parts:
            if isinstance(part, str):
                self._write(part)
                continue
            self._step(1)
            if self._steps >= self._next and self._pause is not None:
                self._next = self._steps + PIECE
                await self._pause()
            if isinstance(part, Print):
                value = self._value(part.expression)
                if value is MISSING and self._tell:
                    raise MissingValue
                self._print(value)
            else:
                await self._block(part)

    def _print(self, value: object) -> None:
        left = [MAX_PRINTED]
        self._write(printed(value, left))
        self._step(MAX_PRINTED - left[0] >> 2)

    async def _block(self, block: Block) -> None:
        value = self._value(block.argument)
        if block.name in ("if", "unless"):
            zero = any(k == "includeZero" and truthy(self._value(v)) for k, v in block.options)
            holds = truthy(value) or (zero and value == 0 and not isinstance(value, bool))
            await self._parts(block.body if holds == (block.name == "if") else block.otherwise)
        elif not truthy(value) and not (block.name == "with" and isinstance(value, int | float)):
            await self._parts(block.otherwise)
        elif not block.body:
            return  # its turns would print nothing
        elif block.name == "each" and isinstance(value, list | dict) and all(isinstance(p, str) for p in block.body):
            self._step(len(value))
            self._write("".join(map(str, block.body)), len(value))
        elif block.name == "with":
            await self._inside(block, value, {}, (value,))
        elif isinstance(value, list):
            last = len(value) - 1
            for index, item in enumerate(value):
                await self._inside(
                    block, item, {"index": index, "first": index == 0, "last": index == last}, (item, index)
                )
        elif isinstance(value, dict):
            last = len(value) - 1
            for index, (key, item) in enumerate(value.items()):
                data = {"key": key, "index": index, "first": index == 0, "last": index == last}
                await self._inside(block, item, data, (item, key))
        else:
            await self._parts(block.otherwise)

    async def _inside(self, block: Block, value: object, data: dict[str, object], named: tuple[object, ...]) -> None:
        self._scopes.append(_Scope(value, data, dict(zip(block.parameters, named, strict=False))))
        await self._parts(block.body)
        self._scopes.pop()

    def _value(self, expression: Expression) -> object:
        if isinstance(expression, Lookup):
            return self._lookup(expression)
        if isinstance(expression, Literal):
            return expression.value
        helper = HELPERS.get(expression.name)
        if helper is None:
            raise TemplateError(f"`{expression.name}` is a block; write `{{{{#{expression.name} …}}}}`")
        arguments = [self._value(argument) for argument in expression.arguments]
        self._step(len(arguments))
        if expression.name in COMPARING:
            self._step(_weight_of_comparing(arguments))
        return helper(arguments)

    def _lookup(self, path: Lookup) -> object:
        if path.data:
            return self._data(path)
        scopes = self._scopes[: len(self._scopes) - path.up] if path.up <= len(self._scopes) else []
        if not path.up and path.steps:
            for scope in reversed(scopes):
                if path.steps[0] in scope.named:
                    return walk(scope.named[path.steps[0]], path, 1)
        if scopes:
            return walk(scopes[-1].value, path, 0)
        if not path.steps:
            return MISSING
        return walk(self._root(path.steps[0]), path, 1)

    def _data(self, path: Lookup) -> object:
        if path.steps[:1] == ("root",):
            return walk(self._root(path.steps[1]), path, 2) if len(path.steps) > 1 else MISSING
        level = len(self._scopes) - 1 - path.up
        while level >= 0 and path.steps:
            if path.steps[0] in self._scopes[level].data:
                return walk(self._scopes[level].data[path.steps[0]], path, 1)
            level -= 1
        return MISSING


def _weight_of_comparing(arguments: list[object]) -> int:
    """The steps that a comparison may cost, which goes through the smaller of two values; to know which, little more is gone through."""
    most = _WEIGHED
    while True:
        least = min((_weight(argument, most) for argument in arguments), default=0)
        if least < most:
            return least
        most *= 4


_WEIGHED = 8
"""Steps up to which values are weighed at first."""


def _weight(value: object, most: int) -> int:
    """The steps that comparing a value may cost, which goes through all of it: 16 members or 4096 characters for one; `most` or more as
    soon as they are seen to be that many.
    """
    if not isinstance(value, list | dict):
        return len(value) >> 12 if isinstance(value, str) else 0
    members, enough = 0, most << 4
    waiting: list[list[object] | dict[str, object]] = [value]
    while waiting and members < enough:
        held = waiting.pop()
        members += len(held)
        if members >= enough:
            break
        for item in held.values() if isinstance(held, dict) else held:
            if isinstance(item, list | dict):
                waiting.append(item)
            elif isinstance(item, str):
                members += len(item) >> 8
    return members >> 4


def walk(value: object, path: Lookup, begin: int) -> object:
    """The value at the end of a path's steps from `begin`. Raises `TemplateError` for a name as the index of a list."""
    for step in path.steps[begin:]:
        if isinstance(value, list) and not (step.isascii() and step.isdigit()):
            raise TemplateError(f"`{path.text}`: `{step}` is no index of a list")
        value = follow(value, (step,))
    return value


def printed(value: object, left: list[int]) -> str:
    """A value as text (rule 2). `left` is how many members of lists may still be printed. Raises `TemplateError` for more."""
    return _list_printed(value, left) if isinstance(value, list) else _scalar_printed(value)


def _list_printed(value: list[object], left: list[int]) -> str:
    left[0] -= len(value)
    if left[0] < 0:
        raise TemplateError(f"a list of more than {MAX_PRINTED} members is no text")
    return f"[{', '.join([_list_printed(i, left) if isinstance(i, list) else _scalar_printed(i) for i in value])}]"


def _scalar_printed(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or value is MISSING:
        return ""
    return "[object]" if isinstance(value, dict) else msgspec.json.encode(value).decode()
