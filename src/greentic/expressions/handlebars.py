"""The Handlebars that flows use: interpolation and the builtin block helpers (spec: packs-flows-components 3.6).

Rules:
1. `{{x}}`, `{{{x}}}` and `{{&x}}` print a value without escaping; `{{! … }}` prints nothing; `\\{{` is two braces.
2. Blocks are `if`, `unless`, `each` and `with`, with `{{else}}`, `{{else if x}}` and block parameters. Helpers are the
   comparisons, `and`, `or`, `not`, `len` and `lookup`. There are no others: calling one is an error.
3. A missing value prints nothing; a name as the index of a list is an error.
4. A text prints as it is, a number or boolean as JSON, null as nothing, a list as `[a, b]`, an object as `[object]`.
5. A tag of a block or a comment that stands alone on its line takes the line with it. `~` takes all blanks on its side.
6. Rendering is bounded in steps and in the size of what it makes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from greentic.expressions.paths import MISSING, follow

MAX_OUTPUT = 1 << 20
"""Characters that one template may make."""
MAX_STEPS = 100_000
"""Tags that one rendering may execute."""
MAX_DEPTH = 64
"""How deeply blocks and subexpressions may nest."""


class TemplateError(ValueError):
    """A template that cannot be read or rendered; the text says why."""


class Literal(NamedTuple):
    value: object


class Lookup(NamedTuple):
    """A path: how many scopes up, an `@` variable or a plain path, and its steps."""

    up: int
    data: bool
    steps: tuple[str, ...]
    text: str


class Call(NamedTuple):
    """A helper with its arguments."""

    name: str
    arguments: tuple[Expression, ...]
    options: tuple[tuple[str, Expression], ...]


Expression = Literal | Lookup | Call


class Print(NamedTuple):
    expression: Expression


class Block(NamedTuple):
    name: str
    argument: Expression
    options: tuple[tuple[str, Expression], ...]
    parameters: tuple[str, ...]
    body: tuple[Part, ...]
    otherwise: tuple[Part, ...]


Part = str | Print | Block
Template = tuple[Part, ...]

_TAG = re.compile(r"\{\{\{\s*(?P<raw>.*?)\}\}\}|\{\{!--.*?--~?\}\}|\{\{(?P<tag>.*?)\}\}", re.DOTALL)
_BLOCKS = frozenset({"if", "unless", "each", "with"})
_TOKEN = re.compile(
    r"""\s*(?:(?P<open>\()|(?P<close>\))|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<bar>as\s*\|[^|]*\|)"""
    r"""|(?P<key>[A-Za-z_][\w-]*)=|(?P<word>(?:\[[^\]]*\]|[^\s()"'=|])+))"""
)
_LINE_END = re.compile(r"[ \t]*(\r?\n|\Z)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\Z")


# -- reading --------------------------------------------------------------------------------------------------------


def parse(text: str) -> Template:
    """Read a template. Raises `TemplateError`."""
    return _Reader(text).template()


class _Tag(NamedTuple):
    start: int
    end: int
    kind: str
    """One of print, open, close, else, comment."""
    body: str


class _Reader:
    def __init__(self, text: str) -> None:
        self._pieces = _split(text)
        self._at = 0

    def template(self) -> Template:
        parts, ended = self._parts(0)
        if ended is not None:
            raise TemplateError(f"`{{{{{ended.body}}}}}` closes nothing")
        return parts

    def _parts(self, depth: int) -> tuple[Template, _Tag | None]:
        """Parts up to a closing or else tag, which is returned."""
        if depth > MAX_DEPTH:
            raise TemplateError(f"blocks nest deeper than {MAX_DEPTH}")
        parts: list[Part] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if isinstance(piece, str):
                if piece:
                    parts.append(piece)
            elif piece.kind == "print":
                parts.append(Print(_expression(piece.body)))
            elif piece.kind == "open":
                parts.append(self._block(piece.body, depth))
            elif piece.kind != "comment":
                return tuple(parts), piece
        return tuple(parts), None

    def _block(self, body: str, depth: int) -> Block:
        name, argument, options, parameters = _block_head(body)
        inside, ended = self._parts(depth + 1)
        otherwise: Template = ()
        if ended is not None and ended.kind == "else":
            if ended.body:
                # `{{else if x}}` is an `if` inside the `else`, closed by the same tag as the whole.
                nested = self._block(ended.body, depth + 1)
                return Block(name, argument, options, parameters, inside, (nested,))
            otherwise, ended = self._parts(depth + 1)
        if ended is None or ended.kind != "close":
            raise TemplateError(f"`{{{{#{name}}}}}` is not closed")
        return Block(name, argument, options, parameters, inside, otherwise)


def _split(text: str) -> list[str | _Tag]:
    """Texts and tags, blanks around tags already taken where rule 5 says so."""
    pieces: list[str | _Tag] = []
    at, literal, trim_next, fresh = 0, "", False, True
    while True:
        found = _TAG.search(text, at)
        start = len(text) if found is None else found.start()
        if found is not None and start > at and text[start - 1] == "\\":
            literal += text[at : start - 1] + found.group(0)
            at = found.end()
            continue
        if found is None and "{{" in text[at:]:
            raise TemplateError(f"`{text[text.index('{{', at) :][:40]}` is not closed")
        literal += text[at:start]
        if trim_next:
            literal = literal.lstrip()
        if found is None:
            pieces.append(literal)
            return pieces
        tag, trim_before, trim_next = _tag(found)
        at = found.end()
        if trim_before:
            literal = literal.rstrip()
        elif tag.kind != "print":
            line_start = literal.rfind("\n") + 1
            alone_before = not literal[line_start:].strip() and (line_start > 0 or fresh)
            rest = _LINE_END.match(text, at)
            fresh = alone_before and rest is not None and not trim_next
            if fresh and rest is not None:
                literal = literal[:line_start]
                at = rest.end()
        else:
            fresh = False
        pieces.append(literal)
        pieces.append(tag)
        literal = ""


def _tag(found: re.Match[str]) -> tuple[_Tag, bool, bool]:
    start, end = found.span()
    if found.group("raw") is not None:
        return _Tag(start, end, "print", found.group("raw").strip()), False, False
    body = found.group("tag")
    if body is None:
        return _Tag(start, end, "comment", ""), found.group(0).startswith("{{~"), found.group(0).endswith("~}}")
    before, after = body.startswith("~"), body.endswith("~")
    body = body.strip("~").strip()
    first = body[:1]
    if first == "!":
        return _Tag(start, end, "comment", ""), before, after
    if first == "#":
        return _Tag(start, end, "open", body[1:].strip()), before, after
    if first == "/":
        return _Tag(start, end, "close", body[1:].strip()), before, after
    if body in ("else", "^"):
        return _Tag(start, end, "else", ""), before, after
    if body.startswith("else "):
        return _Tag(start, end, "else", body[5:].strip()), before, after
    if first == ">":
        raise TemplateError("partials are not available")
    return _Tag(start, end, "print", body.removeprefix("&").strip()), before, after


def _block_head(
    body: str,
) -> tuple[str, Expression, tuple[tuple[str, Expression], ...], tuple[str, ...]]:
    parameters: tuple[str, ...] = ()
    bars = re.search(r"\sas\s*\|([^|]*)\|\s*\Z", body)
    if bars is not None:
        parameters = tuple(bars.group(1).split())
        body = body[: bars.start()]
    call = _expression(body, call=True)
    if not isinstance(call, Call) or call.name not in _BLOCKS:
        name = call.name if isinstance(call, Call) else body
        raise TemplateError(f"`{{{{#{name}}}}}` is no block helper; there are {', '.join(sorted(_BLOCKS))}")
    if len(call.arguments) != 1:
        raise TemplateError(f"`{{{{#{call.name}}}}}` takes one argument, found {len(call.arguments)}")
    return call.name, call.arguments[0], call.options, parameters


def _expression(body: str, *, call: bool = False) -> Expression:
    """The expression of a tag: a single path or literal, or a helper with arguments."""
    tokens = _tokens(body)
    if not tokens:
        raise TemplateError("an expression is empty")
    expression, rest = _call(tokens, 0, nested=False, force=call)
    if rest != len(tokens):
        raise TemplateError(f"`{body}` does not end where it should")
    return expression


def _tokens(body: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(body):
        if not body[at:].strip():
            break
        found = _TOKEN.match(body, at)
        if found is None or found.lastgroup is None:
            raise TemplateError(f"`{body}` cannot be read at `{body[at:][:20]}`")
        tokens.append((found.lastgroup, found.group(found.lastgroup)))
        at = found.end()
    return tokens


def _call(
    tokens: list[tuple[str, str]], at: int, *, nested: bool, force: bool = False, depth: int = 0
) -> tuple[Expression, int]:
    if depth > MAX_DEPTH:
        raise TemplateError(f"expressions nest deeper than {MAX_DEPTH}")
    kind, text = tokens[at] if at < len(tokens) else ("close", "")
    if kind != "word" and (nested or force):
        raise TemplateError("a helper has no name")
    last = at + 1 >= len(tokens) or (nested and tokens[at + 1][0] == "close")
    if last and not force and not (nested and text in _HELPERS):
        return _single(kind, text), at + 1
    name = text
    at += 1
    arguments: list[Expression] = []
    options: list[tuple[str, Expression]] = []
    while at < len(tokens) and tokens[at][0] != "close":
        kind, text = tokens[at]
        if kind == "key":
            value, at = _argument(tokens, at + 1, depth)
            options.append((text, value))
        else:
            value, at = _argument(tokens, at, depth)
            arguments.append(value)
    if name not in _HELPERS and name not in _BLOCKS:
        raise TemplateError(f"helper not defined: `{name}`")
    return Call(name, tuple(arguments), tuple(options)), at


def _argument(tokens: list[tuple[str, str]], at: int, depth: int) -> tuple[Expression, int]:
    if at >= len(tokens):
        raise TemplateError("an argument is missing")
    kind, text = tokens[at]
    if kind == "open":
        expression, at = _call(tokens, at + 1, nested=True, depth=depth + 1)
        if at >= len(tokens) or tokens[at][0] != "close":
            raise TemplateError("a parenthesis is not closed")
        return expression, at + 1
    return _single(kind, text), at + 1


def _single(kind: str, text: str) -> Expression:
    if kind == "text":
        return Literal(re.sub(r"\\(.)", r"\1", text[1:-1]))
    if kind != "word":
        raise TemplateError(f"`{text}` is no expression")
    if text in ("true", "false", "null"):
        return Literal({"true": True, "false": False, "null": None}[text])
    if _NUMBER.match(text):
        try:
            return Literal(msgspec.json.decode(text))
        except msgspec.DecodeError:
            raise TemplateError(f"`{text[:40]}` is no number") from None
    return _lookup(text)


def _lookup(text: str) -> Lookup:
    rest, up, data = text, 0, False
    while rest.startswith("../") or rest == "..":
        rest, up = rest[3:], up + 1
    if rest.startswith("@"):
        rest, data = rest[1:], True
    steps: list[str] = []
    for part in re.findall(r"\[[^\]]*\]|[^./\[\]]+|[\[\]]", rest):
        if part in ("[", "]"):
            raise TemplateError(f"`{text}` is no path")
        if part.startswith("["):
            steps.append(part[1:-1])
        elif part != "this" or steps or data:
            steps.append(part)
    if re.search(r"[^./\[]\[", rest):
        raise TemplateError(f"`{text}` is no path; the member of a list is written `list.[0]`")
    return Lookup(up, data, tuple(steps), text)


# -- rendering ------------------------------------------------------------------------------------------------------


class _Scope(NamedTuple):
    value: object
    data: dict[str, object]
    """`@index`, `@key`, `@first`, `@last`."""
    named: dict[str, object]
    """Block parameters."""


Root = Callable[[str], object]
"""A value of the outermost scope by name, or `MISSING`."""


class MissingValue(Exception):
    """A printed path leads nowhere, in a rendering that asked to be told."""


def render(template: Template, root: Root, *, tell_missing: bool = False) -> str:
    """The text of a template. Raises `TemplateError`; `MissingValue` if asked to and a printed path leads nowhere."""
    return _Renderer(root, tell_missing).render(template)


class _Renderer:
    def __init__(self, root: Root, tell_missing: bool) -> None:
        self._root, self._tell = root, tell_missing
        self._scopes: list[_Scope] = []
        self._out: list[str] = []
        self._size = self._steps = 0

    def render(self, template: Template) -> str:
        self._parts(template)
        return "".join(self._out)

    def _write(self, text: str) -> None:
        self._size += len(text)
        if self._size > MAX_OUTPUT:
            raise TemplateError(f"the text is longer than {MAX_OUTPUT} characters")
        self._out.append(text)

    def _parts(self, parts: Template) -> None:
        for part in parts:
            if isinstance(part, str):
                self._write(part)
                continue
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise TemplateError(f"more than {MAX_STEPS} steps")
            if isinstance(part, Print):
                value = self._value(part.expression)
                if value is MISSING and self._tell:
                    raise MissingValue
                self._write(printed(value))
            else:
                self._block(part)

    def _block(self, block: Block) -> None:
        value = self._value(block.argument)
        if block.name in ("if", "unless"):
            zero = any(k == "includeZero" and _truthy(self._value(v)) for k, v in block.options)
            holds = _truthy(value) or (zero and value == 0 and not isinstance(value, bool))
            self._parts(block.body if holds == (block.name == "if") else block.otherwise)
        elif not _truthy(value) and not (block.name == "with" and isinstance(value, int | float)):
            self._parts(block.otherwise)
        elif block.name == "with":
            self._inside(block, value, {}, (value,))
        elif isinstance(value, list):
            last = len(value) - 1
            for index, item in enumerate(value):
                self._inside(block, item, {"index": index, "first": index == 0, "last": index == last}, (item, index))
        elif isinstance(value, dict):
            last = len(value) - 1
            for index, (key, item) in enumerate(value.items()):
                data = {"key": key, "index": index, "first": index == 0, "last": index == last}
                self._inside(block, item, data, (item, key))
        else:
            self._parts(block.otherwise)

    def _inside(self, block: Block, value: object, data: dict[str, object], named: tuple[object, ...]) -> None:
        self._scopes.append(_Scope(value, data, dict(zip(block.parameters, named, strict=False))))
        self._parts(block.body)
        self._scopes.pop()

    def _value(self, expression: Expression) -> object:
        if isinstance(expression, Lookup):
            return self._lookup(expression)
        if isinstance(expression, Literal):
            return expression.value
        helper = _HELPERS.get(expression.name)
        if helper is None:
            raise TemplateError(f"`{expression.name}` is a block; write `{{{{#{expression.name} …}}}}`")
        return helper([self._value(a) for a in expression.arguments])

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


Simple = tuple[str | Lookup, ...]


def simple_parts(template: Template) -> Simple | None:
    """Texts and lookups of the outermost scope, or nothing for a template that needs more than these."""
    parts: list[str | Lookup] = []
    for part in template:
        expression = part.expression if isinstance(part, Print) else part
        if isinstance(expression, Lookup) and (expression.up or expression.data or not expression.steps):
            return None
        if not isinstance(expression, str | Lookup):
            return None
        parts.append(expression)
    return tuple(parts)


def walk(value: object, path: Lookup, begin: int) -> object:
    """The value at the end of a path's steps from `begin`. Raises `TemplateError` for a name as the index of a list."""
    for step in path.steps[begin:]:
        if isinstance(value, list) and not (step.isascii() and step.isdigit()):
            raise TemplateError(f"`{path.text}`: `{step}` is no index of a list")
        value = follow(value, (step,))
    return value


def printed(value: object) -> str:
    """A value as text (rule 4)."""
    if isinstance(value, str):
        return value
    if value is None or value is MISSING:
        return ""
    if isinstance(value, list):
        return f"[{', '.join(printed(item) for item in value)}]"
    if isinstance(value, dict):
        return "[object]"
    return msgspec.json.encode(value).decode()


def _truthy(value: object) -> bool:
    return value is not MISSING and bool(value)


def _compare(test: Callable[[float, float], bool]) -> Callable[[list[object]], object]:
    def helper(arguments: list[object]) -> object:
        left, right = _two(arguments)
        if isinstance(left, str) and isinstance(right, str):
            return test((left > right) - (left < right), 0)
        if isinstance(left, int | float) and isinstance(right, int | float):
            return test(left, right)
        return False

    return helper


def _two(arguments: list[object]) -> tuple[object, object]:
    if len(arguments) != 2:
        raise TemplateError(f"a comparison takes two arguments, found {len(arguments)}")
    return arguments[0], arguments[1]


def _equal(arguments: list[object]) -> bool:
    left, right = _two(arguments)
    left, right = (None if left is MISSING else left), (None if right is MISSING else right)
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _length(arguments: list[object]) -> object:
    value = arguments[0] if arguments else MISSING
    return len(value) if isinstance(value, str | list | dict) else 0


def _index(arguments: list[object]) -> object:
    container, key = _two(arguments)
    return follow(container, (key,)) if isinstance(key, str | int) else MISSING


_HELPERS: dict[str, Callable[[list[object]], object]] = {
    "eq": _equal,
    "ne": lambda a: not _equal(a),
    "gt": _compare(lambda x, y: x > y),
    "gte": _compare(lambda x, y: x >= y),
    "lt": _compare(lambda x, y: x < y),
    "lte": _compare(lambda x, y: x <= y),
    "and": lambda a: all(map(_truthy, a)),
    "or": lambda a: any(map(_truthy, a)),
    "not": lambda a: not (a and _truthy(a[0])),
    "len": _length,
    "lookup": _index,
}
