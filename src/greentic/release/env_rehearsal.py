"""Whether a plan of `env apply` would be refused on the way, before anything of it is done.

Rules:
1. The document is made as each step would leave it, by the functions of the verbs that carry the steps out, and is checked as it is
   before it is saved. What is signed or minted later stands in it as a placeholder.
2. Of a bundle that is at hand everything is asked that staging asks. With `packs_load` its packs are loaded, too, which warming does.
3. Nothing is written, and no server is asked but for the signatures of a bundle, where the environment wants them.
"""

from __future__ import annotations

from pathlib import Path

from greentic.author.inspect import verify_bundle
from greentic.bundle.contents import open_bundle, pack_paths
from greentic.deployments import bundles, stage
from greentic.ground.clock import timestamp
from greentic.ground.disk import RealDisk, io_error
from greentic.ground.documents import open_file, replace
from greentic.ground.errors import GreenticError
from greentic.materialize.placed import configs_of
from greentic.model.environment import DIGEST_PLACEHOLDER, Environment, EnvPackBinding, PackListEntry, SplitEntry
from greentic.model.lifecycle import with_current_revisions
from greentic.model.local import fresh_local, healed_local
from greentic.model.revision_files import make_lock, pack_list
from greentic.model.traffic import check_weights
from greentic.model.validate import validate
from greentic.operate import config, env_init, env_packs, trust_root
from greentic.operate.change import Context
from greentic.operate.env import checked_public_url
from greentic.release.env_plan import (
    BindExtension,
    BindPack,
    DeployBundle,
    Plan,
    Step,
    add_payload,
    bound_extension,
    deployed,
    stage_payload,
)
from greentic.store.environments import readable
from greentic.store.operator_key import load as load_operator_key
from greentic.store.signed_policy import check_trusted
from greentic.trust.gate import pin


def rehearse(context: Context, env_id: str, plan: Plan, *, packs_load: bool) -> None:
    """Raise what carrying out the plan would raise, as far as it can be known (rules 1, 2)."""
    store = context.store
    env = store.load(env_id) if store.exists(env_id) else fresh_local(None)
    is_trusted = False
    for step in plan.todo:
        doing, new = step.doing, _placeholder(len(env.bundles))
        is_trusted |= isinstance(doing, env_init.EnvInitPayload | trust_root.TrustRootBootstrapPayload)
        try:
            if not is_trusted and _signs(doing, env):
                check_trusted(load_operator_key(RealDisk()), store.trust_root(env_id), store.paths(env_id))
            env = _after(context, env, step, packs_load)
            validate(env)
            readable(env, store.paths(env_id).environment)
        except GreenticError as error:
            told = error.message.replace(new, step.key)
            error.message = f"{step.kind} {step.key}: {told}"
            raise


def _signs(doing: object, env: Environment) -> bool:
    """Whether a step needs the operator's key."""
    if isinstance(doing, DeployBundle):
        return deployed(env, doing.bundle.bundle_id, doing.customer_id) is None
    return isinstance(doing, bundles.BundleUpdatePayload) and doing.revenue_share is not None


def _after(context: Context, env: Environment, step: Step, packs_load: bool) -> Environment:
    """The document as a step leaves it (rule 1)."""
    doing = step.doing
    if isinstance(doing, env_init.EnvInitPayload):
        url = checked_public_url(doing.public_url)
        return healed_local(replace(env, host_config=replace(env.host_config, public_base_url=url)))[0]
    if isinstance(doing, config.ConfigSetPayload):
        return config.configured(env, doing)
    if isinstance(doing, trust_root.TrustRootBootstrapPayload):
        return env
    if isinstance(doing, bundles.BundleUpdatePayload):
        changed = bundles.updated(bundles.find_deployment(env, doing.deployment_id), doing)
        return replace(env, bundles=[changed if d.deployment_id == doing.deployment_id else d for d in env.bundles])
    if isinstance(doing, BindPack):
        wanted = doing.payload
        binding = env_packs.checked_binding(wanted.slot, wanted.kind, wanted.pack_ref, wanted.answers_ref)
        return replace(env, packs=[*_others(env, binding), binding])
    if isinstance(doing, BindExtension):
        current = bound_extension(env, doing.binding)
        return replace(env, extensions=[*(e for e in env.extensions if e != current), doing.binding])
    return _deployed(context, env, doing, packs_load)


def _others(env: Environment, binding: EnvPackBinding) -> list[EnvPackBinding]:
    return [b for b in env.packs if b.slot != binding.slot]


def _deployed(context: Context, env: Environment, doing: DeployBundle, packs_load: bool) -> Environment:
    env_id, at = env.environment_id, timestamp(context.clock.now_ns())
    deployment = deployed(env, doing.bundle.bundle_id, doing.customer_id)
    if deployment is None:
        deployment = bundles.made(add_payload(env_id, doing), _placeholder(len(env.bundles)), at)
        env = replace(env, bundles=[*env.bundles, deployment])
    entries: list[SplitEntry] = []
    for wanted, artifact in doing.wanted:
        payload = stage_payload(env_id, deployment.deployment_id, wanted, artifact)
        revision_id = _placeholder(len(env.revisions))
        packs = [] if artifact.path is None else _packs(artifact.path, env_id, deployment.bundle_id, packs_load)
        revision = stage.revision_of(
            payload, revision_id=revision_id, env_id=env_id, bundle_id=deployment.bundle_id,
            deployment_id=deployment.deployment_id, digest=artifact.digest, packs=packs, lock="", configs=[],
        )  # fmt: skip
        if artifact.path is not None and context.store.exists(env_id):
            revision = stage.with_publisher(context, env, revision, payload)
        revision = replace(revision, sequence=1, created_at=at, staged_at=at)
        env = replace(env, revisions=[*env.revisions, revision])
        entries.append(SplitEntry(revision_id=revision_id, weight_bps=wanted.weight_bps))
    check_weights(entries)
    return with_current_revisions(env, [deployment.deployment_id])


def _placeholder(number: int) -> str:
    """A ULID that nobody has: those of the clock are larger."""
    return f"{number:026d}"


def _packs(path: Path, env_id: str, bundle_id: str, packs_load: bool) -> list[PackListEntry]:
    """The packs of a bundle, which is asked what staging asks (rule 2)."""
    try:
        with open_file(path) as file:
            contents = open_bundle(pin(file))
            lock = make_lock("", dict.fromkeys(pack_paths(contents.entries), DIGEST_PLACEHOLDER))
            list(configs_of(contents, lock, env_id=env_id, bundle_id=bundle_id, revision_id=""))
        if packs_load:
            verify_bundle(path, None)
    except OSError as error:
        raise io_error(path, error) from None
    return pack_list(lock, {})
