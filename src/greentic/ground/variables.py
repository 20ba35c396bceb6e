"""Environment variables: the one hand that reads them, and the one table of all there are.

Rules:
1. A variable that is not in the table cannot be read; help texts and `docs/variables.md` are printed from it.
2. A value is read once, at the edge, and handed on as a value. Blank counts as unset.
3. A value that makes no sense is refused with the variable's name, what was expected and what was found; nothing falls back silently.
4. What loosens a protection says so in the table, and whoever acts on it tells it aloud.
5. Nobody writes a variable to tell another part of the same process something.
6. A key that was put where its file is to be named is refused and not repeated: it would stand in errors, logs and names of files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from greentic.ground.digits import whole_number
from greentic.ground.errors import InvalidArgument

YES = frozenset({"1", "true", "yes", "on"})
NO = frozenset({"0", "false", "no", "off", "disabled"})

Kind = Literal["text", "switch", "count", "seconds", "file", "directory", "list", "address", "secret"]
Reader = Literal["worker", "gtc", "both", "inside"]
"""`inside`: between the processes of one worker, or from a rendered pod to its worker; not for people."""


class Variable(msgspec.Struct, frozen=True):
    """One row of the table."""

    name: str
    kind: Kind
    default: str
    """What holds where it is unset, in words; empty if nothing does."""
    reader: Reader
    line: str
    """What it is for, in one line."""
    loosens: bool = False
    words: tuple[str, ...] = ()
    """The words that it takes, in small letters or capitals; where there are none, any text of its kind."""


_ROWS = (
    # -- which environment, and where it lies
    Variable("GREENTIC_ENV", "text", "local", "worker", "the environment to serve, if --env is not given"),
    Variable("GREENTIC_DISABLE_DEV_ALIAS", "switch", "off", "worker", "refuse the old environment name `dev`"),
    Variable("GREENTIC_SEED_DIR", "directory", "", "worker", "a directory that holds environment.json, such as a mounted ConfigMap"),
    Variable("GREENTIC_ENV_FROM", "text", "", "worker", "the place of a published environment to boot from and follow, if --env-from is not given"),
    Variable("GREENTIC_ENV_FROM_SECONDS", "seconds", "10", "worker", "how long between two looks at a published environment, about"),
    Variable("GREENTIC_REVISION_ID", "text", "", "worker", "the revision that this worker is for: loaded even while nothing is routed to it"),
    Variable("GREENTIC_REVISION_SCOPE", "text", "", "worker", "`own`: serve the revision of GREENTIC_REVISION_ID and nothing else"),
    Variable("GREENTIC_STORE_ID", "text", "a hash of the store's directory", "gtc", "who this store is, in the labels of a cluster's objects"),
    Variable("GREENTIC_STORE_URL", "text", "", "gtc", "a server that holds the environments: refused unless --store-root says which directory"),
    Variable("GTC_OPERATOR_KEY_PATH", "file", "~/.greentic/operator/key.pem", "gtc", "the operator's private key"),
    # -- listening and who may ask
    Variable("GREENTIC_GATEWAY_LISTEN_ADDR", "address", "127.0.0.1:8080", "worker", "ip:port or ip to listen on"),
    Variable("GREENTIC_GATEWAY_PORT", "count", "", "worker", "the port to listen on"),
    Variable("PORT", "count", "", "worker", "the port to listen on; wins over GREENTIC_GATEWAY_PORT"),
    Variable("GREENTIC_TUNNEL_MODE", "text", "off", "worker", "a tunnel is for a program beside this one: another one is refused", words=("off", "none")),
    Variable("GREENTIC_STRICT_PORT", "switch", "off", "worker", "never use another port than the one asked for"),
    Variable("GREENTIC_GENERIC_INGRESS_AUTH", "switch", "on", "worker", "off: no bearer token is asked for", loosens=True),
    Variable("GREENTIC_INGRESS_TOKENS", "file", "<environment>/ingress-tokens.json", "worker", "the file of bearer tokens"),
    Variable("GREENTIC_TRUST_LOOPBACK", "switch", "on", "worker", "off: a loopback peer is nobody special, as where a proxy runs beside the worker"),
    Variable("GREENTIC_ALLOWED_HOSTS", "list", "", "worker", "host names that trusted loopback callers may use beside loopback addresses"),
    Variable("GREENTIC_ANONYMOUS_SESSIONS", "text", "private", "worker", "`shared`: callers without a session share one", loosens=True, words=("private", "shared")),
    Variable("GREENTIC_SIGNING_KEY_FILE", "file", "", "worker", "the key of the affinity cookies that several workers share"),
    Variable("GREENTIC_MAX_CONNECTIONS", "count", "4096", "worker", "open connections of one process; for one more an idle one is closed, else it is answered 503"),
    Variable("GREENTIC_METRICS_ADDR", "address", "", "worker", "ip:port, or a port of this machine, where anybody is told /metrics, if --metrics-addr is not given"),
    Variable("GREENTIC_LOG_FORMAT", "text", "text at a terminal, else json", "worker", "`json` or `text` lines on stderr, if --log-format is not given", words=("json", "text")),
    Variable("GREENTIC_ACCESS_LOG", "switch", "off", "worker", "a line of the log for each request (--access-log)"),
    # -- life and death of a worker
    Variable("GREENTIC_DRAIN_DELAY_SECONDS", "seconds", "0", "worker", "keep serving this long after SIGTERM, unready"),
    Variable("GREENTIC_FINISH_SECONDS", "seconds", "30", "worker", "how long running requests may take after that"),
    Variable("GREENTIC_WORKERS", "text", "1", "worker", "processes that serve, if --workers is not given; auto: one for each core"),
    Variable("GREENTIC_INHERITED_SOCKET", "count", "", "inside", "the socket that the first process bound"),
    Variable("GREENTIC_INHERITED_METRICS", "count", "", "inside", "the socket for scrapers that the first process bound"),
    Variable("GREENTIC_READY_FD", "count", "", "inside", "where a process tells the first one that it serves"),
    Variable("GREENTIC_SHARED_SESSIONS", "directory", "", "inside", "where the processes of one worker keep conversations"),
    # -- trust
    Variable("GREENTIC_TRUST_ANCHOR", "file", "", "worker", "a file with the keys that must have sealed environment.json"),
    Variable("GREENTIC_PROOF_KEY", "file", "one that the worker makes", "worker", "the private key that proofs of /status/proof are signed with"),
    Variable("GREENTIC_ALLOW_ROLLBACK", "switch", "off", "worker", "accept an older environment or revocation list than was seen", loosens=True),
    Variable("GREENTIC_PACK_SIGNATURES", "text", "warn", "both", "ignore, warn or require signatures of packs", words=("ignore", "warn", "require")),
    Variable("GREENTIC_PACK_SIGNERS", "list", "", "both", "the keys that may sign packs"),
    # -- delivery
    Variable("GREENTIC_FETCH_IDLE_SECONDS", "seconds", "30", "both", "how long a server may be silent"),
    Variable("GREENTIC_FETCH_TOTAL_SECONDS", "seconds", "3600", "both", "how long one download may take"),
    Variable("GREENTIC_FETCH_MAX_BYTES", "count", "4 GiB", "both", "the largest bundle"),
    Variable("GREENTIC_OFFLINE", "switch", "off", "both", "ask no server for anything"),
    Variable("GREENTIC_BUNDLE_CACHE_DIR", "directory", "~/.cache/greentic/bundles", "both", "where bundles are kept by content; `off`: nowhere"),
    Variable("GREENTIC_CACHE_MAX_BYTES", "count", "3 GiB", "both", "how much is kept"),
    Variable("SSL_CERT_FILE", "file", "the system's", "both", "the certificate authorities that are believed, in place of the system's file; it has to be there"),
    Variable("GREENTIC_CA_FILES", "list", "", "both", "files with certificate authorities beside the system's"),
    Variable("GREENTIC_OCI_INSECURE_REGISTRIES", "list", "", "both", "registries that are asked over plain http", loosens=True),
    Variable("GREENTIC_REPO_REGISTRY_BASE", "text", "", "both", "what `repo://` stands for"),
    Variable("GREENTIC_STORE_REGISTRY_BASE", "text", "", "both", "what `store://` stands for"),
    Variable("OCI_USERNAME", "text", "", "both", "the user at the registry of OCI_REGISTRY, or of the only one that is asked"),
    Variable("OCI_PASSWORD", "secret", "", "both", "the password that goes with it"),
    Variable("OCI_REGISTRY", "text", "", "both", "the registry that OCI_USERNAME and OCI_PASSWORD are for"),
    Variable("DOCKER_CONFIG", "directory", "~/.docker", "both", "where Docker's configuration with credentials lies"),
    Variable("REGISTRY_AUTH_FILE", "file", "${XDG_RUNTIME_DIR}/containers/auth.json", "both", "podman's file of logins, asked where Docker's knows nothing"),
    # -- components
    Variable("GREENTIC_HTTP_EGRESS", "text", "public", "worker", "where components may send requests: public, none, unrestricted, or hosts"),
    Variable("GREENTIC_COMPONENT_SECONDS", "seconds", "10", "worker", "how long one call of a component may take"),
    Variable("GREENTIC_COMPONENT_MEMORY_MB", "count", "256", "worker", "how much memory one call may use, in MiB"),
    Variable("GREENTIC_COMPONENT_TOTAL_MB", "count", "2048", "worker", "how much memory all running calls may use together, in MiB"),
    Variable("GREENTIC_COMPONENT_ENV", "list", "", "worker", "environment variables that manifests may ask for"),
    Variable("GREENTIC_COMPONENT_CACHE_DIR", "directory", "~/.cache/greentic/components", "worker", "where compiled components are kept; `off`: nowhere"),
    Variable("GREENTIC_SECRETS_DIR", "directory", "", "worker", "a directory with one file per secret"),
    Variable("GREENTIC_SECRETS_BACKEND", "text", "dev-store", "worker", "files are all there is: another one is refused", words=("dev-store",)),
    Variable("GREENTIC_DEV_SECRETS_PATH", "file", "<environment>/.greentic/dev/.dev.secrets.env", "worker", "a file of NAME=value secrets for development"),
    # -- conversations
    Variable("GREENTIC_RUNNER_SESSION_BACKEND", "text", "", "worker", "`memory`, or `redis` at GREENTIC_RUNNER_REDIS_URL; unset: Redis if that is set", words=("memory", "redis")),
    Variable("GREENTIC_RUNNER_STATE_BACKEND", "text", "", "worker", "the same for state, which lies where conversations do", words=("memory", "redis")),
    Variable("GREENTIC_RUNNER_REDIS_URL", "text", "", "worker", "keep waiting conversations and state in Redis instead of memory"),
    Variable("GREENTIC_RUNNER_SESSION_NAMESPACE", "text", "greentic:session:<env>", "worker", "the prefix of conversations in Redis"),
    Variable("GREENTIC_RUNNER_SESSION_WAIT_TTL_SECS", "count", "86400", "worker", "how long a conversation waits for its next message; 0: for good"),
    # -- clusters
    Variable("KUBECONFIG", "list", "~/.kube/config", "gtc", "the files that tell of clusters"),
    Variable("GREENTIC_K8S_WARM_READY_TIMEOUT_SECS", "count", "300", "gtc", "how long to wait for pods to be healthy, if --timeout is not given"),
    Variable("GREENTIC_ENV_ID", "text", "", "inside", "set in pods, for people who look: the environment"),
    Variable("GREENTIC_DEPLOYMENT_ID", "text", "", "inside", "set in pods, for people who look: the deployment"),
    Variable("GREENTIC_BUNDLE_ID", "text", "", "inside", "set in pods, for people who look: the bundle"),
    Variable("GREENTIC_BUNDLE_DIGEST", "text", "", "inside", "set in pods, for people who look: the digest"),
    # -- traces
    Variable("OTEL_EXPORTER_OTLP_ENDPOINT", "address", "", "both", "http://HOST:PORT of a collector; /v1/traces is put behind it. Nothing is traced without"),
    Variable("OTLP_ENDPOINT", "address", "", "both", "the existing worker's name for OTEL_EXPORTER_OTLP_ENDPOINT; told, and not read"),
    Variable("OTEL_EXPORTER_OTLP_HEADERS", "list", "", "both", "NAME=VALUE of requests to the collector, separated by commas"),
    Variable("OTEL_EXPORTER_OTLP_PROTOCOL", "text", "http/protobuf", "both", "`http/protobuf` or `http/json`"),
    Variable("OTEL_EXPORTER_OTLP_TIMEOUT", "count", "10000", "both", "milliseconds that the collector may take"),
    Variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "address", "", "both", "the same for traces alone; taken as it is"),
    Variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "list", "", "both", "the same for traces alone"),
    Variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "text", "", "both", "the same for traces alone"),
    Variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "count", "", "both", "the same for traces alone"),
    Variable("OTEL_SDK_DISABLED", "text", "", "both", "`true`: nothing is traced"),
    Variable("OTEL_TRACES_EXPORTER", "text", "otlp", "both", "`none`: nothing is traced"),
    Variable("OTEL_TRACES_SAMPLER", "text", "parentbased_always_on", "both", "which traces are sent: always_on, always_off, traceidratio, or these behind `parentbased_`"),
    Variable("OTEL_TRACES_SAMPLER_ARG", "text", "1", "both", "the share of traceidratio, from 0 to 1"),
    Variable("OTEL_BSP_SCHEDULE_DELAY", "count", "5000", "both", "milliseconds after which spans are sent, however few"),
    Variable("OTEL_SERVICE_NAME", "text", "the program's name", "both", "`service.name` of what is traced"),
    Variable("OTEL_RESOURCE_ATTRIBUTES", "list", "", "both", "NAME=VALUE of what is traced, separated by commas"),
    # -- the machine
    Variable("NOTIFY_SOCKET", "file", "", "worker", "where a service manager (systemd) is told that the worker serves, and that it stops"),
    Variable("HOME", "directory", "", "both", "where the store, keys and caches lie by default"),
    Variable("USERPROFILE", "directory", "", "both", "the same, where HOME is unset"),
    Variable("XDG_CACHE_HOME", "directory", "~/.cache", "both", "where caches lie; a path that is not absolute is told and ignored"),
    Variable("XDG_CONFIG_HOME", "directory", "~/.config", "both", "where podman's file of logins may lie, too"),
    Variable("XDG_RUNTIME_DIR", "directory", "", "both", "where podman's file of logins lies by default"),
    Variable("XDG_STATE_HOME", "directory", "~/.local/state", "both", "where workers keep a second copy of the newest generation and revocation list that they saw; a path that is not absolute is told and ignored"),
    Variable("PATH", "list", "", "both", "where credential helpers and tools are looked for"),
    Variable("USER", "text", "", "gtc", "who is named in the audit log"),
    Variable("USERNAME", "text", "", "gtc", "the same, where USER is unset"),
    Variable("HTTP_PROXY", "address", "", "both", "a proxy for http addresses (also in lower case)"),
    Variable("HTTPS_PROXY", "address", "", "both", "a proxy for https addresses (also in lower case)"),
    Variable("ALL_PROXY", "address", "", "both", "a proxy for both, where theirs is unset (also in lower case)"),
    Variable("NO_PROXY", "list", "", "both", "hosts that are asked without a proxy (also in lower case)"),
)  # fmt: skip

TABLE: dict[str, Variable] = {row.name: row for row in _ROWS}
"""Every variable that the programs read, by name."""

SECRET_PREFIX = "GREENTIC_SECRET_"  # noqa: S105
"""Variables of this prefix hold tokens that references name; the rest of the name is the reference's path in capitals."""


def text(name: str, environ: Mapping[str, str] | None = None) -> str:
    """The value without surrounding blanks, empty if unset. Raises `KeyError` for a name that is not in the table, `InvalidArgument` by rule 6."""
    row = TABLE[name]
    found = (os.environ if environ is None else environ).get(row.name, "").strip()
    if "-----BEGIN " in found and row.kind != "secret":
        raise InvalidArgument(f"{name} holds a key or certificate itself; expected the name of a file that holds it")
    return found


def either(name: str, environ: Mapping[str, str] | None = None) -> str:
    """The same for a variable that is written in both cases; the lower one wins, as in the programs that it is shared with."""
    row = TABLE[name]
    return (os.environ if environ is None else environ).get(row.name.lower(), "").strip() or text(name, environ)


def switch(name: str, environ: Mapping[str, str] | None = None, *, default: bool = False) -> bool:
    """Yes or no. Raises `InvalidArgument` for anything else."""
    found = text(name, environ).lower()
    if not found:
        return default
    if found in YES or found in NO:
        return found in YES
    raise InvalidArgument(
        f"{name}=`{found[:60]}` is neither yes nor no", hint=f"write {name}=1 or {name}=0, or unset it"
    )


def check(row: Variable, told: str) -> None:
    """Raise `InvalidArgument` for a value that is none of the row's kind, as far as a kind says so."""
    if "\0" in told:
        raise InvalidArgument(f"{row.name} holds a zero byte, which no variable can")
    if row.kind == "switch":
        switch(row.name, {row.name: told})
    elif row.kind == "count":
        count(row.name, {row.name: told})
    elif row.kind == "seconds":
        seconds(row.name, {row.name: told})
    elif row.words:
        word(row.name, {row.name: told})


def word(name: str, environ: Mapping[str, str] | None = None) -> str:
    """One of the words that a row has, in small letters; empty if unset. Raises `InvalidArgument` for another one."""
    found = text(name, environ).lower()
    if found and found not in (words := TABLE[name].words):
        raise InvalidArgument(f"{name}=`{found[:60]}`: expected {' or '.join(f'`{w}`' for w in words)}")
    return found


def count(name: str, environ: Mapping[str, str] | None = None, *, least: int = 0, most: int = 1 << 62) -> int | None:
    """A whole number, none if unset. Raises `InvalidArgument` for anything else, and outside of the bounds."""
    found = text(name, environ)
    if not found:
        return None
    number = whole_number(found, most)
    if number is None or number < least:
        raise InvalidArgument(f"{name}=`{found[:60]}`: expected a whole number from {least} to {most}")
    return number


def seconds(
    name: str, environ: Mapping[str, str] | None = None, *, least: float = 0.0, most: float = 86_400.0
) -> float | None:
    """A number of seconds, none if unset. Raises `InvalidArgument` for anything else, and outside of the bounds."""
    found = text(name, environ)
    if not found:
        return None
    try:
        value = float(found)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:  # not a number is in no range
        raise InvalidArgument(f"{name}=`{found[:60]}`: expected seconds from {least:g} to {most:g}")
    return value


def path(name: str, environ: Mapping[str, str] | None = None) -> Path | None:
    """A file or directory, none if unset."""
    found = text(name, environ)
    return Path(found) if found else None


def home_directory(environ: Mapping[str, str] | None = None) -> Path | None:
    """`HOME`, or `USERPROFILE`; a home that is not told is not guessed."""
    return path("HOME", environ) or path("USERPROFILE", environ)


def listed(name: str, environ: Mapping[str, str] | None = None, separator: str = ",") -> list[str]:
    """The parts of a list, blanks and empty ones gone."""
    return [part.strip() for part in text(name, environ).split(separator) if part.strip()]


def environment() -> Mapping[str, str]:
    """All variables, to hand on as a value or to give to a program that is started."""
    return os.environ


def table(readers: tuple[Reader, ...]) -> str:
    """The rows of some readers as text for help: name, line, default."""
    rows = [row for row in _ROWS if row.reader in readers]
    width = max(len(row.name) for row in rows) + 2
    return "\n".join(f"  {row.name:<{width}}{row.line}{_default(row)}" for row in rows)


def markdown() -> str:
    """The table of `docs/variables.md`."""
    lines = ["| variable | type | default | who reads it | what for |", "|---|---|---|---|---|"]
    for row in _ROWS:
        if row.reader != "inside":
            loose = " **Loosens a protection.**" if row.loosens else ""
            lines.append(f"| `{row.name}` | {row.kind} | {row.default} | {row.reader} | {row.line}{loose} |")
    return "\n".join(lines) + "\n"


def _default(row: Variable) -> str:
    return f" (default: {row.default})" if row.default else ""
