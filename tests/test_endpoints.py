"""A messaging endpoint that a trusted caller names leads to the bundles that it is linked to, and to no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Author
from greentic.api import _started, _stop
from greentic.ground.documents import from_json, replace
from greentic.model.environment import MessagingEndpoint
from greentic.operate.change import Context
from greentic.store.environments import EnvironmentStore

LINKED = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.mark.e2e
def test_an_endpoint_that_is_not_linked_is_refused(tmp_path: Path, hello: Path):
    author = Author(Context(EnvironmentStore(tmp_path / "store"))).create()
    author.deployed(hello, None, "linked", ("/linked",))
    author.deployed(hello, None, "other", ("/other",))
    endpoint = from_json(
        MessagingEndpoint,
        {
            "schema": "greentic.messaging-endpoint.v1", "endpoint_id": LINKED, "env_id": "local", "provider_id": "p", "provider_type": "t",
            "display_name": "T", "linked_bundles": ["linked"], "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
            "updated_by": "x", "webhook_secret_ref": None,
        },
    )  # fmt: skip
    with author.context.store.transaction("local") as transaction:
        transaction.save(replace(transaction.load(), messaging_endpoints=[endpoint]))
    process = subprocess.Popen(
        [sys.executable, "-m", "greentic.cli.start", "start", "--env", "local", "--store-root", str(tmp_path / "store")],
        env=os.environ | {"GREENTIC_GATEWAY_LISTEN_ADDR": "127.0.0.1:0"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        worker = _started(process)
        named = {"x-greentic-messaging-endpoint-id": LINKED}
        refused = worker.send({"text": "hi"}, "/other", named)
        assert refused.status == 403 and b"not authorized to route" in refused.body and b"flow" not in refused.body
        assert worker.send({"text": "hi"}, "/linked", named).status == 200
        unknown = worker.send({"text": "hi"}, "/linked", {"x-greentic-messaging-endpoint-id": LINKED[:-1] + "W"})
        assert unknown.status == 401
        assert worker.send({"text": "hi"}, "/other").status == 200
    finally:
        _stop(process)
