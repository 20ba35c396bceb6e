"""`op credentials`: what the deployer's identity may do, making a minimal one, renewing it (formats: cluster 6).

Rules:
1. Requirements ask the cluster, one review an operation. Where that cannot be asked, everything fails: nothing counts as passed
   that was not seen to pass.
2. Bootstrapping writes the rules for an administrator to apply, and binds nothing. With `bind` it applies them as the named
   kubeconfig context, takes a token of the new account, keeps it in a Secret and beside the environment, and records only the
   reference.
3. Rotating does the same again under the same reference. `if_needed` leaves a token alone before four fifths of its life.
4. What pods are given never holds the token: it lies outside of the secrets that are shipped.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from greentic.cluster.api_server import ApiServer
from greentic.cluster.apply import refuse
from greentic.cluster.connect import connect
from greentic.deployer.binding import Deployer, resolve
from greentic.deployer.cluster_identity import credentials_ref, keep_token, lifetime, local_token, reach
from greentic.deployer.permissions import ACCOUNT, grants, identity_secret, operations
from greentic.ground.clock import timestamp
from greentic.ground.documents import JsonObject, replace
from greentic.ground.errors import Conflict, GreenticError, InvalidArgument
from greentic.ground.reply import Reply
from greentic.ground.yaml import yaml_of
from greentic.k8s.objects import ApiRefused, member, ref_of
from greentic.k8s.plan import conditioned, fitted, make_plan
from greentic.k8s.render import render
from greentic.model.ids import check_env_id
from greentic.operate.change import Context, Done, run
from greentic.operate.payload import Payload
from greentic.store.audit import Change
from greentic.store.environments import Transaction

TOKEN_SECONDS = 31_536_000
"""A year; the server grants less where it is configured to."""
RULES_DIRECTORY = "rules/k8s"
_RENEW_AFTER = 0.8


class CredentialsRequirementsPayload(Payload, frozen=True, kw_only=True):
    environment_id: str


class AdminPayload(Payload, frozen=True, kw_only=True):
    """What needs an administrator. The material is taken by other deployers; the kubeconfig has it here."""

    environment_id: str
    admin_profile: Annotated[str, msgspec.Meta(description="the kubeconfig context of an administrator")]
    admin_material_path: str | None = None
    admin_material_inline: str | None = None


class CredentialsBootstrapPayload(AdminPayload, frozen=True, kw_only=True):
    bind: Annotated[bool, msgspec.Meta(description="apply the rules and bind the new account")] = False


class CredentialsRotatePayload(AdminPayload, frozen=True, kw_only=True):
    if_needed: Annotated[bool, msgspec.Meta(description="only near the end of the token's life")] = False


class Capability(Reply, frozen=True, kw_only=True):
    id: str
    description: str


class CapabilityCheck(Reply, frozen=True, kw_only=True):
    capability: Capability
    status: Literal["pass", "fail"]
    reason: str | UnsetType = UNSET


class Requirements(Reply, frozen=True, kw_only=True):
    environment_id: str
    deployer_kind: str
    credentials_ref: str
    mode: str = "requirements"
    result: Literal["pass", "fail"]
    missing_capabilities: list[str]
    checks: list[CapabilityCheck]
    last_run_at: str


class Bootstrapped(Reply, frozen=True, kw_only=True):
    environment_id: str
    deployer_kind: str
    mode: str = "bootstrap"
    bound: bool
    credentials_ref: str | None = None
    expires_at: str | None = None
    rules_pack_ref: str | None = None
    """Where the rules were written, if nothing was bound."""
    admin_credential_consumed_at: str | None = None


class Rotated(Reply, frozen=True, kw_only=True):
    environment_id: str
    rotated: bool
    reason: str | UnsetType = UNSET
    """Why not."""
    credentials_ref: str | UnsetType = UNSET
    expires_at: str | None | UnsetType = UNSET
    rotate_at: str | None | UnsetType = UNSET


class _Minted(NamedTuple):
    token: str
    expires_at: str | None


def requirements(context: Context, payload: CredentialsRequirementsPayload) -> Requirements:
    """Ask the cluster what the identity may do."""
    env_id = check_env_id(payload.environment_id)
    deployer = resolve(context, env_id, None, live=True)
    ref = deployer.env.credentials_ref
    if ref is None:
        raise Conflict(
            f"environment `{env_id}` has no bound credential to examine",
            hint=f"gtc op credentials bootstrap {env_id} admin_profile=CONTEXT bind=true",
        )
    checks: list[CapabilityCheck] = []
    api: ApiServer | None = None
    reachable: str | None = None
    try:
        api = reach(context, deployer).api
        _introduce(api)
    except GreenticError as error:
        api, reachable = None, error.message
    checks.append(_check("k8s.api.reachable", "the API server is reached and accepts the identity", reachable))
    if api is None:
        checks += [
            _check(o.capability, f"{o.verb} {o.resource}", "the API server was not reached") for o in operations()
        ]
    else:
        checks += _reviewed(api, deployer.answers.namespace)
    missing = [c.capability.id for c in checks if c.status == "fail"]
    return Requirements(
        environment_id=env_id,
        deployer_kind=deployer.kind,
        credentials_ref=ref,
        result="fail" if missing else "pass",
        missing_capabilities=missing,
        checks=checks,
        last_run_at=timestamp(context.clock.now_ns()),
    )


def _introduce(api: ApiServer) -> None:
    """Ask the server who this identity is. Raises `Conflict` if it is not accepted.

    Servers before 1.28 have no such review, or grant it to nobody; that they answer anything but 401, to somebody with a name,
    shows that the token is accepted.
    """
    review: JsonObject = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        who = api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    except ApiRefused as error:
        if error.status not in (403, 404) or "system:anonymous" in error.message:
            raise
        return
    if not isinstance(member(who, "status", "userInfo").get("username"), str):
        raise Conflict("the server does not say who this identity is")


def _reviewed(api: ApiServer, namespace: str) -> list[CapabilityCheck]:
    """One review an operation; if one cannot be had, all fail (rule 1)."""
    found: list[CapabilityCheck] = []
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    try:
        for operation in operations():
            status = api.post(path, operation.review(namespace)).get("status")
            if not isinstance(status, dict):
                raise Conflict("a review came back without a status")
            reason = None if status.get("allowed") is True else str(status.get("reason") or "no reason supplied")
            found.append(_check(operation.capability, f"{operation.verb} {operation.resource}", reason))
    except GreenticError as error:
        return [_check(o.capability, f"{o.verb} {o.resource}", error.message) for o in operations()]
    return found


def _check(name: str, description: str, reason: str | None) -> CapabilityCheck:
    return CapabilityCheck(
        capability=Capability(id=name, description=description),
        status="pass" if reason is None else "fail",
        reason=UNSET if reason is None else reason,
    )


def bootstrap(context: Context, payload: CredentialsBootstrapPayload) -> Bootstrapped:
    """Write the minimal rules; with `bind`, apply them and bind the new account."""
    env_id = check_env_id(payload.environment_id)
    _check_admin(payload.admin_profile)
    deployer = resolve(context, env_id, None, live=True)
    told = Bootstrapped(environment_id=env_id, deployer_kind=deployer.kind, bound=payload.bind)
    change = Change(env_id, "credentials", "bootstrap", {"environment_id": env_id, "bind": payload.bind})
    if not payload.bind:

        def write(transaction: Transaction) -> Done[Bootstrapped]:
            _write_rules(deployer, transaction.paths.root / RULES_DIRECTORY)
            return Done(replace(told, rules_pack_ref=RULES_DIRECTORY))

        return run(context, change, write)
    minted = _bind(context, deployer, payload.admin_profile)
    ref = credentials_ref(env_id)

    def record(transaction: Transaction) -> Done[Bootstrapped]:
        env = transaction.load()
        if env.credentials_ref != ref:
            transaction.save(replace(env, credentials_ref=ref))
        now = timestamp(context.clock.now_ns())
        return Done(replace(told, credentials_ref=ref, expires_at=minted.expires_at, admin_credential_consumed_at=now))

    return run(context, change, record)


def rotate(context: Context, payload: CredentialsRotatePayload) -> Rotated:
    """A new token under the old reference."""
    env_id = check_env_id(payload.environment_id)
    _check_admin(payload.admin_profile)
    deployer = resolve(context, env_id, None, live=True)
    ref = deployer.env.credentials_ref
    if ref is None:
        raise Conflict(
            f"environment `{env_id}` has no bound credential", hint=f"gtc op credentials bootstrap {env_id} bind=true"
        )
    if payload.if_needed:
        now = context.clock.now_ns() // 1_000_000_000
        current = local_token(context.store.paths(env_id), deployer.env, now)
        when = None if current is None else renewal(current)
        if when is not None and now < when:
            later = f"the token is to be renewed at {timestamp(when * 1_000_000_000)}"
            return Rotated(environment_id=env_id, rotated=False, reason=later)
    minted = _bind(context, deployer, payload.admin_profile)
    when = renewal(minted.token)
    change = Change(env_id, "credentials", "rotate", {"environment_id": env_id})
    result = Rotated(
        environment_id=env_id,
        rotated=True,
        credentials_ref=ref,
        expires_at=minted.expires_at,
        rotate_at=None if when is None else timestamp(when * 1_000_000_000),
    )
    return run(context, change, lambda transaction: Done(result))


def renewal(token: str) -> int | None:
    """When a token is to be renewed, in Unix seconds: after four fifths of its life. Nothing if it does not say."""
    life = lifetime(token)
    return None if life is None else life[0] + int((life[1] - life[0]) * _RENEW_AFTER)


def _check_admin(profile: str) -> None:
    if not profile.strip():
        raise InvalidArgument(
            "admin_profile: the kubeconfig context of an administrator is needed", hint="kubectl config get-contexts"
        )


def _bind(context: Context, deployer: Deployer, profile: str) -> _Minted:
    """As the administrator: rules, token, Secret; then the copy beside the environment. Raises `Conflict`."""
    env_id, namespace, store = deployer.env.environment_id, deployer.answers.namespace, deployer.owner.store
    api = ApiServer(connect(profile))
    wanted = [render(deployer.desired)[0], *grants(env_id, namespace, store)]
    unfilled = identity_secret(env_id, namespace, store, "")
    live = [found for found in (api.get(ref_of(thing)) for thing in (*wanted, unfilled)) if found is not None]
    refuse(make_plan([*wanted, unfilled], live, deployer.owner), force=True)
    there = {ref_of(thing): thing for thing in live}

    def write(thing: JsonObject) -> None:
        seen = there.get(ref_of(thing))
        api.apply(conditioned(fitted(thing, seen), seen), force=True)

    for thing in wanted:
        write(thing)
    minted = _token(api, namespace)
    write(identity_secret(env_id, namespace, store, base64.b64encode(minted.token.encode()).decode()))
    try:
        keep_token(context.store.paths(env_id), minted.token)
    except OSError as error:
        raise Conflict(f"the token cannot be kept beside the environment: {error.strerror}") from error
    return minted


def _token(api: ApiServer, namespace: str) -> _Minted:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}/token"
    body: JsonObject = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_SECONDS},
    }
    status = member(api.post(path, body), "status")
    token, expires = status.get("token"), status.get("expirationTimestamp")
    if not isinstance(token, str) or not token:
        raise Conflict(f"the cluster gave no token for service account `{ACCOUNT}` in namespace `{namespace}`")
    return _Minted(token, expires if isinstance(expires, str) else None)


def _write_rules(deployer: Deployer, directory: Path) -> None:
    env_id, namespace = deployer.env.environment_id, deployer.answers.namespace
    objects = [render(deployer.desired)[0], *grants(env_id, namespace, deployer.owner.store)]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "k8s-min-rbac.yaml").write_text("---\n".join(yaml_of(thing) for thing in objects))
    listed = "\n".join(f"* {o.verb} {o.resource} ({o.group or 'core'})" for o in operations())
    (directory / "README.md").write_text(
        f"# The deployer's account for environment `{env_id}`\n\n"
        f"    kubectl apply --server-side -f k8s-min-rbac.yaml\n"
        f"    kubectl create token {ACCOUNT} -n {namespace} --duration=1h\n\n"
        f"Then bind it (`gtc op credentials bootstrap {env_id} admin_profile=CONTEXT bind=true` does all of this) and check it with\n"
        f"`gtc op credentials requirements {env_id}`. It may do this, in namespace `{namespace}` only:\n\n{listed}\n"
    )
