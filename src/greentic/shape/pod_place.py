"""What a shape says of where a pod runs and how much it takes, in the words of a pod. Pure.

The same for routers, workers and the operator's pod.
"""

from __future__ import annotations

from typing import cast

import msgspec

from greentic.ground.documents import Json, JsonObject
from greentic.shape.placement import LabelSelector, Spread
from greentic.shape.pod_shape import Shape


def resources(shape: Shape) -> JsonObject:
    """The `resources` of a container."""
    return {
        part: {name: amount.text for name, amount in told.items()}
        for part, told in (("requests", shape.requests), ("limits", shape.limits))
        if told
    }


def placed(shape: Shape, selector: JsonObject) -> JsonObject:
    """Where the pod may run, and as whom, as far as it was answered; constraints without a selector count the pods themselves."""
    own = LabelSelector({key: str(value) for key, value in selector.items()})
    spread: list[Spread] = [
        msgspec.structs.replace(s, label_selector=own) if s.label_selector is None else s
        for s in shape.topology_spread or []
    ]
    account = None if shape.account is None else shape.account.name
    told: dict[str, object] = {
        "nodeSelector": shape.node_selector, "tolerations": shape.tolerations, "affinity": shape.affinity,
        "topologySpreadConstraints": spread, "priorityClassName": shape.priority_class, "serviceAccountName": account,
    }  # fmt: skip
    return {key: cast(Json, msgspec.to_builtins(value)) for key, value in told.items() if value}
