"""Rows about published environments: a change of one deployment among thousands, from publishing to being served."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import BIN, Row, answers, free_port, spread

from conftest import Author, make_bundle
from greentic.ground.documents import replace
from greentic.operate.change import Context
from greentic.release.env_publish import EnvPublishPayload, publish
from greentic.store.environments import EnvironmentStore
from storm import made_pack
from test_large import grown

DEPLOYMENTS, REPEATS = 5_000, 5


def published_rows(scratch: Path) -> list[Row]:
    """Publish to a registry on loopback, and wait until a running worker says that it serves it."""
    if shutil.which("docker-registry") is None:
        return [("publish a change", "not measured: docker-registry is missing", "", "", "")]
    root = scratch / "published"
    root.mkdir(parents=True)
    author = Author(Context(EnvironmentStore(root / "author"))).create()
    bundle = make_bundle(root, {"app": made_pack(0)})
    author.deployed(bundle, bundle.as_uri())
    with author.context.store.transaction("local") as transaction:
        transaction.save(grown(transaction.load(), DEPLOYMENTS))
    with registry(root) as name:
        os.environ["GREENTIC_OCI_INSECURE_REGISTRIES"] = name
        try:
            return _measured(author, f"oci://{name}/envs/local:prod", root)
        finally:
            del os.environ["GREENTIC_OCI_INSECURE_REGISTRIES"]


def _measured(author: Author, place: str, root: Path) -> list[Row]:
    payload = EnvPublishPayload(environment_id="local", place=place)
    first = publish(author.context, payload)
    whole, publishing, moved = [], [], []
    own = author.context.store.load("local").revisions[0].revision_id
    anchor = author.context.store.paths("local").trust_root
    with _worker(root / "worker", place, anchor, own) as port:
        for number in range(REPEATS):
            _change(author, number)
            began = time.perf_counter()
            told = publish(author.context, payload)
            publishing.append(time.perf_counter() - began)
            while _digest(port) != told.document:
                time.sleep(0.005)
            whole.append(time.perf_counter() - began)
            moved.append(told.moved_bytes / (told.document_bytes or 1))
    return [
        (
            f"a change of one among {DEPLOYMENTS:,} deployments, published until a worker of one revision serves it",
            spread(whole),
            f"publishing alone {spread(publishing)}",
            "",
            "≤ 2 s",
        ),
        (
            "… what moves each time",
            f"{max(moved):.1%} of the document",
            f"a document of {first.document_bytes or 0:,} bytes",
            "",
            "≤ 5 %",
        ),
    ]


def _change(author: Author, number: int) -> None:
    """Another prefix for one deployment."""
    with author.context.store.transaction("local") as transaction:
        env = transaction.load()
        route = replace(env.bundles[0].route_binding, path_prefixes=[f"/changed-{number}"])
        transaction.save(replace(env, bundles=[replace(env.bundles[0], route_binding=route), *env.bundles[1:]]))


@contextmanager
def _worker(store: Path, place: str, anchor: Path, own: str) -> Iterator[int]:
    port = free_port()
    words = ["start", "--env-from", place, "--trust-anchor", str(anchor), "--store-root", str(store)]
    environ = {
        "GREENTIC_GATEWAY_LISTEN_ADDR": f"127.0.0.1:{port}", "GREENTIC_ENV_FROM_SECONDS": "0.2",
        "GREENTIC_REVISION_ID": own, "GREENTIC_REVISION_SCOPE": "own",
    }  # fmt: skip
    process = subprocess.Popen(
        [str(BIN / "greentic-start"), *words],
        env=os.environ | environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not answers(port):
            if process.poll() is not None:
                raise SystemExit("the worker did not boot")
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def _digest(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=30) as answer:
        return str(json.load(answer)["following"]["serving"]["digest"])


@contextmanager
def registry(root: Path) -> Iterator[str]:
    port = free_port()
    config = root / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {root}/registry}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
