"""What an exported environment holds, and what is taken from one: every refusal changes nothing."""

from __future__ import annotations

import errno
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any, cast

import pytest

from greentic.distribute.bundle_cache import BundleCache
from greentic.ground.documents import pretty, replace
from greentic.ground.errors import BootError, Conflict, IoError, MalformedArtifact, NotFound, UntrustedBundle
from greentic.materialize import export_archive, import_archive
from greentic.materialize.placed import is_bootable
from greentic.materialize.trusted import Examined
from greentic.model.environment import (
    DIGEST_PLACEHOLDER,
    Environment,
    HostConfig,
    Revision,
    Revocation,
    new_environment,
)
from greentic.model.environment import DOCUMENT as ENVIRONMENT
from greentic.model.revision_files import lock_ref
from greentic.store.layout import EnvPaths
from greentic.trust.revocation import NAME as REVOCATIONS

BUNDLE = b"a bundle"
DIGEST = f"sha256:{hashlib.sha256(BUNDLE).hexdigest()}"
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def revision(**more: Any) -> Revision:
    told: dict[str, Any] = {
        "schema": "greentic.revision.v1", "revision_id": ULID, "env_id": "local", "bundle_id": "demo", "deployment_id": ULID,
        "sequence": 1, "created_at": "2026-01-01T00:00:00Z", "bundle_digest": DIGEST, "pack_list": [], "pack_list_lock_ref": lock_ref(ULID),
        "config_digest": "", "signature_sidecar_ref": "", "lifecycle": "ready",
    }  # fmt: skip
    return Revision(**(told | more))


ENV = replace(new_environment("local", "x", HostConfig(env_id="local")), revisions=[revision()])
NAME = f"bundles/{DIGEST.replace(':', '-')}"
MEMBERS = {ENVIRONMENT: pretty(ENV), REVOCATIONS: b"listed", NAME: BUNDLE}


def archive(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


class Taken:
    """One worker's side of an import."""

    def __init__(self, directory: Path, refuse: bool = False) -> None:
        self.paths, self.cache = EnvPaths(directory / "store" / "local"), BundleCache(directory / "cache")
        self.refuse, self.examined, self.remembered = refuse, list[tuple[str, bytes | None]](), list[object]()

    def examine(self, env: Environment, listed: bytes | None) -> Examined:
        self.examined.append((env.environment_id, listed))
        assert not self.paths.root.exists() and not self.cache.entries(), "nothing changes before every check"
        if self.refuse:
            raise UntrustedBundle("revoked")
        return cast("Examined", type("Told", (), {"seen": "seen", "listed": listed})())

    def remember(self, seen: object, listed: object) -> None:
        self.remembered.append((seen, listed))

    def take(self, path: Path) -> int:
        return import_archive.import_archive(path, self.paths, self.cache, cast("Any", self), self.examine)

    def is_untouched(self) -> bool:
        return not (self.paths.root.exists() or self.cache.entries() or self.remembered)


def test_an_archive_is_taken_whole_and_its_bundles_once(tmp_path: Path) -> None:
    taken, path = Taken(tmp_path), archive(tmp_path / "a.tar", list(MEMBERS.items()))
    assert taken.take(path) == 1
    assert taken.paths.environment.read_bytes() == MEMBERS[ENVIRONMENT]
    assert taken.paths.environment.stat().st_mode & 0o777 == 0o600
    assert taken.cache.path(DIGEST).read_bytes() == BUNDLE
    assert taken.examined == [("local", b"listed")] and taken.remembered == [("seen", b"listed")]


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([(NAME, BUNDLE)], "it holds no environment.json"),
        ([*MEMBERS.items(), (ENVIRONMENT, b"{}")], "is in it twice"),
        ([*MEMBERS.items(), (NAME, BUNDLE)], "is in it twice"),
        ([(ENVIRONMENT, MEMBERS[ENVIRONMENT]), (NAME, b"another")], "has the digest"),
        ([*MEMBERS.items(), ("notes", b"")], "does not belong into"),
        ([*MEMBERS.items(), (f"bundles/sha256-{hashlib.sha256(b'').hexdigest()}", b"")], "is pinned by no revision"),
        ([*MEMBERS.items(), (f"./{NAME}", BUNDLE)], "does not belong into"),
    ],
)
def test_threat_refused_import_what_is_wrong_with_an_archive_changes_nothing(
    tmp_path: Path, members: list[tuple[str, bytes]], told: str
) -> None:
    taken = Taken(tmp_path)
    with pytest.raises(BootError) as error:
        taken.take(archive(tmp_path / "a.tar", members))
    assert told in str(error.value.__cause__) and taken.is_untouched() and not taken.examined


def test_threat_refused_import_an_environment_that_is_not_trusted_changes_nothing(tmp_path: Path) -> None:
    taken = Taken(tmp_path, refuse=True)
    with pytest.raises(BootError) as error:
        taken.take(archive(tmp_path / "a.tar", list(MEMBERS.items())))
    assert isinstance(error.value.__cause__, UntrustedBundle) and taken.is_untouched()


@pytest.mark.parametrize("data", [b"", b"no tar", bytes(10_240)])
def test_what_is_no_archive_is_a_malformed_one(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    taken = Taken(tmp_path)
    for path, cause in ((tmp_path / "a.tar", MalformedArtifact), (tmp_path / "none", IoError)):
        with pytest.raises(BootError, match=path.name) as error:
            taken.take(path)
        assert isinstance(error.value.__cause__, cause)
    assert taken.is_untouched()


def test_an_archive_is_not_blamed_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BundleCache, "add", full)
    with pytest.raises(BootError) as error:
        Taken(tmp_path).take(archive(tmp_path / "a.tar", list(MEMBERS.items())))
    cause = error.value.__cause__
    assert isinstance(cause, IoError) and "No space left" in str(cause) and "free some space" in str(cause.hint)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("MAX_DOCUMENT", len(MEMBERS[ENVIRONMENT])), ("MAX_BUNDLE_BYTES", len(BUNDLE)), ("MAX_ENTRIES", len(MEMBERS))],
)
def test_threat_bomb_an_archive_may_have_its_limits_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    path = archive(tmp_path / "a.tar", list(MEMBERS.items()))
    monkeypatch.setattr(import_archive, name, limit - 1)
    taken = Taken(tmp_path / "less")
    with pytest.raises(BootError) as error:
        taken.take(path)
    assert isinstance(error.value.__cause__, MalformedArtifact) and taken.is_untouched()
    monkeypatch.setattr(import_archive, name, limit)
    assert Taken(tmp_path / "enough").take(path) == 1


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_threat_archive_escape_only_regular_files_are_looked_at(tmp_path: Path, kind: bytes) -> None:
    path = archive(tmp_path / "a.tar", [(ENVIRONMENT, MEMBERS[ENVIRONMENT])])
    with tarfile.open(path, "a") as file:
        info = tarfile.TarInfo(REVOCATIONS)
        info.type, info.linkname = kind, "environment.json"
        file.addfile(info)
    taken = Taken(tmp_path)
    with pytest.raises(BootError) as error:
        taken.take(path)
    assert "is no regular file" in str(error.value.__cause__) and taken.is_untouched()


# -- exporting ------------------------------------------------------------------------------------------------------


def test_a_bundle_is_taken_from_here_from_its_source_or_from_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENTIC_BUNDLE_CACHE_DIR", str(tmp_path / "cache"))
    paths = EnvPaths(tmp_path / "store" / "local")
    with pytest.raises(Conflict, match="is not here, and has no source"):
        export_archive._bundle(ENV, paths, revision())
    assert not BundleCache(tmp_path / "cache").entries()
    with pytest.raises(Conflict, match="recorded without its bundle"):
        export_archive._bundle(ENV, paths, revision(bundle_digest=DIGEST_PLACEHOLDER))
    (tmp_path / "source").write_bytes(BUNDLE)
    with export_archive._bundle(ENV, paths, revision(bundle_source_uri=f"file://{tmp_path}/source")) as file:
        assert file.read() == BUNDLE
    (tmp_path / "source").unlink()
    with export_archive._bundle(ENV, paths, revision()) as file:
        assert file.read() == BUNDLE
    monkeypatch.setenv("GREENTIC_BUNDLE_CACHE_DIR", "off")
    with pytest.raises(Conflict, match="needs a cache"):
        export_archive._bundle(ENV, paths, revision())


def test_a_revocation_list_that_is_required_is_exported_or_nothing_is(tmp_path: Path) -> None:
    address = tmp_path / "revoked"
    for required in (False, True):
        env = replace(ENV, revocation=Revocation(required=required, list_ref=f"file://{address}"))
        address.write_bytes(b"listed")
        assert export_archive._revocations(env) == b"listed"
        address.unlink()
        if required:
            with pytest.raises(NotFound, match="requires a revocation list"):
                export_archive._revocations(env)
        else:
            assert export_archive._revocations(env) is None
    assert export_archive._revocations(ENV) is None


def test_only_a_revision_with_a_source_and_a_pin_could_ever_be_pulled() -> None:
    told = {"bundle_source_uri": "https://a.test/b"}
    assert is_bootable(revision(**told))
    for wrong in ({"bundle_source_uri": None}, {"bundle_digest": DIGEST_PLACEHOLDER}, {"pack_list_lock_ref": "other"}):
        assert not is_bootable(revision(**(told | wrong)))
