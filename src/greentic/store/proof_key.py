"""The key that a worker signs its proofs with: one that it is given, else its own, made at its first boot.

Rules:
1. A file that is named must hold an Ed25519 key as PKCS#8 PEM; nothing is made in its place.
2. The worker's own lies where the user keeps things for good, else beside the environment, readable by nobody else. Whoever comes second
   uses the first one's key, so the processes of one worker have one.
3. Nobody need ask for proofs: what lies in a place and cannot be read (another user's, a damaged one) is left as it is, and told, and
   the next place counts. Where none does, the key lives as long as the process, and that is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from greentic.ground.clock import Random
from greentic.ground.disk import Disk
from greentic.ground.documents import read_given
from greentic.ground.errors import BootError
from greentic.store.operator_key import write_once
from greentic.trust.keys import MAX_PEM, SigningKey, private_pem, read_private_pem

PROOF_KEY = "worker-key.pem"
"""It lies where what a worker has seen is kept (`materialize/remembered`), and is not seeded either."""


def proof_key(
    given: Path | None, places: Sequence[Path], disk: Disk, random: Random, warn: Callable[[str], None]
) -> SigningKey:
    """The key. Raises `BootError` for a given file that cannot be read, or that holds no key."""
    if given is not None:
        return _read(given)
    why = ""
    for place in reversed(places):  # the last one is the user's, if there is one
        path = place / PROOF_KEY
        try:
            if not path.exists():  # which raises where the way there is closed
                disk.make_directory(place, 0o700)
                write_once(path, private_pem(random.octets(32)).encode(), 0o600, disk, random)
            return _read(path)
        except OSError as error:
            why = f"`{path}`: {error.strerror}"
        except BootError as error:
            why = error.message
            warn(f"done without {why}; this worker's proofs are signed with another key")
    warn(f"the key of this worker's proofs is kept nowhere, the next process has another: {why}")
    return SigningKey(random.octets(32))


def _read(path: Path) -> SigningKey:
    try:
        return read_private_pem(read_given(path, MAX_PEM).decode())
    except OSError as error:
        raise BootError(f"the proof key `{path}` cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BootError(
            f"the proof key `{path}` is no Ed25519 key: {error}",
            hint="expected PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` writes it",
        ) from None
