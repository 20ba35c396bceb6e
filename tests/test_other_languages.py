"""What docs/components-other-languages.md shows is built by the languages' own tools, and called."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from conftest import need
from greentic.author.flow_run import run_flow
from kept_builds import tree
from run_locks import once

ROOT = Path(__file__).parent.parent
WIT = ROOT / "src/greentic/sdk/wit"
PAGE = ROOT / "docs/components-other-languages.md"
BUILD_SECONDS = 900


def shown(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def answers(tmp_path: Path, wasm: Path) -> None:
    """The built component answers a flow, and tells of an operation that it does not have."""
    pack = tmp_path / "pack"
    (pack / "flows").mkdir(parents=True)
    shutil.copyfile(wasm, pack / "my.wasm")
    for name in ("greet", "gone"):
        node = {"component.exec": {"component": "my.comp", "operation": name, "input": {}}, "routing": "out"}
        (pack / f"flows/{name}.ygtc").write_text(yaml.dump({"id": name, "type": "messaging", "nodes": {"a": node}}))
    component = {
        "id": "my.comp",
        "version": "1.0.0",
        "wasm": "my.wasm",
        "supports": ["messaging"],
        "world": "greentic:component@0.6.0",
    }
    source = {
        "pack_id": "my.pack", "version": "1.0.0", "kind": "application", "publisher": "me", "components": [component],
        "flows": [{"file": f"flows/{n}.ygtc", "id": n, "tags": ["default"], "entrypoints": ["default"]} for n in ("greet", "gone")],
    }  # fmt: skip
    (pack / "pack.yaml").write_text(yaml.dump(source))
    assert run_flow(pack, "greet", ["{}"], lambda step: None)["turns"][0]["output"] == {"text": "hello"}
    assert run_flow(pack, "gone", ["{}"], lambda step: None)["turns"][0]["failed"].endswith("unknown_operation: gone")


def test_javascript_of_the_page_is_built_and_called(tmp_path, kept_build, compiled_components):
    node = need("node", "nodejs; a toolchain of another language")
    modules = os.environ.get("NODE_PATH", "")
    if not (Path(modules) / "@bytecodealliance/componentize-js").is_dir():
        pytest.skip("needs a toolchain of another language: NODE_PATH with `@bytecodealliance/componentize-js` (npm)")
    build, app = shown("js")
    tool = (Path(modules) / "@bytecodealliance/componentize-js/package.json").read_bytes()
    version = subprocess.run([node, "--version"], capture_output=True, check=True).stdout
    built = kept_build("javascript", [build, app, *tree(WIT), tool, version]) / "my.wasm"
    with once(built.with_suffix(".lock")):
        if not built.exists():
            (tmp_path / "build.mjs").write_text(build)
            (tmp_path / "app.js").write_text(app)
            (tmp_path / "node_modules").symlink_to(modules)
            out = built.with_suffix(".new")
            subprocess.run([node, "build.mjs", str(WIT), str(out)], cwd=tmp_path, check=True, timeout=BUILD_SECONDS)
            out.rename(built)
    answers(tmp_path, built)


def test_rust_of_the_page_is_built_and_called(tmp_path, kept_build, compiled_components):
    """The crates of others are kept as cargo made them; the component itself is built each time."""
    cargo, rustc = (
        need("cargo", "cargo; a toolchain of another language"),
        need("rustc", "rustc; a toolchain of another language"),
    )
    told = subprocess.run(
        [rustc, "--print", "target-libdir", "--target", "wasm32-wasip2"], capture_output=True, text=True, check=False
    )
    if told.returncode or not Path(told.stdout.strip()).is_dir():
        pytest.skip("needs a toolchain of another language: the Rust target `wasm32-wasip2` (rustup target add)")
    crates = shown("toml")[0]
    version = subprocess.run([rustc, "-vV"], capture_output=True, check=True).stdout
    project = kept_build("rust", [crates, version])
    words = [cargo, "build", "--release", "--target", "wasm32-wasip2", "--target-dir", "target"]
    with once(project / "lock"):
        shutil.copytree(WIT, project / "wit", dirs_exist_ok=True)
        (project / "src").mkdir(exist_ok=True)
        (project / "Cargo.toml").write_text(crates)
        (project / "src/lib.rs").write_text(shown("rust")[0])
        built = project / "target/wasm32-wasip2/release/greeter.wasm"
        built.unlink(missing_ok=True)
        done = subprocess.run(words, cwd=project, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        if done.returncode and re.search(r"failed to (?:download|get|fetch)|Could not resolve|offline", done.stderr):
            pytest.skip("needs a toolchain of another language: the crate `wit-bindgen`")
        assert not done.returncode, done.stderr
        shutil.copyfile(built, tmp_path / "greeter.wasm")
    answers(tmp_path, tmp_path / "greeter.wasm")
