"""The demo's outage: two deployments, of which one's distributor is dead. The other answers, and the first comes by itself."""

from __future__ import annotations

import shutil
import time
import urllib.error
import urllib.request

from demo import host
from demo.host import BUNDLE, DISTRIBUTOR_PORT, WORKER_PORT, op, say, show
from demo.processes import PATIENCE, STATE, Failed

HERE = STATE / "here.gtbundle"
"""The bundle of the deployment whose source never fails."""


def author() -> None:
    """Two deployments of one bundle: `/far` comes from the distributor, `/near` from a file."""
    say("1. Author two deployments: /far is pulled from a distributor, /near from a file")
    shutil.copy(BUNDLE, HERE)
    op("env", "create", "local", "--name", "local")
    op("trust-root", "bootstrap", "local")
    for name, uri in (("far", f"http://127.0.0.1:{DISTRIBUTOR_PORT}/bundle.gtbundle"), ("near", HERE.as_uri())):
        prefixes = f'route_binding.path_prefixes=["/{name}"]'
        deployment = op("bundles", "add", "local", f"bundle_id={name}", prefixes)["deployment_id"]
        source = (f"bundle_path={BUNDLE}", f"bundle_source_uri={uri}")
        revision = op("revisions", "stage", "local", "--deployment", deployment, *source)["revision_id"]
        op("revisions", "warm", "local", f"revision_id={revision}")
        op("traffic", "set", "local", f"{revision}=100", "--deployment", deployment, "--idempotency-key", name)


def dead() -> None:
    """While the distributor is dead `/near` answers, and `/far` says that it is not available."""
    _expect("near", 200)
    _expect("far", 503)


def back() -> None:
    """`/far` comes by itself; nobody tells the worker."""
    ends = time.monotonic() + PATIENCE
    while (found := _asked("far")) != 200:
        if time.monotonic() > ends:
            raise Failed(f"/far still answers {found}")
        time.sleep(0.1)
    _expect("far", 200)
    _expect("near", 200)
    host.say("Served: the outage of one source was the outage of one deployment.")


def _expect(name: str, status: int) -> None:
    show(f'curl -X POST http://127.0.0.1:{WORKER_PORT}/{name} -d \'{{"text":"hi"}}\'')
    found = _asked(name)
    print(f"HTTP {found}", flush=True)
    if found != status:
        raise Failed(f"/{name} answered {found}, expected {status}")


def _asked(name: str) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{WORKER_PORT}/{name}", b'{"text":"hi"}', {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
