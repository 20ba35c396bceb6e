"""What the service manager of a host is told (systemd's `Type=notify`): that the worker serves, and that it stops.

It is told by the process that it started, once, through the datagram socket that it names. A manager that cannot be told is done without.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Literal

from greentic.ground import variables
from greentic.ground.optional import done_without

State = Literal["READY=1", "STOPPING=1"]


def tell_manager(state: State, environ: Mapping[str, str]) -> None:
    """Tell the manager that started this process, if one wants to be told."""
    name = variables.text("NOTIFY_SOCKET", environ)
    if not name:
        return
    address = f"\0{name[1:]}" if name[0] == "@" else name  # one without a file
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.sendto(state.encode(), socket.MSG_DONTWAIT, address)
    except OSError as error:
        done_without("telling the service manager", f"{name}: {error.strerror}")
