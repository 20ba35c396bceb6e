"""The face for programs: the page's examples run, and what is served leaves nothing behind."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

import greentic.api
from conftest import ROOT
from greentic.api import Environments, GreenticError, serve
from greentic.ground.errors import BootError


def examples() -> str:
    """The page's code, in order, as one program."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S))


@pytest.mark.e2e
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    program = examples()
    assert program.count("assert") >= 8
    exec(compile(program, "docs/api.md", "exec"), {"work": tmp_path})


def test_the_page_tells_every_name_that_is_promised():
    page = (ROOT / "docs" / "api.md").read_text()
    for name in ("Environments", "build_bundle", "serve", "GreenticError"):
        assert name in page and name in greentic.api.__all__
    assert all(hasattr(greentic.api, name) for name in greentic.api.__all__)
    public = [name for name in vars(Environments) if not name.startswith("_")]
    assert all(getattr(Environments, name).__doc__ for name in public)


@pytest.mark.e2e
def test_what_is_served_is_gone_afterwards_and_never_touched_the_home(hello, operator_home):
    before = sorted(operator_home.rglob("*"))
    with serve(hello) as worker:
        assert worker.request("GET", "/healthz").body == b"ok"
    assert sorted(operator_home.rglob("*")) == before
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", worker.port), timeout=5):
        pass


def test_what_cannot_be_deployed_is_told_and_nothing_is_started(tmp_path):
    (tmp_path / "x.gtbundle").write_bytes(b"no bundle")
    with pytest.raises(BootError, match="deploy"), serve(tmp_path / "x.gtbundle"):
        raise AssertionError("nothing is served")


@pytest.mark.e2e
def test_a_worker_that_does_not_start_says_why(hello):
    with pytest.raises(BootError, match="no-anchor"), serve(hello, {"GREENTIC_TRUST_ANCHOR": "/no-anchor"}):
        raise AssertionError("nothing is served")


def test_errors_have_the_kinds_of_the_verbs(tmp_path):
    store = Environments(tmp_path / "store")
    with pytest.raises(GreenticError) as error:
        store.deploy("nowhere", "b", Path("x"), customer_id="c")
    assert error.value.kind == "not-found" and not (tmp_path / "store").exists()
