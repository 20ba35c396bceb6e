"""The program that a kubeconfig names to give a token (an exec credential plugin), run and read.

Rules:
1. It is told who asks and that nobody sees what it prints. It has no standard input; a terminal it may open itself.
2. It is waited for as long as a person takes to log in, never without end, also where a program that it started lives on.
3. What it prints on standard error is quoted where it fails; what it prints on standard output may be a token and is quoted nowhere.
4. Whatever fails is told with the plugin's name and the next step: the kubeconfig's own hint where the plugin is not installed.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator
from typing import NamedTuple, NoReturn

import httpx2

from greentic.ground.documents import parse
from greentic.k8s.objects import ClusterUnreachable, member

PLUGIN_SECONDS = 120.0
MAX_PLUGIN_BYTES = 1 << 20
_QUOTED = 500
LOG_IN = "log in again, as your kubeconfig's plugin wants it (kubectl get namespaces shows the same), or fetch the kubeconfig again"


class Plugin(NamedTuple):
    """What a kubeconfig says of its plugin."""

    command: str
    arguments: tuple[str, ...]
    variables: dict[str, str]
    """All that it is started with."""
    version: str
    install_hint: str | None


class PluginAuth(httpx2.Auth):
    """Bearer tokens from a plugin; asked for again when the server takes the last one no more."""

    def __init__(self, plugin: Plugin, where: str, seconds: float = PLUGIN_SECONDS) -> None:
        self._plugin, self._where, self._seconds = plugin, where, seconds
        self._token: str | None = None
        self._one_at_a_time = threading.Lock()

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        used = self._token
        if used is not None:
            request.headers["Authorization"] = f"Bearer {used}"
            answer = yield request
            if answer.status_code != 401:
                return
        with self._one_at_a_time:
            if self._token == used:
                self._token = token_of(self._plugin, self._where, self._seconds)
            request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def token_of(plugin: Plugin, where: str, seconds: float = PLUGIN_SECONDS) -> str:
    """The token that a plugin gives. Raises `ClusterUnreachable`."""
    told = {"apiVersion": plugin.version, "kind": "ExecCredential", "spec": {"interactive": False}}
    given = {**plugin.variables, "KUBERNETES_EXEC_INFO": json.dumps(told)}

    def fail(why: str, hint: str = LOG_IN) -> NoReturn:
        raise ClusterUnreachable(f"cannot reach the cluster at {where}: plugin `{plugin.command}` {why}", hint=hint)

    # Files, no pipes: a program that the plugin leaves behind would hold a pipe open (rule 2).
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        words = [plugin.command, *plugin.arguments]
        try:
            process = subprocess.Popen(words, env=given, stdin=subprocess.DEVNULL, stdout=out, stderr=said)
        except FileNotFoundError:
            fail("is not installed, or not in PATH", plugin.install_hint or "install it; kubectl needs it as well")
        except (OSError, ValueError) as error:
            fail(f"cannot be started: {error}", plugin.install_hint or LOG_IN)
        try:
            code = process.wait(seconds)
        except BaseException as error:
            process.kill()
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            fail(f"gave no token within {seconds:g} s{_quoted(said.seek, said.read)}")
        if code != 0:
            fail(f"ended with {code}{_quoted(said.seek, said.read)}")
        out.seek(0)
        return _token(out.read(MAX_PLUGIN_BYTES), fail)


def _quoted(seek: Callable[[int], int], read: Callable[[int], bytes]) -> str:
    """The beginning of what it said on standard error, as the end of a sentence."""
    seek(0)
    text = " ".join(read(_QUOTED).decode(errors="replace").split())
    return f": {text}" if text else " and said nothing on standard error"


def _token(data: bytes, fail: Callable[[str], NoReturn]) -> str:
    try:
        value = parse(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        fail("printed no ExecCredential: expected one JSON object with status.token")
    status = member(value, "status")
    token = status.get("token")
    if not isinstance(token, str) or not token:
        given = (
            "a client certificate, which is not supported" if status.get("clientCertificateData") else "nothing of it"
        )
        fail(f"gives {given}; expected status.token")
    return token
