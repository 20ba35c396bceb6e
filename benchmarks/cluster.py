"""Rendering and reconciling 1,012 objects against the lab's API server, beside kubectl (root, and the lab's programs)."""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
LAB = PROJECT / "lab" / "cluster.py"
GTC = PROJECT / ".venv/bin/gtc"
REVISIONS = 500
OBJECTS = 12 + 2 * REVISIONS
REPEATS = 3


class Row(NamedTuple):
    what: str
    values: list[float]
    unit: str
    target: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def possible() -> str | None:
    """Why this cannot be measured here, if so."""
    if os.geteuid() != 0:
        return "the lab needs root"
    missing = [t for t in ("ip", "nft", "iptables", "conntrack", "kubectl") if shutil.which(t) is None]
    return f"missing: {', '.join(missing)}" if missing else None


def make_store(root: Path, revisions: int) -> None:
    """A store with an environment of so many ready revisions of one deployment, written as the verbs write it."""
    from greentic.ground.documents import replace
    from greentic.model.environment import EnvPackBinding, HostConfig, new_environment
    from greentic.model.lifecycle import with_current_revisions
    from greentic.operate import bundles, traffic, trust_root
    from greentic.operate.change import Context
    from greentic.operate.revisions import RevisionStagePayload, stage
    from greentic.store.environments import EnvironmentStore

    context = Context(EnvironmentStore(root))
    with context.store.transaction("bench", may_create=True) as transaction:
        transaction.create(new_environment("bench", "bench", HostConfig(env_id="bench")))
    trust_root.bootstrap(context, trust_root.TrustRootBootstrapPayload(environment_id="bench"))
    added = bundles.add(context, bundles.BundleAddPayload(environment_id="bench", bundle_id="bot", customer_id="local-dev", route_binding=bundles.RouteBindingPayload(path_prefixes=["/"])))
    deployment = str(added["deployment_id"])
    stage(context, RevisionStagePayload(environment_id="bench", deployment_id=deployment, bundle_source_uri=None, bundle_digest=f"sha256:{'0' * 64}"))
    with context.store.transaction("bench") as transaction:
        env = transaction.load()
        first = env.revisions[0]
        made = [
            replace(first, revision_id=context.mint(), sequence=i + 1, lifecycle="ready", bundle_source_uri=f"https://bundles.example.com/{i}.gtbundle")
            for i in range(revisions)
        ]
        binding = EnvPackBinding(slot="deployer", kind="greentic.deployer.k8s@1.0.0", pack_ref="builtin")
        env = with_current_revisions(replace(env, revisions=made, packs=[binding]), [deployment])
        transaction.save(env)
    entry = {"revision_id": made[0].revision_id, "weight_bps": 10000}
    payload = traffic.TrafficSetPayload(environment_id="bench", deployment_id=deployment, entries=[traffic.SplitEntryPayload(**entry)], idempotency_key="bench")
    traffic.set_traffic(context, payload)


def timed(words: list[str], environment: dict[str, str]) -> tuple[float, dict[str, object], float]:
    """Seconds, the reply, and the peak memory in MiB of one run."""
    began = time.perf_counter()
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate()
    seconds = time.perf_counter() - began
    if process.returncode not in (0, 2):
        raise SystemExit(f"{' '.join(words)} failed: {err.decode()[-2000:]}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    try:
        reply = json.loads(out)["result"]
    except (ValueError, KeyError, TypeError):
        reply = {}
    return seconds, reply, peak


def measure(work: Path) -> list[Row]:
    """Start an API server of its own, measure, stop it."""
    os.environ["GTC_OPERATOR_KEY_PATH"] = str(work / "key.pem")
    environment = dict(os.environ)
    small, large = work / "small", work / "large"
    make_store(small, 1)
    make_store(large, REVISIONS)
    rows: list[Row] = []
    renders = [timed([GTC, "op", "--store-root", large, "env", "render", "bench"], environment) for _ in range(REPEATS + 2)]
    rows.append(Row(f"render {OBJECTS} objects", [r[0] for r in renders], "s", "≤ 1 s"))
    rows.append(Row("render: peak memory", [max(r[2] for r in renders)], "MiB", "≤ 200 MiB"))
    timed([GTC, "op", "--store-root", large, "env", "render", "bench", "--output", work / "yaml"], environment)
    every = work / "all.yaml"
    every.write_text("---\n".join(p.read_text() for p in sorted((work / "yaml").glob("*.yaml"))).replace("policy/v1\n", "policy/v1beta1\n"))
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(REPEATS):
        for kind in ("ours", "kubectl"):
            kubeconfig = subprocess.run([sys.executable, LAB, "up", "--api-only"], check=True, capture_output=True, text=True).stdout.strip()
            told = {**environment, "KUBECONFIG": kubeconfig}
            try:
                if kind == "ours":
                    seconds, reply, peak = timed([GTC, "op", "--store-root", large, "env", "reconcile", "bench", "--no-wait"], told)
                    assert reply["applied_count"] == OBJECTS, reply
                    ours.append(seconds)
                    again = [timed([GTC, "op", "--store-root", large, "env", "reconcile", "bench", "--no-wait"], told) for _ in range(3)]
                    assert all(a[1]["writes"] == 0 for a in again)
                else:
                    subprocess.run(["kubectl", "create", "namespace", "gtc-bench"], env=told, check=True, capture_output=True)
                    theirs.append(timed(["kubectl", "apply", "--server-side", "--force-conflicts", "-f", every], told)[0])
            finally:
                subprocess.run([sys.executable, LAB, "down"], check=True)
    rows += [
        Row(f"apply {OBJECTS} objects", ours, "s"),
        Row("apply: objects per second", [OBJECTS / s for s in ours], "/s", "≥ 150 /s"),
        Row("kubectl apply --server-side of the same", theirs, "s"),
        Row("apply: times as fast as kubectl", [t / o for t, o in zip(theirs, ours, strict=True)], "×", "≥ 2 ×"),
        Row(f"in sync, {OBJECTS} objects", [a[0] for a in again], "s", "≤ 3 s"),
        Row("in sync: requests", [float(str(again[0][1]["requests"]))], "", "≤ 12"),
        Row("reconcile: peak memory", [peak], "MiB", "≤ 200 MiB"),
    ]
    kubeconfig = subprocess.run([sys.executable, LAB, "up", "--api-only"], check=True, capture_output=True, text=True).stdout.strip()
    try:
        small_told = {**environment, "KUBECONFIG": kubeconfig}
        timed([GTC, "op", "--store-root", small, "env", "reconcile", "bench", "--no-wait"], small_told)
        few = [timed([GTC, "op", "--store-root", small, "env", "reconcile", "bench", "--no-wait"], small_told) for _ in range(REPEATS)]
        rows.append(Row("in sync, 14 objects", [f[0] for f in few], "s"))
        rows.append(Row("in sync, 14 objects: requests", [float(str(few[0][1]["requests"]))], "", "≤ 10"))
    finally:
        subprocess.run([sys.executable, LAB, "down"], check=True)
    return rows


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        for row in measure(Path(directory)):
            print(f"{row.what:<48}{row.median:>10.2f} {row.unit:<4} {row.target:<12} {' '.join(f'{v:.2f}' for v in row.values)}")
