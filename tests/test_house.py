"""The house: no circles, rooms and files of a size, names that mean one thing, and that everything says what it is for.

What the linter's contracts hold (floors, who may import what) is in `pyproject.toml`; that every room stands in them is held here.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "greentic"
BESIDE = ("sdk",)
"""What runs inside components, and is no room."""
FILES = [p for p in sorted(SOURCE.rglob("*.py")) if p.relative_to(SOURCE).parts[0] not in BESIDE]
ROOMS = sorted(p.name for p in SOURCE.iterdir() if (p / "__init__.py").is_file() and p.name not in BESIDE)

MAX_ROOM, MAX_FILE = 2_400, 400
MAX_FUNCTION = 60
"""Lines, from `def` to the end."""
SAME_NAMES = {
    "__init__.py": "opens a room",
    "delivery.py": "the rule in model/, the verb in operate/",
    "traffic.py": "the rule in model/, the verb in deployments/",
    "verbs.py": "each room's rows of the table of verbs",
    "limits.py": "each format's own, in bundle/ and pack/",
    "metrics.py": "what a worker tells, in ingress/, and what an operator tells, in controller/",
    "engine.py": "flow/ runs a graph, wasm/ holds the engine that runs components",
}


SAME_VALUES = {
    "Backoff(first=0.2, longest=2.0)": "how often a cluster is asked again is each wait's own",
    "'greentic-deployer'": "an account, and who manages fields",
    """re.compile('[A-Za-z0-9._-]+\\\\Z')""": "ids of environments, ids of packs and a login have each their own grammar",
    """re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\\\\Z")""": "headers of a component's request, and of a collector's: rooms that share no floor but the ground",
    "Literal['ignore', 'warn', 'require']": "what signatures of packs are worth: the answer, and the variable that it becomes",
}
"""Values that may stand in two modules, with the reason."""


SAME_CLASSES = {
    "Answer", "Asked", "Block", "Bundle", "Call", "Compiled", "Condition", "Connection", "Difference", "Entry", "Envelope",
    "Held", "Item", "Kept", "Kind", "Known", "Line", "Metrics", "Missing", "Outcome", "Plan", "Request", "Served", "Signature",
    "Snapshot", "Source", "Step", "Trace", "Trouble", "Verdict",
}  # fmt: skip
"""Classes of several rooms with one name, as they were when somebody counted. The list becomes shorter, never longer."""


CALLED_FROM_OUTSIDE = {
    "httpd/front.py": {"connection_lost", "connection_made", "data_received", "eof_received", "pause_writing", "resume_writing"},
    "components/http_exchange.py": {"connection_lost", "data_received", "on_body", "on_header", "on_headers_complete", "on_message_complete"},
    "distribute/serve_directory.py": {"do_GET", "do_HEAD", "handle_error", "log_message"},
    "cluster/plugin.py": {"auth_flow"},
    "controller/metrics.py": {"do_GET", "log_message"},
    "net/dial.py": {"makefile"},
    "cli/parser.py": {"_check_value", "_get_formatter", "_get_option_tuples"},
    "ground/yaml.py": {"ignore_aliases"},
    "api.py": {"init_local"},
}  # fmt: skip
"""What nobody in the house asks for by name: asyncio, parsers of HTTP and the library's servers call it, or programs that import us."""


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("greentic", include_external_packages=False, cache_dir=None)


def circles(imports: dict[str, set[str]]) -> set[frozenset[str]]:
    """Sets of modules that import each other, directly or through others (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(imports.get(module, ())):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            members = set()
            while True:
                members.add(stack.pop())
                if module in members:
                    break
            if len(members) > 1:
                found.add(frozenset(members))

    for module in sorted(imports):
        if module not in index:
            visit(module)
    return found


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == {frozenset("abc")}
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == set()


def test_no_modules_import_each_other_not_even_inside_functions(graph):
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    found = circles(imports)
    assert not found, [sorted(circle) for circle in found]


def test_rooms_and_files_have_a_size():
    rooms = {room: sum(lines(p) for p in FILES if p.relative_to(SOURCE).parts[0] == room) for room in ROOMS}
    assert {r: n for r, n in rooms.items() if n > MAX_ROOM} == {}
    files = {str(p.relative_to(SOURCE)): lines(p) for p in FILES}
    assert {f: n for f, n in files.items() if n > MAX_FILE} == {}


def test_functions_have_a_size():
    longer = {}
    for path in FILES:
        name, tree = str(path.relative_to(SOURCE)), ast.parse(path.read_text())
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        found = {n.name for n in functions if (n.end_lineno or 0) - n.lineno + 1 > MAX_FUNCTION}
        if found:
            longer[name] = found
    assert longer == {}


def test_a_file_name_stands_twice_only_for_the_same_noun():
    places = defaultdict(list)
    for path in FILES:
        places[path.name].append(path.parent.name)
    assert {name: rooms for name, rooms in places.items() if len(rooms) > 1 and name not in SAME_NAMES} == {}


def test_no_more_classes_come_to_share_a_name():
    """A reader who meets a name in two rooms should meet one thing: three classes were `Seen`, and two in one room's imports `Obtained`."""
    places = defaultdict(set)
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(path)
    twice = {name for name, found in places.items() if len(found) > 1}
    assert twice - SAME_CLASSES == set(), "choose a name that says which of the two it is"
    assert SAME_CLASSES - twice == set(), "one of them has a name of its own now: take it out of the list"


def constants(tree: ast.Module) -> set[str]:
    """What a module gives a name to, as text: texts, patterns and lists that are written out, long enough to be no accident."""
    found = set()
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        names = node.targets[0] if isinstance(node, ast.Assign) else node.target
        several = isinstance(names, ast.Tuple) and isinstance(node.value, ast.Tuple)
        for value in ast.iter_child_nodes(node.value) if several else (node.value,):
            inner = [part for part in ast.walk(value) if isinstance(part, ast.Constant)]
            is_type = ast.unparse(value).startswith(("TypeVar(", "Callable["))
            if inner and not is_type and len(ast.unparse(value)) >= 16:
                found.add(ast.unparse(value))
    return found


def test_constants_are_found():
    tree = ast.parse(
        "A, B = 'a text that is long', 1\nC: str = 'another text, long'\nD = 'short'\ndef f(): E = 'inside a function'"
    )
    assert constants(tree) == {"'a text that is long'", "'another text, long'"}


def test_a_value_that_two_modules_need_is_written_once():
    places = defaultdict(list)
    for path in FILES:
        for text in constants(ast.parse(path.read_text())):
            places[text].append(str(path.relative_to(SOURCE)))
    twice = {text: files for text, files in places.items() if len(files) > 1}
    assert {text: files for text, files in twice.items() if text not in SAME_VALUES} == {}
    assert not set(SAME_VALUES) - set(twice), "written once now: take it out of the list"


def defined(tree: ast.Module) -> set[str]:
    """The functions, classes and constants that a module has."""
    found = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return {name for name in found if not name.startswith("__")}


def asked_for(tree: ast.Module) -> set[str]:
    """The names that a module uses, those in texts without blanks included: the tables of verbs name what they call."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found |= set(node.name.split("."))
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not re.search(r"\s", node.value):
            found |= set(re.findall(r"\w+", node.value))
    return found


def test_what_nothing_uses_is_found():
    tree = ast.parse("A = 1\nB: int = A\ndef f(): return B\nclass C:\n    def g(self): h(self.k)\nD = 'a.b:C'")
    assert defined(tree) - asked_for(tree) == {"D", "f", "g"}


def test_nothing_is_there_that_nothing_uses():
    """Of what only tests use, tests prove nothing."""
    trees = {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in FILES}
    used = set().union(*map(asked_for, trees.values()))
    left = {name: defined(tree) - used - CALLED_FROM_OUTSIDE.get(name, set()) for name, tree in trees.items()}
    assert {name: found for name, found in left.items() if found} == {}
    for name, given in CALLED_FROM_OUTSIDE.items():
        assert given <= defined(trees[name]) - used, f"{name}: take out of the list what is used, or gone"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_module_opens_with_what_it_is_for(path):
    told = ast.get_docstring(ast.parse(path.read_text()))
    assert told and not told.startswith("To be told") and len(told) >= 20


def test_every_room_stands_in_every_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c for c in contracts if c["type"] == "layers")
    listed = {word.strip("()") for row in layers["layers"] for word in row.replace("|", " ").split()}
    everything = {f"greentic.{room}" for room in ROOMS} | {"greentic.api"}
    assert listed == everything
    owners = {
        "lightkube": {"cluster"},
        "wasmtime": {"wasm", "components"},
        "redis": {"sessions"},
        "rich": {"terminal"},
    }
    for package, rooms in owners.items():
        held = [
            c
            for c in contracts
            if c["type"] == "forbidden" and package in c["forbidden_modules"] and c["name"].startswith("Only")
        ]
        assert [set(c["source_modules"]) for c in held] == [everything - {f"greentic.{r}" for r in rooms}], package
