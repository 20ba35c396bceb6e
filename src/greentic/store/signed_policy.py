"""Writing the signed revenue policy of a deployment (spec: env-store-and-op 5.5)."""

from __future__ import annotations

import hashlib

from greentic.ground.clock import Clock, timestamp
from greentic.ground.errors import RevenuePolicyError
from greentic.model.environment import BundleDeployment
from greentic.model.revenue_policy import make_policy, next_version, policy_bytes, policy_ref
from greentic.store.files import Files
from greentic.store.layout import EnvPaths
from greentic.trust.dsse import SignatureError, envelope_bytes, read_envelope, sign, statement, verify_envelope
from greentic.trust.keys import SigningKey
from greentic.trust.root import TrustRoot

PREDICATE_TYPE = "greentic.revenue-policy-predicate.v1"


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
        "schema": PREDICATE_TYPE,
        "signed_at": now,
        "version": version,
    }
    if policy.previous_version_ref is not None:
        predicate["previous_version_ref"] = policy.previous_version_ref
    name = f"v{version}.json"
    files.write(directory / name, document)
    files.write(
        directory / f"{name}.sig", envelope_bytes(sign(statement(name, digest, PREDICATE_TYPE, predicate), key))
    )
    try:
        written = hashlib.sha256((directory / name).read_bytes()).hexdigest()
        verify_envelope(read_envelope((directory / f"{name}.sig").read_bytes()), root.public_keys(), written)
    except (SignatureError, OSError) as error:
        raise RevenuePolicyError(f"the signature of `{directory / name}` does not verify: {error}") from None
    return policy_ref(deployment.bundle_id, deployment.customer_id, version)
