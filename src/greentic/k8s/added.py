"""What others put into an object of ours beside what we state: what is taken back, told, or left (decision 72). Pure.

Rules:
1. `CLOSED` is whom an object reaches, what runs in our containers, with which rights, and what excludes what we state. It is ours alone:
   what another manager adds there is a change, and a conflict with that manager.
2. `TOLD` is what runs or opens something beside that. It stays, for platforms put it there, too; who looks is told. The rest is not told.
3. What no manager owns came from defaults or admission, which would put it back each time: left, but for rules of a network policy.
"""

from __future__ import annotations

import re

from greentic.ground.documents import JsonObject
from greentic.k8s.ownership import Addition, additions

_ITEM = r"\[[^]]*\]"
_POD, _CONTAINER = r"\.spec\.template\.spec\.", rf"containers{_ITEM}"
_RUNS = r"command|lifecycle|envFrom|securityContext\..+|env\[name=(GREENTIC_[^]]*\]|[^]]*\]\.valueFrom)"
_MOUNTS = r"(startup|readiness|liveness)Probe\.(exec|tcpSocket|grpc)|volumeMounts\[[^]]*\]\.subPath(Expr)?|ports\[[^]]*\]\.hostPort"
_HOST = r"hostNetwork|hostPID|hostIPC|shareProcessNamespace|securityContext\..+|volumes\[[^]]*\]\.[^.]+"
CLOSED: dict[str, str] = {
    "Service": r"\.spec\.(selector.+|ports\[[^]]*\])",
    "NetworkPolicy": r"\.spec\.(podSelector.+|ingress|egress)",
    "PodDisruptionBudget": r"\.spec\.(selector.+|maxUnavailable)",
    "ConfigMap": r"\.(data|binaryData).*",
    "Secret": r"\.data.*",
    "Deployment": rf"{_POD}({_HOST}|{_CONTAINER}\.({_RUNS}|{_MOUNTS}))",
}
"""By kind, the paths that are ours alone (rule 1)."""
TOLD: dict[str, str] = {
    "Service": r"\.spec\.(externalIPs|loadBalancerIP|loadBalancerSourceRanges)",
    "Ingress": r"\.spec\.defaultBackend",
    "HorizontalPodAutoscaler": r"\.spec\.behavior",
    "Deployment": rf"\.spec\.paused|{_POD}(initContainers|hostAliases|({_CONTAINER}\.(env|volumeMounts|ports)|containers|volumes){_ITEM})",
}
"""By kind, the paths at which an addition stays and is told (rule 2)."""


def beside(stated: JsonObject, live: JsonObject) -> tuple[list[Addition], list[Addition]]:
    """The additions that are to be taken back, and those to be told."""
    kind = str(stated["kind"])
    found = list(additions(stated, live, unowned=kind == "NetworkPolicy"))
    taken = [a for a in found if re.fullmatch(CLOSED.get(kind, ""), a.change.path)]
    return taken, [a for a in found if a not in taken and re.fullmatch(TOLD.get(kind, ""), a.change.path)]
