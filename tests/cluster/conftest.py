"""Tests on a real cluster: `make cluster-test` starts one and names its kubeconfig. They are no part of `make test`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import GTC, LAB, PROJECT, Kubectl, Outside, World

from forked_gtc import WITH_A_CLUSTER, fork_the_verbs
from run_locks import beside, once

LONGEST = ("test_the_demo", "what_is_published_runs", "rights_that_are_taken_away", "not_destroyed_while_an_operator")
"""As many as there are processes: what comes next waits behind the first of them, and is a short one."""


@pytest.fixture(scope="session", autouse=True)
def verbs() -> Iterator[None]:
    """Verbs are forks of a process that has them loaded: there are a thousand of them, and pods need the cores. The demo starts all of its programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", subprocess.run)  # and back at the end
        fork_the_verbs(str(GTC), WITH_A_CLUSTER)
        yield


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    told = os.environ.get("KUBECONFIG")
    if not told or not Path(told).exists():
        pytest.fail("no cluster: run `make cluster-test`, or set KUBECONFIG to a cluster that may be used up")
    if shutil.which("kubectl") is None:
        pytest.fail("kubectl is missing")
    return Kubectl(Path(told))


@pytest.fixture(scope="session")
def outside(kubectl: Kubectl) -> Iterator[Outside]:
    made = Outside(kubectl)
    yield made
    made.close()


@pytest.fixture(scope="session")
def registry_image(shared_directory: Path) -> tuple[str, str]:
    """The image of a registry that this cluster has, and the program in it. Loaded once for all processes of the run."""
    told = shared_directory / "registry-image"
    with once(shared_directory / "registry-image.lock"):
        if not told.exists():
            made = subprocess.run(
                [sys.executable, PROJECT / "lab/registry_image.py"], capture_output=True, text=True, check=False
            )
            assert made.returncode == 0, made.stderr
            told.write_text(made.stdout)
    name, program = told.read_text().split()
    return name, program


@pytest.fixture(autouse=True)
def turn(request: pytest.FixtureRequest, shared_directory: Path) -> Iterator[None]:
    """Tests have environments and namespaces of their own and run beside each other, but for those that are marked `alone`."""
    lock = shared_directory / "cluster.lock"
    with once(lock) if request.node.get_closest_marker("alone") else beside(lock):
        yield


@pytest.fixture
def world(turn: None, kubectl: Kubectl, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """An environment of its own; on failure, what the cluster says about it is printed."""
    made = World(kubectl, tmp_path)
    yield made
    if getattr(request.node, "failed", False):
        for words in (
            ("get", "pods,deployments,networkpolicies", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
        ):
            print(kubectl.run("-n", made.namespace, *words, check=False))
        print(made.logs("router"), made.logs("worker"))
    kubectl.delete_namespace(made.namespace)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    if outcome.get_result().when == "call" and outcome.get_result().failed:
        item.failed = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that handle the lab's own processes are no part of a run on another cluster. Those that run alone come last, the longest first."""
    items.sort(
        key=lambda item: (bool(item.get_closest_marker("alone")), not any(name in item.nodeid for name in LONGEST))
    )
    elsewhere = [] if LAB else [item for item in items if item.get_closest_marker("lab")]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]
