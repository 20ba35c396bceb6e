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
from typing import NamedTuple

from greentic.expressions.handlebars_helpers import HELPERS, TemplateError
from greentic.ground import documents
from greentic.ground.errors import FlowFailure
from greentic.ground.value_range import in_range

MAX_DEPTH = 64
"""How deeply blocks and subexpressions may nest."""


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
            return Literal(in_range(documents.parse(text)))
        except (ValueError, FlowFailure):
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
