"""docs/variables.md from the table that the programs read (greentic/ground/variables.py)."""

from __future__ import annotations

from pathlib import Path

from greentic.ground import variables

PAGE = Path(__file__).resolve().parent.parent / "docs" / "variables.md"
BEFORE = """# Environment variables

Every variable that the programs read; printed from the table in `src/greentic/ground/variables.py` by `make docs`, so change it there.
Blank counts as unset. A value that makes no sense ends the program that reads it, with the variable's name, what was expected and what was
found.
Four kinds do not end it: an address or port to listen on is warned about and ignored, as by the existing worker; a proxy that is no http
proxy, and a place of the user (`XDG_…`) that is no absolute path, is told and done without; an `OTEL_` variable switches tracing off
([observability.md](observability.md)).
`worker` is `greentic-start`, `gtc` the operator's program. Switches take `1`, `true`, `yes`, `on` and `0`, `false`, `no`, `off`.

"""
AFTER = f"""
Variables that begin with `{variables.SECRET_PREFIX}` hold tokens that references name: the rest of the name is the path of the reference in
capitals.
"""


def page() -> str:
    """The whole page."""
    return BEFORE + variables.markdown() + AFTER
