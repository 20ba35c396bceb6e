"""What can never work is told wherever a pack is looked at whole, before anybody sends a message: every fault at every place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec import UNSET
from msgspec.structs import replace

import wat
from conftest import Author, booted, make_bundle, make_pack
from greentic.activate.lease import Serving
from greentic.author.inspect import inspect_bundle, inspect_pack, verify_bundle
from greentic.cli import flow as flow_command
from greentic.cli import pack as pack_command
from greentic.deployer import rollout
from greentic.ground import extras
from greentic.ingress.status import status
from greentic.release import deploy
from greentic.wasm.format import PAGE, least_memory

CALL = "id: main\ntype: messaging\nnodes:\n  c:\n    component.exec: {component: one, operation: OP, input: {a: 1}}\n    routing: out\n"
WAITING = [wat.Function("wait", {}, "u32")]
NOTHING = wat.component("test:api/run@1.0.0", [wat.Function("run", {}, "u32", "(i32.const 7)")])


class Source(NamedTuple):
    """A pack with one component and one flow."""

    told: str
    """What is to be told of it, or nothing."""
    wasm: bytes = wat.node_06()
    flow: str = CALL.replace("OP", "run")
    tag: str = "default"
    operations: str = "[{name: run}]"

    def write(self, top: Path) -> Path:
        (top / "flows").mkdir(parents=True)
        (top / "components").mkdir()
        (top / "flows" / "main.ygtc").write_text(self.flow)
        (top / "components" / "one.wasm").write_bytes(self.wasm)
        (top / "pack.yaml").write_text(
            "pack_id: a.pack\nversion: 1.0.0\nkind: application\npublisher: p\n"
            f"flows:\n  - {{file: flows/main.ygtc, tags: [{self.tag}]}}\ncomponents:\n  - {{id: one, operations: {self.operations}}}\n"
        )
        return top


FAULTS = {
    "nothing": Source(""),
    "an import that nobody answers": Source(
        "component one: the import `test:other/things@1.0.0` is not provided by this worker; a call that needs it fails",
        wat.node_06(f"(drop (call $wait)) {wat.ok_06(*wat.payload_06())}", {"test:other/things@1.0.0": WAITING}),
    ),
    "no interface of a node": Source("component one: no node can call it: it exports none of", NOTHING),
    "too large": Source("component one: it begins with 320 MiB of memory, and a call may have 256", wat.node_06(pages=5120)),
    "an operation that is not offered": Source(
        "component 'one' offers no operation `pya`; it offers `run`", flow=CALL.replace("OP", "pya")
    ),
    "no message can select it": Source("a body that is no message cannot be answered", tag="internal"),
}  # fmt: skip


def _built(source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, list[str]]:
    out = tmp_path / "one.gtpack"
    assert pack_command.main(["build", str(source.write(tmp_path / "src")), "--out", str(out), "--output", "json"]) == 0
    warnings: list[str] = json.loads(capsys.readouterr().out)["result"]["warnings"]
    return out, warnings


def _lint(pack: Path, tmp_path: Path, author: Author) -> list[str]:
    from greentic.author.flow_run import lint

    return [str(text) for row in _rows(lint([pack])["checked"]) for text in _list(row["findings"])]


def _rows(value: object) -> list[dict[str, object]]:
    assert isinstance(value, list)
    return value


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _verify(pack: Path, tmp_path: Path, author: Author) -> list[str]:
    bundle = make_bundle(tmp_path, {"one": pack.read_bytes()})
    verified = [str(text) for text in _list(verify_bundle(bundle, None)["warnings"])]
    assert verified == inspect_bundle(bundle)["warnings"]
    return verified


def _warm(pack: Path, tmp_path: Path, author: Author) -> list[str]:
    staged = author.create().stage(author.add(), make_bundle(tmp_path, {"one": pack.read_bytes()}))
    payload = rollout.RevisionWarmPayload(environment_id=author.env_id, revision_id=staged)
    warmed = rollout.warm(author.context, payload).warnings
    return [] if warmed is UNSET else warmed


def _deploy(pack: Path, tmp_path: Path, author: Author) -> list[str]:
    bundle = make_bundle(tmp_path, {"one": pack.read_bytes()})
    author.create()
    payload = deploy.BundleDeployPayload(bundle_id="made", bundle_path=str(bundle))
    told = deploy.deploy(author.context, payload).warnings
    return [] if told is UNSET else told


def _status(pack: Path, tmp_path: Path, author: Author) -> list[str]:
    author.create().deployed(make_bundle(tmp_path, {"one": pack.read_bytes()}))
    served = status(
        Serving(booted(author.context.store).activation, author.context.clock), "127.0.0.1:1", draining=False
    )
    return [str(text) for row in _rows(served["revisions"]) for text in _list(row["load_warnings"])]


PLACES: dict[str, Callable[[Path, Path, Author], list[str]]] = {
    "flow lint": _lint, "bundle verify": _verify, "warm": _warm, "deploy": _deploy, "/status": _status,
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_at_each_place(
    fault: str, tmp_path: Path, author: Author, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FAULTS[fault]
    pack, found = _built(source, tmp_path, capsys)
    told = {"pack build": found}
    for name, place in PLACES.items():
        monkeypatch.setenv("HOME", str(tmp_path / "home" / name.replace("/", "")))
        own = tmp_path / name.replace("/", "")
        own.mkdir()
        other = Author(replace(author.context, store=type(author.context.store)(own / "store")))
        told[name] = place(pack, own, other)
    for name, texts in told.items():
        assert any(source.told in text for text in texts) if source.told else texts == [], (name, texts)


def test_flow_lint_at_the_command_line_tells_of_components(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = FAULTS["an import that nobody answers"]
    top = source.write(tmp_path / "src")
    assert flow_command.main(["lint", "--strict", "--output", "json", str(top)]) == 1
    assert source.told in capsys.readouterr().out


def test_a_pack_whose_component_does_not_compile_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = Source("", wat.node_06()[:300]).write(tmp_path / "src")
    assert pack_command.main(["build", str(top)]) == 1
    said = capsys.readouterr()
    assert "component one does not compile" in said.out + said.err
    assert not (top / "dist").exists()


def test_providers_that_cannot_be_called_are_told(tmp_path: Path) -> None:
    def provider(name: str, component: str, world: str) -> dict[str, object]:
        return {"provider_type": name, "ops": ["send"], "runtime": {"component_ref": component, "world": world}}

    listed = [
        provider("a", "absent", "schema-core"),
        provider("b", "one", "other"),
        provider("c", "one", "schema-core"),
    ]
    kind = "greentic.provider-extension.v1"
    extension = {kind: {"kind": kind, "version": "1", "inline": {"providers": listed}}}
    path = tmp_path / "p.gtpack"
    path.write_bytes(make_pack("p", {}, {"one": wat.node_06()}, extensions=extension))
    told = [str(text) for text in _list(inspect_pack(path)["warnings"]) if str(text).startswith("provider")]
    assert told == [
        "provider a: the pack has no component `absent`",
        "provider b: its world `other` is not supported",
        "provider c: component one does not export `greentic:provider-schema-core/schema-core-api@1.0.0`",
    ]


def test_without_the_engine_an_author_is_told_that_nobody_looked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(package: str, what: str) -> None:
        raise extras.MissingPackage(f"{what} needs the package `{package}`, which is not installed")

    monkeypatch.setattr("greentic.components.runtime.need", absent)
    _, told = _built(FAULTS["too large"], tmp_path, capsys)
    assert told == [
        "its components were not looked into: running components needs the package `wasmtime`, which is not installed"
    ]


@pytest.mark.parametrize("pages", [1, 2, 127, 128, 5120])
def test_the_memory_that_a_component_begins_with(pages: int) -> None:
    wasm = wat.node_06(pages=pages)
    assert least_memory(wasm) == pages * PAGE
    for end in range(0, len(wasm), 7):
        assert least_memory(wasm[:end]) in (0, pages * PAGE), "torn bytes are no memory and no traceback"
