"""The revenue policy that `bundles add` and `bundles update` write and sign (formats: environment 13).

Rules:
1. Versions of one (bundle, customer) start at 1 and never restart: history that was signed is never overwritten.
2. The signed bytes are pretty JSON without a final newline, keys in declaration order.
3. References to versions are built from ids, never copied from a document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from greentic.ground.documents import Document, pretty
from greentic.ground.errors import RevenuePolicyError, SpecViolation
from greentic.model.environment import BundleDeployment, RevenueShare
from greentic.model.ids import U64, Timestamp, Ulid
from greentic.model.validate import check_revenue_share

POLICY_SCHEMA = "greentic.revenue-policy.v1"

_POLICY_FILE = re.compile(r"v([1-9]\d{0,18})\.json(\.sig)?\Z", re.ASCII)


class RevenuePolicy(Document, frozen=True, kw_only=True):
    schema: str
    version: U64
    deployment_id: Ulid
    env_id: str
    bundle_id: str
    customer_id: str
    revenue_share: list[RevenueShare]
    created_at: Timestamp
    previous_version_ref: str | None = None


def policy_ref(bundle_id: str, customer_id: str, version: int) -> str:
    """The signature's path, relative to the environment directory; the document stands beside it without `.sig`."""
    return f"billing-policies/{bundle_id}/{customer_id}/v{version}.json.sig"


def version_of(file_name: str) -> int:
    """The version in `vN.json` or `vN.json.sig`; 0 for any other name."""
    found = _POLICY_FILE.match(file_name.rsplit("/", 1)[-1])
    return int(found.group(1)) if found else 0


def next_version(deployment: BundleDeployment | None, existing_files: Iterable[str]) -> int:
    """One more than the newest version that a document names or a signature on disk proves (rule 1).

    A document without its signature was never finished; a retry writes it again under the same version.
    """
    committed = version_of(deployment.revenue_policy_ref) if deployment else 0
    signed = max((version_of(name) for name in existing_files if name.endswith(".sig")), default=0)
    return max(committed, signed) + 1


def make_policy(deployment: BundleDeployment, version: int, created_at: str) -> RevenuePolicy:
    """The policy for the deployment's current share. Raises `RevenuePolicyError` for a share that does not sum up."""
    try:
        check_revenue_share(deployment.revenue_share)
    except SpecViolation as error:
        raise RevenuePolicyError(f"revenue-policy spec invalid: {error.message}") from None
    return RevenuePolicy(
        schema=POLICY_SCHEMA,
        version=version,
        deployment_id=deployment.deployment_id,
        env_id=deployment.env_id,
        bundle_id=deployment.bundle_id,
        customer_id=deployment.customer_id,
        revenue_share=deployment.revenue_share,
        created_at=created_at,
        previous_version_ref=(
            policy_ref(deployment.bundle_id, deployment.customer_id, version - 1) if version > 1 else None
        ),
    )


def policy_bytes(policy: RevenuePolicy) -> bytes:
    """The bytes that are signed (rule 2)."""
    return pretty(policy).rstrip(b"\n")
