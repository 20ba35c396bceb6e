"""`/status`: what a worker serves, for programs and people (formats: worker 6)."""

from __future__ import annotations

from greentic import __version__
from greentic.activate.lease import Serving
from greentic.ground.documents import Json, JsonObject
from greentic.ground.optional import lacking
from greentic.materialize.serving_plan import Fault
from greentic.net.addresses import shown
from greentic.telemetry import tracing
from greentic.telemetry.counts import BOUNDS, Counts
from greentic.telemetry.signals import LOGS, METRICS, TRACES


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
        "protections": activation.protections,
        "unavailable": [_fault(deployment, fault) for deployment, fault in activation.unavailable.items()],
        "draining_revisions": [
            {"revision_id": revision_id, "counts": _counts(serving.of(revision_id))} for revision_id in serving.draining
        ],
        "following": serving.following,
        "lacking": list[Json](lacking()),
        "skipped_deployments": {deployment: fault.text for deployment, fault in activation.unavailable.items()},
    }


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
