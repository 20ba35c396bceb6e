"""`/status`: what a worker serves, for programs and people (formats: worker 6).

Rules:
1. Counts belong to a process. Of several, the one that is asked tells of itself, and in `others` what each of the others tells.
2. What waits on a revision is looked up where it waits (`?revision=ID`), so that it does not matter which process parked it, or when.
"""

from __future__ import annotations

from typing import cast

from greentic import __version__
from greentic.activate.lease import Serving
from greentic.ground.documents import Json, JsonObject, parse
from greentic.ground.optional import lacking
from greentic.materialize.serving_plan import Fault
from greentic.model.ids import check_ulid
from greentic.net.addresses import shown
from greentic.telemetry import tracing
from greentic.telemetry.counts import BOUNDS, Counts
from greentic.telemetry.readings import Told
from greentic.telemetry.signals import LOGS, METRICS, TRACES

_BRIEF = ("env_id", "process", "draining", "draining_revisions", "unavailable", "following")


def status(serving: Serving, listen_addr: str, *, draining: bool) -> JsonObject:
    """The status document: the fields of the spec, and a row per revision."""
    activation = serving.activation
    active = sum(d.status == "active" for d in activation.env.bundles)
    revisions: list[Json] = [
        {
            "revision_id": r.revision_id,
            "deployment_id": r.deployment_id,
            "bundle_id": r.bundle_id,
            "weight_bps": activation.dispatchers[r.deployment_id].weights[r.revision_id],
            "bundle_digest": r.digest,
            "bundle_source_uri": None if r.source is None else shown(r.source),
            "counts": _counts(serving.of(r.revision_id)),
            "control": _counts(serving.control[r.revision_id]) if r.revision_id in serving.control else None,
            "packs": [
                {
                    "pack_id": p.pack_id,
                    "version": p.version,
                    "digest": p.digest,
                    "signed": p.signed,
                    "components": list[Json](c.id for c in p.components),
                    "flows": list[Json](f.flow_id for f in p.flows),
                }
                for p in r.packs
            ],
            "load_warnings": [f"{p.pack_id}: {warning}" for p in r.packs for warning in p.warnings],
        }
        for r in activation.revisions.values()
    ]
    return {
        "schema": "greentic.status.v1",
        "env_id": activation.env.environment_id,
        "listen_addr": listen_addr,
        "process": serving.process,
        "version": __version__,
        "bundles_active": active,
        "deployments_routed": len(activation.dispatchers),
        "revisions_active": len(activation.revisions),
        "restart_required": False,
        "draining": draining,
        "telemetry": _telemetry(),
        "triggers": [],
        "revisions": revisions,
        "others": [],
        "silent": 0,
        "protections": activation.protections,
        "unavailable": [_fault(deployment, fault) for deployment, fault in activation.unavailable.items()],
        "draining_revisions": [
            {"revision_id": revision_id, "counts": _counts(serving.of(revision_id))} for revision_id in serving.draining
        ],
        "following": serving.following,
        "lacking": list[Json](lacking()),
        "skipped_deployments": {deployment: fault.text for deployment, fault in activation.unavailable.items()},
    }


def brief(document: JsonObject) -> JsonObject:
    """What a process tells of itself by way of another one (rule 1)."""
    rows = cast("list[JsonObject]", document["revisions"])
    left = {"packs", "load_warnings", "bundle_source_uri"}
    short = list[Json]({k: v for k, v in row.items() if k not in left} for row in rows)
    return {k: document[k] for k in _BRIEF} | {"revisions": short}


def with_others(document: JsonObject, told: Told) -> JsonObject:
    """The status of a process with what the others of its worker tell."""
    return {**document, "others": [parse(other) for other in told.statuses], "silent": told.silent}


def revision_of(query: bytes) -> str | None:
    """The revision that a caller asks about (rule 2). Raises `InvalidArgument`."""
    found = [part[9:] for part in query.split(b"&") if part.startswith(b"revision=")]
    return check_ulid(found[-1].decode("latin-1"), field="revision") if found else None


def _telemetry() -> JsonObject:
    """Where this process sends what it tells, and whether that arrives."""
    sends = tracing.installed() is not None
    return {
        "exporter": "otlp" if sends else "none",
        "installed": sends,
        "init_error": tracing.refused(),
        "signals": {"traces": TRACES.told(), "logs": LOGS.told(), "metrics": METRICS.told()},
    }


def _counts(counts: Counts) -> JsonObject:
    """What happened to the turns of a revision, or of a slice of it; the histogram with its upper bounds in seconds."""
    found = counts.snapshot()
    return {
        "turns": found.turns,
        "failures": dict[str, Json](found.failures),
        "in_flight": found.in_flight,
        "parked": found.parked,
        "seconds": round(found.seconds, 6),
        "latency": {"bounds": list[Json](BOUNDS), "counts": list[Json](found.buckets)},
    }


def _fault(deployment_id: str, fault: Fault) -> JsonObject:
    return {
        "deployment_id": deployment_id,
        "revision_id": fault.revision_id,
        "reason": fault.reason,
        "error": fault.text,
    }
