"""Rendering and reconciling 1,012 objects against the lab's API server, beside kubectl (root, and the lab's programs)."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from measure import BIN, ROOT, Row, memory, spread

LAB = ROOT / "lab" / "cluster.py"
CACHE = os.environ.get("GREENTIC_LAB_CACHE", str(Path.home() / ".cache/greentic-lab"))
"""Where the lab's programs are, whatever home a benchmark has."""
REVISIONS = 500
OBJECTS = 12 + 2 * REVISIONS
REPEATS = 3


class Run(NamedTuple):
    """One process: seconds, the reply of `gtc`, and the most memory that it had, in MiB."""

    seconds: float
    reply: dict[str, object]
    peak: float


def possible() -> str | None:
    """Why this cannot be measured here, if so."""
    if os.geteuid() != 0:
        return "the lab needs root"
    missing = [t for t in ("ip", "nft", "iptables", "conntrack", "kubectl") if shutil.which(t) is None]
    return f"missing: {', '.join(missing)}" if missing else None


def make_store(root: Path, revisions: int) -> None:
    """A store with an environment of so many ready revisions of one deployment, written as the verbs write it."""
    from greentic.deployments import bundles, traffic
    from greentic.deployments.stage import RevisionStagePayload, stage
    from greentic.ground.documents import pretty, replace
    from greentic.model.environment import EnvPackBinding, HostConfig, new_environment
    from greentic.model.lifecycle import with_current_revisions
    from greentic.operate import trust_root
    from greentic.operate.change import Context
    from greentic.store.environments import EnvironmentStore

    context = Context(EnvironmentStore(root))
    with context.store.transaction("bench", may_create=True) as transaction:
        transaction.create(new_environment("bench", "bench", HostConfig(env_id="bench")))
    trust_root.bootstrap(context, trust_root.TrustRootBootstrapPayload(environment_id="bench"))
    added = bundles.add(
        context,
        bundles.BundleAddPayload(
            environment_id="bench",
            bundle_id="bot",
            customer_id="local-dev",
            route_binding=bundles.RouteBindingPayload(path_prefixes=["/"]),
        ),
    )
    deployment = added.deployment_id
    stage(
        context,
        RevisionStagePayload(
            environment_id="bench", deployment_id=deployment, bundle_source_uri=None, bundle_digest=f"sha256:{'0' * 64}"
        ),
    )
    with context.store.transaction("bench") as transaction:
        env = transaction.load()
        first = env.revisions[0]
        made = [
            replace(
                first,
                revision_id=context.mint(),
                sequence=i + 1,
                lifecycle="ready",
                bundle_source_uri=f"https://bundles.example.com/{i}.gtbundle",
            )
            for i in range(revisions)
        ]
        answers = pretty(
            {"runtime_image": f"example.com/worker@sha256:{'0' * 64}"}
        )  # nothing runs, everything is applied
        transaction.files.replace(transaction.paths.ref("answers.json"), answers)
        binding = EnvPackBinding(
            slot="deployer", kind="greentic.deployer.k8s@1.0.0", pack_ref="builtin", answers_ref="answers.json"
        )
        env = with_current_revisions(replace(env, revisions=made, packs=[binding]), [deployment])
        transaction.save(env)
    entry = {"revision_id": made[0].revision_id, "weight_bps": 10000}
    payload = traffic.TrafficSetPayload(
        environment_id="bench",
        deployment_id=deployment,
        entries=[traffic.SplitEntryPayload(**entry)],
        idempotency_key="bench",
    )
    traffic.set_traffic(context, payload)


def timed(words: list[str | Path], environment: dict[str, str]) -> Run:
    """Run one process to its end."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(w) for w in words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    told: list[bytes] = []
    reading = threading.Thread(target=lambda: told.append(process.stdout.read()))
    reading.start()
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, _most_memory(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    reading.join()
    out = told[0]
    if process.returncode not in (0, 2):
        raise SystemExit(f"{' '.join(map(str, words))} ended with {process.returncode}")
    try:
        reply = json.loads(out)["result"]
    except (ValueError, KeyError, TypeError):
        reply = {}
    return Run(seconds, reply, peak)


def _most_memory(pid: int) -> float:
    """The most memory that a process had so far, in MiB; the accounting at its end counts that of whoever started it, too."""
    try:
        return memory(pid, "VmHWM")
    except (OSError, StopIteration):  # it is gone, or going
        return 0.0


class ApiServer:
    """A fresh API server of the lab, for as long as the block lasts."""

    def __enter__(self) -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, LAB, "up", "--api-only"],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "GREENTIC_LAB_CACHE": CACHE},
        )
        return {**os.environ, "KUBECONFIG": done.stdout.strip()}

    def __exit__(self, *failure: object) -> None:
        subprocess.run([sys.executable, LAB, "down"], check=True)


def cluster_rows(scratch: Path) -> list[Row]:
    """Rendering and reconciling; nothing where the lab cannot run."""
    reason = possible()
    if reason is not None:
        print(f"cluster rows left out: {reason}", file=sys.stderr)
        return []
    os.environ["GTC_OPERATOR_KEY_PATH"] = str(scratch / "cluster-key.pem")
    gtc = BIN / "gtc"
    small, large = scratch / "small-store", scratch / "large-store"
    make_store(small, 1)
    make_store(large, REVISIONS)

    def render(*more: str | Path) -> Run:
        return timed([gtc, "op", "--store-root", large, "env", "render", "bench", *more], dict(os.environ))

    def reconcile(store: Path, environment: dict[str, str]) -> Run:
        return timed([gtc, "op", "--store-root", store, "env", "reconcile", "bench", "--no-wait"], environment)

    renders = [render() for _ in range(5)]
    render("--output", scratch / "yaml")
    every = scratch / "all.yaml"
    texts = [p.read_text() for p in sorted((scratch / "yaml").glob("*.yaml"))]
    every.write_text("---\n".join(texts).replace("apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n"))
    ours: list[Run] = []
    theirs: list[Run] = []
    again: list[Run] = []
    for _ in range(REPEATS):
        with ApiServer() as environment:
            ours.append(reconcile(large, environment))
            assert ours[-1].reply["applied_count"] == OBJECTS
            again += [reconcile(large, environment) for _ in range(2)]
        with ApiServer() as environment:
            subprocess.run(
                ["kubectl", "create", "namespace", "gtc-bench"], env=environment, check=True, capture_output=True
            )
            theirs.append(timed(["kubectl", "apply", "--server-side", "--force-conflicts", "-f", every], environment))
    with ApiServer() as environment:
        reconcile(small, environment)
        few = [reconcile(small, environment) for _ in range(5)]
    assert all(run.reply["writes"] == 0 for run in [*again, *few])
    seconds = [run.seconds for run in ours]
    rate = OBJECTS / statistics.median(seconds)
    ratio = statistics.median(t.seconds / o.seconds for o, t in zip(ours, theirs, strict=True))
    requests, few_requests = again[0].reply["requests"], few[0].reply["requests"]
    return [
        (
            f"`env render`, {OBJECTS} objects",
            spread([r.seconds for r in renders]),
            f"{max(r.peak for r in renders):.0f} MiB at most",
            "",
            "≤ 1 s, ≤ 200 MiB",
        ),
        (
            f"`env reconcile`, {OBJECTS} objects, all new",
            spread(seconds),
            f"`kubectl apply --server-side` {spread([t.seconds for t in theirs])}",
            f"{ratio:.2f} ×",
            "≥ 2 ×",
        ),
        (
            "the same, objects a second",
            f"{rate:.0f}",
            f"{max(r.peak for r in ours):.0f} MiB at most",
            "",
            "≥ 150, ≤ 200 MiB",
        ),
        (
            f"`env reconcile`, {OBJECTS} objects in sync",
            spread([r.seconds for r in again]),
            f"{requests} requests, 0 writes",
            "",
            "≤ 3 s, ≤ 12",
        ),
        (
            "`env reconcile`, 14 objects in sync",
            spread([r.seconds for r in few]),
            f"{few_requests} requests, 0 writes",
            "",
            "≤ 10",
        ),
    ]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        for row in cluster_rows(Path(directory)):
            print(" | ".join(row))
