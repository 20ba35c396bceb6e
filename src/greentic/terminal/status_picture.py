"""`env status` and `env verify` at a terminal: desired and serving generation of each worker, weights against measured shares, errors, who
waits; what each proved, and in what it differs. Pure.

Rules:
1. Counts are since the workers began; two looks at the same workers make rates. Counts that fell (a worker began anew) make none.
"""

from __future__ import annotations

from typing import NamedTuple

from greentic.deployments.env_status import EnvStatus, RevisionLine, WorkerLine
from greentic.examine.env_verify import EnvVerified
from greentic.model.environment import Environment
from greentic.model.naming import revision_name
from greentic.terminal.table_layout import EMPTY, Block, Cell, Column, Line, Prose, Table, cell
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
            Column("worker", tells_apart=True),
            Column("serves", 1),
            Column("wanted", 3),
            Column("state", tells_apart=True),
            Column("unavailable", 2),
        )
        blocks += [EMPTY, Table(of_workers, [_worker(w) for w in status.workers])]
    known = {r.revision_id: revision_name(r) for r in env.revisions}
    earlier = {} if before is None else {r.revision_id: r for r in before.status.revisions}
    columns = (
        Column("revision", tells_apart=True), Column("weight", 2, whole=True), Column("measured"), Column("turns", 4, right=True),
        Column("per s", 3, right=True), Column("errors", 1, right=True), Column("running", 5, right=True), Column("parked", 6, right=True),
    )  # fmt: skip
    rows = [
        [
            cell(known.get(r.revision_id, r.revision_id), "bold"), share(r.weight_bps), cell(percent(r.measured_bps) or "-"),
            cell(str(r.turns)), cell(_rate(r, earlier.get(r.revision_id), before)), _errors(r), cell(str(r.in_flight)), cell(str(r.parked)),
        ]
        for r in status.revisions
    ]  # fmt: skip
    return [*blocks, EMPTY, Table(columns, rows), *_warned(status.warnings or [])]


def _warned(warnings: list[str]) -> list[Block]:
    """What is to be known, below everything else."""
    return [EMPTY, *(Prose((cell("warning:", "yellow"), cell(text))) for text in warnings)] if warnings else []


_VERDICTS = {"serves": "green", "behind": "yellow"}


def env_verified(env: Environment, found: EnvVerified, *, wide: bool) -> list[Block]:
    """The verdict, what each worker proved, in what it differs, and what is to be known of it."""
    of_workers = (
        Column("worker", tells_apart=True), Column("state"), Column("behind", 1, right=True), Column("generation", 2, right=True),
        Column("key", 3, whole=True), Column("version", 4), Column("process", 5),
    )  # fmt: skip
    rows = [
        [
            cell(w.at), cell(w.state, _VERDICTS.get(w.state, "red")), cell(str(w.behind) if w.behind else ""), cell(_told(w.generation)),
            cell(w.key_id or "") if wide else cell((w.key_id or "")[:12]), cell(w.version or ""), cell(w.process or ""),
        ]
        for w in found.workers
    ]  # fmt: skip
    verdict = cell(found.state, _VERDICTS.get(found.state, "red"))
    generation = cell(f"generation {found.generation}", "dim")
    blocks: list[Block] = [
        Line((cell(env.environment_id, "bold"), verdict, generation)),
        EMPTY,
        Table(of_workers, rows),
    ]
    reasons = [
        Prose((cell(f"{w.at}:", "dim"), cell(w.reason.removeprefix(f"{w.at} "), "red")))
        for w in found.workers
        if w.reason
    ]
    blocks += [EMPTY, *reasons] if reasons else []
    if found.differences:
        known = {r.revision_id: revision_name(r) for r in env.revisions}
        differs = (
            Column("worker", 2, tells_apart=True), Column("revision", tells_apart=True), Column("field"),
            Column("wanted", 1, tells_apart=True), Column("found", tells_apart=True),
        )  # fmt: skip
        told = [
            [cell(d.at), cell(known.get(d.revision_id, d.revision_id)), cell(d.field, "bold"), cell(d.expected), cell(d.found, "red")]
            for d in found.differences
        ]  # fmt: skip
        blocks += [EMPTY, Table(differs, told)]
    return [*blocks, *_warned(found.warnings)]


def _told(number: int | None) -> str:
    return "" if number is None else str(number)


def _worker(worker: WorkerLine) -> list[Cell]:
    serving, wanted = worker.serving_digest or "", worker.desired_digest or ""
    if not worker.answers:
        told = cell((worker.error or "does not answer").removeprefix(f"{worker.at} "), "red")
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
