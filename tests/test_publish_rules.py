"""The rules of publishing, one by one: into a directory, and into a registry that keeps what it is told."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from greentic.distribute import publish as publishing
from greentic.distribute.publish import ARTIFACT, UPLOAD_SECONDS, Bundle, PublishedBundle, publish
from greentic.distribute.sources import source_for
from greentic.ground.errors import InvalidArgument
from greentic.net.terms import Terms
from greentic.registry.media_types import BUNDLE_LAYER, MANIFEST
from test_bundle_sources import sha256

DATA = b"a bundle"


def bundle(data: bytes = DATA, *, name: str = "b.gtbundle", signature: bytes | None = None) -> Bundle:
    """A bundle whose file was read to its end, as by who computed its digest."""
    file = io.BytesIO(data)
    file.seek(0, os.SEEK_END)
    return Bundle(name, file, sha256(data), len(data), signature, {"org.test": "yes"})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that is there and empty."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# -- a directory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["{}", "file://{}", "FILE://{}"])
def test_a_bundle_comes_to_its_name_in_a_directory_that_may_be_new(tmp_path: Path, how: str) -> None:
    place = tmp_path / "deep" / "place"
    first = publish(bundle(), how.format(place))
    assert first == PublishedBundle(f"file://{place}/b.gtbundle", sha256(DATA), len(DATA), True, None)
    assert files(place) == {"b.gtbundle": DATA}
    assert publish(bundle(), how.format(place)) == first._replace(moved=False)


@pytest.mark.parametrize("there", [b"", b"another", b"a bundl", b"a bundle "])
def test_another_bundle_of_the_name_is_replaced(place: Path, there: bytes) -> None:
    (place / "b.gtbundle").write_bytes(there)
    assert publish(bundle(), str(place)).moved and files(place) == {"b.gtbundle": DATA}


def test_what_is_there_already_is_not_written_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(bundle(), str(place))
    monkeypatch.setattr(publishing, "place", lambda *_: pytest.fail("written again"))
    assert not publish(bundle(), str(place)).moved


def test_a_bundle_comes_by_rename_when_it_is_whole_on_stable_storage(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[object] = []

    def placing(source: Path, target: Path) -> None:
        steps.append(("placed", source.read_bytes(), target.exists(), source.parent == target.parent))
        source.rename(target)

    monkeypatch.setattr(publishing, "sync_file", lambda fd: steps.append(("synced", os.fstat(fd).st_size)))
    monkeypatch.setattr(publishing, "place", placing)
    publish(bundle(), str(place))
    assert steps == [("synced", len(DATA)), ("placed", DATA, False, True)]


def test_of_what_failed_nothing_is_left_and_what_was_there_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    (place / "b.gtbundle").write_bytes(b"another")
    monkeypatch.setattr(publishing, "place", full)
    with pytest.raises(OSError, match="No space left"):
        publish(bundle(), str(place))
    assert files(place) == {"b.gtbundle": b"another"}
    monkeypatch.setattr(Path, "open", lambda *_: full(place, place))
    with pytest.raises(OSError, match="No space left"):  # before there is anything to leave
        publish(bundle(name="c"), str(place))


def test_a_signature_goes_beside_its_bundle_and_lasts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable: list[bool] = []
    real = publishing.replace_file

    def replacing(path: Path, data: bytes, **how: bool) -> None:
        durable.append(how["durable"])
        real(path, data, durable=how["durable"])

    monkeypatch.setattr(publishing, "replace_file", replacing)
    for signature in (b"first", b"second"):
        told = publish(bundle(signature=signature), str(place))
        assert told.signature == f"{place}/b.gtbundle.sig"
        assert files(place) == {"b.gtbundle": DATA, "b.gtbundle.sig": signature}
    assert durable == [True, True]


@pytest.mark.parametrize("name", ["b 1%20.gtbundle", "bündel.gtbundle", os.fsdecode(b"\xff.gtbundle")])
def test_what_is_told_can_be_pulled(place: Path, name: str) -> None:
    told = publish(bundle(name=name), str(place))
    told.uri.encode()
    source, path = source_for(told.uri)
    body = source.open(path)
    buffer = memoryview(bytearray(100))
    assert bytes(buffer[: body.read_into(buffer)]) == DATA
    body.close()
    assert told.uri == f"file://{place}/{name if name.isprintable() else '%FF.gtbundle'}"


@pytest.mark.parametrize("target", ["ftp://h.test/x", "https://h.test/x", "s3://bucket/x"])
def test_what_is_no_place_to_publish_to_is_refused_with_those_that_are(
    place: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(InvalidArgument, match="is no place to publish to") as error:
        publish(bundle(), target)
    assert error.value.hint is not None and "oci://" in error.value.hint and not list(place.iterdir())


# -- a registry -----------------------------------------------------------------------------------------------------


class Kept:
    """What a registry was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, moved: bool = True) -> None:
        self.made: list[tuple[str, Terms, bool]] = []
        self.told: list[object] = []

        def registry(reference: object, terms: Terms, environ: object, *, push: bool = False) -> str:
            self.made.append((str(reference), terms, push))
            return "registry"

        def put_blob(registry: str, file: io.BytesIO, digest: str, size: int) -> bool:
            self.told.append(("blob", digest, size))
            return moved

        def manifest(registry: str, kind: str, layers: list[dict[str, object]], annotations: dict[str, str]) -> bytes:
            self.told.append((kind, layers, annotations))
            return b"the manifest"

        def put_manifest(registry: str, wanted: str, data: bytes, media: str) -> str:
            self.told.append((wanted, data, media))
            return "sha256:manifest"

        def attach(registry: str, subject: str, size: int, data: bytes, kind: str) -> str:
            self.told.append((subject, size, data, kind))
            return "sha256:signature"

        for name, stand_in in (
            ("Registry", registry), ("put_blob", put_blob), ("artifact_manifest", manifest), ("put_manifest", put_manifest), ("attach", attach),
        ):  # fmt: skip
            monkeypatch.setattr(publishing, name, stand_in)


@pytest.mark.parametrize("moved", [True, False])
def test_an_artifact_has_one_layer_that_every_worker_takes_and_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    kept = Kept(monkeypatch, moved=moved)
    told = publish(bundle(), "OCI://r.test/bots/app:1", Terms(idle=7))
    assert told == PublishedBundle("oci://r.test/bots/app@sha256:manifest", sha256(DATA), len(DATA), moved, None)
    title = {"org.opencontainers.image.title": "b.gtbundle", "org.test": "yes"}
    layer = {"mediaType": BUNDLE_LAYER, "digest": sha256(DATA), "size": len(DATA), "annotations": title}
    assert kept.told == [
        ("blob", sha256(DATA), len(DATA)),
        (ARTIFACT, [layer], {"org.test": "yes"}),
        ("1", b"the manifest", MANIFEST),
    ]
    assert [(terms.idle, push) for _, terms, push in kept.made] == [(7, True)]


def test_a_signature_refers_to_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    assert publish(bundle(signature=b"signed"), "oci://r.test/a:1").signature == "sha256:signature"
    assert kept.told[-1] == (
        "sha256:manifest",
        len(b"the manifest"),
        b"signed",
        "application/vnd.dsse.envelope.v1+json",
    )


def test_a_digest_is_no_name_to_publish_under(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    with pytest.raises(InvalidArgument, match="publish under a tag"):
        publish(bundle(), f"oci://r.test/a@{sha256(b'x')}")
    assert not kept.told


def test_a_bundle_may_take_its_time_and_goes_by_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(monkeypatch)
    monkeypatch.setenv("GREENTIC_FETCH_IDLE_SECONDS", "9")
    publish(bundle(), "oci://r.test/a:1")
    assert [(terms.idle, terms.total) for _, terms, _ in kept.made] == [(9, UPLOAD_SECONDS)]
