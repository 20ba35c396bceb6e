"""What a worker is told by arguments and environment variables, read once and handed on as values (formats: worker 1, 4).

Rules:
1. Environment id: `--env`, else `GREENTIC_ENV`, else `local`; the old name `dev` means `local`.
2. Bind address, later wins: 127.0.0.1:8080, the document's `listen_addr`, `GREENTIC_GATEWAY_LISTEN_ADDR`,
   `GREENTIC_GATEWAY_PORT`, `PORT`. An address that makes no sense is warned about and ignored, as by the existing worker.
3. The port that was asked for, or one of the next ten; in strict mode that port or none.
4. Any other variable that makes no sense ends the boot, with its name, what was expected and what was found. So does one that asks
   for what the existing worker has and this one has not: secrets of another kind, a tunnel.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from greentic.bundle.cores import memory_limit, usable_cores
from greentic.components.runtime import Allowance, read_allowance
from greentic.distribute.bundle_cache import DEFAULT_MAX_BYTES, cache_directory, max_bytes
from greentic.distribute.fetch import FetchLimits, fetch_limits
from greentic.ground import variables
from greentic.ground.digits import whole_number
from greentic.ground.errors import BootError, GreenticError, InvalidArgument
from greentic.ground.user_cache import user_state
from greentic.materialize.serving_plan import Scope
from greentic.model.hosts import DEFAULT_LISTEN, MAX_PORT, join_listen_addr, split_listen_addr
from greentic.model.ids import LOCAL_ENV
from greentic.model.routes import impossible_matcher
from greentic.net.terms import Terms, terms_of
from greentic.pack.signature import PackSignaturePolicy, read_signature_policy
from greentic.sessions.value_store import redis_url
from greentic.store.layout import default_store_root
from greentic.telemetry.log_lines import Shape

OLD_NAME = "dev"
MORE_PORTS = 10
MAX_PROCESSES = 64
PROCESS_BYTES = 64 << 20
"""What a process takes with some small components, for `auto`."""
_WORKERS = "GREENTIC_WORKERS"
MAX_DELAY = 600.0
PUBLISHED_SECONDS = 10.0
FINISH_SECONDS = 30.0
"""How long running requests may take after the door is closed."""


class StartOptions(NamedTuple):
    """The arguments of `greentic-start start` that a worker acts on."""

    env: str | None = None
    store_root: Path | None = None
    strict_port: bool = False
    level: str = "info"
    workers: str | None = None
    """How many processes, or `auto`."""
    trust_anchor: Path | None = None
    archive: Path | None = None
    """An exported environment to boot from, without a network."""
    env_from: str | None = None
    """The place of a published environment to boot from and follow."""
    require_all: bool = False
    """Whether the failure of any deployment ends the boot."""
    proof_key: Path | None = None
    metrics_addr: str | None = None
    log_format: str | None = None
    access_log: bool = False

    def arguments(self) -> list[str]:
        """The command line of another process of the same worker."""
        words = ["start"]
        if self.env is not None:
            words += ["--env", self.env]
        if self.store_root is not None:
            words += ["--store-root", str(self.store_root)]
        if self.env_from is not None:
            words += ["--env-from", self.env_from]
        if self.trust_anchor is not None:
            words += ["--trust-anchor", str(self.trust_anchor)]
        if self.proof_key is not None:
            words += ["--proof-key", str(self.proof_key)]
        if self.require_all:
            words += ["--require", "all"]
        if self.log_format is not None:
            words += ["--log-format", self.log_format]
        if self.access_log:
            words.append("--access-log")
        return words if self.level == "info" else [*words, "--verbose" if self.level == "debug" else "--quiet"]


class WithWarnings(msgspec.Struct, frozen=True):
    """A value with the warnings that went with finding it."""

    value: str
    warnings: tuple[str, ...] = ()


class ListenVariables(msgspec.Struct, frozen=True):
    """What the variables say of the address to listen on, as it was written (rule 2)."""

    listen: str = ""
    gateway_port: str = ""
    port: str = ""


class IngressSettings(msgspec.Struct, frozen=True):
    """Where a worker listens, and who may ask what."""

    gateway: ListenVariables = ListenVariables()
    strict_port: bool = False
    workers: int = 1
    max_connections: int = 4096
    bearer_gate: bool = True
    tokens_file: Path | None = None
    trust_loopback: bool = True
    """Off where a proxy beside the worker connects from there for everybody."""
    allowed_hosts: tuple[str, ...] = ()
    shared_sessions: bool = False
    """Whether strangers share one session."""
    drain_delay: float = 0.0
    """Seconds between turning unready and closing the door, for load balancers to notice."""
    finish_seconds: float = FINISH_SECONDS
    metrics_addr: tuple[str, int] | None = None
    """Where anybody is told the metrics."""
    access_log: bool = False


class SessionSettings(msgspec.Struct, frozen=True):
    """Where conversations wait, and for how long."""

    redis_url: str = ""
    namespace: str = ""
    """The prefix of their keys in Redis; empty for the environment's own."""
    wait_seconds: int | None = 86_400
    """None means for good."""
    shared_directory: Path | None = None
    """Where the processes of one worker keep them."""


class PublishedSettings(msgspec.Struct, frozen=True):
    """A published environment to boot from and follow."""

    place: str
    every: float = PUBLISHED_SECONDS
    """Seconds between two looks, about."""
    named: bool = False
    """Whether it was told which environment to expect; else it is the one that is published."""


class Settings(NamedTuple):
    """All that a worker is told; nothing further in reads a variable."""

    env_id: str
    store_root: Path
    warnings: tuple[str, ...] = ()
    level: Literal["debug", "info", "warn"] = "info"
    log_shape: Shape | None = None
    """None: text at a terminal, else JSON."""
    seed: Path | None = None
    archive: Path | None = None
    published: PublishedSettings | None = None
    scope: Scope = Scope()
    trust_anchor: Path | None = None
    allow_rollback: bool = False
    state_directory: Path | None = None
    """Where the user's programs keep things for good."""
    pack_signatures: PackSignaturePolicy = PackSignaturePolicy()
    signing_key_file: Path | None = None
    proof_key: Path | None = None
    """What proofs are signed with, if not with a key that the worker makes."""
    ingress: IngressSettings = IngressSettings()
    sessions: SessionSettings = SessionSettings()
    cache_directory: Path | None = None
    cache_bytes: int = DEFAULT_MAX_BYTES
    fetch: FetchLimits = FetchLimits()
    offline: bool = False
    terms: Terms = Terms()
    """How servers are asked; offline, none is."""
    components: Allowance | None = None
    """What components may reach and cost."""


def _no_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """A warning for each place of secrets that is none: components would be told of each secret that it does not exist."""
    places = (("GREENTIC_SECRETS_DIR", Path.is_dir, "directory"), ("GREENTIC_DEV_SECRETS_PATH", Path.is_file, "file"))
    return tuple(
        f"{name}=`{path}` is no {what}; no component finds a secret there"
        for name, is_one, what in places
        if (path := variables.path(name, environ)) is not None and not is_one(path)
    )


def read_settings(options: StartOptions, environ: Mapping[str, str]) -> Settings:
    """All that a worker is told. Raises `BootError` for what makes no sense (rule 4)."""
    try:
        for name in ("GREENTIC_SECRETS_BACKEND", "GREENTIC_TUNNEL_MODE"):
            variables.word(name, environ)
        told = env_id(options.env, environ)
        offline = options.archive is not None or variables.switch("GREENTIC_OFFLINE", environ)
        return Settings(
            env_id=told.value,
            store_root=options.store_root or default_store_root(),
            warnings=(*told.warnings, *_no_secrets(environ)),
            level="debug" if options.level == "debug" else "warn" if options.level == "warn" else "info",
            log_shape=_log_shape(options.log_format or variables.word("GREENTIC_LOG_FORMAT", environ)),
            seed=variables.path("GREENTIC_SEED_DIR", environ),
            archive=options.archive,
            published=_published(options, environ),
            scope=read_scope(options, environ),
            trust_anchor=options.trust_anchor or variables.path("GREENTIC_TRUST_ANCHOR", environ),
            allow_rollback=variables.switch("GREENTIC_ALLOW_ROLLBACK", environ),
            state_directory=user_state(environ),
            pack_signatures=_pack_signatures(environ),
            proof_key=options.proof_key or variables.path("GREENTIC_PROOF_KEY", environ),
            signing_key_file=variables.path("GREENTIC_SIGNING_KEY_FILE", environ),
            ingress=_ingress(options, environ),
            sessions=_sessions(environ),
            cache_directory=cache_directory(environ),
            cache_bytes=max_bytes(environ),
            fetch=fetch_limits(environ),
            offline=offline,
            terms=terms_of(environ)._replace(offline=offline),
            components=read_allowance(environ),
        )
    except (ValueError, GreenticError) as error:
        raise error if isinstance(error, BootError) else BootError(str(error)) from None


def env_id(option: str | None, environ: Mapping[str, str]) -> WithWarnings:
    """Which environment to serve (rule 1). Raises `ValueError` where the old name is switched off."""
    text = option or variables.text("GREENTIC_ENV", environ) or LOCAL_ENV
    is_refused = variables.switch("GREENTIC_DISABLE_DEV_ALIAS", environ)
    if text != OLD_NAME:
        return WithWarnings(text)
    if is_refused:
        raise ValueError("the environment name `dev` is no longer accepted; use `local`")
    return WithWarnings(LOCAL_ENV, ("the environment name `dev` is old; serving `local`",))


def read_scope(options: StartOptions, environ: Mapping[str, str]) -> Scope:
    """Which revision a worker is for. Blank counts as unset, and ids are compared in upper case."""
    scope = variables.text("GREENTIC_REVISION_SCOPE", environ).lower()
    if scope not in ("", "own"):
        raise InvalidArgument(f"GREENTIC_REVISION_SCOPE=`{scope[:60]}`: expected `own`, or nothing")
    own = variables.text("GREENTIC_REVISION_ID", environ).upper() or None
    if scope and own is None:
        raise InvalidArgument("GREENTIC_REVISION_SCOPE=`own`: expected a revision in GREENTIC_REVISION_ID, found none")
    return Scope(own, scope == "own", options.require_all)


def read_gateway(environ: Mapping[str, str]) -> ListenVariables:
    return ListenVariables(
        *(variables.text(n, environ) for n in ("GREENTIC_GATEWAY_LISTEN_ADDR", "GREENTIC_GATEWAY_PORT", "PORT"))
    )


def bind_address(listen_addr: str | None, gateway: ListenVariables) -> WithWarnings:
    """Where to listen (rule 2)."""
    warnings: list[str] = []
    host, port = split_listen_addr(DEFAULT_LISTEN)
    if listen_addr:
        host, port = split_listen_addr(listen_addr)
    if gateway.listen:
        try:
            host, port = split_listen_addr(gateway.listen)
        except ValueError:
            try:
                host = str(ipaddress.ip_address(gateway.listen.strip("[]")))
            except ValueError:
                warnings.append(
                    f"GREENTIC_GATEWAY_LISTEN_ADDR=`{gateway.listen}` is neither ip:port nor an ip; ignored"
                )
    for variable, text in (("GREENTIC_GATEWAY_PORT", gateway.gateway_port), ("PORT", gateway.port)):
        if not text:
            continue
        if told := whole_number(text, MAX_PORT):
            port = told
        else:
            warnings.append(f"{variable}=`{text[:60]}` is no port; ignored")
    return WithWarnings(join_listen_addr(host, port), tuple(warnings))


def candidate_ports(port: int, *, strict: bool) -> range:
    """The ports to try, in order (rule 3)."""
    return range(port, port + 1 if strict or not port else min(port + MORE_PORTS, 65535) + 1)


def _ingress(options: StartOptions, environ: Mapping[str, str]) -> IngressSettings:
    anonymous = variables.word("GREENTIC_ANONYMOUS_SESSIONS", environ)
    finish = variables.seconds("GREENTIC_FINISH_SECONDS", environ, most=3600)
    return IngressSettings(
        gateway=read_gateway(environ),
        strict_port=options.strict_port or variables.switch("GREENTIC_STRICT_PORT", environ),
        workers=_workers(options.workers, environ),
        max_connections=variables.count("GREENTIC_MAX_CONNECTIONS", environ, least=1, most=1_000_000) or 4096,
        bearer_gate=variables.switch("GREENTIC_GENERIC_INGRESS_AUTH", environ, default=True),
        tokens_file=variables.path("GREENTIC_INGRESS_TOKENS", environ),
        trust_loopback=variables.switch("GREENTIC_TRUST_LOOPBACK", environ, default=True),
        allowed_hosts=_allowed_hosts(environ),
        shared_sessions=anonymous == "shared",
        drain_delay=variables.seconds("GREENTIC_DRAIN_DELAY_SECONDS", environ, most=MAX_DELAY) or 0.0,
        finish_seconds=FINISH_SECONDS if finish is None else finish,
        access_log=options.access_log or variables.switch("GREENTIC_ACCESS_LOG", environ),
        metrics_addr=_metrics_addr(options.metrics_addr or variables.text("GREENTIC_METRICS_ADDR", environ)),
    )


def _allowed_hosts(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names as they stand in a `Host` header. Raises `InvalidArgument` for one that cannot."""
    found = variables.listed("GREENTIC_ALLOWED_HOSTS", environ)
    reason = impossible_matcher(found)
    if reason is not None:
        raise InvalidArgument(f"GREENTIC_ALLOWED_HOSTS: {reason}")
    return tuple(found)


def _log_shape(told: str) -> Shape | None:
    """The shape of lines on stderr; nothing where the stream decides."""
    return "json" if told == "json" else "text" if told else None


def _metrics_addr(text: str) -> tuple[str, int] | None:
    """Where to tell metrics: `ip:port`; a port alone means this machine only. Raises `InvalidArgument`."""
    if not text:
        return None
    try:
        return split_listen_addr(text if ":" in text else f"127.0.0.1:{text}")
    except ValueError:
        raise InvalidArgument(
            f"the address for metrics is `{text[:60]}`: expected ip:port, or a port of this machine",
            hint="--metrics-addr 0.0.0.0:9464, or GREENTIC_METRICS_ADDR",
        ) from None


def processes_for(cores: int, memory: int | None) -> int:
    """How many processes serve with so many cores and bytes. Where there are several, one more watches over them."""
    fit = cores if memory is None else memory // PROCESS_BYTES - 1
    return max(1, min(cores, fit, MAX_PROCESSES))


def _workers(option: str | None, environ: Mapping[str, str]) -> int:
    """How many processes serve: the argument, else `GREENTIC_WORKERS`, else one. `auto` is one for each core that may be used, as far
    as the memory goes that may be."""
    name, told = ("--workers", option) if option is not None else (_WORKERS, variables.text(_WORKERS, environ))
    if not told:
        return 1
    if told == "auto":
        return processes_for(usable_cores(), memory_limit())
    number = whole_number(told, MAX_PROCESSES)
    if not number:
        raise InvalidArgument(f"{name} {told[:60]!r}: expected 1 to {MAX_PROCESSES}, or auto (one for each core)")
    return number


def _published(options: StartOptions, environ: Mapping[str, str]) -> PublishedSettings | None:
    """Where the environment is published, if it is followed there. Raises `InvalidArgument` for a second source, or without an anchor."""
    place = options.env_from or variables.text("GREENTIC_ENV_FROM", environ)
    if not place:
        return None
    from greentic.publication.place import is_directory  # most workers follow no place

    if options.archive is not None or variables.path("GREENTIC_SEED_DIR", environ) is not None:
        raise InvalidArgument(
            "--env-from: an archive or a seed directory says which environment to serve, too; give one of them"
        )
    anchored = options.trust_anchor or variables.path("GREENTIC_TRUST_ANCHOR", environ)
    if anchored is None and not is_directory(place):
        raise InvalidArgument(
            "--env-from: who published it is told by a trust anchor, and none is given",
            hint="--trust-anchor FILE, with the operator's public key (gtc op trust-root list)",
        )
    every = variables.seconds("GREENTIC_ENV_FROM_SECONDS", environ, least=0.05, most=86_400) or PUBLISHED_SECONDS
    return PublishedSettings(place, every, bool(options.env or variables.text("GREENTIC_ENV", environ)))


def _sessions(environ: Mapping[str, str]) -> SessionSettings:
    wait = variables.count("GREENTIC_RUNNER_SESSION_WAIT_TTL_SECS", environ)
    return SessionSettings(
        redis_url(environ),
        variables.text("GREENTIC_RUNNER_SESSION_NAMESPACE", environ),
        86_400 if wait is None else wait or None,
        variables.path("GREENTIC_SHARED_SESSIONS", environ),
    )


def _pack_signatures(environ: Mapping[str, str]) -> PackSignaturePolicy:
    """What is asked of the signatures of packs."""
    try:
        return read_signature_policy(environ)
    except InvalidArgument as error:
        raise BootError(error.message, hint=error.hint) from None
