"""The demo's hard days: bytes that differ, a registry, a kill in the middle of a pull, a bundle that was revoked."""

from __future__ import annotations

import json
import os
import re
import shutil
import time

from demo import host
from demo.host import BUNDLE, BUNDLES, DISTRIBUTOR_PORT, STORE, URI, gtc, op, say, show
from demo.processes import PATIENCE, STATE, Failed, kill, log_of, start, wait_for

NOISE = 96 * 1024 * 1024
"""Bytes that make the bundle of the resumed pull large."""


def flip() -> None:
    """Change one byte of the bundle at the distributor."""
    data = bytearray(BUNDLE.read_bytes())
    data[len(data) // 2] ^= 1
    BUNDLE.write_bytes(data)


def refused(reason: str) -> None:
    """Boot a worker that must refuse: it ends with 1, says why, and leaves nothing behind that looks ready."""
    process = host.boot()
    code = process.wait(PATIENCE)
    log = log_of("worker").read_text()
    print(log, end="", flush=True)
    if code != 1:
        raise Failed(f"the worker ended with {code}, expected 1")
    if reason not in log:
        raise Failed(f"the refusal does not say `{reason}`")
    if (STORE / "local" / "runtime-config.json").exists():
        raise Failed("a refused boot left a projection behind")


def registry() -> None:
    """Start Debian's registry and push the bundle to it; the next steps pull from there."""
    if shutil.which("docker-registry") is None:
        raise Failed("this demo needs a registry: apt-get install docker-registry")
    address = f"127.0.0.1:{DISTRIBUTOR_PORT}"
    (STATE / "registry.yml").write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {STATE}/registry}}}}\nhttp: {{addr: {address}}}\n"
    )
    show("docker-registry serve registry.yml")
    start("registry", "docker-registry", "serve", STATE / "registry.yml")
    wait_for("registry", f"http://{address}/v2/")
    os.environ["GREENTIC_OCI_INSECURE_REGISTRIES"] = address
    name = (STATE / "bundle-name").read_text()
    show(f"gtc bundle publish {name} oci://{address}/bots/demo:1")
    published = json.loads(gtc("bundle", "publish", BUNDLE, f"oci://{address}/bots/demo:1"))
    URI.write_text(published["result"]["bundle_source_uri"])


def large() -> None:
    """Put a bundle in place that takes a while to come."""
    source = STATE / "large"
    shutil.copytree(host.ROOT / "examples" / "hello-bundle", source)
    (pack,) = (path for path in (source / "packs").iterdir() if path.is_dir())
    (pack / "assets").mkdir(exist_ok=True)
    (pack / "assets" / "noise.bin").write_bytes(os.urandom(NOISE))
    gtc("bundle", "build", source, "--out", BUNDLE)


def half() -> None:
    """Start a worker and wait until more than half of the bundle has come, then kill it."""
    host.boot()
    size = BUNDLE.stat().st_size
    say("4. Kill it (kill -9) when more than half has come")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for journal in (STATE / "cache" / "partial").glob("*.json"):
            try:
                done = sum(end - begin for begin, end in json.loads(journal.read_text())["done"])
            except (OSError, ValueError):
                continue
            if done * 2 > size:
                print(f"{done} of {size} bytes are there", flush=True)
                kill("worker")
                return
        time.sleep(0.01)
    raise Failed("the download did not get half way")


def rest() -> None:
    """The second boot must have moved the rest, and nothing twice."""
    found = re.search(r"resumed \S+: (\d+) bytes fetched, (\d+) of (\d+) were here", log_of("worker").read_text())
    if found is None:
        raise Failed("the second boot did not go on with the first one's download")
    moved, here, size = map(int, found.groups())
    print(f"\nthe second boot moved {moved} of {size} bytes: {moved / size:.0%}", flush=True)
    if moved >= size / 2 or moved + here != size:
        raise Failed("it moved more than the rest")


def revoke() -> None:
    """Publish a list that revokes the bundle, and tell the environment where it is."""
    digest, listed = host.pinned_digest(), BUNDLES / "revocations.json"
    reason = "it answers with the wrong prices"
    show(f"gtc bundle revoke {digest} --list revocations.json --reason '{reason}'")
    gtc("bundle", "revoke", digest, "--list", listed, "--reason", reason)
    address = f"http://127.0.0.1:{DISTRIBUTOR_PORT}/revocations.json"
    show(f"gtc op delivery set local --revocations {address} --revocations-required")
    op("delivery", "set", "local", "--revocations", address, "--revocations-required")


def origin() -> None:
    """Say where the worker's bundle came from."""
    say(f"The worker runs from {URI.read_text()}. Stop it with ./demo.sh host-stop")
