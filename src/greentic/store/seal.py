"""The operator's seal of an environment: who edits the document without the key breaks it.

Rules:
1. Only an environment that was set up for it (`gtc op delivery set`) is sealed. Every save then raises the generation, carries
   the trust root's public keys, and is signed anew by the operator's key, which the trust root must hold; without it nothing is saved.
2. The seal is over the whole document but itself, in canonical form.
"""

from __future__ import annotations

from greentic.ground.clock import Clock, timestamp
from greentic.ground.disk import Disk
from greentic.ground.documents import replace
from greentic.model.delivery import delivery_of, sealed_content, with_delivery
from greentic.model.environment import Environment
from greentic.store import operator_key
from greentic.trust.keys import SigningKey
from greentic.trust.root import TrustRoot
from greentic.trust.statements import SEAL, sign_content, statement_time


def sealed(env: Environment, root: TrustRoot, disk: Disk, clock: Clock) -> Environment:
    """The document of an environment that is set up for it, as it is to be written (rule 1). Raises `OperatorKeyError`."""
    key = operator_key.load_trusted(disk, root, env.environment_id)
    return _signed(env, delivery_of(env).generation + 1, root, key, clock)


def sealed_as(env: Environment, generation: int, root: TrustRoot, disk: Disk, clock: Clock) -> Environment:
    """A projection of any environment, sealed as a generation of its own, for readers elsewhere. Raises `OperatorKeyError`."""
    return _signed(env, generation, root, operator_key.load_trusted(disk, root, env.environment_id), clock)


def _signed(env: Environment, generation: int, root: TrustRoot, key: SigningKey, clock: Clock) -> Environment:
    keys = {k.key_id.lower(): k.public_key_pem for k in root.keys}
    env = with_delivery(env, replace(delivery_of(env), generation=generation, keys=keys, seal=None))
    name = f"{env.environment_id}/environment.json"
    seal = sign_content(SEAL, name, sealed_content(env), key, timestamp(clock.now_ns()))
    return with_delivery(env, replace(delivery_of(env), seal=seal))


def resealed(env: Environment, disk: Disk) -> Environment:
    """A projection of a sealed environment, sealed anew for its readers; one that was never sealed stays as it is.

    Generation and time are those of the original, so that the same environment always gives the same document. Raises
    `OperatorKeyError`.
    """
    before = delivery_of(env)
    if before.seal is None:
        return env
    unsealed = with_delivery(env, replace(before, seal=None))
    name = f"{env.environment_id}/environment.json"
    seal = sign_content(SEAL, name, sealed_content(unsealed), operator_key.load(disk), statement_time(before.seal))
    return with_delivery(unsealed, replace(before, seal=seal))
