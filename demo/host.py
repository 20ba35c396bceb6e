"""The demo on this host: author a deployment, strip the host to what a pod would have, boot a worker, ask it.

What a later step needs of an earlier one lies below `.demo`: the bundle, the store, the address that the bundle is pulled from.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from demo.processes import STATE, Failed, log_of, port_free, running, start, stop, wait_for

ROOT = STATE.parent
GTC, WORKER = ROOT / ".venv" / "bin" / "gtc", ROOT / ".venv" / "bin" / "greentic-start"
WORKER_PORT = int(os.environ.get("WORKER_PORT") or 8080)
DISTRIBUTOR_PORT = int(os.environ.get("DISTRIBUTOR_PORT") or 8090)
CONSOLE_PORT = int(os.environ.get("CONSOLE_PORT") or 8070)
STORE = STATE / "environments"
BUNDLES = STATE / "bundles"
BUNDLE = BUNDLES / "bundle.gtbundle"
URI = STATE / "bundle-source-uri"
PROCESSES = ("console", "worker", "distributor", "registry")


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def show(command: str) -> None:
    print(f"$ {command}", flush=True)


def gtc(*words: object) -> str:
    """Run the operator's program, show what it says, and give it back."""
    environ = os.environ | {"NO_COLOR": "1", "GTC_OPERATOR_KEY_PATH": str(STATE / "operator" / "key.pem")}
    done = subprocess.run([str(GTC), *map(str, words)], env=environ, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise Failed(f"`gtc {' '.join(map(str, words[:3]))} …` ended with {done.returncode}")
    return done.stdout


def op(*words: object) -> dict[str, str]:
    """Run a verb in the demo's store; the result of its envelope."""
    result: dict[str, str] = json.loads(gtc("op", "--store-root", STORE, *words))["result"]
    return result


def pinned_digest() -> str:
    document = json.loads((STORE / "local" / "environment.json").read_text())
    return str(document["revisions"][0]["bundle_digest"])


def halt() -> None:
    """Stop exactly what the demo started."""
    for name in PROCESSES:
        stop(name)


def prepare(bundle: str = "") -> None:
    """Stop an earlier demo, look at the ports, begin with a clean directory and the bundle in its place."""
    halt()
    port_free(WORKER_PORT, "for the worker", "WORKER_PORT")
    port_free(DISTRIBUTOR_PORT, "for the distributor", "DISTRIBUTOR_PORT")
    shutil.rmtree(STATE, ignore_errors=True)
    BUNDLES.mkdir(parents=True)
    if bundle:
        given = Path(os.environ.get("CALLED_FROM", "."), bundle)
        if not given.is_file():
            raise Failed(f"there is no bundle at {bundle}")
        shutil.copy(given, BUNDLE)
        (STATE / "bundle-name").write_text(given.name)
        return
    say("0. Build the example bundle")
    show("gtc bundle build examples/hello-bundle --out hello.gtbundle")
    gtc("bundle", "build", "examples/hello-bundle", "--out", STATE / "hello.gtbundle")
    shutil.copy(STATE / "hello.gtbundle", BUNDLE)
    (STATE / "bundle-name").write_text("hello.gtbundle")


def author() -> None:
    """The real verbs: an environment with one deployment of the bundle, which gets all traffic."""
    uri = URI.read_text() if URI.exists() else f"http://127.0.0.1:{DISTRIBUTOR_PORT}/bundle.gtbundle"
    name = (STATE / "bundle-name").read_text()
    say("1. Author the deployment (store: .demo/environments)")
    show("gtc op env create local --name local")
    op("env", "create", "local", "--name", "local")
    show("gtc op trust-root bootstrap local")
    op("trust-root", "bootstrap", "local")
    show("gtc op bundles add local bundle_id=demo route_binding.path_prefixes='[\"/\"]'")
    op("bundles", "add", "local", "bundle_id=demo", 'route_binding.path_prefixes=["/"]')
    show(f"gtc op revisions stage local --deployment demo bundle_path={name} bundle_source_uri={uri}")
    op("revisions", "stage", "local", "--deployment", "demo", f"bundle_path={BUNDLE}", f"bundle_source_uri={uri}")
    show("gtc op revisions warm local demo@1")
    op("revisions", "warm", "local", "demo@1")
    show("gtc op traffic set local demo@1=100 --deployment demo --idempotency-key demo-1")
    op("traffic", "set", "local", "demo@1=100", "--deployment", "demo", "--idempotency-key", "demo-1")
    print(f"pinned digest: {pinned_digest()}", flush=True)


def strip() -> None:
    """Leave what a pod gets."""
    say("2. Strip the host to what a pod gets: environment.json alone")
    show("rm -rf runtime-config.json revisions/")
    (STORE / "local" / "runtime-config.json").unlink(missing_ok=True)
    shutil.rmtree(STORE / "local" / "revisions", ignore_errors=True)


def distributor(*flags: str) -> None:
    """Serve the bundle's directory."""
    start("distributor", GTC, "distributor", "serve", BUNDLES, *flags, "--port", DISTRIBUTOR_PORT)
    wait_for("distributor", f"http://127.0.0.1:{DISTRIBUTOR_PORT}/")


def boot() -> subprocess.Popen[bytes]:
    """Start a worker with nothing but the store."""
    show("greentic-start start --env local --store-root .demo/environments")
    foreign = ("GREENTIC_REVISION_ID", "GREENTIC_SEED_DIR", "GREENTIC_GATEWAY_PORT", "PORT")
    environ = {name: value for name, value in os.environ.items() if name not in foreign} | {
        "NO_COLOR": "1",
        "GREENTIC_BUNDLE_CACHE_DIR": str(STATE / "cache"),
        "GREENTIC_GATEWAY_LISTEN_ADDR": f"127.0.0.1:{WORKER_PORT}",
    }
    if URI.exists():
        environ["GREENTIC_OCI_INSECURE_REGISTRIES"] = f"127.0.0.1:{DISTRIBUTOR_PORT}"
    return start("worker", WORKER, "start", "--env", "local", "--store-root", STORE, "--strict-port", environ=environ)


def worker() -> None:
    """Boot a worker and wait until it serves."""
    boot()
    wait_for("worker", f"http://127.0.0.1:{WORKER_PORT}/healthz")
    print(log_of("worker").read_text(), end="", flush=True)


def running_worker() -> None:
    """Say which process the worker is, or nothing where none runs."""
    pid = running("worker")
    print("" if pid is None else pid)


def console() -> None:
    """Start a console on the worker and say where it is."""
    stop("console")
    port_free(CONSOLE_PORT, "for the console", "CONSOLE_PORT")
    words = ["console", "local", "--at", f"http://127.0.0.1:{WORKER_PORT}", "--port", CONSOLE_PORT]
    show(f"gtc {' '.join(map(str, words))} --store-root .demo/environments")
    start("console", GTC, *words, "--store-root", STORE)
    wait_for("console", f"http://127.0.0.1:{CONSOLE_PORT}/")
    print(log_of("console").read_text().splitlines()[0], flush=True)


def get(method: str, url: str, body: str | None = None) -> None:
    """One request: show its status and body, and fail unless the status is 200."""
    headers = {} if body is None else {"content-type": "application/json"}
    request = urllib.request.Request(url, method=method, data=None if body is None else body.encode(), headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        print(f"HTTP {answer.status}\n{answer.read().decode()}", flush=True)
        if answer.status != 200:
            raise Failed(f"{method} {url} was answered {answer.status}")


def ask(*paths: str) -> None:
    """Ask the worker: each path, what it serves as `/status` says, and then a message."""
    at = f"http://127.0.0.1:{WORKER_PORT}"
    for path in paths:
        show(f"curl {at}{path}")
        get("GET", f"{at}{path}")
    show(f"gtc op env status local --at {at}")
    gtc("op", "--store-root", STORE, "--output", "table", "env", "status", "local", "--at", at)
    show(f'curl -X POST {at}/ -d \'{{"text":"hi"}}\'')
    get("POST", f"{at}/", '{"text":"hi"}')
