"""The demo's tracks on a cluster, beside the tests: they wait for pods most of their time."""

from __future__ import annotations

import os
import subprocess

from world import PROJECT, Kubectl


def test_the_demo_serves_pulls_and_is_operated(kubectl: Kubectl, registry_image: tuple[str, str]):
    """One after the other: they share a namespace and a store. Their programs are real ones, and what each shows is what it waits for."""
    environ = {**kubectl.environment, "CLUSTER": os.environ.get("CLUSTER", "lab")}
    for track, shown in (
        ("kind-serve", ("objects, and the pair of a warmed revision", "applied 14,")),
        ("kind-pull", ("pods reach pods", "HI!", "pruned 2,")),
        ("kind-operator", ("no pod was replaced", "HI! (the new one)", "DriftHealed", "(content of 1)")),
    ):
        words = [str(PROJECT / "demo.sh"), track]
        done = subprocess.run(words, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        told = done.stdout + done.stderr
        assert done.returncode == 0, (track, told[-4000:])
        assert all(text in told for text in shown), (track, [text for text in shown if text not in told], told[-4000:])
