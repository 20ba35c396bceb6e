"""SquashFS images, bundles, packs: agreement with the real tools, and every kind of damage."""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import random
import shutil
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import SHARED, need
from greentic.bundle import compression
from greentic.bundle import contents as bundle
from greentic.bundle.limits import BundleLimits
from greentic.bundle.squashfs_layout import SUPERBLOCK, Superblock
from greentic.bundle.squashfs_reader import Block, SquashImage, stays_inside
from greentic.bundle.squashfs_writer import write_image
from greentic.ground.errors import GreenticError, InvalidArgument, LimitExceeded, MalformedArtifact
from greentic.materialize.unpack import unpack
from greentic.model.ids import is_contained_ref
from greentic.model.revision_files import make_lock
from greentic.pack import cbor
from greentic.pack import manifest as pack_manifest
from greentic.pack.archive import PackArchive, media_type, write_pack
from greentic.pack.limits import PackLimits
from greentic.trust.gate import pin


def image_of(data: bytes, limits: BundleLimits = BundleLimits()) -> SquashImage:  # noqa: B008
    return SquashImage(lambda offset, count: data[offset : offset + count], len(data), limits)


def written(tree: Path, **options: object) -> bytes:
    out = io.BytesIO()
    write_image(tree, out, **options)
    return out.getvalue()


def tree_of(image: SquashImage) -> dict[str, object]:
    return {e.path: image.content(e) if e.kind == "file" else e.target or e.kind for e in image.entries()}


def tree_on_disk(root: Path) -> dict[str, object]:
    out: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        out[name] = os.readlink(path) if path.is_symlink() else "directory" if path.is_dir() else path.read_bytes()
    return out


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda n: n not in (".", "..") and len(n.encode()) < 200
)
CONTENTS = st.one_of(
    st.binary(max_size=64),
    st.builds(
        lambda n, seed: random.Random(seed).randbytes(n),
        st.sampled_from([4096, 131071, 131072, 131073, 300_000]),
        st.integers(0, 9),
    ),
    st.builds(lambda n: b"\0" * n, st.sampled_from([1, 131072, 262_144, 262_145])),
    st.builds(lambda n: b"compressible " * n, st.integers(1, 30_000)),
)
TREES = st.recursive(
    st.dictionaries(NAMES, CONTENTS, max_size=4),
    lambda inner: st.dictionaries(NAMES, inner | CONTENTS, max_size=4),
    max_leaves=8,
)


def lay_out(root: Path, tree: dict[str, object]) -> None:
    """Make a tree; every directory gets a link to itself through its parent."""
    root.mkdir(exist_ok=True)
    for name, value in tree.items():
        path = root / name
        if isinstance(value, dict):
            lay_out(path, value)
            if "~up" not in value:
                (path / "~up").symlink_to("../" + name)
        else:
            path.write_bytes(value)
            if len(value) % 2:
                path.chmod(0o755)


@settings(max_examples=25)
@given(TREES)
def test_unsquashfs_and_our_reader_agree_on_what_we_write(tmp_path_factory, tree):
    unsquashfs = need("unsquashfs", "squashfs-tools")
    base = tmp_path_factory.mktemp("tree")
    (base / "in").mkdir()
    lay_out(base / "in", tree)
    data = written(base / "in")
    assert data == written(base / "in")
    (base / "image").write_bytes(data)
    subprocess.run(
        [unsquashfs, "-no-progress", "-d", str(base / "out"), str(base / "image")], check=True, capture_output=True
    )
    expected = tree_on_disk(base / "in")
    assert tree_on_disk(base / "out") == expected == tree_of(image_of(data))
    for path in (base / "out").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert bool(path.stat().st_mode & 0o111) == bool(
                (base / "in" / path.relative_to(base / "out")).stat().st_mode & 0o111
            )
    with (base / "image").open("rb") as file, pin(file) as verified:
        (base / "ours").mkdir()
        contents = bundle.listed(verified)
        unpack(contents, base / "ours")
    assert tree_on_disk(base / "ours") == expected
    shutil.rmtree(base)


@pytest.mark.parametrize("compressor", ["gzip", "xz", "zstd", "lz4", "lzo"])
@pytest.mark.parametrize("fragments", [[], ["-no-fragments"], ["-no-compression"]])
def test_we_read_what_mksquashfs_writes(tmp_path, compressor, fragments):
    mksquashfs = need("mksquashfs", "squashfs-tools")
    source = tmp_path / "in"
    lay_out(
        source, {"a": b"x" * 200_000, "d": {"e": {"f": random.Random(1).randbytes(150_000)}}, "z": b"", "s": b"tail"}
    )
    options = ["-noI", "-noD", "-noF"] if fragments == ["-no-compression"] else fragments
    subprocess.run(
        [mksquashfs, str(source), str(tmp_path / "image"), "-comp", compressor, "-quiet", *options],
        check=True,
        capture_output=True,
    )
    assert tree_of(image_of((tmp_path / "image").read_bytes())) == tree_on_disk(source)


def test_many_entries_and_a_listing_too_large_for_a_basic_inode(tmp_path):
    unsquashfs = need("unsquashfs", "squashfs-tools")
    folder = tmp_path / "in" / "many"
    folder.mkdir(parents=True)
    for index in range(3000):
        (folder / f"file-{index:05d}-{'x' * 20}").write_bytes(str(index).encode() * (index % 40))
    (tmp_path / "image").write_bytes(written(tmp_path / "in"))
    subprocess.run(
        [unsquashfs, "-no-progress", "-d", str(tmp_path / "out"), str(tmp_path / "image")],
        check=True,
        capture_output=True,
    )
    assert (
        tree_on_disk(tmp_path / "out")
        == tree_on_disk(tmp_path / "in")
        == tree_of(image_of((tmp_path / "image").read_bytes()))
    )


def test_the_real_bundles_are_read_as_unsquashfs_reads_them(fixtures, tmp_path):
    unsquashfs = need("unsquashfs", "squashfs-tools")
    for path in fixtures.glob("*.gtbundle"):
        out = tmp_path / path.stem
        subprocess.run([unsquashfs, "-no-progress", "-d", str(out), str(path)], check=True, capture_output=True)
        assert tree_of(image_of(path.read_bytes())) == tree_on_disk(out)


# -- threats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "depth", "inside"),
    [
        ("a", 0, True), ("../a", 1, True), ("../a", 0, False), ("/etc", 3, False), ("", 0, False), ("a/../b", 5, False), ("..", 1, True),
        ("../../x", 1, False), ("./../a", 1, True), ("a\0b", 0, False),
    ],
)  # fmt: skip
def test_threat_archive_escape_link_targets(target, depth, inside):
    assert stays_inside(target, depth) is inside


@pytest.mark.parametrize("kind", ["fifo", "outside-link", "absolute-link", "hard-link", "set-uid", "device"])
def test_threat_archive_escape_entries_of_real_images(tmp_path, kind):
    mksquashfs = need("mksquashfs", "squashfs-tools")
    source = tmp_path / "in"
    source.mkdir()
    (source / "file").write_bytes(b"x" * 10)
    extra: list[str] = []
    if kind == "fifo":
        os.mkfifo(source / "evil")
    elif kind == "outside-link":
        (source / "evil").symlink_to("../../etc/passwd")
    elif kind == "absolute-link":
        (source / "evil").symlink_to("/etc/passwd")
    elif kind == "hard-link":
        os.link(source / "file", source / "evil")
    elif kind == "set-uid":
        (source / "file").chmod(0o4755)
    else:
        (tmp_path / "pseudo").write_text("evil c 666 0 0 1 3\n")
        extra = ["-pf", str(tmp_path / "pseudo")]
    subprocess.run(
        [mksquashfs, str(source), str(tmp_path / "image"), "-quiet", *extra], check=True, capture_output=True
    )
    with pytest.raises(MalformedArtifact):
        list(image_of((tmp_path / "image").read_bytes()).entries())
    if kind not in ("device", "hard-link", "set-uid"):
        with pytest.raises(InvalidArgument):
            written(source)


def name_patched(tmp_path: Path, old: bytes, new: bytes) -> bytes:
    """An image in which a stored name is another of the same length."""
    mksquashfs = need("mksquashfs", "squashfs-tools")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / old.decode()).write_bytes(b"x")
    subprocess.run(
        [mksquashfs, str(tmp_path / "in"), str(tmp_path / "image"), "-quiet", "-noI", "-noD", "-noF"],
        check=True,
        capture_output=True,
    )
    return (tmp_path / "image").read_bytes().replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"), [(b"QQ", b".."), (b"QQQ", b"a/b"), (b"QQQ", b"a\0b"), (b"QQ", b"\xff\xfe"), (b"Q", b".")]
)
def test_threat_archive_escape_names(tmp_path, old, new):
    with pytest.raises(MalformedArtifact):
        list(image_of(name_patched(tmp_path, old, new)).entries())


@pytest.mark.parametrize(
    "limits",
    [
        BundleLimits(entries=3), BundleLimits(total_bytes=1000), BundleLimits(file_bytes=1000), BundleLimits(ratio=2, ratio_floor=10), BundleLimits(depth=2),
        BundleLimits(name_bytes=3), BundleLimits(directory_bytes=10),
    ],
)  # fmt: skip
def test_threat_bomb_limits_hold_before_a_block_is_inflated(tmp_path, limits):
    lay_out(tmp_path / "a", {"b": {"c": {"long-name": b"\0" * 500_000}}})
    data = written(tmp_path / "a")
    inflated = []
    image = image_of(data, limits) if limits.entries > 3 else None
    with pytest.raises(LimitExceeded) if limits.name_bytes > 3 else pytest.raises(MalformedArtifact):
        for entry in (image or image_of(data, limits)).entries():
            inflated.append(entry)
    assert all(e.kind == "directory" for e in inflated)


@pytest.mark.parametrize(
    ("compressor", "pack"),
    [
        (compression.GZIP, lambda d: zlib.compress(d, 9)),
        (compression.XZ, lambda d: lzma.compress(d)),
        (compression.ZSTD, None),
        (compression.LZ4, None),
        (compression.LZO, None),
    ],
)
def test_threat_bomb_no_block_inflates_beyond_its_size(compressor, pack):
    if pack is None:
        lz4, lzo, zstd = (
            pytest.importorskip("lz4.block"),
            pytest.importorskip("lzallright"),
            pytest.importorskip("zstandard"),
        )
        pack = {
            compression.ZSTD: lambda d: zstd.ZstdCompressor().compress(d), compression.LZ4: lambda d: lz4.compress(d, store_size=False),
            compression.LZO: lambda d: lzo.LZOCompressor().compress(d),
        }[compressor]  # fmt: skip
    inflate = compression.decompressor(compressor)
    assert inflate(pack(b"ab" * 500), 1000) == b"ab" * 500
    with pytest.raises(MalformedArtifact):
        inflate(pack(bytes(1 << 20)), 4096)
    for damaged in (b"", b"\x01", pack(bytes(3000))[:-3], b"\xff" * 40):
        try:
            assert len(inflate(damaged, 4096)) <= 4096
        except MalformedArtifact:
            pass


def test_a_compressor_that_is_not_there(monkeypatch):
    with pytest.raises(MalformedArtifact, match="lzma"):
        compression.decompressor(compression.LZMA)
    with pytest.raises(MalformedArtifact, match="99"):
        compression.decompressor(99)
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MalformedArtifact) as error:
        compression.decompressor(compression.ZSTD)
    assert "squashfs-extra" in error.value.hint


def small_image() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        lay_out(root, {"d": {"f": b"hello" * 1000, "e": {"g": b"x" * 140_000}, "h": b""}})
        return written(root)


IMAGE = small_image()


def survives(data: bytes) -> None:
    """Reading ends with a tree or with one typed error."""
    try:
        image = image_of(data)
        for count, entry in enumerate(image.entries()):
            assert count < 1000
            if entry.kind == "file" and entry.size < 1 << 20:
                image.content(entry)
    except MalformedArtifact:
        pass


@settings(max_examples=300)
@given(st.integers(0, len(IMAGE) - 1), st.integers(0, 255))
def test_threat_malformed_image_any_byte(position, value):
    survives(IMAGE[:position] + bytes([value]) + IMAGE[position + 1 :])


@settings(max_examples=200)
@given(
    st.sampled_from(Superblock._fields), st.sampled_from([0, 1, 7, 95, 96, 2**16, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
)
def test_threat_malformed_image_any_superblock_field(field, value):
    superblock = Superblock._make(SUPERBLOCK.unpack(IMAGE[:96]))
    try:
        head = superblock._replace(**{field: value}).pack()
    except struct.error:
        return
    survives(head + IMAGE[96:])


@settings(max_examples=100)
@given(st.integers(0, len(IMAGE)))
@example(4)
@example(96)
def test_threat_malformed_image_any_truncation(length):
    survives(IMAGE[:length])
    if length < SUPERBLOCK.unpack(IMAGE[:96])[12]:
        with pytest.raises(MalformedArtifact):
            image_of(IMAGE[:length])


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_threat_malformed_image_any_bytes(data):
    survives(data)
    survives(b"hsqs" + data)


def test_blocks_outside_the_image_are_refused():
    image = image_of(IMAGE)
    for block in (
        Block(len(IMAGE), 10, False, 10),
        Block(0, 10, False, 11),
        Block(0, 10, True, 10),
        Block(0, 10, False, 5, 8, 10),
    ):
        with pytest.raises(MalformedArtifact):
            image.read(block)
    assert image.read(Block(0, 0, True, 5)) == bytes(5)
    with pytest.raises(MalformedArtifact, match="ends inside"):
        list(SquashImage(lambda o, c: IMAGE[o : o + c] if o < 96 else b"", len(IMAGE)).entries())


# -- bundles --------------------------------------------------------------------------------------------------------


def test_which_packs_count():
    counted = ["packs/a.gtpack", "packs/x/y/b.gtpack", "providers/messaging/c.gtpack", "providers/state/deep/d.gtpack"]
    ignored = [
        "a.gtpack",
        "resolved/a.gtpack",
        "providers/a.gtpack",
        "providers/deployer/a.gtpack",
        "packs/a.GTPACK",
        "packs/.gtpack",
        ".cache/a.gtpack",
    ]
    assert all(bundle.is_pack(p) for p in counted) and not any(bundle.is_pack(p) for p in ignored)


def open_tree(tmp_path: Path, tree: dict[str, object]) -> bundle.Contents:
    (tmp_path / "t").mkdir()
    lay_out(tmp_path / "t", tree)
    (tmp_path / "b").write_bytes(written(tmp_path / "t"))
    return bundle.open_bundle(pin((tmp_path / "b").open("rb")))


def test_what_is_no_bundle(tmp_path):
    with pytest.raises(MalformedArtifact, match="has no bundle-manifest.json"):
        open_tree(tmp_path, {"x": b""})
    contents = open_tree(
        tmp_path / "2" if (tmp_path / "2").mkdir() is None else tmp_path, {"bundle-manifest.json": b"{}"}
    )
    with pytest.raises(MalformedArtifact, match="no .gtpack artifacts"):
        bundle.pack_paths(contents.entries)
    assert bundle.strict_faults(contents)[0].startswith(
        "bundle-manifest.json: invalid argument"
    ) or bundle.strict_faults(contents)


@pytest.mark.parametrize(
    ("name", "loads"),
    [("n" * 248, True), ("日" * 82, True), ("a:b", False), ("a\\b", False), ("a\x1fb", False), (" ", True)],
)
def test_a_pack_that_no_worker_loads_is_refused_before_it_is_staged(tmp_path, name, loads):
    """Its path stands in the lock, where such a part leads elsewhere to some; it was staged, and no `warm` took it, nor a name above 200."""
    contents = open_tree(tmp_path, {"bundle-manifest.json": b"{}", "packs": {f"{name}.gtpack": b""}})
    if loads:
        (path,) = bundle.pack_paths(contents.entries)
        (locked,) = make_lock("R", {path: ""}).packs
        assert is_contained_ref(locked.path)
        return
    with pytest.raises(MalformedArtifact, match="is a pack that no worker loads"):
        bundle.pack_paths(contents.entries)


def test_strict_faults_name_what_disagrees(tmp_path):
    manifest = b'{"format_version":"v9","bundle_id":" ","bundle_name":"n","requested_mode":"a","locale":"en","artifact_extension":".zip","generated_setup_files":["state/x"]}'
    lock = b'{"schema_version":1,"bundle_id":"b","requested_mode":"c","build_format_version":"z","workspace_root":"w","lock_file":"l"}'
    faults = bundle.strict_faults(open_tree(tmp_path, {"bundle-manifest.json": manifest, "bundle-lock.json": lock}))
    assert len(faults) == 9 and "bundle manifest and lock bundle_id do not match" in faults
    (tmp_path / "3").mkdir()
    broken = open_tree(tmp_path / "3", {"bundle-manifest.json": b"{", "bundle-lock.json": b"[]"})
    assert len(bundle.strict_faults(broken)) == 2


def test_pack_config_inputs_are_bounded(tmp_path):
    tree = {
        "bundle-manifest.json": b"{}",
        "state": {"pack-configs": {"b.json": b"{}", "a.json": b"[1]", "c.txt": b"", "d.json": b"{" * 10}},
    }
    contents = open_tree(tmp_path, tree)
    inputs = bundle.pack_config_inputs(contents)
    assert [next(inputs), next(inputs)] == [("a.json", [1]), ("b.json", {})]
    with pytest.raises(MalformedArtifact, match="not JSON"):
        next(inputs)
    large = contents._replace(entries=[e._replace(size=bundle.MAX_DOCUMENT + 1) for e in contents.entries])
    with pytest.raises(MalformedArtifact, match="more than"):
        next(bundle.pack_config_inputs(large))


# -- packs ----------------------------------------------------------------------------------------------------------

PERF_SMOKE_SHA = "e7973bdda19ff18340f008c6331e93ce50ff7ddd75984a8711715d5c301fb127"


def real_packs() -> list[bytes]:
    found = []
    for path in [*(SHARED / "fixtures").glob("*.gtbundle"), *(SHARED / "conformance" / "bundles").glob("*.gtbundle")]:
        contents = bundle.open_bundle(pin(path.open("rb")))
        found += [contents.image.content(contents.find(p)) for p in bundle.pack_paths(contents.entries)]
    return [data for data in found if zipfile.is_zipfile(io.BytesIO(data))]


def test_real_manifests_are_encoded_to_identical_bytes(fixtures):
    packs = real_packs()
    assert PERF_SMOKE_SHA in [hashlib.sha256(p).hexdigest() for p in packs]
    for data in packs:
        archive = PackArchive(io.BytesIO(data))
        assert pack_manifest.encode(archive.manifest) == archive.read("manifest.cbor")
        assert archive.sbom_warnings() == []


def raw_manifest(**more: object) -> dict[str, object]:
    node = {
        "id": "n", "component": {"id": "emit.response", "pack_alias": None, "operation": None}, "input": {"mapping": {"f": 1.5, "big": 1e300, "neg": -3}},
        "output": {"mapping": {}}, "routing": {"Branch": {"on_status": {"ok": "n"}, "default": None}}, "telemetry": {"attributes": {}},
    }  # fmt: skip
    nodes = [
        node,
        node | {"id": "m", "routing": {"Next": {"node_id": "n"}}},
        node | {"id": "o", "routing": {"Custom": [1]}},
    ]
    graph = {
        "schema_version": "flow-v1",
        "id": "main",
        "kind": "messaging",
        "entrypoints": {},
        "nodes": nodes,
        "metadata": {},
    }
    return {
        "schema_version": "pack-v1", "pack_id": "a.b", "version": "1.0.0", "kind": "application", "publisher": "p", "symbols": {},
        "components": [{"id": "c.d", "version": "1.0.0", "world": "w"}],
        "flows": [{"id": "main", "kind": "messaging", "flow": graph, "tags": ["default"], "entrypoints": ["default"]}],
        "dependencies": [{"alias": "x", "pack_id": "z.z", "version_req": "*", "required_capabilities": ["host:secrets"]}],
        "capabilities": [{"name": "host:secrets", "description": None}], "signatures": {"signatures": []}, "extensions": {},
    } | more  # fmt: skip


def test_a_manifest_with_every_kind_of_index_goes_round():
    manifest = pack_manifest.build(raw_manifest())
    data = pack_manifest.encode(manifest)
    again = pack_manifest.decode(data)
    assert again.raw == manifest.raw and pack_manifest.encode(again) == data
    assert again.symbols["pack_ids"] == ["a.b", "z.z"] and again.symbols["component_ids"] == ["c.d", "emit.response"]
    literal = cbor.decode(data, limit=1 << 20) | {"pack_id": "other.id"}
    read = pack_manifest.decode(cbor.encode(literal))
    assert read.pack_id == "other.id" and pack_manifest.encode(read) == cbor.encode(literal)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.update(schema_version="v9"), "schema is"), (lambda m: m.update(pack_id=7), "invalid symbol index 7 in pack_ids"),
        (lambda m: m.update(pack_id=True), "invalid symbol index"), (lambda m: m["symbols"].update(pack_ids=["a/b"]), "invalid identifier"),
        (lambda m: m["flows"][0]["flow"]["nodes"][0].update(id=99), "invalid symbol index 99 in node_ids"),
        (lambda m: m["flows"][0]["flow"]["nodes"][1]["routing"]["Next"].update(node_id=99), "node_ids"),
        (lambda m: m.update(flows=5), "no list"), (lambda m: m.update(flows=[5]), "no map"), (lambda m: m.update(version=5), "no text"),
        (lambda m: (m.clear(), m.update(meta={})), "legacy"), (lambda m: m.update(components=[{"id": 44}]), "component_ids"),
    ],
)  # fmt: skip
def test_manifests_that_are_refused(change, text):
    raw = cbor.decode(pack_manifest.encode(pack_manifest.build(raw_manifest())), limit=1 << 20)
    change(raw)
    with pytest.raises(MalformedArtifact, match=text):
        pack_manifest.decode(cbor.encode(raw))


def test_encoding_an_id_outside_its_table_is_an_error():
    manifest = pack_manifest.build(raw_manifest())
    with pytest.raises(MalformedArtifact, match="is not in node_ids"):
        pack_manifest.encode(manifest._replace(symbols=manifest.symbols | {"node_ids": []}))


@given(st.binary(max_size=200))
def test_any_bytes_as_a_manifest_are_refused_or_read(data):
    for text in (data, b"\xac" + data, pack_manifest.encode(pack_manifest.build(raw_manifest()))[:60] + data):
        try:
            pack_manifest.decode(text)
        except MalformedArtifact:
            pass


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
                    lambda i: st.lists(i, max_size=3) | st.dictionaries(st.text(max_size=5), i, max_size=3), max_leaves=8))  # fmt: skip
def test_cbor_goes_round(value):
    assert cbor.decode(cbor.encode(value), limit=1 << 20) == value
    assert cbor.encode(value, canonical=True) == cbor.encode(
        cbor.decode(cbor.encode(value, canonical=True), limit=1 << 20)
    )


def test_cbor_is_bounded():
    assert cbor.encode(float("nan")) == bytes.fromhex("f97e00") and cbor.encode(1.5) == bytes.fromhex("f93e00")
    assert cbor.decode(bytes.fromhex("d9d9f7a0"), limit=10) == {}
    for data in (
        b"\x81" * 100_000,
        b"\xa1\x01\x01",
        b"\xc1\x00",
        b"\xa2\x61a\x00\x61a\x00",
        b"\xff",
        b"\x9a\xff\xff\xff\xff",
        b"\xa1\x41a\x00",
    ):
        with pytest.raises(MalformedArtifact):
            cbor.decode(data, limit=1 << 20)
    with pytest.raises(MalformedArtifact, match="larger than"):
        cbor.decode(bytes(11), limit=10)
    with pytest.raises(TypeError):
        cbor.encode(object())
    with pytest.raises(ValueError):
        cbor.encode(2**64)


def zipped(entries: dict[str, bytes], **info: object) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            item = zipfile.ZipInfo(name)
            for key, value in info.items():
                setattr(item, key, value)
            item.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(item, data)
    return out


MANIFEST = {"manifest.cbor": pack_manifest.encode(pack_manifest.build(raw_manifest()))}


def test_a_pack_is_written_the_same_twice_and_read_back():
    manifest = pack_manifest.build(raw_manifest())
    data = write_pack(manifest, {"assets/a.json": b"{}", "components/c.wasm": b"w"}, {})
    assert data == write_pack(manifest, {"assets/a.json": b"{}", "components/c.wasm": b"w"}, {})
    archive = PackArchive(io.BytesIO(data))
    assert archive.sbom_warnings() == [] and archive.manifest.raw == manifest.raw
    assert [media_type(p) for p in ("a.wasm", "x.cbor", "assets/a.json", "pack.lock.cbor")] == [
        "application/wasm", "application/cbor", "application/octet-stream", "application/octet-stream",
    ]  # fmt: skip
    with pytest.raises(MalformedArtifact, match="is not in the pack"):
        archive.read("nope")
    archive.close()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (io.BytesIO(b"PK\x03\x04app"), "not a ZIP archive"), (io.BytesIO(b""), "not a ZIP"), (zipped({"x": b""}), "manifest.cbor missing"),
        (zipped({"../x": b""}), "unsafe path"), (zipped({"/x": b""}), "unsafe path"), (zipped({"a//b": b""}), "unsafe path"),
        (zipped(MANIFEST, external_attr=0o120777 << 16), "not a regular file"), (zipped({"manifest.cbor": b"\0"}), "manifest is no map"),
    ],
)  # fmt: skip
def test_archives_that_are_refused(data, text):
    with pytest.raises(MalformedArtifact, match=text):
        PackArchive(data)


def test_duplicate_entries_and_limits():
    out = zipped(MANIFEST)
    with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("manifest.cbor", b"again")
    with pytest.raises(MalformedArtifact, match="duplicate entry"):
        PackArchive(out)
    bomb = zipped(MANIFEST | {"big": bytes(1 << 20)})
    for limits in (
        PackLimits(archive_bytes=10),
        PackLimits(entries=1),
        PackLimits(entry_bytes=1000),
        PackLimits(total_bytes=1000),
        PackLimits(ratio=5, ratio_floor=10),
    ):
        with pytest.raises(LimitExceeded):
            PackArchive(bomb, limits)
    assert PackArchive(zipped(MANIFEST | {"folder/": b""})).entries.keys() == MANIFEST.keys()


def test_sbom_faults_are_warnings():
    from blake3 import blake3

    def sbom(files: list[object], form: str = "greentic-sbom-v1") -> bytes:
        return cbor.encode({"format": form, "files": files})

    def row(path: str, data: bytes) -> dict[str, object]:
        return {"path": path, "hash_blake3": blake3(data).hexdigest(), "size": len(data), "media_type": "x"}

    def told(**entries: bytes) -> list[str]:
        names = {k.replace("__", "."): v for k, v in entries.items()}
        return PackArchive(zipped(MANIFEST | names)).sbom_warnings()

    own = row("manifest.cbor", MANIFEST["manifest.cbor"])
    assert told(sbom__cbor=sbom([own])) == []
    assert told() == ["sbom.cbor missing from archive"]
    assert "hash mismatch" in told(sbom__cbor=sbom([row("manifest.cbor", b"other")]))[0]
    assert told(sbom__cbor=sbom([own, row("gone", b"")]), extra=b"") == [
        "sbom references missing file `gone`",
        "file `extra` missing from sbom.cbor",
    ]
    assert told(sbom__cbor=sbom([own], "v9")) == ["unexpected SBOM format: v9"]
    assert "no list of files" in told(sbom__cbor=cbor.encode({}))[0] and "no path" in told(sbom__cbor=sbom([{}]))[0]
    assert told(sbom__json=b'{"format":"greentic-sbom-v1","files":[]}') == [
        "file `manifest.cbor` missing from sbom.json"
    ]
    assert "sbom.json" in told(sbom__json=b"{")[0]


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_archive_is_one_typed_error(data):
    whole = bytearray(write_pack(pack_manifest.build(raw_manifest()), {"assets/x": b"y" * 100}, {}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        archive = PackArchive(io.BytesIO(bytes(whole)))
        archive.sbom_warnings()
        for name in archive.entries:
            archive.read(name)
    except GreenticError as error:
        assert isinstance(error, MalformedArtifact)
