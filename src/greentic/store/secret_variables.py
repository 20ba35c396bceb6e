"""The environment variable that may hold a secret which a reference names (formats: cluster 6).

Rules:
1. It is `GREENTIC_SECRET_` and the path of the reference in capitals, what is no letter and no digit as one `_`.
2. So `prod-1`, `prod.1` and `Prod_1` have one variable. Where it is set, and more than one of them is in the store, nobody can tell whose
   secret it holds: it is used for none.
"""

from __future__ import annotations

import re

from greentic.ground import variables
from greentic.ground.errors import Conflict
from greentic.model.environment import DOCUMENT
from greentic.model.ids import is_env_id
from greentic.store.layout import EnvPaths


def variable_of(ref: str) -> str:
    """The variable of a reference (rule 1)."""
    return variables.SECRET_PREFIX + re.sub(r"[^A-Z0-9]+", "_", ref.partition("://")[2].upper()).strip("_")


def secret_of(paths: EnvPaths, ref: str) -> str:
    """What the variable of a reference holds; empty where it is not set. Raises `Conflict` (rule 2)."""
    name = variable_of(ref)
    told = variables.environment().get(name, "").strip()
    own = f"secret://{paths.root.name}/"
    if not told or not ref.startswith(own):
        return told
    beside = (path.name for path in paths.root.parent.iterdir() if path != paths.root and (path / DOCUMENT).is_file())
    for other in sorted(beside):
        if is_env_id(other) and variable_of(f"secret://{other}/{ref.removeprefix(own)}") == name:
            raise Conflict(
                f"`{name}` is the variable of `{other}`, too, which is in the same store as `{paths.root.name}`: whose secret it holds "
                "cannot be told",
                hint="unset it: each secret has its place beside its environment",
            )
    return told
