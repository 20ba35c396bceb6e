"""What `gtc flow lint` found, for people."""

from __future__ import annotations

from greentic.ground.documents import JsonObject
from greentic.terminal.fitted import fitted_here
from greentic.terminal.output import printed, rows_in
from greentic.terminal.words import counted


def print_findings(found: JsonObject) -> None:
    """A line a finding, as compilers print theirs; editors and terminals find the place in `FILE:LINE:COLUMN`."""
    rows = rows_in(found, "checked")
    for row in rows:
        told = row["findings"]
        for finding in told if isinstance(told, list) else []:
            where = "" if str(finding).startswith(str(row["path"])) else f"{row['path']}: "
            print(fitted_here(printed(f"{where}{finding}")))
    count = found["findings"]
    print(
        f"{counted(count, 'finding') if isinstance(count, int) and count else 'nothing found'} in {counted(len(rows), 'source')}"
    )
