"""A conversation with the running worker: lines in, its words out. An empty line ends it."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from demo.host import WORKER_PORT
from demo.processes import Failed, running


def talk() -> None:
    if running("worker") is None:
        raise Failed("no worker is running; start one with ./demo.sh host-pull")
    at_terminal = sys.stdout.isatty()
    terminal = Path("/dev/tty")
    person = terminal.open() if at_terminal and terminal.exists() else sys.stdin
    session = f"talk-{os.getpid()}"
    print(
        "Say something; the worker shouts it back. Say `order` and it asks what you would like. An empty line ends this."
    )
    while True:
        print("you:    ", end="", flush=True)
        line = person.readline().strip()
        if not line:
            print()
            return
        if not at_terminal:
            print(line)
        try:
            for reply in _say(line, session):
                for text in _texts(reply["payload"]):
                    print(f"worker: {text}", flush=True)
        except (OSError, ValueError) as error:
            raise Failed(f"the worker did not answer: {error}") from None


def _say(text: str, session: str) -> list[dict[str, object]]:
    headers = {"content-type": "application/json", "x-greentic-session": session}
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{WORKER_PORT}/", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        replies: list[dict[str, object]] = json.load(answer)
        return replies


def _texts(payload: object) -> Iterator[str]:
    """What a payload says to a person."""
    if isinstance(payload, dict) and payload.get("status") == "pending":
        payload = payload["response"]
    for item in payload if isinstance(payload, list) else [payload]:
        yield str(item["text"]) if isinstance(item, dict) and "text" in item else json.dumps(item, ensure_ascii=False)
