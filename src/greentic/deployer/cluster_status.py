"""`op env status` where a cluster is bound: what workers say, and what the cluster's controllers say of what has to be acted on.

Rules:
1. The cluster is asked only about what controllers judge (`cluster.verdicts`) and namespaces that were left, where there is any of it.
2. That it cannot be asked is told and fails nothing: who looks at workers may have no way to the cluster.
"""

from __future__ import annotations

from greentic.cluster.live import list_if_there
from greentic.cluster.verdicts import remarks
from greentic.controller.left_behind import left_behind
from greentic.deployer.binding import is_kubernetes, resolve
from greentic.deployer.cluster_identity import reach
from greentic.deployments import env_status
from greentic.deployments.env_status import EnvStatus, EnvStatusPayload
from greentic.ground.documents import replace
from greentic.ground.errors import GreenticError
from greentic.history.left_namespaces import left_in
from greentic.k8s import names
from greentic.k8s.answers import Answers
from greentic.k8s.plan import is_ours
from greentic.model.environment import Environment
from greentic.model.ids import check_env_id
from greentic.operate.change import Context

SECONDS = 5.0
"""How long a server that is away is tried again."""


def status(context: Context, payload: EnvStatusPayload) -> EnvStatus:
    """What is wanted, what workers serve, and, as warnings, what is in the way in the cluster."""
    env = context.store.load(check_env_id(payload.environment_id))
    told = env_status.status_of(context, env, payload)
    if not is_kubernetes(env.binding("deployer")):
        return told
    try:
        found = _said(context, env)
    except GreenticError as error:
        found = [f"the cluster was not asked: {error.message}"]
    return replace(told, warnings=found) if found else told


def _said(context: Context, env: Environment) -> list[str]:
    """What controllers say of this environment's objects. Raises `GreenticError` where they cannot be asked."""
    paths = context.store.paths(env.environment_id)
    deployer = resolve(context, env.environment_id, None, live=False, loaded=env)
    kinds = _judged(deployer.answers)
    namespaces = left_in(paths, deployer.answers.namespace)
    if not kinds and not namespaces:
        return []
    cluster = reach(context, deployer, patience=SECONDS).cluster
    left = left_behind(cluster, namespaces, deployer.owner).told
    namespace, selector = deployer.answers.namespace, names.owner_selector(env.environment_id)
    listed = [thing for kind in kinds for thing in list_if_there(cluster, kind, namespace, selector, needed=True)]
    return [*left, *remarks([thing for thing in listed if is_ours(thing, deployer.owner)])]


def _judged(answers: Answers) -> list[str]:
    """The kinds that are answered and that controllers say something about (rule 1)."""
    scaled = any(shape.autoscale is not None for shape in (answers.router, answers.worker))
    routed = answers.exposure is not None and answers.exposure.gateway is not None
    return [*(["HorizontalPodAutoscaler"] if scaled else []), *(["HTTPRoute"] if routed else [])]
