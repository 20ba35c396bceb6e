"""`env status` at a terminal: desired and serving generation of each worker, weights against measured shares, errors, who waits. Pure.

Rules:
1. Counts are since the workers began; two looks at the same workers make rates. Counts that fell (a worker began anew) make none.
"""

from __future__ import annotations

from typing import NamedTuple

from greentic.examine.env_status import EnvStatus, RevisionLine, WorkerLine
from greentic.model.environment import Environment
from greentic.model.naming import revision_name
from greentic.terminal.table_layout import EMPTY, Block, Cell, Column, Line, Table, cell
from greentic.terminal.words import counted, percent, share


class Before(NamedTuple):
    """An earlier look, and how many seconds ago it was."""

    status: EnvStatus
    seconds: float


def env_status(env: Environment, status: EnvStatus, before: Before | None = None) -> list[Block]:
    """Workers, then revisions."""
    blocks: list[Block] = [
        Line((cell(env.environment_id, "bold"), cell(f"{counted(len(status.workers), 'worker')} asked", "dim")))
    ]
    if status.workers:
        of_workers = (
            Column("worker"),
            Column("serves", 1),
            Column("wanted", 3),
            Column("state"),
            Column("unavailable", 2),
        )
        blocks += [EMPTY, Table(of_workers, [_worker(w) for w in status.workers])]
    known = {r.revision_id: revision_name(r) for r in env.revisions}
    earlier = {} if before is None else {r.revision_id: r for r in before.status.revisions}
    columns = (
        Column("revision"), Column("weight", 2, whole=True), Column("measured"), Column("turns", 4, right=True),
        Column("per s", 3, right=True), Column("errors", 1, right=True), Column("running", 5, right=True), Column("parked", 6, right=True),
    )  # fmt: skip
    rows = [
        [
            cell(known.get(r.revision_id, r.revision_id), "bold"), share(r.weight_bps), cell(percent(r.measured_bps) or "-"),
            cell(str(r.turns)), cell(_rate(r, earlier.get(r.revision_id), before)), _errors(r), cell(str(r.in_flight)), cell(str(r.parked)),
        ]
        for r in status.revisions
    ]  # fmt: skip
    return [*blocks, EMPTY, Table(columns, rows)]


def _worker(worker: WorkerLine) -> list[Cell]:
    serving, wanted = worker.serving_digest or "", worker.desired_digest or ""
    if not worker.answers:
        told = cell(worker.error or "does not answer", "red")
    elif worker.error:
        told = cell(worker.error, "yellow")
    elif serving != wanted:
        told = cell("behind", "yellow")
    else:
        told = cell("serves what is wanted", "green")
    return [
        cell(worker.at), _generation(worker.serving_generation, serving), _generation(worker.desired_generation, wanted),
        told, cell(", ".join(worker.unavailable), "red"),
    ]  # fmt: skip


def _generation(number: int | None, digest: str) -> Cell:
    """A generation by its number, which only a sealed environment counts, and by the document that it is."""
    short = digest.removeprefix("sha256:")[:12]
    return cell(f"{number} {short}" if number else short)


def _rate(now: RevisionLine, earlier: RevisionLine | None, before: Before | None) -> str:
    if earlier is None or before is None or now.turns < earlier.turns or before.seconds <= 0:
        return ""
    return f"{(now.turns - earlier.turns) / before.seconds:.1f}"


def _errors(line: RevisionLine) -> Cell:
    if not line.turns:
        return cell("-", "dim")
    return cell(
        f"{line.failures} ({percent(round(line.failures * 10_000 / line.turns))})", "red" if line.failures else "green"
    )
