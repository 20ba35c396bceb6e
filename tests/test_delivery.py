"""Delivery that survives: the evil distributor, resume, reuse, registries, signatures, revocation, air gap."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from conftest import PROGRAMS, Author, booted, gtc, make_bundle, make_pack, need
from greentic.activate.activation import Activation
from greentic.author import bundle_publish, bundle_revoke, bundle_sign
from greentic.cluster.connect import connect
from greentic.deployments.stage import RevisionStagePayload, stage
from greentic.distribute import parallel
from greentic.distribute.bundle_cache import BundleCache, cache_directory, max_bytes, open_cache
from greentic.distribute.fetch import FetchLimits, fetch_into
from greentic.distribute.journal import Journal, Progress
from greentic.distribute.mirrors import check_mirror, references
from greentic.distribute.oci_source import OciSource
from greentic.distribute.ranges import Ranges, read_ranges
from greentic.ground.backoff import Backoff
from greentic.ground.errors import (
    BootError,
    Conflict,
    DigestMismatch,
    FetchError,
    GreenticError,
    InvalidArgument,
    Truncated,
    UntrustedBundle,
)
from greentic.ground.optional import lacking
from greentic.materialize import export_archive as bundle_export
from greentic.materialize import shared_bundles as cache
from greentic.model.delivery import delivery_of
from greentic.net.document import read_small
from greentic.net.request import retry_after, send
from greentic.net.terms import Terms, own_terms
from greentic.operate import delivery, trust_root
from greentic.registry.login import Credentials, credentials_for
from greentic.registry.reference import mapped, parse
from greentic.sessions.redis_store import RedisStore
from greentic.store.environments import EnvironmentStore
from greentic.trust.keys import key_id, read_public_pem
from greentic.worker.boot import _from_archive
from greentic.worker.settings import StartOptions, read_settings
from simulators import Answer, FakeClock, SimulatedDistributor
from test_flow import node

sys.path.insert(0, str(Path(__file__).parent.parent / "kit"))
from evil_distributor import CASES, EvilDistributor, table

BIG = random.Random(5).randbytes(3_000_000)
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes several blocks and journal entries."""
    flows = {"main": {"nodes": [node("a", "emit.response", {"text": "here"})]}}
    return make_bundle(
        tmp_path_factory.mktemp("large"),
        {"app": make_pack("p", flows, assets={"noise": random.Random(9).randbytes(12 << 20)})},
    )


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def boot(author: Author, anchor: Path | None = None) -> Activation:
    """Provision as a worker does, with a real clock."""
    return booted(EnvironmentStore(author.context.store.root), trust_anchor=anchor).activation


def cause(error: pytest.ExceptionInfo[BootError]) -> BaseException:
    return error.value.__cause__ or error.value


# -- the evil distributor -------------------------------------------------------------------------------------------


@pytest.fixture
def evil(large):
    server = EvilDistributor(large.read_bytes())
    yield server
    server.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_threat_lying_server_every_case_of_the_kit(case, evil, large, author, monkeypatch):
    monkeypatch.setenv("GREENTIC_FETCH_IDLE_SECONDS", "0.5")
    monkeypatch.setenv("GREENTIC_FETCH_TOTAL_SECONDS", "60" if case.must == "serve" else "2")
    monkeypatch.setenv("GREENTIC_FETCH_MAX_BYTES", str(50 << 20))
    monkeypatch.setenv("GREENTIC_OCI_INSECURE_REGISTRIES", f"{evil.host}:{evil.port}")
    author.create().deployed(large, evil.url(case.name))
    author.strip()
    if case.must == "serve":
        activation = boot(author)
        assert len(activation.revisions) == 1
        assert evil.counts[case.name] == 1 or case.name != "swap-on-second-get"
        if case.name == "truncate-once":
            assert [h.get("Range", "").startswith("bytes=") for _, _, h in evil.requests] == [False, True]
            assert evil.requests[1][2]["If-Range"] == '"first"'
        return
    with pytest.raises(BootError) as error:
        boot(author)
    paths = author.context.store.paths("local")
    assert isinstance(cause(error), GreenticError) and not paths.runtime_config.exists()
    assert not paths.revisions.exists() or not [p for p in paths.revisions.rglob("*") if p.is_file()]
    bundles = open_cache(cache_directory())
    assert bundles is not None and bundles.entries() == []


def test_the_table_of_the_kit_is_the_one_of_the_docs():
    assert table() in (ROOT / "docs" / "delivery.md").read_text()


def test_threat_ssrf_credentials_stay_with_their_registry(evil, author, large, monkeypatch):
    """No request carries them but those to the registry that they are for."""
    monkeypatch.setenv("OCI_USERNAME", "planted-user")
    monkeypatch.setenv("OCI_PASSWORD", "planted-password")
    monkeypatch.setenv("GREENTIC_OCI_INSECURE_REGISTRIES", f"{evil.host}:{evil.port}")
    author.create().deployed(large, evil.url("oci-token-metadata"))
    author.strip()
    with pytest.raises(BootError) as error:
        boot(author)
    assert "for a token, which is not https" in str(cause(error)) and "planted-password" not in str(cause(error))
    assert not [h for _, _, h in evil.requests if "Authorization" in h]


# -- ranges and journals --------------------------------------------------------------------------------------------

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


@given(SPANS)
def test_ranges_are_sets_of_positions(spans):
    found, positions = Ranges(), set[int]()
    for start, end in spans:
        found = found.add(start, end)
        positions |= set(range(start, end))
    assert {p for s, e in found.spans for p in range(s, e)} == positions and found.covered == len(positions)
    assert all(a[1] < b[0] for a, b in zip(found.spans, found.spans[1:], strict=False))
    gap = found.first_gap(60)
    missing = sorted(set(range(60)) - positions)
    assert (gap is None) == (not missing) and (
        gap is None or (gap[0] == missing[0] and not positions & set(range(*gap)))
    )
    assert read_ranges([list(span) for span in found.spans]) == found


@pytest.mark.parametrize("raw", [[[1]], [[2, 1]], [["a", 1]], [[0, 5], [3, 9]], [[True, 2]], [[-1, 2]], "x"])
def test_threat_torn_cache_a_journal_that_is_odd_counts_as_none(raw, tmp_path):
    (tmp_path / "p").write_bytes(bytes(100))
    (tmp_path / "j").write_bytes(msgspec.json.encode({"done": raw, "total": 100, "validator": None, "reference": "r"}))
    assert Journal(tmp_path / "j", tmp_path / "p").load() is None


def test_a_journal_tells_what_the_file_holds_and_no_more(tmp_path):
    journal = Journal(tmp_path / "j", tmp_path / "p")
    assert journal.load() is None
    (tmp_path / "p").write_bytes(bytes(10))
    good = Progress(Ranges().add(0, 10), 20, '"e"', "r")
    journal.save(good)
    assert journal.load() == good
    (tmp_path / "p").write_bytes(bytes(9))
    assert journal.load() is None
    (tmp_path / "j").write_bytes(b"{")
    assert journal.load() is None


# -- resume, retries, parts -----------------------------------------------------------------------------------------


def download(tmp_path: Path, source: SimulatedDistributor, *, reference: str = "r", **more: object):
    partial = tmp_path / "partial"
    journal = Journal(tmp_path / "journal", partial)
    if journal.load() is None:
        partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        result = fetch_into(file, reference, source=source, clock=FakeClock(), journal=journal, **more)
    return result, partial.read_bytes()


def test_a_download_goes_on_where_the_last_one_stopped(tmp_path):
    half = SimulatedDistributor(
        *[Answer(BIG, cut_at=2_000_000, parts=True, validator='"v"')] + [Answer(refuse="gone")] * 9
    )
    with pytest.raises(FetchError):
        download(tmp_path, half)
    rest = SimulatedDistributor(Answer(BIG, parts=True, validator='"v"'))
    result, data = download(tmp_path, rest)
    assert data == BIG and result.digest == sha256(BIG) and rest.asked == [(2_000_000, '"v"', None)]
    assert (result.resumed, result.moved, result.size) == (2_000_000, 1_000_000, len(BIG))


@pytest.mark.parametrize("size", [900_000, len(BIG)])
def test_a_server_that_breaks_off_after_each_half_megabyte_is_asked_for_the_rest_as_long_as_some_comes(tmp_path, size):
    data, step = BIG[:size], 500_000

    def cut(at: int) -> Answer:
        return Answer(data, cut_at=at, parts=True, validator='"v"')

    source = SimulatedDistributor(*[cut(at) for at in range(step, size + step, step)])
    result, found = download(tmp_path, source)
    assert found == data and result.digest == sha256(data) and result.moved == size
    assert source.asked == [(at, '"v"' if at else None, None) for at in range(0, size, step)]


@pytest.mark.parametrize("parts", [True, False])
def test_a_server_that_never_gets_further_is_given_up(tmp_path, parts):
    data = BIG[:900_000]
    source = SimulatedDistributor(Answer(data, cut_at=500_000, parts=parts, validator='"v"'))
    with pytest.raises(Truncated):
        download(tmp_path, source)
    assert source.opened <= 2 * FetchLimits().tries and (tmp_path / "partial").read_bytes() == data[:500_000]


def test_another_mirror_goes_on_without_the_validator_of_the_first(tmp_path):
    with pytest.raises(FetchError):
        download(
            tmp_path,
            SimulatedDistributor(Answer(BIG, cut_at=2_000_000, parts=True, validator='"v"'), Answer(refuse="gone")),
            reference="one",
        )
    other = SimulatedDistributor(Answer(BIG, parts=True, validator='"w"'))
    result, data = download(tmp_path, other, reference="two")
    assert data == BIG and other.asked == [(2_000_000, None, None)] and result.resumed == 2_000_000


def test_a_part_of_another_size_starts_over(tmp_path):
    with pytest.raises(FetchError):
        download(
            tmp_path,
            SimulatedDistributor(Answer(BIG, cut_at=1_500_000, parts=True, validator='"v"'), Answer(refuse="gone")),
        )
    longer = BIG + b"more"
    result, data = download(tmp_path, SimulatedDistributor(Answer(longer, parts=True, validator='"v"')))
    assert data == longer and result.digest == sha256(longer) and result.resumed == 0


@given(st.integers(1, 40), st.floats(0, 600))
def test_retries_wait_longer_each_time_and_never_less_than_asked(attempt, asked):
    class Chance:
        def __init__(self, fraction: float) -> None:
            self.fraction = lambda: fraction

    bounded = min(asked, 60)
    low, high = (Backoff().pause(attempt, Chance(f), asked) for f in (0.0, 0.999))
    assert bounded <= low < high <= bounded + max(20.0, bounded / 2)
    assert Backoff(jitter=False).pause(attempt, Chance(0), asked) >= bounded


def test_servers_say_when_to_come_back():
    assert (
        retry_after("7", 0) == 7
        and retry_after("9999", 0) == 60
        and retry_after(None, 0) == 0
        and retry_after("soon", 0) == 0
    )
    assert (
        retry_after("Thu, 01 Jan 1970 00:00:20 GMT", 5) == 15 and retry_after("Thu, 01 Jan 1970 00:00:20 GMT", 50) == 0
    )
    assert retry_after("-5", 0) == 0 and retry_after("٣", 0) == 0


class Slow(ThreadingHTTPServer):
    """Gives parts, each connection at a rate of its own; remembers what was asked and how much it sent."""

    daemon_threads = True

    def __init__(self, data: bytes, rate: int) -> None:
        self.sent, self.asked, self.lock = 0, list[str](), threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                first, _, last = (wanted or "bytes=0-").removeprefix("bytes=").partition("-")
                start, end = int(first), int(last) + 1 if last else len(data)
                with outer.lock:
                    outer.asked.append(wanted or "")
                self.send_response(206 if wanted else 200)
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
                self.send_header("Content-Length", str(end - start))
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("ETag", '"x"')
                self.end_headers()
                began = time.monotonic()
                for at in range(start, end, 1 << 16):
                    piece = data[at : min(at + (1 << 16), end)]
                    try:
                        self.wfile.write(piece)
                    except OSError:
                        return
                    with outer.lock:
                        outer.sent += len(piece)
                    ahead = (at - start) / rate - (time.monotonic() - began)
                    if ahead > 0:
                        time.sleep(ahead)

            def log_message(self, *a: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/b"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


def test_a_slow_large_bundle_comes_over_several_connections(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(parallel, "ENOUGH", 4 << 20)
    monkeypatch.setattr(parallel, "SEGMENT", 1 << 20)
    data = random.Random(1).randbytes(24 << 20)
    server = Slow(data, 8 << 20)
    with (tmp_path / "f").open("w+b") as file:
        result = fetch_into(file, server.url)
    server.stop()
    assert (tmp_path / "f").read_bytes() == data and result.digest == sha256(data)
    assert len([a for a in server.asked if a]) >= 3 and server.sent <= len(data) + (8 << 20)


# -- mirrors --------------------------------------------------------------------------------------------------------


def test_mirrors_are_templates():
    digest = "sha256:" + "a" * 64
    assert references("https://x/b.gtbundle?q=1", digest, ["http://m/{sha256}", "oci://r/{name}@{digest}", "https://x/b.gtbundle?q=1"]) == [
        "https://x/b.gtbundle?q=1", f"http://m/{'a' * 64}", f"oci://r/b.gtbundle@{digest}",
    ]  # fmt: skip
    for wrong in ("ftp://m/{sha256}", "http://m/same", "http://m/{other}", "m/{name}"):
        with pytest.raises(InvalidArgument):
            check_mirror(wrong)


def test_the_next_mirror_serves_when_one_lies(author, large, evil, tmp_path):
    author.create()
    mirrors = [evil.url("not-found").rpartition("/")[0] + "/{name}", evil.url("honest").rpartition("/")[0] + "/{name}"]
    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", mirrors=mirrors))
    author.deployed(large, evil.url("truncate"))
    author.strip()
    assert len(boot(author).revisions) == 1 and evil.counts["honest"] == 1
    with (tmp_path / "x").open("w+b") as file, pytest.raises(Truncated):
        fetch_into(file, evil.url("truncate"), clock=FakeClock())


def test_a_local_bundle_is_compared_with_its_source_where_that_is_asked_for(author, large, evil):
    deployment = author.create().add()
    author.stage(deployment, large, evil.url("honest"), verify_source=True)
    author.stage(deployment, large, evil.url("flipped-byte"))  # not asked for: nothing is pulled
    assert "flipped-byte" not in evil.counts
    with pytest.raises(Conflict, match="the one at hand is"):
        author.stage(deployment, large, evil.url("flipped-byte"), verify_source=True)
    with pytest.raises(InvalidArgument, match="verify_source"):
        author.stage(deployment, large, verify_source=True)


# -- the cache ------------------------------------------------------------------------------------------------------


def from_bytes(data: bytes):
    def fetch(file, journal):
        return fetch_into(file, "r", source=SimulatedDistributor(Answer(data)), journal=journal, clock=FakeClock())

    return fetch


def never(file, journal):
    raise AssertionError("it was fetched again")


def test_a_bundle_is_fetched_once_and_read_from_here_then(tmp_path):
    bundles = BundleCache(tmp_path / "c")
    first = bundles.obtain(sha256(BIG), from_bytes(BIG))
    assert first.file.read(9) == BIG[:9] and first.fetched is not None and first.path.stat().st_mode & 0o777 == 0o400
    again = bundles.obtain(sha256(BIG), never)
    assert again.fetched is None and again.size == len(BIG) and bundles.partials() == []
    with pytest.raises(DigestMismatch):
        bundles.obtain(sha256(b"other"), from_bytes(b"wrong"))
    assert bundles.partials() == [] and [e.digest for e in bundles.entries()] == [sha256(BIG)]
    with pytest.raises(InvalidArgument):
        bundles.path("sha256:../../x")


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: b"", lambda d: d[:9] + b"x" + d[10:]])
def test_threat_torn_cache_is_hashed_again_and_fetched_again(tmp_path, damage):
    bundles = BundleCache(tmp_path / "c")
    path = bundles.obtain(sha256(BIG), from_bytes(BIG)).path
    path.chmod(0o600)
    path.write_bytes(damage(BIG))
    os.utime(path, ns=(1, 1))
    again = bundles.obtain(sha256(BIG), from_bytes(BIG))
    assert again.fetched is not None and again.file.read() == BIG
    path.chmod(0o600)
    path.write_bytes(damage(BIG))
    assert bundles.verify() == [sha256(BIG)] and bundles.entries() == []


def test_threat_torn_cache_a_partial_file_that_does_not_match_is_fetched_whole(tmp_path):
    bundles = BundleCache(tmp_path / "c")
    name = sha256(BIG).removeprefix("sha256:")
    partial = bundles.directory / "partial" / name
    partial.write_bytes(bytes(1_000_000))
    Journal(partial.with_name(f"{name}.json"), partial).save(Progress(Ranges().add(0, 1_000_000), len(BIG), '"v"', "r"))
    source = SimulatedDistributor(Answer(BIG, parts=True, validator='"v"'))
    got = bundles.obtain(
        sha256(BIG),
        lambda file, journal: fetch_into(
            file, "r", source=source, wanted=sha256(BIG), journal=journal, clock=FakeClock()
        ),
    )
    assert got.file.read() == BIG and [a[0] for a in source.asked] == [1_000_000, 0]


def test_the_least_recently_used_go_and_never_what_is_needed(tmp_path):
    bundles = BundleCache(tmp_path / "c")
    digests = []
    for number in range(4):
        data = bytes([number]) * 1000
        got = bundles.obtain(sha256(data), from_bytes(data))
        os.utime(got.path, (number, number))
        digests.append(sha256(data))
    gone = bundles.prune(2500, lambda: frozenset({digests[0]}))
    assert [e.digest for e in gone] == [digests[1], digests[2]] and [e.digest for e in bundles.entries()] == [
        digests[0],
        digests[3],
    ]
    assert bundles.prune(0, lambda: frozenset(digests)) == []
    old = bundles.directory / "partial" / ("f" * 64)
    old.write_bytes(b"x")
    os.utime(old, (1, 1))
    bundles.prune(10_000, frozenset)
    assert bundles.partials() == []


def test_a_directory_of_others_is_no_cache(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c").chmod(0o777)
    assert open_cache(tmp_path / "c") is None and open_cache(None) is None
    assert (
        cache_directory({"HOME": "/h"}) == Path("/h/.cache/greentic/bundles")
        and cache_directory({}) is None
        and cache_directory({"GREENTIC_BUNDLE_CACHE_DIR": "off", "HOME": "/h"}) is None
    )
    with pytest.raises(InvalidArgument):
        max_bytes({"GREENTIC_CACHE_MAX_BYTES": "lots"})


def obtaining(directory: Path, data: bytes, server: Slow, told: str) -> list[str]:
    """A process that obtains a bundle through the cache, and prints what of it is asked for."""
    code = (
        "import sys; from pathlib import Path; from greentic.distribute.bundle_cache import BundleCache; from greentic.distribute.fetch import fetch_into\n"
        f"got = BundleCache(Path(sys.argv[1])).obtain(sys.argv[2], lambda f, j: fetch_into(f, sys.argv[3], journal=j)); print({told})"
    )
    return [sys.executable, "-c", code, str(directory), sha256(data), server.url]


def test_twenty_processes_that_want_the_same_bundle_move_it_once(tmp_path):
    data = random.Random(3).randbytes(8 << 20)
    server = Slow(data, 200 << 20)
    words = obtaining(tmp_path / "c", data, server, "got.size, got.fetched is not None")
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(20)]
    told = sorted(p.communicate(timeout=120)[0].strip() for p in running)
    server.stop()
    assert told == [f"{len(data)} False"] * 19 + [f"{len(data)} True"] and len(server.asked) == 1


def test_a_killed_download_goes_on_in_the_next_process(tmp_path):
    data = random.Random(4).randbytes(32 << 20)
    server = Slow(data, 16 << 20)
    words = obtaining(tmp_path / "c", data, server, "got.fetched.resumed, got.fetched.moved")
    first = subprocess.Popen(words)
    while server.sent < 16 << 20:
        time.sleep(0.02)
    first.kill()
    first.wait()
    assert BundleCache(tmp_path / "c").entries() == []
    resumed, moved = map(
        int, subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout.split()
    )
    server.stop()
    assert resumed + moved == len(data) and resumed >= 8 << 20


def test_the_cache_is_looked_at_with_its_verb(author, large, evil):
    author.create().deployed(large, evil.url("honest"))
    author.strip()
    boot(author)
    store = author.context.store
    listed = cache.list_entries(store)
    assert [(e["digest"], e["needed"]) for e in listed["entries"]] == [(sha256(large.read_bytes()), True)]
    assert cache.verify(store)["deleted"] == [] and cache.prune(store, 0)["deleted"] == []
    author.strip()
    assert len(boot(author).revisions) == 1 and evil.counts["honest"] == 1


# -- registries -----------------------------------------------------------------------------------------------------


def test_references_of_registries():
    d = "sha256:" + "0" * 64
    assert (
        str(parse("127.0.0.1:5000/a/b:1")) == "127.0.0.1:5000/a/b:1"
        and parse(f"r.io/x@{d}").wanted == d
        and parse("alpine").repository == "library/alpine"
    )
    assert parse(f"r.io/x:t@{d}").wanted == d and parse("localhost/x").tag == "latest"
    environ = {"GREENTIC_REPO_REGISTRY_BASE": "oci://r.io/base/"}
    assert str(mapped("repo://x:1", environ)) == "r.io/base/x:1"
    with pytest.raises(FetchError, match="GREENTIC_STORE_REGISTRY_BASE"):
        mapped("store://x", environ)
    for wrong in ("r.io/UP", "r.io/x:%", "r.io/x@sha256:0", "r.io//x", "r.io/../x", "r.io/x y", "", "h o/x"):
        with pytest.raises(FetchError):
            parse(wrong)


def test_credentials_come_from_where_docker_has_them(tmp_path, monkeypatch):
    assert credentials_for("r.io", {}) is None
    both = {"OCI_USERNAME": "u", "OCI_PASSWORD": "p"}
    assert credentials_for("r.io", both) == Credentials("u", "p")
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "auths": {"r.io": {"auth": "YTpi"}, "https://t.io": {"identitytoken": "tok"}},
                "credHelpers": {"h.io": "test"},
                "credsStore": "missing",
            }
        )
    )
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": str(tmp_path)}
    assert credentials_for("r.io", environ) == Credentials("a", "b") and credentials_for(
        "t.io", environ
    ) == Credentials("<token>", "tok")
    with pytest.raises(FetchError, match="not installed"):
        credentials_for("h.io", environ)
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread name\nprintf \'{"Username":"%s","Secret":"s3"}\' "$name"\n')
    helper.chmod(0o755)
    environ["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    assert credentials_for("h.io", environ) == Credentials("h.io", "s3")
    helper.write_text("#!/bin/sh\necho planted-secret\nexit 3\n")
    with pytest.raises(FetchError) as error:
        credentials_for("h.io", environ)
    assert "planted" not in str(error.value)
    config.write_text("{")
    assert credentials_for("r.io", environ) is None and any("Docker configuration" in text for text in lacking())


class RegistryProcess:
    """Debian's registry on a port and a directory of its own."""

    def __init__(self, directory: Path, *, tls: tuple[Path, Path] | None = None, htpasswd: Path | None = None) -> None:
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        lines = [
            "version: 0.1",
            "log: {level: error, accesslog: {disabled: true}}",
            f"storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}",
            "http:",
            f"  addr: 127.0.0.1:{port}",
        ]
        if tls is not None:
            lines.append(f"  tls: {{certificate: {tls[0]}, key: {tls[1]}}}")
        if htpasswd is not None:
            lines.append(f"auth: {{htpasswd: {{realm: test, path: {htpasswd}}}}}")
        (directory / "config.yml").write_text("\n".join(lines) + "\n")
        self.name = f"{'localhost' if tls else '127.0.0.1'}:{port}"
        self.process = subprocess.Popen(
            [need("docker-registry", "docker-registry"), "serve", str(directory / "config.yml")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("the registry did not come up")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def certificate(directory: Path, host: str = "localhost") -> tuple[Path, Path, Path]:
    """A private authority, and a certificate of it for a host with its key."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def signed(subject: str, key, issuer: str, by, *, authority: bool):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
        )
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(
            now + datetime.timedelta(days=2)
        )
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(by, hashes.SHA256()).public_bytes(Encoding.PEM)

    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (directory / "ca.pem").write_bytes(signed("private authority", root, "private authority", root, authority=True))
    (directory / "leaf.pem").write_bytes(signed(host, leaf, "private authority", root, authority=False))
    (directory / "leaf.key").write_bytes(leaf.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return directory / "ca.pem", directory / "leaf.pem", directory / "leaf.key"


@pytest.fixture
def strict(monkeypatch):
    """The contexts of Python 3.13 and later, on every version: they ask for extensions that many authorities do not have."""
    make = ssl.create_default_context

    def made(*words: Any, **named: Any) -> ssl.SSLContext:
        context = make(*words, **named)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", made)


@contextlib.contextmanager
def tls_answering(pair: tuple[Path, Path]) -> Iterator[int]:
    """A server that answers `{}` over TLS to whoever believes it, by its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Empty)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def test_an_authority_without_extensions_is_believed_on_every_python(tmp_path, monkeypatch, strict):
    """The authorities of EKS and of many companies: an operator or a pull on Python 3.13 refused them."""
    authority, *pair = certificate(tmp_path)
    with tls_answering((pair[0], pair[1])) as port:
        here = f"https://localhost:{port}"
        with pytest.raises(OSError, match="does not include key usage"):  # what this is about
            urllib.request.urlopen(here, context=ssl.create_default_context(cafile=str(authority)))
        with pytest.raises(FetchError, match="certificate verify failed") as unknown:
            read_small(f"{here}/x", 10, own_terms())  # nobody vouches for it
        assert "GREENTIC_CA_FILES" in (unknown.value.hint or "")
        monkeypatch.setenv("GREENTIC_CA_FILES", str(authority))
        assert read_small(f"{here}/x", 10, own_terms()) == b"{}"
        config = tmp_path / "config"
        monkeypatch.setenv("KUBECONFIG", str(config))
        for named in (
            {"certificate-authority": str(authority)},
            {"certificate-authority-data": b64encode(authority.read_bytes()).decode()},
        ):
            context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
            clusters = [{"name": "c", "cluster": {"server": here} | named}]
            users = [{"name": "u", "user": {"token": "t"}}]
            whole = {"current-context": "c", "contexts": [context], "clusters": clusters, "users": users}
            config.write_text(json.dumps(whole))
            assert connect(None).client.get("/x").json() == {}


def test_who_asks_for_tls_where_none_is_spoken_is_told_what_to_write():
    """The registry of a machine or a cluster speaks plain http; OpenSSL calls that a wrong version number."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"127.0.0.1:{server.server_port}"
        try:
            for asked in (
                lambda: send(f"https://{here}/x", f"https://{here}/x", Terms(tries=1)),
                lambda: OciSource(Terms(tries=1), {}).open(f"oci://{here}/a/b:1"),
            ):
                with pytest.raises(FetchError) as plain:
                    asked()
                assert "GREENTIC_OCI_INSECURE_REGISTRIES" in (plain.value.hint or "")
        finally:
            server.shutdown()


def test_a_redis_over_tls_is_asked_for_no_more_than_others(strict, monkeypatch):
    import redis

    asked = []
    monkeypatch.setattr(redis.Redis, "ping", lambda self: asked.append(self.connection_pool.make_connection()))
    RedisStore("rediss://localhost:1/0")
    RedisStore(
        "rediss://localhost:1/0?ssl_exclude_verify_flags=VERIFY_CRL_CHECK_LEAF"
    )  # who says otherwise in the address has it so
    assert [c.ssl_exclude_verify_flags for c in asked] == [[ssl.VERIFY_X509_STRICT], [ssl.VERIFY_CRL_CHECK_LEAF]]


@pytest.mark.parametrize("kind", ["plain", "tls", "htpasswd"])
def test_a_bundle_is_published_to_a_real_registry_and_pulled_from_it(kind, tmp_path, author, large, monkeypatch):
    tls = htpasswd = None
    if kind == "tls":
        authority, *pair = certificate(tmp_path)
        tls = (pair[0], pair[1])
    if kind == "htpasswd":
        told = subprocess.run(
            [need("htpasswd", "apache2-utils"), "-Bbn", "worker", "planted-password"],
            capture_output=True,
            text=True,
            check=True,
        )
        htpasswd = tmp_path / "htpasswd"
        htpasswd.write_text(told.stdout)
    registry = RegistryProcess(tmp_path, tls=tls, htpasswd=htpasswd)
    try:
        if kind == "tls":
            with pytest.raises(FetchError, match="certificate verify failed"):
                bundle_publish.publish_file(large, f"oci://{registry.name}/bots/app:1", None)
            monkeypatch.setenv("GREENTIC_CA_FILES", str(authority))
        else:
            monkeypatch.setenv("GREENTIC_OCI_INSECURE_REGISTRIES", registry.name)
        if kind == "htpasswd":
            with pytest.raises(FetchError, match="refuses us without credentials"):
                bundle_publish.publish_file(large, f"oci://{registry.name}/bots/app:1", None)
            monkeypatch.setenv("OCI_USERNAME", "worker")
            monkeypatch.setenv("OCI_PASSWORD", "planted-password")
        bundle_sign.sign_file(large, key_of(author, tmp_path), FakeClock())
        first = bundle_publish.publish_file(large, f"oci://{registry.name}/bots/app:1", None)
        again = bundle_publish.publish_file(large, f"oci://{registry.name}/bots/app:1", None)
        assert (
            first["uploaded"] is True
            and again["uploaded"] is False
            and first["bundle_digest"] == sha256(large.read_bytes())
        )
        author.create()
        trust(author, tmp_path / "signer.pub")
        delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="require"))
        deployment = author.add()
        # Staged without a local file: pulled, pinned, and the signature found as a referrer.
        staged = stage(
            author.context,
            RevisionStagePayload(
                environment_id="local", deployment_id=deployment, bundle_source_uri=first["bundle_source_uri"]
            ),
        )
        revision = author.warm(staged.revision_id)
        author.route(deployment, (revision, 10_000))
        assert author.context.store.load("local").revisions[0].bundle_digest == first["bundle_digest"]
        author.strip()
        assert len(boot(author).revisions) == 1
        if kind == "plain":
            missing = f"oci://{registry.name}/bots/other:1"
            with (tmp_path / "x").open("w+b") as file, pytest.raises(FetchError, match="404"):
                fetch_into(file, missing, clock=FakeClock())
    finally:
        registry.stop()
        large.with_name(large.name + ".sig").unlink(missing_ok=True)


# -- publishing, signatures, seals ----------------------------------------------------------------------------------


def key_of(author: Author, directory: Path, name: str = "signer") -> Path:
    """A new signing key, with its public half beside it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    (directory / f"{name}.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (directory / f"{name}.pub").write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return directory / f"{name}.pem"


def trust(author: Author, public: Path) -> None:
    pem = public.read_text()
    trust_root.add(
        author.context,
        trust_root.TrustRootAddPayload(environment_id="local", key_id=key_id(read_public_pem(pem)), public_key_pem=pem),
    )


@pytest.fixture
def bundle(tmp_path, hello) -> Path:
    path = tmp_path / "hello.gtbundle"
    path.write_bytes(hello.read_bytes())
    return path


def test_a_directory_is_a_place_to_publish_to(bundle, tmp_path, author):
    bundle_sign.sign_file(bundle, key_of(author, tmp_path), FakeClock())
    first = bundle_publish.publish_file(bundle, str(tmp_path / "public"), None)
    assert (
        first["uploaded"]
        and (tmp_path / "public" / "hello.gtbundle").read_bytes() == bundle.read_bytes()
        and (tmp_path / "public" / "hello.gtbundle.sig").is_file()
    )
    assert not bundle_publish.publish_file(bundle, f"file://{tmp_path}/public", None)["uploaded"]
    with pytest.raises(InvalidArgument, match="no place to publish"):
        bundle_publish.publish_file(bundle, "ftp://x/y", None)


def test_another_bundle_under_a_name_is_told_and_has_no_signature_of_the_old_one(bundle, tmp_path, author):
    """What pinned the old one is pulled from there no more: going back to it would fail, and nobody had been told."""
    place = tmp_path / "public"
    bundle_sign.sign_file(bundle, key_of(author, tmp_path), FakeClock())
    first = bundle_publish.publish_file(bundle, str(place), None)
    again = bundle_publish.publish_file(bundle, str(place), None)
    assert "warnings" not in first and "warnings" not in again
    other = tmp_path / "other.gtbundle"
    other.write_bytes(bundle.read_bytes() + b" ")
    second = bundle_publish.publish_file(other, str(place), bundle.name)
    warnings = second["warnings"]
    assert isinstance(warnings, list) and len(warnings) == 1
    assert f"was `{first['bundle_digest']}` there until now" in str(warnings[0])
    assert (place / bundle.name).read_bytes() == other.read_bytes()
    assert [path.name for path in place.iterdir()] == [bundle.name]


def test_signatures_are_those_of_the_ecosystem(bundle, tmp_path, author):
    """What we sign, an independent implementation verifies; and the other way round."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import CryptoSigner

    told = bundle_sign.sign_file(bundle, key_of(author, tmp_path), FakeClock())
    envelope = Envelope.from_dict(json.loads(bundle.with_name("hello.gtbundle.sig").read_text()))
    public = load_pem_public_key((tmp_path / "signer.pub").read_bytes())
    theirs = SSlibKey.from_crypto(public, keyid=str(told["key_id"]))
    assert list(envelope.verify([theirs], 1)) == [told["key_id"]]
    statement = json.loads(envelope.payload)
    assert statement["subject"][0]["digest"]["sha256"] == hashlib.sha256(bundle.read_bytes()).hexdigest()
    signer = CryptoSigner.generate_ed25519()
    signer.public_key.keyid = told["key_id"]
    foreign = Envelope(envelope.payload, envelope.payload_type, {})
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    ours = CryptoSigner(load_pem_private_key((tmp_path / "signer.pem").read_bytes(), None), theirs)
    foreign.sign(ours)
    bundle.with_name("hello.gtbundle.sig").write_text(json.dumps(foreign.to_dict()))
    assert bundle_sign.verify_signature(bundle, str(told["digest"]), [tmp_path / "signer.pub"])["signed_by"] == [
        told["key_id"]
    ]


def test_threat_stripped_signature_is_refused_at_stage_and_at_boot(bundle, tmp_path, author):
    author.create()
    key = key_of(author, tmp_path)
    trust(author, tmp_path / "signer.pub")
    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="require"))
    deployment = author.add()
    uri = f"file://{bundle}"
    with pytest.raises(UntrustedBundle, match="there is no signature") as unsigned:
        author.stage(deployment, bundle, uri)
    bundle_sign.sign_file(bundle, key_of(author, tmp_path, "stranger"), FakeClock())
    with pytest.raises(UntrustedBundle, match="1 signature") as strange:
        author.stage(deployment, bundle, uri)
    assert "trust-root add local" in str(strange.value.hint), "to sign it again with the same key would change nothing"
    assert "trust-root" not in str(unsigned.value.hint)
    bundle_sign.sign_file(bundle, key, FakeClock())
    revision = author.warm(author.stage(deployment, bundle, uri))
    author.route(deployment, (revision, 10_000))
    author.strip()
    assert len(boot(author).revisions) == 1
    path = author.context.store.paths("local").environment
    document = json.loads(path.read_text())
    good = path.read_bytes()
    for spoil in (
        lambda r: r.pop("greentic:signatures"),
        lambda r: r["greentic:signatures"].update(bundle=[]),
        lambda r: r["greentic:signatures"].update(revision=None),
        lambda r: r.update(bundle_digest="sha256:" + "0" * 64),
        lambda r: r.update(bundle_source_uri="https://evil/x"),
    ):
        changed = json.loads(good)
        spoil(changed["revisions"][0])
        path.write_text(json.dumps(changed))
        with pytest.raises(BootError) as error:
            boot(author)
        assert isinstance(cause(error), UntrustedBundle)
    assert document["greentic:delivery"]["signatures"]["mode"] == "require"


def test_a_threshold_counts_keys_and_not_signatures(bundle, tmp_path, author):
    author.create()
    for name in ("one", "two"):
        key_of(author, tmp_path, name)
        trust(author, tmp_path / f"{name}.pub")
    delivery.set_delivery(
        author.context, delivery.DeliverySetPayload(environment_id="local", signatures="require", threshold=2)
    )
    deployment = author.add()
    beside = bundle.with_name("hello.gtbundle.sig")
    envelopes = []
    for name in ("one", "two"):
        bundle_sign.sign_file(bundle, tmp_path / f"{name}.pem", FakeClock())
        envelopes.append(json.loads(beside.read_text()))
    twice = envelopes[0] | {"signatures": envelopes[0]["signatures"] * 2}
    beside.write_text(json.dumps(twice))
    with pytest.raises(UntrustedBundle, match="2 signature.* 1 found"):
        author.stage(deployment, bundle)
    both = envelopes[0] | {"signatures": [*envelopes[0]["signatures"], *envelopes[1]["signatures"]]}
    beside.write_text(json.dumps(both))
    if envelopes[0]["payload"] == envelopes[1]["payload"]:
        author.stage(deployment, bundle)
    else:
        with pytest.raises(UntrustedBundle):
            author.stage(deployment, bundle)


def test_threat_edited_document_breaks_the_seal_that_the_anchor_wants(hello, tmp_path, author):
    author.create()
    anchor = tmp_path / "anchor.pem"
    public = author.context.store.trust_root("local").keys[0].public_key_pem
    anchor.write_text(public)
    author.deployed(hello, f"file://{hello}")
    author.strip()
    with pytest.raises(BootError) as error:
        boot(author, anchor)  # not sealed at all
    assert "not sealed by a key of the trust anchor" in str(cause(error))
    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="warn"))
    assert boot(author, anchor).protections["anchor"] is True
    path = author.context.store.paths("local").environment
    good = path.read_text()
    for old, new in (
        ('"customer_id": "acme"', '"customer_id": "evil"'),
        ('"name": "local"', '"name": "other"'),
        ('"mode": "warn"', '"mode": "off"'),
    ):
        assert old in good
        path.write_text(good.replace(old, new, 1))
        with pytest.raises(BootError):
            boot(author, anchor)
    path.write_text(good)
    key_of(author, tmp_path, "stranger")
    with pytest.raises(BootError):
        boot(author, tmp_path / "stranger.pub")
    for text in ("", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "{"):
        anchor.write_text(text)
        with pytest.raises(BootError):
            boot(author, anchor)


def test_threat_rollback_an_older_document_is_refused_unless_it_is_meant(hello, author, monkeypatch):
    author.create().deployed(hello, f"file://{hello}")
    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="warn"))
    path = author.context.store.paths("local").environment
    old = path.read_bytes()
    assert delivery_of(author.context.store.load("local")).generation == 1
    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="off"))
    boot(author)
    path.write_bytes(old)
    with pytest.raises(BootError) as error:
        boot(author)
    assert "has generation 1, and this worker has seen 2" in str(cause(error))
    monkeypatch.setenv("GREENTIC_ALLOW_ROLLBACK", "1")
    assert len(boot(author).revisions) == 1


def test_a_document_counts_on_from_a_generation_that_is_told_and_never_back(author):
    author.create()
    told = delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", generation=8))
    assert (told.generation, told.sealed) == (8, True)
    assert delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local")).generation == 9
    for no in (9, 3):
        with pytest.raises(InvalidArgument, match=f"generation: {no} is not above 9"):
            delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", generation=no))
    assert delivery.show(author.context, "local").generation == 9


# -- revocation -----------------------------------------------------------------------------------------------------


def test_a_revoked_bundle_is_refused_with_the_reason(hello, tmp_path, author, monkeypatch):
    author.create().deployed(hello, f"file://{hello}")
    revoked = tmp_path / "revocations.json"
    digest = sha256(hello.read_bytes())
    delivery.set_delivery(
        author.context,
        delivery.DeliverySetPayload(environment_id="local", revocations=f"file://{revoked}", revocations_required=True),
    )
    with pytest.raises(BootError) as error:
        boot(author)
    assert "a revocation list is required" in str(cause(error))
    now = EnvironmentStore(tmp_path / "other").clock
    bundle_revoke.revoke(revoked, [], [], "none yet", None, 30, now)
    assert boot(author).protections["revocations"]["version"] == 1
    first = revoked.read_bytes()
    told = bundle_revoke.revoke(revoked, [digest], [], "it leaks", None, 30, now)
    assert told["version"] == 2
    with pytest.raises(BootError) as error:
        boot(author)
    assert "is revoked (list version 2): it leaks" in str(cause(error))
    revoked.write_bytes(first)  # an older list does not undo it
    with pytest.raises(BootError):
        boot(author)
    revoked.write_bytes(first.replace(b"a", b"b"))
    with pytest.raises(BootError):
        boot(author)
    with pytest.raises(InvalidArgument):
        bundle_revoke.revoke(tmp_path / "new", ["sha256:x"], [], "r", None, 1, now)
    with pytest.raises(Conflict, match="no list that this key signed"):
        bundle_revoke.revoke(revoked, [], [], "r", key_of(author, tmp_path), 1, now)


@pytest.mark.parametrize("signatures", ["off", "warn"])
def test_a_revoked_bundle_is_not_staged_whatever_signatures_are_worth(hello, tmp_path, author, signatures):
    author.create()
    revoked = tmp_path / "revocations.json"
    told = delivery.DeliverySetPayload(environment_id="local", signatures=signatures, revocations=f"file://{revoked}")
    delivery.set_delivery(author.context, told)
    bundle_revoke.revoke(revoked, [sha256(hello.read_bytes())], [], "it leaks", None, 30, author.context.clock)
    with pytest.raises(UntrustedBundle, match="is revoked .list version 1.: it leaks"):
        author.deployed(hello)


def test_a_required_list_that_cannot_be_had_keeps_nobody_from_staging_where_signatures_are_off(hello, tmp_path, author):
    author.create()
    told = delivery.DeliverySetPayload(
        environment_id="local", signatures="off", revocations=f"file://{tmp_path}/gone.json", revocations_required=True
    )
    delivery.set_delivery(author.context, told)
    author.deployed(hello)
    with pytest.raises(BootError) as error:
        boot(author)
    assert "a revocation list is required" in str(cause(error))


def test_a_list_that_has_ended_proves_nothing_new_and_still_revokes(hello, tmp_path, author):
    author.create().deployed(hello, f"file://{hello}")
    revoked, long_ago = tmp_path / "revocations.json", FakeClock(1_000_000_000_000_000_000)
    bundle_revoke.revoke(revoked, [], [], "old", None, 1, long_ago)
    delivery.set_delivery(
        author.context, delivery.DeliverySetPayload(environment_id="local", revocations=f"file://{revoked}")
    )
    activation = boot(author)  # not required: told, and served
    assert any("was good until" in w for w in activation.protections["warnings"])
    delivery.set_delivery(
        author.context, delivery.DeliverySetPayload(environment_id="local", revocations_required=True)
    )
    with pytest.raises(BootError) as error:
        boot(author)
    assert "was good until" in str(cause(error))
    delivery.set_delivery(
        author.context, delivery.DeliverySetPayload(environment_id="local", revocations_required=False)
    )
    bundle_revoke.revoke(revoked, [sha256(hello.read_bytes())], [], "it leaks", None, 1, long_ago)
    with pytest.raises(BootError) as error:
        boot(author)
    assert "is revoked (list version 2): it leaks" in str(cause(error))


def test_what_a_revoked_key_signed_counts_as_unsigned(bundle, tmp_path, author):
    author.create()
    key = key_of(author, tmp_path)
    trust(author, tmp_path / "signer.pub")
    revoked = tmp_path / "revocations.json"
    delivery.set_delivery(
        author.context,
        delivery.DeliverySetPayload(environment_id="local", signatures="require", revocations=f"file://{revoked}"),
    )
    told = bundle_sign.sign_file(bundle, key, FakeClock())
    author.deployed(bundle, f"file://{bundle}")
    now = EnvironmentStore(tmp_path / "other").clock
    bundle_revoke.revoke(revoked, [], [], "none", None, 30, now)
    author.strip()
    assert len(boot(author).revisions) == 1
    bundle_revoke.revoke(revoked, [], [str(told["key_id"])], "stolen", None, 30, now)
    with pytest.raises(BootError) as error:
        boot(author)
    assert isinstance(cause(error), UntrustedBundle)


# -- air gap --------------------------------------------------------------------------------------------------------


def test_an_exported_environment_boots_without_a_network(large, author, evil, tmp_path, monkeypatch, operator_home):
    author.create()
    revoked = tmp_path / "revocations.json"
    bundle_revoke.revoke(revoked, [], [], "none", None, 30, EnvironmentStore(tmp_path / "other").clock)
    author.deployed(large, evil.url("honest"))
    delivery.set_delivery(
        author.context,
        delivery.DeliverySetPayload(environment_id="local", revocations=f"file://{revoked}", revocations_required=True),
    )
    out = tmp_path / "all.tar"
    told = bundle_export.export(author.context.store, "local", out)
    assert told["bundles"] == [sha256(large.read_bytes())] and sha256(out.read_bytes()) == sha256(
        (
            bundle_export.export(author.context.store, "local", tmp_path / "again.tar"),
            (tmp_path / "again.tar").read_bytes(),
        )[1]
    )
    anchor = tmp_path / "anchor.pem"
    anchor.write_text(author.context.store.trust_root("local").keys[0].public_key_pem)
    revoked.unlink()
    empty = tmp_path / "pod"
    empty.mkdir()
    script = f"""
    cd {empty}; HOME={empty} GREENTIC_GATEWAY_LISTEN_ADDR=127.0.0.1:18099 {PROGRAMS}/greentic-start start --env local --store-root {empty}/store --from {out} --trust-anchor {anchor} --strict-port > log 2>&1 &
    pid=$!
    for i in $(seq 300); do {sys.executable} -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:18099/status", timeout=2).read().decode())' 2>/dev/null && break; kill -0 $pid 2>/dev/null || break; sleep 0.1; done
    kill $pid; wait $pid
    """
    unshared = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "sh",
        "-c",
        f"{need('ip', 'iproute2')} link set lo up; {script}",
    ]
    done = subprocess.run(unshared, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip(), (empty / "log").read_text() + done.stderr
    status = json.loads(done.stdout)
    assert status["protections"]["anchor"] is True and status["protections"]["revocations"]["version"] == 1
    assert "honest" not in evil.counts


@pytest.mark.parametrize("spoil", ["flip", "link", "name", "none", "cut"])
def test_threat_archive_escape_an_archive_is_no_more_trusted_than_a_server(spoil, large, author, tmp_path):
    author.create().deployed(large, "http://127.0.0.1:1/x")
    out = tmp_path / "all.tar"
    bundle_export.export(author.context.store, "local", out)
    with tarfile.open(out) as archive:
        members = [(m, archive.extractfile(m).read()) for m in archive.getmembers()]
    evil_tar = tmp_path / "evil.tar"
    with tarfile.open(evil_tar, "w") as archive:
        for member, data in members:
            if spoil == "none" and member.name == "environment.json":
                continue
            if spoil == "flip" and member.name.startswith("bundles/"):
                data = data[:-1] + bytes([data[-1] ^ 1])
            if spoil == "name" and member.name == "environment.json":
                member.name = "../../environment.json"
            archive.addfile(member, io.BytesIO(data))
        if spoil == "link":
            link = tarfile.TarInfo("revocations.json")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    if spoil == "cut":
        evil_tar.write_bytes(evil_tar.read_bytes()[: 2 << 20])
    store = EnvironmentStore(tmp_path / "pod")
    # A cache of its own, so that nothing is there already.
    os.environ["GREENTIC_BUNDLE_CACHE_DIR"] = str(tmp_path / "podcache")
    try:
        with pytest.raises(BootError):
            told = read_settings(StartOptions("local", store.root, archive=evil_tar), os.environ)
            _from_archive(evil_tar, store, told)
    finally:
        del os.environ["GREENTIC_BUNDLE_CACHE_DIR"]
        os.environ.pop("GREENTIC_OFFLINE", None)
    assert not (tmp_path / "environment.json").exists()
    assert not store.paths("local").root.exists() and not list((tmp_path / "podcache").rglob("*sha256*"))


# -- the sandbox ----------------------------------------------------------------------------------------------------


def test_fetching_and_unpacking_may_write_below_their_directories_only(tmp_path):
    code = f"""
import sys, threading
from pathlib import Path
from greentic.materialize.sandbox import landlock_version, restrict_writes
inside, outside = Path({str(tmp_path / "in")!r}), Path({str(tmp_path / "out")!r})
def work():
    print(restrict_writes([inside]))
    (inside / "a").write_text("x"); (inside / "a").rename(inside / "b")
    try:
        outside.write_text("x"); print("written")
    except PermissionError:
        print("refused")
    Path("/etc/hostname").read_bytes()
t = threading.Thread(target=work); t.start(); t.join()
outside.write_text("the rest of the process may")
print(landlock_version())
"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    if told[-1] in ("0", "1"):
        assert "not available" in told[0]
    else:
        assert "write below 1 directories only" in told[0] and told[1] == "refused"


def test_status_says_which_protections_are_on(hello, author):
    author.create().deployed(hello, f"file://{hello}")
    author.strip()
    found = boot(author).protections
    assert (
        found["signatures"] == "off" and found["anchor"] is False and any("core" in text for text in found["sandbox"])
    )


# -- the programs ---------------------------------------------------------------------------------------------------


def test_bundles_are_signed_published_and_verified_with_gtc(bundle, tmp_path, author):
    key_of(author, tmp_path)
    signed = json.loads(gtc("bundle", "sign", str(bundle), "--key", str(tmp_path / "signer.pem")).stdout)
    assert signed["result"]["key_id"]
    good = gtc("bundle", "verify", str(bundle), "--key", str(tmp_path / "signer.pub"))
    assert good.returncode == 0 and json.loads(good.stdout)["result"]["signed_by"] == [signed["result"]["key_id"]]
    key_of(author, tmp_path, "stranger")
    assert gtc("bundle", "verify", str(bundle), "--key", str(tmp_path / "stranger.pub")).returncode == 1
    published = json.loads(gtc("bundle", "publish", str(bundle), str(tmp_path / "public")).stdout)["result"]
    assert published["bundle_source_uri"].startswith("file://") and gtc("cache", "list").returncode == 0


@pytest.mark.parametrize("noise", [b"", b"{", b"\xff", b"[]", b"null", b"[" * 200_000, b"7"])
def test_threat_malformed_image_beside_a_good_signature_is_neither_believed_nor_an_untyped_error(
    noise, bundle, tmp_path, author, monkeypatch
):
    """A registry may hold what anybody attached; the good one among it counts, and only it is recorded."""
    author.create()
    key = key_of(author, tmp_path)
    trust(author, tmp_path / "signer.pub")
    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="require"))
    bundle_sign.sign_file(bundle, key, FakeClock())
    good = bundle.with_name(bundle.name + ".sig").read_bytes()
    deployment = author.add()
    monkeypatch.setattr("greentic.deployments.stage.signatures_at", lambda *words: [noise])
    with pytest.raises(UntrustedBundle):
        author.stage(deployment, bundle, f"file://{bundle}")
    monkeypatch.setattr("greentic.deployments.stage.signatures_at", lambda *words: [noise, good])
    staged = author.stage(deployment, bundle, f"file://{bundle}")
    revision = author.context.store.load("local").revision(staged)
    assert revision.extra["greentic:signatures"]["bundle"] == [json.loads(good)]


@pytest.mark.parametrize("how", ["--from", "GREENTIC_OFFLINE"])
def test_a_worker_without_a_network_asks_nobody_for_its_revocation_list(how, hello, author, tmp_path):
    options = StartOptions("local", tmp_path, archive=tmp_path / "x" if how == "--from" else None)
    terms = read_settings(options, {} if how == "--from" else {how: "1"}).terms
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/revocations.json"
        author.create()
        author.deployed(hello)
        delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", revocations=address))
        activation = booted(author.context.store, terms=terms).activation
        assert len(activation.revisions) == 1
        told = str(activation.protections["warnings"])
        assert "is not used" in told and "without a network" in told
        with pytest.raises(BlockingIOError):
            listening.accept()
