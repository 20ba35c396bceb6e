"""Writing the signed revenue policy of a deployment (formats: environment 13)."""

from __future__ import annotations

import hashlib

from greentic.ground.clock import Clock, timestamp
from greentic.ground.errors import RevenuePolicyError
from greentic.model.environment import BundleDeployment
from greentic.model.revenue_policy import make_policy, next_version, policy_bytes, policy_ref
from greentic.store.files import Files
from greentic.store.layout import EnvPaths
from greentic.trust.dsse import envelope_bytes
from greentic.trust.keys import SigningKey
from greentic.trust.root import TrustRoot
from greentic.trust.statements import REVENUE_POLICY, signed_statement, vouched


def check_trusted(key: SigningKey, root: TrustRoot, paths: EnvPaths) -> None:
    """Raise `RevenuePolicyError` unless the operator's key is in the environment's trust root."""
    if not root.trusts(key.key_id):
        raise RevenuePolicyError(
            f"operator key `{key.key_id}` is not trusted in env `{paths.root}` (not present in `trust-root.json`); run "
            "`gtc op trust-root bootstrap <env-id>` first, or restore the key via `gtc op trust-root add`"
        )


def write_policy(
    paths: EnvPaths, files: Files, clock: Clock, key: SigningKey, root: TrustRoot,
    deployment: BundleDeployment, *, is_new: bool,
) -> str:  # fmt: skip
    """Write and sign the next version for the deployment's share; returns its reference.

    The document comes first, its signature second, and both are read back and verified. Raises `RevenuePolicyError`.
    """
    directory = paths.policies(deployment.bundle_id, deployment.customer_id)
    existing = [p.name for p in directory.iterdir()] if directory.is_dir() else []
    version = next_version(None if is_new else deployment, existing)
    now = timestamp(clock.now_ns())
    policy = make_policy(deployment, version, now)
    document = policy_bytes(policy)
    digest = hashlib.sha256(document).hexdigest()
    predicate: dict[str, object] = {
        "bundle_id": deployment.bundle_id,
        "customer_id": deployment.customer_id,
        "deployment_id": deployment.deployment_id,
        "env_id": deployment.env_id,
        "schema": REVENUE_POLICY.predicate_type,
        "signed_at": now,
        "version": version,
    }
    if policy.previous_version_ref is not None:
        predicate["previous_version_ref"] = policy.previous_version_ref
    name = f"v{version}.json"
    files.write(directory / name, document)
    files.write(
        directory / f"{name}.sig", envelope_bytes(signed_statement(REVENUE_POLICY, name, digest, predicate, key))
    )
    try:
        written = hashlib.sha256((directory / name).read_bytes()).hexdigest()
        signature = (directory / f"{name}.sig").read_bytes()
    except OSError as error:
        raise RevenuePolicyError(f"the signature of `{directory / name}` does not verify: {error}") from None
    found = vouched(REVENUE_POLICY, [signature], written, root.public_keys())
    if found.lacking is not None or found.statement is None or found.statement.predicate != predicate:
        raise RevenuePolicyError(
            f"the signature of `{directory / name}` does not verify: {found.lacking or 'it says something else'}"
        )
    return policy_ref(deployment.bundle_id, deployment.customer_id, version)
