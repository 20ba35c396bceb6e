"""How the API server is found, and as whom it is asked (formats: cluster 6).

Rules:
1. An answered kubeconfig context; else the current context of `KUBECONFIG` (the files that it lists are merged, the first one
   that says something wins) or `~/.kube/config`; else the account of the pod that this runs in.
2. A bound token replaces everything that the kubeconfig says about the user; address and certificate authority stay.
3. A file that the context names is opened without waiting for anybody before the library opens it.
4. What a kubeconfig says and this client cannot do (impersonation, another name of the server's certificate) is refused, never
   passed over in silence. Plugins (`cluster.plugin`) of `PLUGIN_VERSIONS` are run.
5. Whatever fails, the message says which file, context, server and proxy were tried, without the credentials that an address may hold.
6. Which of the usual variables names a proxy for a server is decided here, not by the library: it asks loopback through one, and passes
   over the networks of `NO_PROXY`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

from greentic.ground import variables
from greentic.ground.documents import read_file, read_given
from greentic.ground.nearest import did_you_mean
from greentic.ground.yaml import MAX_BYTES, parse_yaml_1_1
from greentic.k8s.objects import ClusterUnreachable
from greentic.model.hosts import join_listen_addr
from greentic.net.addresses import shown
from greentic.net.certificates import alike, check_file, check_instead
from greentic.net.proxies import proxies_of, proxy_for

if TYPE_CHECKING:
    import httpx2
    from lightkube.config.kubeconfig import SingleConfig

EXTRA = "pip install 'greentic[cluster]'"
CONNECTIONS = 16
TIMEOUT_SECONDS = 30.0
PLUGIN_VERSIONS = tuple(f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
MAX_TOLD = 10


class Connection(NamedTuple):
    """An HTTP client that is bound to one API server and one identity."""

    client: httpx2.Client
    server: str
    context: str
    certificate_ends: Callable[[], str | None]
    """When the client certificate ends, if there is one; asked only where credentials are refused."""
    proxy: str = ""
    """Through which proxy it is asked, if any. Like the server's, the address is without credentials."""

    @property
    def where(self) -> str:
        """What is asked, for people."""
        through = f", through proxy {self.proxy}" if self.proxy else ""
        return f"{self.server} (context `{self.context}`{through})"


def connect(context: str | None, token: str | None = None) -> Connection:
    """A connection that was not used yet. Raises `ClusterUnreachable`."""
    try:
        import httpx2
        from lightkube.config.client_adapter import ConnectionParams, ExecAuth
        from lightkube.core.exceptions import ConfigError
    except ImportError:
        raise ClusterUnreachable(
            "cannot reach the cluster: the cluster's client is not installed", hint=EXTRA
        ) from None
    config, proxy = _config(context, bound=token is not None)
    if token is not None or config.user is None:
        from lightkube.config.models import User

        config = config._replace(user=User(token=token))
    server = config.cluster.server
    try:
        _check_files(config)
        parameters = ConnectionParams(timeout=httpx2.Timeout(TIMEOUT_SECONDS, connect=10.0)).httpx_params(config)
        alike(parameters["verify"])
        parameters["proxy"], through = _way(proxy, server)
        parameters["trust_env"] = False
        parameters["limits"] = httpx2.Limits(max_connections=CONNECTIONS + 4, max_keepalive_connections=CONNECTIONS)
        if isinstance(parameters["auth"], ExecAuth):
            parameters["auth"] = _plugin_auth(config)
        client = httpx2.Client(**parameters)
    except (ConfigError, httpx2.InvalidURL, OSError, ValueError, TypeError, KeyError) as error:
        raise ClusterUnreachable(
            f"cannot reach the cluster: context `{config.context_name}` does not load: {str(error).replace(server, shown(server))}",
            hint="kubectl config view --minify shows what the context says",
        ) from error
    return Connection(client, shown(server), config.context_name, lambda: _certificate_end(config), through)


def _way(named: str | None, server: str) -> tuple[httpx2.Proxy | None, str]:
    """The proxy through which a server is asked, and what it is called: the context's, else that of the usual variables (rule 6).

    Raises `ValueError` without repeating a password.
    """
    import httpx2

    if named is not None:
        try:
            return httpx2.Proxy(named), shown(named)
        except (httpx2.InvalidURL, ValueError):
            raise ValueError(
                f"its proxy-url {shown(named)} is no address of a proxy; expected http://host:port"
            ) from None
    parts = urlsplit(server)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    usual = proxy_for(proxies_of(variables.environment()), parts.scheme, parts.hostname or "", port)
    if usual is None:
        return None, ""
    known = {} if usual.authorization is None else {"Proxy-Authorization": usual.authorization}
    return httpx2.Proxy(f"http://{join_listen_addr(usual.host, usual.port)}", headers=known), str(usual)


def _check_files(config: SingleConfig) -> None:
    """Raise `OSError` for what the library would open and wait for: it opens what the context names by itself (rule 3)."""
    cluster, user = config.cluster, config.user
    named = {"certificate-authority": cluster.certificate_auth}
    if user is not None:
        named |= {"client-certificate": user.client_cert, "client-key": user.client_key, "tokenFile": user.token_file}
    for key, name in named.items():
        if name:
            check_file(Path(config.abs_file(name)), key)
    if not (cluster.certificate_auth or cluster.certificate_auth_data or cluster.insecure):
        check_instead()


def _config(context: str | None, *, bound: bool) -> tuple[SingleConfig, str | None]:
    """The chosen context, and the proxy that it names."""
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError

    told = variables.listed("KUBECONFIG", separator=os.pathsep)
    home = variables.home_directory()
    files = [Path(p) for p in told or ["~/.kube/config"]]
    files = [home.joinpath(*f.parts[1:]) if home is not None and f.parts[0] == "~" else f for f in files]
    existing = [f for f in files if f.is_file()]
    tried = ", ".join(str(f) if f in existing else f"{f} (no such file)" for f in files)
    try:
        merged = _merged(existing)
        wanted = context or merged["current-context"]
        if wanted:
            _known(str(wanted), merged, tried)
            config = KubeConfig.from_dict(merged, fname=existing[0]).get(wanted)
            if config is not None:
                return config, _further(merged, config, bound=bound)
        try:
            found = KubeConfig.from_service_account().get()
        except (ConfigError, KeyError) as error:
            text = f"no kubeconfig says a current context, and this is no pod with an account: {error}"
            raise ConfigError(text) from None
        assert found is not None
        return found, None
    except (ConfigError, KeyError, ValueError, TypeError, OSError) as error:
        raise ClusterUnreachable(
            f"cannot reach the cluster: {error} (tried: kubeconfig {tried}, and the account of a pod)",
            hint="set KUBECONFIG, or answer kubeconfig_context",
        ) from error


def _known(wanted: str, merged: dict[str, Any], tried: str) -> None:
    """Raise `ClusterUnreachable`, with the contexts that there are, for one that is not."""
    known = [str(entry["name"]) for entry in merged["contexts"]]
    if wanted in known:
        return
    there = f"; there are {', '.join(sorted(known)[:MAX_TOLD])}" if known else ""
    there += ", …" if len(known) > MAX_TOLD else ""
    raise ClusterUnreachable(
        f"cannot reach the cluster: context `{wanted}` is in none of kubeconfig {tried}{there}{did_you_mean(wanted, known)}",
        hint="kubectl config get-contexts lists them; the answer is kubeconfig_context",
    )


def _further(merged: dict[str, Any], config: SingleConfig, *, bound: bool) -> str | None:
    """The proxy of a context. Raises `ClusterUnreachable` for what this client cannot do (rule 4)."""

    def entry(section: str, name: str | None, inner: str) -> dict[str, Any]:
        return next((e.get(inner) or {} for e in merged[section] if e["name"] == name), {})

    cluster, user = entry("clusters", config.context.cluster, "cluster"), entry("users", config.context.user, "user")
    refused = [key for key in ("tls-server-name",) if cluster.get(key)]
    refused += [key for key in ("as", "as-uid", "as-groups", "as-user-extra") if user.get(key) and not bound]
    if refused:
        raise ClusterUnreachable(
            f"cannot reach the cluster: context `{config.context_name}` uses {', '.join(refused)}, which is not supported",
            hint="bind a service account instead: gtc op credentials bootstrap",
        )
    proxy = cluster.get("proxy-url")
    return str(proxy) if proxy else None


def _merged(files: list[Path]) -> dict[str, Any]:
    """Several kubeconfigs as one, as kubectl merges them; relative paths in it are made absolute."""
    out: dict[str, Any] = {"clusters": [], "users": [], "contexts": [], "current-context": None}
    for file in files:
        try:
            raw = parse_yaml_1_1(read_given(file, MAX_BYTES))
        except ValueError as error:
            raise ValueError(f"{file} is no YAML: {error}") from None
        if not isinstance(raw, dict) or not all(map(_is_section, (raw.get(s) or [] for s in _SECTIONS))):
            raise ValueError(f"{file} is no kubeconfig")
        out["current-context"] = out["current-context"] or raw.get("current-context")
        for section in _SECTIONS:
            known = {entry["name"] for entry in out[section]}
            for entry in cast("list[dict[str, Any]]", raw.get(section) or []):
                if entry["name"] not in known:
                    out[section].append(_absolute(entry, file.parent))
    return out


_SECTIONS = ("clusters", "users", "contexts")


def _is_section(raw: object) -> bool:
    """Whether a section of a kubeconfig lists named entries."""
    return isinstance(raw, list) and all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in raw)


def _absolute(entry: dict[str, Any], directory: Path) -> dict[str, Any]:
    out = dict(entry)
    plugin = (out.get("user") or {}).get("exec") if isinstance(out.get("user"), dict) else None
    if isinstance(plugin, dict):
        out["user"] = {**out["user"], "exec": _plugin(plugin, directory)}
    for part in ("cluster", "user"):
        inner = out.get(part)
        if isinstance(inner, dict):
            out[part] = {
                key: str(directory / value)
                if value and key in ("certificate-authority", "client-certificate", "client-key", "tokenFile")
                else value
                for key, value in inner.items()
            }
    return out


def _plugin(plugin: dict[str, Any], directory: Path) -> dict[str, Any]:
    """A plugin's entry; a command with a slash is relative to the kubeconfig's directory, as kubectl has it."""
    command = plugin.get("command")
    if isinstance(command, str) and "/" in command:
        return {**plugin, "command": str(directory.absolute() / command)}
    return plugin


def _plugin_auth(config: SingleConfig) -> httpx2.Auth:
    from greentic.cluster.plugin import Plugin, PluginAuth

    assert config.user is not None and config.user.exec is not None
    told = config.user.exec
    if told.apiVersion not in PLUGIN_VERSIONS:
        raise ValueError(f"its plugin speaks {told.apiVersion}; expected {' or '.join(PLUGIN_VERSIONS)}")
    given = {**variables.environment(), **{one.name: one.value for one in told.env or []}}
    plugin = Plugin(told.command, tuple(told.args or ()), given, told.apiVersion, told.installHint)
    return PluginAuth(plugin, f"{shown(config.cluster.server)} (context `{config.context_name}`)")


def _certificate_end(config: SingleConfig) -> str | None:
    user = config.user
    if user is None or not (user.client_cert or user.client_cert_data):
        return None
    import base64

    from cryptography import x509

    try:
        data = (
            base64.b64decode(user.client_cert_data)
            if user.client_cert_data
            else read_file(Path(config.abs_file(user.client_cert or "")), MAX_BYTES)
        )
        return x509.load_pem_x509_certificate(data).not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OSError, ValueError):
        return None
