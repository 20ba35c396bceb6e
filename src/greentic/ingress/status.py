"""`/status`: what a worker serves, for programs and people (spec: worker 4.3)."""

from __future__ import annotations

from greentic import __version__
from greentic.activate.activation import Activation
from greentic.ground.documents import Json, JsonObject

_SIGNAL: JsonObject = {"last_ok_at": None, "last_error_at": None, "last_error": None}


def status(activation: Activation, listen_addr: str, *, draining: bool) -> JsonObject:
    """The status document: the fields of the spec, and a row per revision."""
    active = sum(d.status == "active" for d in activation.env.bundles)
    revisions: list[Json] = [
        {
            "revision_id": r.revision_id,
            "deployment_id": r.deployment_id,
            "bundle_id": r.bundle_id,
            "weight_bps": activation.dispatchers[r.deployment_id].weights[r.revision_id],
            "bundle_digest": r.digest,
            "bundle_source_uri": r.source,
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
        "version": __version__,
        "bundles_active": active,
        "deployments_routed": len(activation.dispatchers),
        "revisions_active": len(activation.revisions),
        "restart_required": False,
        "draining": draining,
        "telemetry": {
            "exporter": "none",
            "installed": False,
            "init_error": None,
            "signals": {"traces": _SIGNAL, "logs": _SIGNAL, "metrics": _SIGNAL},
        },
        "triggers": [],
        "revisions": revisions,
        "protections": activation.protections,
        "skipped_deployments": {deployment: fault.text for deployment, fault in activation.unavailable.items()},
    }
