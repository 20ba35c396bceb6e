"""As whom a cluster is asked: the kubeconfig's user, or the service account that was bound to the environment (formats: cluster 6).

Rules:
1. Without a `credentials_ref` the ambient identity is used, and nothing is looked up.
2. With one, the token is taken from the environment variable that the reference names, else from the operator's own file beside
   the environment, else from the Secret in the cluster, read with the ambient identity. That Secret must name this environment.
3. A token that has ended is not used, wherever it lies; the next place is asked. If none has one, the verb fails. It never falls back
   to the ambient identity.
4. The token is never in a file that pods are given, nor in any output.
"""

from __future__ import annotations

import base64
from typing import Literal, NamedTuple

from greentic.cluster.api_server import PATIENCE_SECONDS, ApiServer
from greentic.cluster.connect import connect
from greentic.deployer.binding import Deployer
from greentic.ground.disk import make_directory, replace_file
from greentic.ground.documents import decode, read_file
from greentic.ground.errors import Conflict
from greentic.k8s import names
from greentic.k8s.objects import Cluster, ClusterUnreachable, Ref, labels_of, member
from greentic.model.environment import Environment
from greentic.operate.change import Context
from greentic.store.layout import EnvPaths
from greentic.store.secret_variables import secret_of, variable_of

AskedAs = Literal["bound", "ambient"]
TOKEN_FILE = ".greentic/deployer/deployer_token"  # noqa: S105  a path
TOKEN_PATH = "default/_/k8s-deployer/deployer_token"  # noqa: S105
_MAX_TOKEN = 1 << 16


class Reached(NamedTuple):
    """A cluster, and as whom it is asked."""

    cluster: Cluster
    api: ApiServer
    identity: AskedAs


def credentials_ref(env_id: str) -> str:
    """The reference of the token that binding makes."""
    return f"secret://{env_id}/{TOKEN_PATH}"


def reach(context: Context, deployer: Deployer, patience: float = PATIENCE_SECONDS) -> Reached:
    """A connection as the identity that rule 1 or 2 gives. Raises `Conflict`."""
    answers = deployer.answers
    if deployer.env.credentials_ref is None:
        api = ApiServer(connect(answers.kubeconfig_context), patience=patience)
        return Reached(api, api, "ambient")
    now = context.clock.now_ns() // 1_000_000_000
    token = _token(context.store.paths(deployer.env.environment_id), deployer.env, deployer, now)
    api = ApiServer(connect(answers.kubeconfig_context, token), patience=patience)
    return Reached(api, api, "bound")


def local_token(paths: EnvPaths, env: Environment, now: int) -> str | None:
    """The bound token, as far as this machine has one that has not ended at `now` (Unix seconds). Raises `Conflict`."""
    ref = env.credentials_ref or ""
    told = secret_of(paths, ref)
    if _lives(told, now):
        return told
    if ref != credentials_ref(env.environment_id):
        return None
    try:
        token = read_file(paths.root / TOKEN_FILE, _MAX_TOKEN).decode().strip()
    except (FileNotFoundError, ValueError):
        return None
    return token if _lives(token, now) else None


def _lives(token: str, now: int) -> bool:
    """Whether there is a token, and it has not ended; one that has may have been rotated from another machine."""
    life = lifetime(token)
    return bool(token) and (life is None or life[1] > now)


def lifetime(token: str) -> tuple[int, int] | None:
    """When a token began and when it ends, in Unix seconds; nothing if it does not say."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), dict[str, object])
        begins, ends = claims["iat"], claims["exp"]
    except (ValueError, KeyError, TypeError):
        return None
    return (begins, ends) if isinstance(begins, int) and isinstance(ends, int) else None


def keep_token(paths: EnvPaths, token: str) -> None:
    """Keep the bound token on this machine, readable by its owner only."""
    path = paths.root / TOKEN_FILE
    make_directory(path.parent, 0o700)
    replace_file(path, token.encode(), 0o600, durable=True)


def _token(paths: EnvPaths, env: Environment, deployer: Deployer, now: int) -> str:
    found = local_token(paths, env, now)
    if found is not None:
        return found
    namespace = deployer.answers.namespace
    ref = Ref("Secret", names.IDENTITY_SECRET, namespace)
    try:
        secret = ApiServer(connect(deployer.answers.kubeconfig_context)).get(ref)
    except (Conflict, ClusterUnreachable) as error:
        raise _missing(env, paths, f"{ref}: {error.message}") from error
    if secret is None:
        raise _missing(env, paths, f"{ref}: not there")
    label = labels_of(secret).get(names.ENV)
    if label != names.label_value(env.environment_id):
        raise Conflict(f"{ref} is of environment `{label}`, not of `{env.environment_id}`")
    encoded = member(secret, "data").get("bearer")
    try:
        token = base64.b64decode(encoded if isinstance(encoded, str) else "").decode().strip()
    except ValueError:
        token = ""
    if not _lives(token, now):
        raise _missing(env, paths, f"{ref}: {'its token has ended' if token else 'no key `bearer`'}")
    return token


def _missing(env: Environment, paths: EnvPaths, last: str) -> Conflict:
    ref = env.credentials_ref or ""
    return Conflict(
        f"the bound credential `{ref}` is nowhere to be found; looked in ${variable_of(ref)}, {paths.root / TOKEN_FILE}, {last}",
        hint=f"gtc op credentials rotate {env.environment_id} admin_profile=CONTEXT makes a new one",
    )
