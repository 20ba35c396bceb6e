"""What makes a pod meet the *restricted* pod security profile, whoever renders it: workers, routers, the operator. Pure."""

from __future__ import annotations

from greentic.ground.documents import JsonObject


def restricted_container() -> JsonObject:
    """The `securityContext` of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def restricted_pod(user: int | None) -> JsonObject:
    """The `securityContext` of a pod; without a user the cluster assigns one."""
    return {
        "runAsNonRoot": True,
        **({} if user is None else {"runAsUser": user, "runAsGroup": user, "fsGroup": user}),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
