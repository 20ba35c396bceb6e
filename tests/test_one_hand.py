"""One hand for each thing: who may ask the clock, chance, the environment's variables, who may make a change of the disk last, who
reads YAML, and who opens what others may have put where a file is expected.

The linter of imports sees no calls, so this reads the syntax tree. Names are followed through `import … as` and `from … import`.
`OFFENDERS` lists what still goes past a hand; it may only get shorter: who no longer offends must leave it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "greentic"

CLOCK, VARIABLES, DISK = "ground/clock.py", "ground/variables.py", "ground/disk.py or ground/lock.py"

# The second constructs nothing: it tells where something stands in what the first has taken.
YAML, OPENED = "ground/yaml.py or author/yaml_places.py", "ground/documents.py"

OFFENDERS: dict[str, frozenset[str]] = {}

OWN_FILES = frozenset(
    {
        "ground/disk.py", "bundle/cores.py", "author/pack_new.py", "author/component_build.py", "bundle/squashfs_writer.py",
        "components/runtime.py", "console/page_files.py", "distribute/bundle_cache.py", "distribute/file_source.py",
        "examine/env_doctor.py", "examine/env_log.py", "ingress/metrics.py", "materialize/export_archive.py",
        "materialize/placed.py", "materialize/remembered.py", "materialize/staging.py", "pack/assets.py", "sessions/directory_store.py",
        "store/audit.py", "store/signed_policy.py", "telemetry/siblings.py", "wasm/compile_cache.py", "worker/together.py",
        "cli/operator.py",
    }
)  # fmt: skip
"""Modules that read what this program wrote itself, what it has checked to be a file, or what the system tells; they may only become fewer."""


def hand_of(name: str) -> str | None:
    """Whose business a dotted name is, none if anybody's."""
    first = name.split(".")[0]
    if first in ("time", "random", "secrets") or name in ("os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4"):
        return CLOCK
    if name.startswith(("os.environ", "os.getenv", "os.putenv", "os.unsetenv")):
        return VARIABLES
    if name in ("os.fsync", "os.fdatasync", "os.sync", "os.replace", "os.rename", "os.renames", "shutil.move"):
        return DISK
    if first == "yaml":
        return YAML
    return DISK if name in ("fcntl.flock", "fcntl.lockf", "fcntl.fcntl") else None


def past(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, hand and what is used of each place that belongs to a hand."""
    tree = ast.parse(text)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imported[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and (name := _dotted(node, imported)) and (hand := hand_of(name)):
            yield node.lineno, hand, name
        elif isinstance(node, ast.Attribute) and node.attr == "expanduser":
            yield (
                node.lineno,
                VARIABLES,
                "expanduser",
            )  # guesses a home where none is told, and fails where none can be guessed
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("replace", "rename")
        ):
            # One argument: of a path. Text is replaced with two, a date and a struct with keywords, the seam renames with two.
            of_module = _dotted(node.func, imported) is not None
            if len(node.args) == 1 and not node.keywords and not of_module:
                yield node.lineno, DISK, f"Path.{node.func.attr}"


def _dotted(node: ast.expr, imported: dict[str, str]) -> str | None:
    """`module.member` of a use of something imported; a bare module that is only handed on counts by its members alone."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        module = imported.get(node.value.id)
        return f"{module}.{node.attr}" if module else None
    if isinstance(node, ast.Name):
        found = imported.get(node.id)
        return found if found and "." in found else None
    return None


def modules() -> list[str]:
    found = (path.relative_to(SOURCE) for path in sorted(SOURCE.rglob("*.py")))
    return [path.as_posix() for path in found if path.parts[0] != "sdk"]  # what is there runs inside components


@pytest.mark.parametrize("module", modules())
def test_nobody_goes_past_the_one_hand(module: str) -> None:
    places = [place for place in past((SOURCE / module).read_text()) if module not in place[1].split(" or ")]
    allowed = OFFENDERS.get(module, frozenset())
    told = [f"{module}:{line}: {name} belongs to {hand}" for line, hand, name in places if name not in allowed]
    assert not told, "\n".join(told)
    mended = allowed - {name for _, _, name in places}
    assert not mended, f"{module} no longer uses {', '.join(sorted(mended))}: take it out of OFFENDERS"


def test_every_offender_is_a_module() -> None:
    assert not set(OFFENDERS) - set(modules())
    assert not OWN_FILES - set(modules())


def opened(text: str) -> Iterator[tuple[int, str]]:
    """Line and words of each place that opens a file to read it and would wait for a fifo."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        words = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
        if name in ("read_bytes", "read_text") or (name == "open" and ("rb" in words or "r" in words)):
            yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("module", modules())
def test_what_others_may_have_put_there_is_opened_by_one_hand(module: str) -> None:
    places = [f"{module}:{line}: {text}" for line, text in opened((SOURCE / module).read_text())]
    if module in OWN_FILES:
        assert places, f"{module} reads nothing any more: take it out of OWN_FILES"
    elif module != OPENED:
        assert not places, "read it with read_file or open_file of ground/documents.py: " + "; ".join(places)


@pytest.mark.parametrize(
    ("text", "count"),
    [("p.read_bytes()", 1), ("p.read_text(encoding='x')", 1), ("p.open('rb')", 1), ("open(p, 'rb')", 1), ("open(p, mode='r')", 1),
     ("p.open('wb')", 0), ("open_file(p)", 0), ("read_file(p)", 0), ("source.open(reference, 0)", 0)],
)  # fmt: skip
def test_each_way_to_open_is_seen(text: str, count: int) -> None:
    assert len(list(opened(text))) == count


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("import time\ntime.time()", ["time.time"]),
        ("import time as t\nt.sleep(1)", ["time.sleep"]),
        ("from time import monotonic as now\nnow()", ["time.monotonic"]),
        ("import random\nrandom.random()", ["random.random"]),
        ("def f(random):\n    random.octets(1)", []),
        ("import secrets\nsecrets.token_hex()", ["secrets.token_hex"]),
        ("from os import environ\nenviron['X']", ["os.environ"]),
        ("import os\nos.getenv('X')", ["os.getenv"]),
        ("def f():\n    import os\n    os.fdatasync(1)", ["os.fdatasync"]),
        ("import fcntl\nfcntl.flock(1, fcntl.LOCK_EX)", ["fcntl.flock"]),
        ("path.replace(other)", ["Path.replace"]),
        ("path.rename(other)", ["Path.rename"]),
        ("text.replace('a', 'b')\nwhen.replace(tzinfo=None)\ndisk.rename(a, b)", []),
        ("import copy\ncopy.replace(x)", []),
        ("import yaml\nyaml.safe_load(x)", ["yaml.safe_load"]),
        ("from yaml import safe_load\nsafe_load(x)", ["yaml.safe_load"]),
    ],
)
def test_each_way_past_is_seen(text: str, used: list[str]) -> None:
    assert [name for _, _, name in past(text)] == used


OWN_NAMES = frozenset({"console/page_files.py"})
"""Modules that look at names of files that the program brings itself."""


def test_names_of_files_are_compared_in_any_case() -> None:
    """`BOT.YAML` is YAML. Inside of a bundle names are exact, as its format has it; there whole names are compared."""
    places = [
        f"{module}:{node.lineno}: {ast.unparse(node)}"
        for module in modules()
        if module not in OWN_NAMES
        for node in ast.walk(ast.parse((SOURCE / module).read_text()))
        if isinstance(node, ast.Compare)
        and any(ast.unparse(side).endswith(".suffix") for side in (node.left, *node.comparators))
    ]
    assert not places, "ask ends_with of author/source_files.py, or compare .suffix.lower(): " + "; ".join(places)


def test_files_of_certificates_are_opened_by_the_hand_that_does_not_wait() -> None:
    """What a TLS library opens by itself was opened before by `net/certificates.py`, wherever contexts are made, by us or by who is told the names."""
    opening = re.compile(
        r"load_verify_locations\(|load_cert_chain\(|cafile=|create_default_context\(|capath=|\bssl_ca_certs\b|\bcertificate_auth\b"
    )
    places = {module for module in modules() if opening.search((SOURCE / module).read_text())}
    assert places == {"net/dial.py", "cluster/connect.py", "sessions/redis_store.py"}
    for module in places:
        text = (SOURCE / module).read_text()
        assert "check_file(" in text and "check_instead(" in text, module
        assert "alike(" in text or "not_asked(" in text, f"{module} asks of a chain what this version of Python asks"


def test_every_405_tells_which_methods_are_taken() -> None:
    made = [
        (path.name, ast.unparse(call))
        for path in sorted(SOURCE.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == 405
    ]  # fmt: skip
    assert len(made) >= 6
    assert [
        (name, text) for name, text in made if " allow(" not in text and "=allow(" not in text and "*allow(" not in text
    ] == []


READS_FOR_ITSELF = frozenset(
    {
        "activate/warm.py", "api.py", "cli/traces.py", "cluster/connect.py", "components/http_exchange.py", "components/runtime.py",
        "console/pictures.py", "deployer/binding.py", "deployer/reconcile.py",
        "deployments/worker_status.py", "distribute/bundle_cache.py", "distribute/fetch.py", "distribute/oci_source.py",
        "distribute/publish.py", "net/certificates.py", "net/terms.py", "operate/env.py",
        "publication/place.py", "registry/client.py", "store/audit.py", "store/layout.py", "store/operator_key.py", "store/secret_variables.py",
        "wasm/compiled_files.py",
    }
)  # fmt: skip
"""Modules that go by the variables of the process where nobody hands them any. What a worker is told is in its settings; the list gets no longer."""


def test_variables_are_read_at_the_edge_and_handed_down() -> None:
    takes = {
        f.name for f in ast.parse((SOURCE / "ground/variables.py").read_text()).body if isinstance(f, ast.FunctionDef)
    }
    found = set()
    for module in modules():
        for node in ast.walk(ast.parse((SOURCE / module).read_text())):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value) == "variables"
            ):
                continue
            name = node.func.attr
            if name in takes - {"check", "table", "markdown"} and len(node.args) < (
                1 if name == "home_directory" else 2
            ):
                found.add(module)
    assert found == READS_FOR_ITSELF


def test_how_servers_are_asked_is_told_by_who_asks() -> None:
    """A default would be the process's own terms, whatever a worker's settings say."""
    optional = [
        f"{module}: {node.name}"
        for module in modules()
        if module.split("/")[0] in ("controller", "materialize", "net", "publication", "registry", "worker")
        for node in ast.walk(ast.parse((SOURCE / module).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in (*node.args.args, *node.args.kwonlyargs)
        if argument.annotation is not None and ast.unparse(argument.annotation) == "Terms | None"
    ]
    assert optional == []
