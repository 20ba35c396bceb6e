"""Rows about the operator: what it holds at 1,000 revisions, that it writes nothing in sync, and how soon drift is healed."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from measure import BIN, ROOT, Row, free_port, memory, spread
from published import registry

from cluster import ApiServer, make_store, possible
from greentic.manifests.operator_objects import ARENAS

REVISIONS, REPEATS, QUIET_SECONDS = 1_000, 5, 30.0
NAMESPACE = "gtc-bench"
FORMER = ("--patch", '{"spec":{"replicas":7}}')


class Operated(NamedTuple):
    """A running operator, and the ways to ask it and its cluster."""

    pid: int
    metrics: Callable[[], dict[str, float]]
    kubectl: Callable[..., str]


def operator_rows(scratch: Path) -> list[Row]:
    """Publish, let an operator make the objects, look at it in sync, and disturb it; nothing where the lab cannot run."""
    reason = possible() or ("missing: docker-registry" if shutil.which("docker-registry") is None else None)
    if reason is not None:
        return [("the operator", f"not measured: {reason}", "", "", "")]
    os.environ["GTC_OPERATOR_KEY_PATH"] = str(scratch / "operated-key.pem")
    root = scratch / "operated"
    root.mkdir(parents=True)
    make_store(root / "store", REVISIONS)
    with registry(root) as name, ApiServer() as environment:
        environment |= {"GREENTIC_OCI_INSECURE_REGISTRIES": name, "HOME": str(root)}
        place = f"oci://{name}/envs/bench:prod"
        gtc = [BIN / "gtc", "op", "--store-root", root / "store"]
        for words in (
            ["env", "publish", "bench", place],
            ["operator", "render", "bench", "--from", place, "--output", root / "yaml"],
        ):
            subprocess.run([*gtc, *words], env=environment, check=True, capture_output=True)
        with _operator(root, environment) as operated:
            return _measured(operated)


def _measured(operated: Operated) -> list[Row]:
    began = time.perf_counter()
    _until(lambda: operated.metrics()["synced"] == 1, 600)
    made, objects = time.perf_counter() - began, int(operated.metrics()["objects"])
    _until(lambda: _has_told(operated), 60)
    before, versions, looks = operated.metrics()["writes_total"], _versions(operated), operated.metrics()["looks_total"]
    time.sleep(QUIET_SECONDS)
    assert _versions(operated) == versions, "something was written in sync"
    assert operated.metrics()["writes_total"] == before
    looked = int(operated.metrics()["looks_total"] - looks)
    assert looked > 0, "it did not look at what is published"
    holds = memory(operated.pid, "VmRSS")
    healed = [
        *(_healed(operated, "service/gtc-router", "delete") for _ in range(REPEATS)),
        *(_healed(operated, "deployment/gtc-router", "patch", *FORMER) for _ in range(REPEATS)),
    ]
    peak = memory(operated.pid, "VmHWM")
    return [
        (
            f"`greentic-operator` in sync at {REVISIONS:,} revisions, {objects:,} objects",
            f"{holds:.0f} MiB",
            f"{peak:.0f} MiB at most, while it made or healed them; all made in {made:.0f} s",
            "",
            "≤ 80 MiB",
        ),
        (
            f"… what it writes in {QUIET_SECONDS:.0f} s in sync",
            "0 writes",
            f"looked {looked} times at what is published",
            "",
            "0 but the Lease",
        ),
        (
            f"… drift, from `kubectl` having done it until it is healed, {objects:,} objects",
            spread(healed),
            f"at most {max(healed):.1f} s, median {statistics.median(healed):.1f} s",
            "",
            "≤ 5 s",
        ),
    ]


def _has_told(operated: Operated) -> bool:
    """Whether the status says that it is in sync: the last thing that is written."""
    status = json.loads(operated.kubectl("get", "environments.greentic.ai", "bench", "-o", "json")).get("status", {})
    return any(c["type"] == "Synced" and c["status"] == "True" for c in status.get("conditions", []))


def _versions(operated: Operated) -> list[str]:
    """Every object of the namespace with its version, the Lease left out."""
    kinds = "configmap,networkpolicy,service,poddisruptionbudget,deployment,secret,environments.greentic.ai,event"
    columns = "custom-columns=:kind,:metadata.name,:metadata.uid,:metadata.resourceVersion"
    return sorted(operated.kubectl("get", kinds, "-o", columns).splitlines())


def _healed(operated: Operated, what: str, how: str, *more: str) -> float:
    """Seconds from the disturbance to the first look at which the object is as it was."""
    good = _spec(operated, what)
    operated.kubectl(how, what, *more)
    began = time.perf_counter()
    _until(lambda: _spec(operated, what) == good, 60)
    found = time.perf_counter() - began
    healed = operated.metrics()["drift_healed_total"]
    _until(lambda: operated.metrics()["synced"] == 1 and operated.metrics()["drift_healed_total"] >= healed, 60)
    return found


def _spec(operated: Operated, what: str) -> object:
    """What an object is asked to be, without the address that a cluster gives a Service."""
    text = operated.kubectl("get", what, "--ignore-not-found", "-o", "json")
    spec = dict(json.loads(text)["spec"]) if text.strip() else {}
    return {key: value for key, value in spec.items() if key not in ("clusterIP", "clusterIPs")}


def _until(condition: Callable[[], bool], seconds: float) -> None:
    ends = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > ends:
            raise SystemExit("the operator did not get there")
        time.sleep(0.02)


@contextmanager
def _operator(root: Path, environment: dict[str, str]) -> Iterator[Operated]:
    """The program at work outside of a cluster, with a wish in it."""

    def kubectl(*words: str) -> str:
        done = subprocess.run(
            ["kubectl", "-n", NAMESPACE, *words], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def metrics() -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return dict.fromkeys(("synced", "objects"), 0.0)
        told = (line.removeprefix("greentic_operator_").split() for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in told}

    kubectl("create", "namespace", NAMESPACE)
    definition = next((root / "yaml").glob("*customresourcedefinition*"))
    kubectl("apply", "-f", str(definition))
    kubectl("wait", "--for=condition=Established", "crd/environments.greentic.ai", "--timeout=60s")
    wish = next(path for path in (root / "yaml").glob("*environment*") if path != definition)
    kubectl("apply", "-f", str(wish))
    port = free_port()
    words = ["--name", "bench", "--namespace", NAMESPACE, "--metrics-port", str(port)]
    told = {str(ARENAS["name"]): str(ARENAS["value"])}  # as its pod has it
    with (root / "operator.log").open("wb") as log:
        process = subprocess.Popen([BIN / "greentic-operator", *words], env=environment | told, stderr=log, cwd=ROOT)
        try:
            yield Operated(process.pid, metrics, kubectl)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        for row in operator_rows(Path(directory)):
            print(" | ".join(row))
