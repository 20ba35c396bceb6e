"""What tests share: a store that holds still, bundles that are built, and the programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from greentic.operate import bundles, env, revisions, traffic, trust_root
from greentic.operate.bundle_build import build_bundle
from greentic.operate.change import Context
from greentic.store.environments import EnvironmentStore

sys.path.insert(0, str(Path(__file__).parent))
from simulators import CountingRandom, FakeClock

settings.register_profile("project", deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
settings.load_profile("project")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
PROGRAMS = Path(sys.executable).parent


def need(program: str, package: str) -> str:
    """The path of a program of a Debian package; a test that needs it is skipped by name where it is missing."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs `{program}` (Debian package {package})")
    return found


@pytest.fixture
def fixtures() -> Path:
    path = SHARED / "fixtures"
    if not path.is_dir():
        pytest.skip("needs the real bundles beside the project (../shared/fixtures)")
    return path


@pytest.fixture(scope="session")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example bundle, built once."""
    out = tmp_path_factory.mktemp("bundle") / "hello.gtbundle"
    build_bundle(ROOT / "examples" / "hello-bundle", out)
    return out


@pytest.fixture(autouse=True)
def operator_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for every test; nothing of the machine's environment leaks in."""
    home = tmp_path / "home"
    home.mkdir()
    for name in list(os.environ):
        if name.startswith(("GREENTIC_", "GTC_")) or name in ("PORT", "USERPROFILE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def store(tmp_path: Path) -> EnvironmentStore:
    return EnvironmentStore(tmp_path / "store", clock=FakeClock(), random=CountingRandom())


@pytest.fixture
def context(store: EnvironmentStore) -> Context:
    return Context(store)


class Author:
    """Authors an environment with the verbs' functions, step by step."""

    def __init__(self, context: Context, env_id: str = "local") -> None:
        self.context, self.env_id = context, env_id

    def create(self) -> Author:
        env.create(self.context, env.EnvCreatePayload(environment_id=self.env_id, name=self.env_id))
        trust_root.bootstrap(self.context, trust_root.TrustRootBootstrapPayload(environment_id=self.env_id))
        return self

    def add(self, bundle_id: str = "demo", prefixes: tuple[str, ...] = ("/",), **more: object) -> str:
        payload = bundles.BundleAddPayload(
            environment_id=self.env_id, bundle_id=bundle_id, customer_id="acme",
            route_binding=bundles.RouteBindingPayload(path_prefixes=list(prefixes), hosts=list(more.pop("hosts", []))), **more,
        )  # fmt: skip
        return str(bundles.add(self.context, payload)["deployment_id"])

    def stage(self, deployment: str, bundle: Path, uri: str | None = None, **more: object) -> str:
        payload = revisions.RevisionStagePayload(
            environment_id=self.env_id, deployment_id=deployment, bundle_path=str(bundle), bundle_source_uri=uri, **more
        )
        return str(revisions.stage(self.context, payload)["revision_id"])

    def warm(self, revision: str) -> str:
        revisions.warm(self.context, self.transition(revision))
        return revision

    def transition(self, revision: str, key: str | None = None) -> revisions.RevisionTransitionPayload:
        return revisions.RevisionTransitionPayload(environment_id=self.env_id, revision_id=revision, idempotency_key=key)

    def route(self, deployment: str, *weights: tuple[str, int], key: str = "k") -> dict[str, object]:
        payload = traffic.TrafficSetPayload(
            environment_id=self.env_id, deployment_id=deployment, idempotency_key=key,
            entries=[traffic.SplitEntryPayload(revision_id=r, weight_bps=w) for r, w in weights],
        )  # fmt: skip
        return traffic.set_traffic(self.context, payload)

    def deployed(self, bundle: Path, uri: str | None = None, bundle_id: str = "demo", prefixes: tuple[str, ...] = ("/",)) -> tuple[str, str]:
        deployment = self.add(bundle_id, prefixes)
        revision = self.warm(self.stage(deployment, bundle, uri))
        self.route(deployment, (revision, 10_000), key=f"first-{bundle_id}")
        return deployment, revision

    def strip(self) -> None:
        """Leave what a pod gets: environment.json alone."""
        paths = self.context.store.paths(self.env_id)
        paths.runtime_config.unlink(missing_ok=True)
        shutil.rmtree(paths.revisions, ignore_errors=True)

    def audit(self) -> list[dict[str, object]]:
        path = self.context.store.paths(self.env_id).audit
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def author(context: Context) -> Author:
    return Author(context)


def gtc(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the operator's program."""
    return subprocess.run([str(PROGRAMS / "gtc"), *words], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, **options)
