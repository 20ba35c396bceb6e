"""What a worker is told by arguments, environment variables and the environment document (spec: worker 1, 4.1).

Rules, each a pure function of values:
1. Environment id: `--env`, else `GREENTIC_ENV`, else `local`; the old name `dev` means `local`.
2. Bind address, later wins: 127.0.0.1:8080, the document's `listen_addr`, `GREENTIC_GATEWAY_LISTEN_ADDR`,
   `GREENTIC_GATEWAY_PORT`, `PORT`. A value that makes no sense is warned about and ignored.
3. The port that was asked for, or one of the next ten; in strict mode that port or none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from greentic.distribute.bundle_cache import DEFAULT_MAX_BYTES, cache_directory, max_bytes
from greentic.distribute.fetch import FetchLimits, fetch_limits
from greentic.ground import variables
from greentic.ground.errors import BootError, GreenticError, InvalidArgument
from greentic.materialize.serving_plan import Scope
from greentic.model.hosts import DEFAULT_LISTEN, join_listen_addr, split_listen_addr
from greentic.model.ids import LOCAL_ENV
from greentic.pack.signature import SignaturePolicy, read_signature_policy
from greentic.store.layout import default_store_root

OLD_NAME = "dev"
MORE_PORTS = 10
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"off", "false", "0", "no", "disabled"})


class StartOptions(NamedTuple):
    """The arguments of `greentic-start start` that a worker acts on."""

    env: str | None = None
    store_root: Path | None = None
    strict_port: bool = False
    level: str = "info"
    workers: int | None = None
    trust_anchor: Path | None = None
    archive: Path | None = None
    """An exported environment to boot from, without a network."""

    def arguments(self) -> list[str]:
        """The command line of another process of the same worker."""
        words = ["start"]
        if self.env is not None:
            words += ["--env", self.env]
        if self.store_root is not None:
            words += ["--store-root", str(self.store_root)]
        if self.trust_anchor is not None:
            words += ["--trust-anchor", str(self.trust_anchor)]
        return words if self.level == "info" else [*words, "--verbose" if self.level == "debug" else "--quiet"]


class SessionSettings(NamedTuple):
    """Where conversations wait, and for how long."""

    redis_url: str = ""
    namespace: str = ""
    """The prefix of their keys in Redis; empty for the environment's own."""
    wait_seconds: int | None = 86_400
    shared_directory: Path | None = None
    """Where the processes of one worker keep them."""


class Settings(NamedTuple):
    """What a boot is told, read once; nothing on the way reads a variable."""

    env_id: str
    store_root: Path
    warnings: tuple[str, ...] = ()
    level: Literal["debug", "info", "warn"] = "info"
    seed: Path | None = None
    archive: Path | None = None
    scope: Scope = Scope()
    trust_anchor: Path | None = None
    allow_rollback: bool = False
    pack_signatures: SignaturePolicy = SignaturePolicy()
    signing_key_file: Path | None = None
    sessions: SessionSettings = SessionSettings()
    cache_directory: Path | None = None
    cache_bytes: int = DEFAULT_MAX_BYTES
    fetch: FetchLimits = FetchLimits()
    offline: bool = False


def read_settings(options: StartOptions, environ: Mapping[str, str]) -> Settings:
    """All that a boot is told. Raises `BootError` for what makes no sense."""
    try:
        told = env_id(options.env, environ)
        sessions = SessionSettings(
            variables.text("GREENTIC_RUNNER_REDIS_URL", environ),
            variables.text("GREENTIC_RUNNER_SESSION_NAMESPACE", environ),
            wait_seconds(environ),
            variables.path("GREENTIC_SHARED_SESSIONS", environ),
        )
        return Settings(
            env_id=told.value,
            store_root=options.store_root or default_store_root(),
            warnings=told.warnings,
            level="debug" if options.level == "debug" else "warn" if options.level == "warn" else "info",
            seed=variables.path("GREENTIC_SEED_DIR", environ),
            archive=options.archive,
            scope=Scope(own_revision(environ), own_scope(environ), require_all=True),
            trust_anchor=options.trust_anchor or variables.path("GREENTIC_TRUST_ANCHOR", environ),
            allow_rollback=variables.switch("GREENTIC_ALLOW_ROLLBACK", environ),
            pack_signatures=signature_policy(environ),
            signing_key_file=variables.path("GREENTIC_SIGNING_KEY_FILE", environ),
            sessions=sessions,
            cache_directory=cache_directory(environ),
            cache_bytes=max_bytes(environ),
            fetch=fetch_limits(environ),
            offline=options.archive is not None or variables.switch("GREENTIC_OFFLINE", environ),
        )
    except (ValueError, GreenticError) as error:
        raise error if isinstance(error, BootError) else BootError(str(error)) from None


class Told(NamedTuple):
    """A value with the warnings that went with finding it."""

    value: str
    warnings: tuple[str, ...] = ()


def env_id(option: str | None, environ: Mapping[str, str]) -> Told:
    """Which environment to serve (rule 1). Raises `ValueError` where the old name is switched off."""
    text = option or environ.get("GREENTIC_ENV") or LOCAL_ENV
    if text != OLD_NAME:
        return Told(text)
    if environ.get("GREENTIC_DISABLE_DEV_ALIAS", "").strip().lower() in _YES:
        raise ValueError("the environment name `dev` is no longer accepted; use `local`")
    return Told(LOCAL_ENV, ("the environment name `dev` is old; serving `local`",))


def own_revision(environ: Mapping[str, str]) -> str | None:
    """The revision that this worker is for, in upper case; blank counts as unset."""
    return environ.get("GREENTIC_REVISION_ID", "").strip().upper() or None


def own_scope(environ: Mapping[str, str]) -> bool:
    """Whether this worker serves its own revision and nothing else."""
    return environ.get("GREENTIC_REVISION_SCOPE", "").strip().lower() == "own"


def given_file(environ: Mapping[str, str], variable: str) -> Path | None:
    """A file that a variable names, such as one mounted from a Secret."""
    text = environ.get(variable, "").strip()
    return Path(text) if text else None


def bind_address(listen_addr: str | None, environ: Mapping[str, str]) -> Told:
    """Where to listen (rule 2)."""
    warnings: list[str] = []
    host, port = split_listen_addr(DEFAULT_LISTEN)
    if listen_addr:
        host, port = split_listen_addr(listen_addr)
    gateway = environ.get("GREENTIC_GATEWAY_LISTEN_ADDR", "").strip()
    if gateway:
        try:
            host, port = split_listen_addr(gateway)
        except ValueError:
            try:
                host = str(ipaddress.ip_address(gateway.strip("[]")))
            except ValueError:
                warnings.append(f"GREENTIC_GATEWAY_LISTEN_ADDR=`{gateway}` is neither ip:port nor an ip; ignored")
    for variable in ("GREENTIC_GATEWAY_PORT", "PORT"):
        text = environ.get(variable, "").strip()
        if not text:
            continue
        if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
            port = int(text)
        else:
            warnings.append(f"{variable}=`{text}` is no port; ignored")
    return Told(join_listen_addr(host, port), tuple(warnings))


def candidate_ports(port: int, *, strict: bool) -> range:
    """The ports to try, in order (rule 3)."""
    return range(port, port + 1 if strict or not port else min(port + MORE_PORTS, 65535) + 1)


def strict_port(option: bool, environ: Mapping[str, str]) -> bool:
    return option or environ.get("GREENTIC_STRICT_PORT", "").strip().lower() in _YES


def bearer_gate(environ: Mapping[str, str]) -> bool:
    """Whether the bearer gate is on at all."""
    return environ.get("GREENTIC_GENERIC_INGRESS_AUTH", "").strip().lower() not in _NO


def allow_rollback(environ: Mapping[str, str]) -> bool:
    """Whether an older document than one that was seen is accepted."""
    return environ.get("GREENTIC_ALLOW_ROLLBACK", "").strip().lower() in _YES


def drain_delay(environ: Mapping[str, str]) -> float:
    """Seconds between turning unready and closing the door, for load balancers to notice."""
    try:
        return min(max(float(environ.get("GREENTIC_DRAIN_DELAY_SECONDS", "0")), 0.0), 600.0)
    except ValueError:
        return 0.0


def wait_seconds(environ: Mapping[str, str]) -> int | None:
    """How long a conversation waits for its next message; none means for good. Raises `BootError`."""
    text = environ.get("GREENTIC_RUNNER_SESSION_WAIT_TTL_SECS", "").strip() or "86400"
    if not text.isascii() or not text.isdigit():
        raise BootError(f"GREENTIC_RUNNER_SESSION_WAIT_TTL_SECS=`{text}` is no number of seconds (0: for good)")
    return int(text) or None


def shared_sessions(environ: Mapping[str, str]) -> bool:
    """Whether strangers share one session."""
    return environ.get("GREENTIC_ANONYMOUS_SESSIONS", "").strip().lower() == "shared"


def trusts_loopback(environ: Mapping[str, str]) -> bool:
    """Whether a loopback peer is trusted. Off where a proxy beside the worker connects from there for everybody."""
    return environ.get("GREENTIC_TRUST_LOOPBACK", "").strip().lower() not in _NO


def finish_seconds(environ: Mapping[str, str], default: int) -> int:
    """How long running requests may take once the door is closed."""
    text = environ.get("GREENTIC_FINISH_SECONDS", "").strip()
    return min(int(text), 3600) if text.isascii() and text.isdigit() else default


def signature_policy(environ: Mapping[str, str]) -> SignaturePolicy:
    """What is asked of the signatures of packs. Raises `BootError`."""
    try:
        return read_signature_policy(environ.get("GREENTIC_PACK_SIGNATURES"), environ.get("GREENTIC_PACK_SIGNERS"))
    except InvalidArgument as error:
        raise BootError(f"GREENTIC_PACK_SIGNATURES, GREENTIC_PACK_SIGNERS: {error.message}") from None
