"""Where everything of an environment lies (formats: store 1)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from greentic.ground import variables
from greentic.ground.errors import InvalidArgument, NotFound
from greentic.model.environment import DOCUMENT

DEV_SECRETS = (".greentic/dev/.dev.secrets.env", ".greentic/state/dev/.dev.secrets.env")
"""Where secrets for development may lie below an environment's directory, the first that is there."""


class EnvPaths(msgspec.Struct, frozen=True):
    """The paths of one environment directory."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def environment(self) -> Path:
        return self.root / DOCUMENT

    @property
    def runtime(self) -> Path:
        return self.root / "runtime.json"

    @property
    def runtime_config(self) -> Path:
        return self.root / "runtime-config.json"

    @property
    def trust_root(self) -> Path:
        return self.root / "trust-root.json"

    @property
    def audit(self) -> Path:
        return self.root / "audit" / "events.jsonl"

    @property
    def ledger(self) -> Path:
        return self.root / "idempotency-ledger.json"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def revisions(self) -> Path:
        return self.root / "revisions"

    @property
    def in_use(self) -> Path:
        return self.root / "in-use"

    @property
    def signing_key(self) -> Path:
        return self.root / "revision-signing.key"

    def revision(self, revision_id: str) -> Path:
        return self.revisions / revision_id

    def policies(self, bundle_id: str, customer_id: str) -> Path:
        return self.root / "billing-policies" / bundle_id / customer_id

    def ref(self, ref: str) -> Path:
        """The path of an env-relative reference that was checked with `is_contained_ref`."""
        return self.root.joinpath(*ref.split("/"))


def default_store_root() -> Path:
    """`~/.greentic/environments` (formats: store 1). Raises `InvalidArgument` without a home."""
    home = variables.home_directory()
    if home is None:
        raise InvalidArgument("no --store-root and HOME / USERPROFILE not set", hint="--store-root DIR, or set HOME")
    return home / ".greentic" / "environments"


def worked_on(told: Path | None) -> Path:
    """The root for who changes or shows environments. Raises `InvalidArgument` where theirs are said to be on a server."""
    if told is not None:
        return told
    if variables.text("GREENTIC_STORE_URL"):
        raise InvalidArgument(
            "GREENTIC_STORE_URL names a server with the environments, and this program works on a directory",
            hint="--store-root DIR says which, or unset the variable",
        )
    return default_store_root()


def looked_into(told: Path | None) -> Path:
    """The root for who makes no environment: one that was told has to be there. Raises `NotFound`."""
    if told is None:
        return default_store_root()
    if not told.is_dir():
        raise NotFound(
            f"`--store-root {told}` is no directory",
            hint="check the path; who makes an environment there makes the directory, too: gtc op env init",
        )
    return told
