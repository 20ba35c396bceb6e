"""Names and labels of the objects of an environment (formats: cluster 2). Pure.

Rules:
1. The namespace is the answered one, else derived from the environment's id; an id that is no legal name gets a hash.
2. A worker's objects are named by its revision, in lower case.
3. A label's value is the id itself where that is legal, else a legal form of it with a hash; selectors and lookups use the same
   function, so that both sides agree.
4. Every object carries the identity of the store that made it. Two stores with an environment of the same name differ.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from greentic.ground.documents import JsonObject
from greentic.model.environment import Revision
from greentic.shape.syntax import is_dns_label, is_label_value

ROUTER = "gtc-router"
ENV_STORE, RUNTIME_CONFIG = "gtc-env-store", "gtc-runtime-config"
DEV_SECRETS, SESSION_KEY = "gtc-dev-secrets", "gtc-session-key"
IDENTITY_SECRET = "greentic-deployer-identity"  # noqa: S105  a name
FIELD_MANAGER = "greentic-deployer"

MANAGED_BY, COMPONENT = "app.kubernetes.io/managed-by", "app.kubernetes.io/component"
ENV, STORE = "greentic.ai/env", "greentic.ai/store"
BUNDLE, DEPLOYMENT, REVISION = "greentic.ai/bundle", "greentic.ai/deployment", "greentic.ai/revision"
CHECKSUM, DEV_STORE_HASH = "greentic.ai/checksum", "greentic.ai/dev-store-hash"
KINDS = "greentic.ai/kinds"
"""On the document's ConfigMap: which kinds of `k8s.plan.MARKED` the environment may have in its namespace."""
HURRIED = "greentic.ai/hurried"
"""On a pod: touched so that the kubelet looks at its mounts now. What it says means nothing."""
MANAGER = "greentic"

MAX_NAME = 63
_STEM = 50


def namespace_of(env_id: str) -> str:
    """The namespace of an environment that answers none (rule 1)."""
    if is_dns_label(env_id) and len(env_id) + 4 <= MAX_NAME:
        return f"gtc-{env_id}"
    hash_ = hashlib.sha256(env_id.encode()).hexdigest()[:8]
    stem = re.sub(r"[^a-z0-9]", "-", env_id.lower()).strip("-")[:_STEM].rstrip("-")
    return f"gtc-{stem}-{hash_}" if stem else f"gtc-{hash_}"


def worker_name(revision_id: str) -> str:
    """The name of the Deployment and the Service of one revision (rule 2)."""
    return f"gtc-worker-{revision_id.lower()}"


def label_value(text: str) -> str:
    """`text` as a label's value (rule 3)."""
    if is_label_value(text):
        return text
    hash_ = hashlib.sha256(text.encode()).hexdigest()[:8]
    stem = re.sub(r"[^A-Za-z0-9_.-]", "-", text).strip("-_.")[:_STEM].rstrip("-_.")
    return f"{stem}-{hash_}" if stem else f"x-{hash_}"


def store_identity(env_directory: Path) -> str:
    """The identity of the store that holds an environment: `s-` and 16 hex digits of its canonical directory (rule 4)."""
    return f"s-{hashlib.sha256(str(env_directory.resolve()).encode()).hexdigest()[:16]}"


def owner_labels(env_id: str, store: str) -> JsonObject:
    """What every object of one store's environment carries."""
    return {MANAGED_BY: MANAGER, ENV: label_value(env_id), STORE: store}


def worker_labels(env_id: str, revision: Revision) -> JsonObject:
    """The labels of a worker's pods, without the store's identity."""
    return {
        COMPONENT: "worker",
        MANAGED_BY: MANAGER,
        BUNDLE: label_value(revision.bundle_id),
        DEPLOYMENT: label_value(revision.deployment_id),
        ENV: label_value(env_id),
        REVISION: label_value(revision.revision_id),
    }


def component_labels(env_id: str, component: str) -> JsonObject:
    """The labels that select the pods of one component of an environment."""
    return {COMPONENT: component, MANAGED_BY: MANAGER, ENV: label_value(env_id)}


def owner_selector(env_id: str) -> str:
    """The label selector that finds what was made for an environment, by whatever store."""
    return f"{MANAGED_BY}={MANAGER},{ENV}={label_value(env_id)}"
