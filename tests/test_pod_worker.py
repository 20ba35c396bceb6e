"""What a worker does differently in a pod: its own revision, shared keys, mounted tokens, a signal while it boots."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from greentic.ground.errors import BootError, IoError
from greentic.ingress.auth import load_tokens
from greentic.materialize.seed import read_seed
from greentic.materialize.serving_plan import Scope, as_seen, serving_plan
from greentic.model.traffic import wanted_revisions
from greentic.store.cookie_key import cookie_key
from greentic.store.environments import EnvironmentStore
from greentic.store.layout import EnvPaths
from greentic.worker.boot import boot
from greentic.worker.settings import StartOptions
from test_k8s_render import DEPLOYMENT, ONE, THREE, TWO, environment, revision


def wanted(env, own: str | None, *, alone: bool = False) -> list[str]:
    return [r.revision_id for r in wanted_revisions(as_seen(env, Scope(own, alone)))]


def test_a_worker_wants_its_own_revision_even_while_it_is_idle():
    assert wanted(environment(), None) == [ONE, THREE]
    assert wanted(environment(), TWO) == [TWO, THREE]
    assert wanted(environment(), ONE) == [ONE, THREE]


def test_a_worker_in_its_own_scope_wants_nothing_else():
    assert wanted(environment(), TWO, alone=True) == [TWO]
    assert wanted(environment(), ONE, alone=True) == [ONE]
    assert wanted(environment(revisions=[revision(TWO, lifecycle="draining")]), TWO, alone=True) == [TWO]
    with pytest.raises(BootError, match="is not in environment"):
        as_seen(environment(), Scope("00000000000000000000000099", alone=True))


def test_a_failure_of_its_own_revision_is_fatal_for_a_worker():
    plan = serving_plan(environment(), Scope(TWO, alone=True), {}, {})
    assert plan.own_deployment == DEPLOYMENT and plan.is_fatal(DEPLOYMENT)


def test_workers_share_a_key_where_they_are_given_one(tmp_path):
    store = EnvironmentStore(tmp_path / "store")
    shared = tmp_path / "key"
    for name in ("a", "b"):
        (tmp_path / "store" / name).mkdir(parents=True)
    own = [cookie_key(store.paths(name).signing_key, shared, store.random) for name in ("a", "b")]
    assert own[0] != own[1]
    shared.write_bytes(bytes(range(32)))
    assert {cookie_key(store.paths(name).signing_key, shared, store.random) for name in ("a", "b")} == {
        bytes(range(32))
    }
    shared.write_bytes(b"short")
    with pytest.raises(BootError, match="5 bytes"):
        cookie_key(store.paths("a").signing_key, shared, store.random)


def test_a_key_or_a_document_behind_a_closed_way_is_told(tmp_path, monkeypatch):
    store = EnvironmentStore(tmp_path)

    def closed(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for asked in ("stat", "open"):  # which root is never refused
        monkeypatch.setattr(Path, asked, closed)
    monkeypatch.setattr("greentic.ground.documents._at_once", closed)
    with pytest.raises(BootError, match="Permission denied"):
        cookie_key(store.paths("a").signing_key, tmp_path / "key", store.random)
    for look in (store.exists, store.existing, store.trust_root):
        with pytest.raises(IoError, match="Permission denied"):
            look("local")
    with pytest.raises(BootError, match="GREENTIC_SEED_DIR .* cannot be read"):
        read_seed(tmp_path / "seed", tmp_path / "env")


def test_what_is_wrong_with_a_seed_is_told_of_the_seed(tmp_path):
    """Whoever reads the error of a pod mends the ConfigMap; nothing was placed in the store yet."""
    seed, root = tmp_path / "seed", tmp_path / "store"
    seed.mkdir()
    (seed / "environment.json").write_text('{"schema": "greentic.environment.v1", ')
    with pytest.raises(BootError) as failed:
        boot(StartOptions("local", root), {"GREENTIC_SEED_DIR": str(seed)})
    causes = f"{failed.value} {failed.value.__cause__}"
    assert str(seed / "environment.json") in causes and str(root / "local") not in causes


def test_tokens_that_are_named_must_be_there(tmp_path):
    paths = EnvPaths(tmp_path)
    assert load_tokens(paths) is None
    named = tmp_path / "mounted.json"
    with pytest.raises(BootError, match="is not there"):
        load_tokens(paths, named)
    digest = hashlib.sha256(b"t").hexdigest()
    named.write_text(json.dumps({"schema": "greentic.ingress-tokens.v1", "tokens": [{"sha256": digest}]}))
    assert [t.sha256 for t in load_tokens(paths, named) or []] == [digest]


@pytest.mark.parametrize("digest", ["A" * 64, "g" * 64, "a" * 63, "a" * 65, ""])
def test_a_token_is_known_by_64_lower_case_hex_digits_and_nothing_else(tmp_path, digest):
    named = tmp_path / "tokens.json"
    named.write_text(json.dumps({"schema": "greentic.ingress-tokens.v1", "tokens": [{"sha256": digest}]}))
    with pytest.raises(BootError, match="64 lower-case hex digits"):
        load_tokens(EnvPaths(tmp_path), named)


@pytest.mark.e2e
def test_a_worker_that_is_stopped_while_it_boots_ends_at_once(tmp_path):
    seed = tmp_path / "seed"
    seed.mkdir()
    environ = {**os.environ, "HOME": str(tmp_path), "GREENTIC_SEED_DIR": str(seed)}
    program = "import sys, threading; from greentic.worker import candidate; candidate.read_seed = lambda a, b: (print('booting', flush=True), threading.Event().wait()); from greentic.cli.start import run; run(['start', '--env', 'x'])"
    process = subprocess.Popen([sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "booting\n"
    process.send_signal(signal.SIGHUP)  # which asks to look again and ends nothing, at no time
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0 and time.monotonic() - began < 20


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("program", "sent", "code"),
    [
        ("start", signal.SIGTERM, 0),
        ("start", signal.SIGINT, 0),
        ("operator", signal.SIGTERM, 0),
        ("operator", signal.SIGINT, 0),
        ("gtc", signal.SIGINT, 130),
        ("gtc", signal.SIGTERM, -signal.SIGTERM),
    ],
)
def test_a_program_that_is_stopped_while_it_is_loaded_ends_at_once(program, sent, code):
    """What is caught is heard by the first process of a container, too: it ignores only what it has no hand for."""
    loading = (
        "import signal, sys, threading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a job in the background is begun without
        "class Slow:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == 'greentic.cli.{program}': print('loading', flush=True); threading.Event().wait()\n"
        "sys.meta_path.insert(0, Slow())\n"
        f"from greentic.cli.programs import {program} as begin; begin()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", loading], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(sent)
        assert process.communicate(timeout=30) == ("", "") and process.returncode == code
    finally:
        process.kill()


@pytest.mark.e2e
def test_an_interrupt_that_whoever_starts_a_program_ignores_stays_ignored():
    begun = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from greentic.cli.programs import gtc\nimport sys; sys.argv[1:] = ['--version']\ntry: gtc()\nfinally: print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    run = subprocess.run([sys.executable, "-c", begun], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "True"


@pytest.mark.e2e
@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", -signal.SIGTERM), ("SIGHUP", -signal.SIGHUP)])
def test_what_takes_no_notice_of_an_interrupt_is_interrupted_right_behind(sent, code, tmp_path):
    """`msgspec` swallowed it while it looked for dates, went on without, and ended the process with SIGSEGV at the first of them."""
    loading = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "for number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_DFL)\n"
        "class Sends:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == 'datetime': sys.meta_path.remove(self); os.kill(os.getpid(), signal.{sent}); print('sent', flush=True)\n"
        "assert 'datetime' not in sys.modules\n"
        "sys.meta_path.insert(0, Sends())\n"
        f"sys.argv[1:] = ['op', '--store-root', {str(tmp_path / 'store')!r}, 'env', 'create', 'prod', '--name', 'Production']\n"
        "from greentic.cli.programs import gtc as begin; begin()\n"
    )
    run = subprocess.run([sys.executable, "-c", loading], capture_output=True, text=True)
    assert (run.stdout, run.stderr, run.returncode) == ("sent\n", "", code)
    assert not (tmp_path / "store").exists()


def test_an_interrupt_comes_once_nothing_is_loaded_any_more():
    loading = (
        "import os, signal, sys, time\nfrom importlib.machinery import ModuleSpec\n"
        "from greentic.terminal.asked_to_end import interrupt\n"
        "signal.signal(signal.SIGINT, interrupt)\n"
        "class Deaf:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        return ModuleSpec(name, self) if name == 'deaf' else None\n"
        "    def create_module(self, spec): return None\n"
        "    def exec_module(self, module):\n"
        "        try:\n"
        "            for _ in range(3): os.kill(os.getpid(), signal.SIGINT)\n"
        "        except KeyboardInterrupt: print('lost')\n"
        "        print('loaded')\n"
        "sys.meta_path.insert(0, Deaf())\n"
        "try:\n"
        "    import deaf\n"
        "    time.sleep(60)\n"
        "    print('nothing came')\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    run = subprocess.run([sys.executable, "-c", loading], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("loaded\ninterrupted\n", "")
