"""A canary under load: a ramp to a good revision, and one to a revision that fails and is taken back by itself.

Clients keep their cookies; per client it is seen which revision answers, so that whoever goes back and forth is counted.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import threading
from collections import Counter

from demo.host import BUNDLES, DISTRIBUTOR_PORT, GTC, ROOT, STORE, WORKER_PORT, gtc, op, say, show
from demo.processes import STATE, Failed

CLIENTS, THREADS = 3000, 4
WORKER = f"http://127.0.0.1:{WORKER_PORT}"
GOOD = 'v2: {{node.shout}}!"'


class Load:
    """Clients that ask one after the other, over and over, until they are stopped."""

    def __init__(self) -> None:
        self.turns: Counter[str] = Counter()
        self.failures = self.back = self.refused = 0
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._cookies: dict[int, str] = {}
        self._last: dict[int, str] = {}
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(THREADS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", WORKER_PORT, timeout=30)
        while not self._stop.is_set():
            for client in range(first, CLIENTS, THREADS):
                if self._stop.is_set():
                    break
                self._ask(connection, client)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, client: int) -> None:
        headers = {"content-type": "application/json", "host": "demo.example"}
        if client in self._cookies:
            headers["cookie"] = self._cookies[client]
        try:
            connection.request("POST", "/", b'{"text":"hi"}', headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            with self._lock:
                self.refused += 1
            return
        carried = [c.partition(";")[0] for c in answer.headers.get_all("set-cookie") or [] if c.startswith("_gt_rev_")]
        if carried:
            self._cookies[client] = carried[0]
        text = body.decode()
        who = "v2" if "v2:" in text else "v1" if "HI" in text else "failed"
        with self._lock:
            self.refused += answer.status != 200
            self.failures += who == "failed"
            self.turns[who] += 1
            self.back += (self._last.get(client), who) == ("v2", "v1")
            self._last[client] = who


def canary() -> None:
    """Both ramps, and what became of them."""
    document = json.loads((STORE / "local" / "environment.json").read_text())
    deployment, old = document["bundles"][0]["deployment_id"], document["revisions"][0]["revision_id"]
    good = _staged(deployment, "good", 'text: "' + GOOD)
    say("5. A ramp under load: 1 %, 10 %, 50 %, 100 %")
    with Load() as load:
        told = _ramp(deployment, good)
    print(f"answers: {dict(load.turns)}; clients flipped back: {load.back}; failures: {load.failures + load.refused}")
    if told["state"] != "done" or load.back or load.failures or load.refused:
        raise Failed(f"the ramp ended {told['state']}: {told['reason']}")
    op("env", "status", "local", "--at", WORKER)
    faulty = _staged(deployment, "faulty", None)
    say("6. The same with a revision that fails")
    with Load() as load:
        told = _ramp(deployment, faulty)
    print(f"answers: {dict(load.turns)}; failed turns: {load.failures}; requests refused: {load.refused}")
    if told["state"] != "aborted" or load.refused:
        raise Failed(f"the ramp ended {told['state']}: {told['reason']}; {load.refused} requests were refused")
    say(f"Aborted by itself: {told['reason']}. {old} and {good} are one `gtc op traffic rollback --to` away.")


def _staged(deployment: str, name: str, answer: str | None) -> str:
    """A new revision of the example: one that answers otherwise, or (None) one whose component traps."""
    source, bundle = STATE / name, BUNDLES / f"{name}.gtbundle"
    shutil.copytree(ROOT / "examples" / "hello-bundle", source)
    pack = source / "packs" / "hello"
    if answer is not None:
        changed, old, new = pack / "flows" / "main.ygtc", 'text: "{{node.shout}}!"', answer
    else:
        start = "(local.set $at (i32.load offset=124"
        changed, old, new = pack / "components" / "example.shout.wat", start, f"(unreachable) {start}"
    text = changed.read_text()
    if old not in text:
        raise Failed("the example is not what this demo expects")
    changed.write_text(text.replace(old, new, 1))
    gtc("bundle", "build", source, "--out", bundle)
    uri = f"http://127.0.0.1:{DISTRIBUTOR_PORT}/{bundle.name}"
    staged = op(
        "revisions", "stage", "local", "--deployment", deployment, f"bundle_path={bundle}", f"bundle_source_uri={uri}"
    )
    op("revisions", "warm", "local", f"revision_id={staged['revision_id']}")
    return staged["revision_id"]


def _ramp(deployment: str, to: str) -> dict[str, object]:
    """Carry a ramp out, and print the measured shares as it goes."""
    words = ["traffic", "ramp", "local", "--deployment", deployment, "--to", to, "--pause", "4s", "--min-turns", "25",
             "--max-p99", "+400%", "--at", WORKER]  # fmt: skip
    show(f"gtc op {' '.join(words)}")
    command = [str(GTC), "op", "--store-root", str(STORE), *words]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    shown: dict[str, str] = {}
    while running.poll() is None:
        asked = [str(GTC), "op", "--store-root", str(STORE), "env", "status", "local", "--at", WORKER]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        rows = json.loads(done.stdout)["result"]["revisions"] if done.returncode == 0 else []
        line = "  ".join(f"…{r['revision_id'][-4:]} wants {r['weight_bps'] / 100:g}%" for r in rows)
        turns = "  ".join(f"…{r['revision_id'][-4:]} {r['turns']} turns, {r['failures']} failed" for r in rows)
        if line not in shown:
            shown[line] = turns
            print(f"{line}  | so far: {turns}", flush=True)
        threading.Event().wait(1.0)
    out = running.communicate()[0]
    print(out, end="", flush=True)
    if running.returncode:
        raise Failed("the ramp could not be carried out")
    result: dict[str, object] = json.loads(out)["result"]
    return result
