"""The lab's cluster DNS: answers A questions about Services from the API server, as a pod with the label that policies look for.

Only `<service>.<namespace>.svc.cluster.local` exists; headless Services and other record types have no answer.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
import time
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SUFFIX = ".svc.cluster.local"
KEEP_SECONDS = 1.0


class Services:
    """Cluster addresses by name, read again when they are older than a second."""

    def __init__(self, server: str) -> None:
        self._url = f"{server}/api/v1/services"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.load_verify_locations(ACCOUNT / "ca.crt")
        self._found: dict[str, str] = {}
        self._at = 0.0

    def address(self, name: str) -> str | None:
        if time.monotonic() - self._at > KEEP_SECONDS:
            request = urllib.request.Request(
                self._url, headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"}
            )
            try:
                with urllib.request.urlopen(request, context=self._context, timeout=3) as answer:
                    items = json.load(answer)["items"]
                self._found = {
                    f"{i['metadata']['name']}.{i['metadata']['namespace']}{SUFFIX}": i["spec"].get("clusterIP", "None")
                    for i in items
                }
                self._at = time.monotonic()
            except OSError as error:
                print(f"the API server does not answer: {error}", flush=True)
        found = self._found.get(name.lower().rstrip("."))
        return None if found in (None, "None", "") else found


def answer(question: bytes, services: Services) -> bytes:
    """The reply to one query."""
    identifier, flags = struct.unpack_from(">HH", question)
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode(errors="replace"))
        at += 1 + question[at]
    kind = struct.unpack_from(">H", question, at + 1)[0]
    asked = question[12 : at + 5]
    name = ".".join(labels)
    address = services.address(name)
    records = b""
    if address is not None and kind == 1:
        records = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + socket.inet_aton(address)
    code = 0 if address is not None else 3
    header = struct.pack(">HHHHHH", identifier, 0x8400 | (flags & 0x0100) | code, 1, 1 if records else 0, 0, 0)
    return header + asked + records


def main() -> None:
    services = Services(sys.argv[1])
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", 53))
    print("serving", flush=True)
    while True:
        question, peer = udp.recvfrom(4096)
        try:
            udp.sendto(answer(question, services), peer)
        except (IndexError, struct.error):
            continue


if __name__ == "__main__":
    main()
