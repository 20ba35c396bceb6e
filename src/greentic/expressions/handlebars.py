"""Reading the Handlebars that flows use (formats: flows 7). `handlebars_render` prints what is read here.

Rules:
1. `{{x}}`, `{{{x}}}` and `{{&x}}` print a value; `{{! … }}` prints nothing; `\\{{` is two braces.
2. Blocks are `if`, `unless`, `each` and `with`, with `{{else}}`, `{{else if x}}` and block parameters. Helpers are those of
   `handlebars_helpers`. There are no others: calling one is an error.
3. A tag of a block or a comment that stands alone on its line takes the line with it. `~` takes all blanks on its side.
4. Blocks and expressions nest at most `MAX_DEPTH` deep.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from greentic.expressions.handlebars_helpers import HELPERS, TemplateError
from greentic.expressions.value_range import in_range
from greentic.ground import documents
from greentic.ground.errors import FlowFailure

MAX_DEPTH = 64
"""How deeply blocks and subexpressions may nest."""


class Literal(msgspec.Struct, frozen=True):
    value: object


class Lookup(msgspec.Struct, frozen=True):
    """A path: how many scopes up, an `@` variable or a plain path, and its steps."""

    up: int
    data: bool
    steps: tuple[str, ...]
    text: str


class Call(msgspec.Struct, frozen=True):
    """A helper with its arguments."""

    name: str
    arguments: tuple[Expression, ...]
    options: tuple[tuple[str, Expression], ...]


Expression = Literal | Lookup | Call


class Print(msgspec.Struct, frozen=True):
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

_BLOCKS = frozenset({"if", "unless", "each", "with"})
_TOKEN = re.compile(
    r"""\s*(?:(?P<open>\()|(?P<close>\))|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<bar>as\s*\|[^|]*\|)"""
    r"""|(?P<key>[A-Za-z_][\w-]*)=|(?P<word>(?:\[[^\]]*\]|[^\s()"'=|\[])+))"""
)
_BLANKS = re.compile(r"\s*")
_UP = re.compile(r"(?:\.\./)*(?:\.\.\Z)?")
_LINE_END = re.compile(r"[ \t]*(\r?\n|\Z)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\Z")


def parse(text: str) -> Template:
    """Read a template. Raises `TemplateError`."""
    return _Reader(text).template()


class _Tag(msgspec.Struct, frozen=True):
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


class _Ahead:
    """Where texts stand next. Each is looked for once a stretch: searching anew at each tag would cost the square of a template."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next: dict[str, int] = {}

    def find(self, wanted: str, begin: int) -> int:
        """The first place at or behind `begin`, which only grows, or -1."""
        known = self._next.get(wanted)
        if known is None or -1 < known < begin:
            known = self._next[wanted] = self._text.find(wanted, begin)
        return known


def _split(text: str) -> list[str | _Tag]:
    """Texts and tags, blanks around tags already taken where rule 3 says so."""
    pieces: list[str | _Tag] = []
    ahead = _Ahead(text)
    at, literal, trim_next, fresh = 0, "", False, True
    while True:
        start = ahead.find("{{", at)
        if start < 0:
            literal += text[at:]
            pieces.append(literal.lstrip() if trim_next else literal)
            return pieces
        tag, trim_before, trim_after = _tag(text, start, ahead)
        if start > at and text[start - 1] == "\\":
            literal += text[at : start - 1] + text[start : tag.end]
            at = tag.end
            continue
        literal += text[at:start]
        if trim_next:
            literal = literal.lstrip()
        trim_next = trim_after
        at = tag.end
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


def _tag(text: str, start: int, ahead: _Ahead) -> tuple[_Tag, bool, bool]:
    """The tag that begins at `start`, and whether it takes the blanks before and after it."""
    if text.startswith("{{{", start):
        end = ahead.find("}}}", start + 3)
        if end >= 0:
            return _Tag(end + 3, "print", text[start + 3 : end].strip()), False, False
    before = text.startswith("{{~", start)
    if text.startswith("{{!--", start):
        ends = [(at, mark) for mark in ("--}}", "--~}}") if (at := ahead.find(mark, start + 5)) >= 0]
        if ends:
            at, mark = min(ends)
            return _Tag(at + len(mark), "comment", ""), before, mark == "--~}}"
    end = ahead.find("}}", start + 2)
    if end < 0:
        raise TemplateError(f"`{text[start : start + 40]}` is not closed")
    body = text[start + 2 : end]
    after, end = body.endswith("~"), end + 2
    body = body.strip("~").strip()
    first = body[:1]
    if first == "!":
        return _Tag(end, "comment", ""), before, after
    if first == "#":
        return _Tag(end, "open", body[1:].strip()), before, after
    if first == "/":
        return _Tag(end, "close", body[1:].strip()), before, after
    if body in ("else", "^"):
        return _Tag(end, "else", ""), before, after
    if body.startswith("else "):
        return _Tag(end, "else", body[5:].strip()), before, after
    if first == ">":
        raise TemplateError("partials are not available")
    return _Tag(end, "print", body.removeprefix("&").strip()), before, after


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
    at = _blanks_end(body, 0)
    while at < len(body):
        found = _TOKEN.match(body, at)
        if found is None or found.lastgroup is None:
            raise TemplateError(f"`{body}` cannot be read at `{body[at:][:20]}`")
        tokens.append((found.lastgroup, found.group(found.lastgroup)))
        at = _blanks_end(body, found.end())
    return tokens


def _blanks_end(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return at if found is None else found.end()


def _call(
    tokens: list[tuple[str, str]], at: int, *, nested: bool, force: bool = False, depth: int = 0
) -> tuple[Expression, int]:
    if depth > MAX_DEPTH:
        raise TemplateError(f"expressions nest deeper than {MAX_DEPTH}")
    kind, text = tokens[at] if at < len(tokens) else ("close", "")
    if kind != "word" and (nested or force):
        raise TemplateError("a helper has no name")
    last = at + 1 >= len(tokens) or (nested and tokens[at + 1][0] == "close")
    if last and not force and not (nested and text in HELPERS):
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
    if name not in HELPERS and name not in _BLOCKS:
        raise TemplateError(f"helper not defined: `{name}`; there are {', '.join(sorted(HELPERS))}")
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
            return Literal(in_range(documents.parse(text)))
        except (ValueError, FlowFailure):
            raise TemplateError(f"`{text[:40]}` is no number") from None
    return _lookup(text)


def _lookup(text: str) -> Lookup:
    climbing = _UP.match(text)
    climbed = climbing.group(0) if climbing is not None else ""
    rest, up, data = text[len(climbed) :], (len(climbed) + 1) // 3, False
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


# -- what needs no renderer -----------------------------------------------------------------------------------------


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


def outer_paths(template: Template) -> Iterator[tuple[str, ...]]:
    """The paths that a template follows from the outermost scope: all but those inside `each` and `with`."""
    for part in template:
        if isinstance(part, Print):
            yield from _followed(part.expression)
        elif isinstance(part, Block):
            for expression in (part.argument, *(value for _, value in part.options)):
                yield from _followed(expression)
            yield from outer_paths(part.otherwise)
            if part.name in ("if", "unless"):
                yield from outer_paths(part.body)


def _followed(expression: Expression) -> Iterator[tuple[str, ...]]:
    if isinstance(expression, Call):
        for argument in (*expression.arguments, *(value for _, value in expression.options)):
            yield from _followed(argument)
    elif isinstance(expression, Lookup) and expression.steps and not expression.up:
        if not expression.data:
            yield expression.steps
        elif expression.steps[0] == "root":
            yield expression.steps[1:]
