"""What may be changed in a module, one thing at a time, to see whether its tests notice.

Rules:
1. Pure: source in, mutants out, always in the same order. A mutant is the whole module with one expression or statement changed.
2. Changed is what decides: comparisons, boundaries, boolean and arithmetic operators, conditions, numbers, truth values, results,
   statements that only call, statements that raise. Texts for people are not, nor annotations, nor what only type checkers read.
3. A mutant is told by what surrounds it and what became of it, so that the same survivor is known again after unrelated edits.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


class Mutant(NamedTuple):
    """One change."""

    key: str
    """`function: before -> after`, with a count behind it where a function has the same twice."""
    line: int
    statement: int
    """Where the statement begins that it is in: what is all constant has no line of its own that would be executed."""
    source: str
    """The whole module, changed."""


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module."""
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for where, statement, node, changed in _changes(ast.parse(source), "module", 1):
        before, after = _short(ast.unparse(node)), _short(ast.unparse(changed))
        key = f"{where}: {before} -> {after}"
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            key += f" #{seen[key]}"
        found.append(Mutant(key, node.lineno, statement, _replaced(source, node, changed)))
    return found


def _changes(
    node: ast.AST, where: str, statement: int
) -> Iterator[tuple[str, int, ast.expr | ast.stmt, ast.expr | ast.stmt]]:
    """Each change below a node: the function and the line of the statement it is in, what stands there, what takes its place."""
    for child in _children(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        inside = where
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = child.name if where == "module" else f"{where}.{child.name}"
        begins = child.lineno if isinstance(child, ast.stmt) else statement
        if isinstance(child, ast.expr | ast.stmt):
            for changed in _of(child):
                yield inside, begins, child, changed
        yield from _changes(child, inside, begins)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What of a node may be changed: no annotations, decorators, docstrings, texts, nor what is for type checkers alone."""
    if isinstance(node, ast.ClassDef) and any(
        ast.unparse(base).partition("[")[0] in ("Protocol", "typing.Protocol") for base in node.bases
    ):
        return
    for name, value in ast.iter_fields(node):
        if (
            name in ("annotation", "returns", "decorator_list", "bases", "type_params")
            or (name == "keywords" and isinstance(node, ast.ClassDef))
            or isinstance(value, ast.JoinedStr)
        ):
            continue
        if isinstance(node, ast.Raise | ast.Assert) or (name == "msg"):
            continue  # the error's text; whether it is raised at all is a change of its own
        yield from (
            item
            for item in (value if isinstance(value, list) else [value])
            if isinstance(item, ast.AST) and not isinstance(item, ast.JoinedStr)
        )


def _of(node: ast.expr | ast.stmt) -> Iterator[ast.expr | ast.stmt]:
    """What one node may become."""
    if isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            if type(op) in _COMPARED:
                changed = copy.deepcopy(node)
                changed.ops[index] = _COMPARED[type(op)]()
                yield changed
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED and not _text(node.left) and not _text(node.right):
        yield ast.BinOp(node.left, _COMPUTED[type(node.op)](), node.right)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.If | ast.While | ast.IfExp) and not isinstance(
        node.test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant
    ):
        changed_test = copy.copy(node)
        changed_test.test = ast.UnaryOp(ast.Not(), node.test)
        yield changed_test
    elif (
        isinstance(node, ast.Return)
        and node.value is not None
        and not (isinstance(node.value, ast.Constant) and node.value.value in (None, True, False))
    ):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)):
        yield ast.Pass()


def _text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _replaced(source: str, node: ast.expr | ast.stmt, changed: ast.expr | ast.stmt) -> str:
    """The source with the text of one node replaced; everything else stays as it is."""
    assert node.end_lineno is not None and node.end_col_offset is not None
    lines = source.encode().splitlines(keepends=True)  # columns count bytes
    head = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    tail = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    text = ast.unparse(changed)
    if isinstance(node, ast.expr):
        text = f"({text})"
    elif isinstance(node, ast.If | ast.While):
        text = text.replace("\n", "\n" + " " * node.col_offset)
        if lines[node.lineno - 1][node.col_offset :].startswith(b"elif"):
            text = "el" + text
    return (head + text.encode() + tail).decode()


def _short(text: str) -> str:
    """The first line of a statement, in one piece of bearable length."""
    first = text.splitlines()[0].strip()
    return first if len(first) <= 90 else f"{first[:89]}…"
