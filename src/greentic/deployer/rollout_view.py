"""Rollouts, and what pods serve, as rows for whoever watches: what is not ready comes first. Pure but for handing the rows on."""

from __future__ import annotations

from greentic.cluster.served import Served
from greentic.k8s.health import Rollout
from greentic.operate.view import Row, View


def rows(rollouts: dict[str, tuple[Rollout, str]]) -> list[Row]:
    """By Deployment, how far it is and what ails its pods; the ready ones last, each group by name."""
    waiting = sorted(rollouts.items(), key=lambda entry: (entry[1][0].done, entry[0]))
    return [
        Row(name, f"{state.available}/{state.wanted}", f"{state.updated}/{state.wanted}", state.done, ails)
        for name, (state, ails) in waiting
    ]


def served_rows(pods: dict[str, Served]) -> list[Row]:
    """By pod, whether it serves the document and what ails it; those that do last, each group by name."""
    waiting = sorted(pods.items(), key=lambda entry: (entry[1].done, entry[0]))
    return [Row(name, f"{said.done:d}/1", "1/1", said.done, said.ails) for name, said in waiting]


class RolloutView:
    """What waiting shows its progress to, over a verb's view."""

    def __init__(self, view: View) -> None:
        self._view = view

    def show(self, rollouts: dict[str, tuple[Rollout, str]]) -> None:
        self._view.show(rows(rollouts))

    def show_served(self, pods: dict[str, Served]) -> None:
        self._view.show(served_rows(pods))
