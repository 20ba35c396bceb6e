"""What tests share: a store that holds still, bundles that are built, and the programs."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from greentic.author.bundle_build import build_bundle
from greentic.deployments import bundles, revisions, traffic
from greentic.deployments.stage import RevisionStagePayload, stage
from greentic.ground import optional
from greentic.operate import env, trust_root
from greentic.operate.change import Context
from greentic.operate.env_packs import EnvPackBindingPayload
from greentic.store.environments import EnvironmentStore
from greentic.telemetry import request_id
from greentic.telemetry.log import OperatorLog
from greentic.worker.boot import Booted, from_nothing
from greentic.worker.candidate import read_candidate
from greentic.worker.settings import StartOptions, read_settings

sys.path.insert(0, str(Path(__file__).parent))
import kept_builds
from run_locks import once
from simulators import CountingRandom, FakeClock, SimulatedCluster

settings.register_profile("project", deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
settings.load_profile("project")

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "greentic"
SHARED = ROOT.parent / "shared"
PROGRAMS = Path(sys.executable).parent
LONG = ("conformance", "e2e", "field")
"""Marks of tests that start programs. They begin first, so that no process of the run ends with a long one alone."""
LONGEST = ("squashfs-writers", "test_operator_programs", "rust_of_the_page", "line_by_line", "keep-alive-behind-balancer", "both_examples", "mixed_calls", "RUST_BACKTRACE")  # fmt: skip
"""The longest of all, which begin before the others: the run ends no sooner than the last of these."""
HEAVY = ("test_asking.py::test_any", "test_dispatch", "test_fuzz", "test_hostile", "test_image", "test_k8s_schemas", "test_values", "test_wasm")  # fmt: skip
"""Tests that compute for seconds, and begin next."""
TOGETHER = 8
"""How many of the other tests, most of which take some milliseconds, one process is handed at once."""
COVERING = (
    "test_activate",
    "test_archives",
    "test_artifact",
    "test_bounds",
    "test_bundle_sources",
    "test_careless",
    "test_delivery",
    "test_distribute",
    "test_follow",
    "test_foreseen",
    "test_fuzz.py::test_there_is_one_target_of_each_name",
    "test_history",
    "test_hostile",
    "test_incremental",
    "test_large",
    "test_model_",
    "test_naming",
    "test_operate",
    "test_pod_worker",
    "test_pods_follow",
    "test_proof",
    "test_prune",
    "test_publication",
    "test_ramp",
    "test_retention",
    "test_serve",
    "test_store",
    "test_trust",
)
"""Parts of the names of tests that must cover the rooms that `make test` wants covered, whatever the others reach. To measure doubles the time of
what is measured, so nothing else is."""
TOOLCHAIN = "a toolchain of another language"
BESIDE = "beside the project"
"""What the reason of a skip says if it is one that the gate knows: what lies beside the project adds tests, and takes none away."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads what is grouped
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_place)
    if config.getoption("loadgroup", False):
        for number, item in enumerate(item for item in items if _place(item) == QUICK):
            item.add_marker(pytest.mark.xdist_group(f"{number // TOGETHER}"))
    if config.getoption("--cov-context", None):
        return  # who asks which test reached a line asks all of them (`kit/mutants.py`)
    for item in items:
        if not any(name in item.nodeid for name in COVERING):
            item.add_marker("no_cover")


@pytest.hookimpl(tryfirst=True)  # before the plugin begins to measure anew
def pytest_sessionstart(session: pytest.Session) -> None:
    """In each process of a run the plugin measures twice, and pauses only one of the two: what is not measured took twice its time, too."""
    measured = session.config.pluginmanager.get_plugin("_cov")
    if measured is not None and measured.cov_controller is not None and hasattr(session.config, "workerinput"):
        measured.cov_controller.pause()


def _place(item: pytest.Item) -> tuple[int, int]:
    """The longest tests first, as they are named; then those that start programs; then those that compute; then the others."""
    rank = next((number for number, name in enumerate(LONGEST) if name in item.nodeid), len(LONGEST))
    starts = any(item.get_closest_marker(mark) for mark in LONG)
    return rank, 0 if starts else 1 if any(name in item.nodeid for name in HEAVY) else 2


QUICK = len(LONGEST), 2


def pytest_xdist_auto_num_workers() -> int:
    """Half of what the tests do is waiting for programs and deadlines. So there are more processes than cores, and two more for what is grouped."""
    return 2 * (os.cpu_count() or 1) + 2


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """With `--known-skips`, a skip for any other reason than what lies beside the project fails the run (`.ci/run`)."""
    unknown = [line for line in _skips(terminalreporter) if not _is_known(line)]
    if unknown and config.getoption("--known-skips"):
        terminalreporter.section("skipped for a reason that the gate does not know", red=True)
        for line in unknown:
            terminalreporter.line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not reporter or session.exitstatus or not session.config.getoption("--known-skips"):
        return
    if not all(_is_known(line) for line in _skips(reporter)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_known(line: str) -> bool:
    """What lies beside the project adds tests; toolchains of other languages are the reader's, and no machine must have them."""
    return BESIDE in line or TOOLCHAIN in line


def _skips(reporter: pytest.TerminalReporter) -> list[str]:
    """Test and reason of each that was skipped."""
    reports = reporter.stats.get("skipped", [])
    return [
        f"{report.nodeid}: {report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr}"
        for report in reports
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--known-skips", action="store_true", help=f"fail if a test is skipped that needs nothing {BESIDE}"
    )
    parser.addoption(
        "--afresh", action="store_true", help=f"build what runs before this one left in {kept_builds.KEPT}, too"
    )


def need(program: str, package: str) -> str:
    """The path of a program of a Debian package; a test that needs it is skipped by name where it is missing."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs `{program}` (Debian package {package})")
    return found


@pytest.fixture(scope="session")
def shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all processes of this test run share."""
    own = tmp_path_factory.getbasetemp()
    top = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    top.mkdir(mode=0o700, exist_ok=True)
    return top


@pytest.fixture
def fixtures() -> Path:
    path = SHARED / "fixtures"
    if not path.is_dir():
        pytest.skip("needs the real bundles beside the project (../shared/fixtures)")
    return path


@pytest.fixture(scope="session")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose only flow has no nodes, built once."""
    top = tmp_path_factory.mktemp("bundle")
    pack = top / "source" / "packs" / "hello"
    (pack / "flows").mkdir(parents=True)
    (pack / "assets").mkdir()
    (top / "source" / "bundle.yaml").write_text("bundle_id: hello\n")
    (pack / "assets" / "motto.txt").write_text("Ship empty.\n")
    (pack / "flows" / "main.ygtc").write_text("id: main\ntype: messaging\nnodes: {}\n")
    flow = "  - { id: main, file: flows/main.ygtc, tags: [default], entrypoints: [default] }"
    (pack / "pack.yaml").write_text(
        f"pack_id: example.hello\nversion: 0.1.0\nkind: application\npublisher: greentic\nflows:\n{flow}\n"
    )
    out = top / "hello.gtbundle"
    build_bundle(top / "source", out)
    return out


@pytest.fixture(scope="session")
def kept_build(shared_directory: Path, pytestconfig: pytest.Config) -> Callable[[str, Iterable[bytes | str]], Path]:
    """Where what a tool of others makes is kept: `kept_build(kind, inputs)` is the directory for all that goes into it (`kept_builds.py`)."""
    afresh = pytestconfig.getoption("--afresh") or not kept_builds.writable()
    return partial(kept_builds.place, shared_directory / "kept" if afresh else kept_builds.KEPT)


@pytest.fixture(scope="session")
def built_components(kept_build: Callable[[str, Iterable[bytes | str]], Path]) -> Path:
    """Where components that were built from Python are kept by content, for all tests and processes, and for the next run."""
    builder = [(SOURCE / "author" / "component_build.py").read_bytes(), *kept_builds.tree(SOURCE / "sdk")]
    return kept_build("python", builder)


@pytest.fixture
def compiled_components(
    kept_build: Callable[[str, Iterable[bytes | str]], Path], monkeypatch: pytest.MonkeyPatch, operator_home: Path
) -> Path:
    """Compiled code of components that were built, which takes longer than to build them; for the programs of one test."""
    directory = kept_build("compiled", kept_builds.tree(SOURCE / "wasm"))
    monkeypatch.setenv("GREENTIC_COMPONENT_CACHE_DIR", str(directory))
    return directory


@pytest.fixture(scope="session")
def shouting(shared_directory: Path, built_components: Path) -> Path:
    """The example bundle with a component, built once."""
    out = shared_directory / "shouting.gtbundle"
    with once(shared_directory / "shouting.lock"), pytest.MonkeyPatch.context() as patch:
        if not out.exists():
            patch.setenv("HOME", str(_home(shared_directory / "builder", built_components)))
            build_bundle(ROOT / "examples" / "hello-bundle", out.with_suffix(".new"))
            out.with_suffix(".new").rename(out)
    return out


def _home(home: Path, built_components: Path) -> Path:
    """A home whose kept builds are those of the run."""
    cache = home / ".cache" / "greentic"
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "built-components").exists():
        (cache / "built-components").symlink_to(built_components)
    return home


def make_pack(
    pack_id: str,
    flows: dict[str, dict[str, object]],
    components: dict[str, bytes] | None = None,
    assets: dict[str, bytes] | None = None,
    **manifest: object,
) -> bytes:
    """The bytes of a pack from compiled flows (`{id: {nodes, entrypoints, …}}`) and wasm; `manifest` replaces members of the manifest."""
    from greentic.pack.archive import write_pack
    from greentic.pack.manifest import build

    graphs = []
    for flow_id, flow in flows.items():
        graph = {
            "schema_version": "flow-v1",
            "id": flow_id,
            "kind": "messaging",
            "entrypoints": {},
            "metadata": {"tags": [], "extra": {}},
        } | flow
        graphs.append(
            {
                "id": flow_id,
                "kind": graph["kind"],
                "flow": graph,
                "tags": flow.get("tags", ["default"]),
                "entrypoints": ["default"],
            }
        )
    raw = {
        "schema_version": "pack-v1", "pack_id": pack_id, "version": "1.0.0", "kind": "application", "publisher": "tests", "symbols": {},
        "components": [{"id": name, "version": "0.1.0", "world": "w", "capabilities": {}} for name in components or {}], "flows": graphs,
        "dependencies": [], "capabilities": [], "signatures": {"signatures": []}, "extensions": {},
    } | manifest  # fmt: skip
    files = {f"components/{name}.wasm": data for name, data in (components or {}).items()}
    return write_pack(build(raw), files | {f"assets/{k}": v for k, v in (assets or {}).items()}, {})


def make_bundle(directory: Path, packs: dict[str, bytes]) -> Path:
    """A bundle of packs that are there as bytes."""
    source = directory / "made"
    (source / "packs").mkdir(parents=True)
    (source / "bundle.yaml").write_text("bundle_id: made\n")
    for name, data in packs.items():
        (source / "packs" / f"{name}.gtpack").write_bytes(data)
    out = directory / "made.gtbundle"
    build_bundle(source, out)
    return out


@pytest.fixture(autouse=True)
def operator_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built_components: Path) -> Path:
    """A home of its own for every test; nothing of the machine's environment leaks in. Builds of components are kept for the whole run."""
    home = _home(tmp_path / "home", built_components)
    request_id.go_on(None)  # what a test before this one did in this thread
    optional.forget()  # and what it did without in this process
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

    def add(
        self, bundle_id: str = "demo", prefixes: tuple[str, ...] = ("/",), hosts: Iterable[str] = (), **more: Any
    ) -> str:
        payload = bundles.BundleAddPayload(
            environment_id=self.env_id, bundle_id=bundle_id, customer_id="acme",
            route_binding=bundles.RouteBindingPayload(path_prefixes=list(prefixes), hosts=list(hosts)), **more,
        )  # fmt: skip
        return bundles.add(self.context, payload).deployment_id

    def stage(self, deployment: str, bundle: Path, uri: str | None = None, **more: Any) -> str:
        payload = RevisionStagePayload(
            environment_id=self.env_id, deployment_id=deployment, bundle_path=str(bundle), bundle_source_uri=uri, **more
        )
        return stage(self.context, payload).revision_id

    def warm(self, revision: str) -> str:
        revisions.warm(self.context, self.transition(revision))
        return revision

    def transition(self, revision: str, key: str | None = None) -> revisions.RevisionTransitionPayload:
        return revisions.RevisionTransitionPayload(
            environment_id=self.env_id, revision_id=revision, idempotency_key=key
        )

    def route(self, deployment: str, *weights: tuple[str, int], key: str = "k") -> traffic.SplitSummary:
        payload = traffic.TrafficSetPayload(
            environment_id=self.env_id, deployment_id=deployment, idempotency_key=key,
            entries=[traffic.SplitEntryPayload(revision_id=r, weight_bps=w) for r, w in weights],
        )  # fmt: skip
        return traffic.set_traffic(self.context, payload)

    def deployed(
        self, bundle: Path, uri: str | None = None, bundle_id: str = "demo", prefixes: tuple[str, ...] = ("/",)
    ) -> tuple[str, str]:
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


def booted(store: EnvironmentStore, env_id: str = "local", **settings: Any) -> Booted:
    """Provision an environment as a worker does at its first boot, with the variables of the test and `settings` over them."""
    told = read_settings(StartOptions(env_id, store.root), os.environ)._replace(**settings)
    log = OperatorLog(store.paths(env_id).root / "logs", store.clock, stderr=io.StringIO())
    return from_nothing(store, told, read_candidate(store, told), log)


def gtc(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the operator's program."""
    return subprocess.run(
        [str(PROGRAMS / "gtc"), *words],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        **options,
    )


IMAGE = f"registry.example.com/worker@sha256:{'0' * 64}"
PLANTED = "planted-value-of-a-secret"


def deployer_answers(author: Author, text: str) -> EnvPackBindingPayload:
    """Write down a deployer's answers, and what binds an environment to a cluster with them."""
    (author.context.store.paths(author.env_id).root / "answers.json").write_text(text)
    return EnvPackBindingPayload(
        environment_id=author.env_id,
        slot="deployer",
        kind="greentic.deployer.k8s@1.0.0",
        pack_ref="builtin",
        answers_ref="answers.json",
    )


def bind_deployer(author: Author, **answers: object) -> None:
    """Bind an environment to a cluster, with an image and other answers."""
    from greentic.operate import env_packs

    env_packs.add(author.context, deployer_answers(author, json.dumps({"runtime_image": IMAGE, **answers})))


@pytest.fixture
def bound(author: Author, hello: Path) -> Author:
    """An environment with a routed revision that pods can pull, bound to a cluster and to development secrets."""
    from greentic.deployer import binding
    from greentic.operate import env_packs

    author.create()
    author.deployed(hello, "https://bundles.example.com/hello.gtbundle")
    root = author.context.store.paths(author.env_id).root
    (root / "answers.json").write_text(json.dumps({"runtime_image": IMAGE}))
    (root / ".greentic" / "dev").mkdir(parents=True)
    (root / ".greentic" / "dev" / ".dev.secrets.env").write_text(f"TOKEN={PLANTED}\n")
    for slot, kind, ref in (
        ("deployer", "greentic.deployer.k8s@1.0.0", "answers.json"),
        ("secrets", "greentic.secrets.dev-store@1.0.0", None),
    ):
        payload = env_packs.EnvPackBindingPayload(
            environment_id=author.env_id,
            slot=slot,  # type: ignore[arg-type]
            kind=kind,
            pack_ref="builtin",
            answers_ref=ref,
        )
        binding.add(author.context, payload)
    return author


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> SimulatedCluster:
    from greentic.deployer import cluster_status, reconcile, rollout, sweep
    from greentic.deployer.cluster_identity import Reached

    found = SimulatedCluster()
    reached = Reached(found, found, "ambient")  # type: ignore[arg-type]  # as much of a cluster as the verbs ask for
    for module in (cluster_status, reconcile, rollout, sweep):
        monkeypatch.setattr(module, "reach", lambda context, deployer, patience=0.0: reached)
    return found
