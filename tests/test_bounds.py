"""Nothing small becomes large: limits hold on totals and products, before the work. One table for each reader of the project."""

from __future__ import annotations

import ast
import io
import os
import struct
import threading
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT
from fuzzing import plain_image
from greentic.bundle.limits import DEFAULT_LIMITS, BundleLimits
from greentic.bundle.squashfs_layout import SUPERBLOCK, Superblock
from greentic.bundle.squashfs_reader import SquashImage
from greentic.bundle.squashfs_writer import write_image
from greentic.distribute.ranges import read_ranges
from greentic.ground import documents, yaml
from greentic.ground.errors import FetchError, GreenticError, LimitExceeded, MalformedArtifact, TrustRootError
from greentic.materialize.trusted import read_anchor
from greentic.net.document import read_small
from greentic.net.terms import Terms
from greentic.pack import cbor
from greentic.pack.archive import PackArchive
from greentic.pack.limits import PackLimits
from greentic.store.ledger import Ledger

# -- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[" * 128 + b"]" * 128, "nested too deeply"),
        (b'{"a":' * 128 + b"1" + b"}" * 128, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"x":' + b"[" * 100_000, "nested too deeply"),
        (b"[" + b"[]," * 500_000 + b"[]]", "more than 1000000 values"),
        (b"[" + b"1," * 1_000_000 + b"1]", "more than 1000000 values"),
        (b'"' + b"x" * 100 + b'"', "larger than 64 bytes"),
    ],
)
@pytest.mark.parametrize("kind", [bytes, str])
def test_threat_expansion_json(text, why, kind):
    limit = 64 if b"xxx" in text else documents.MAX_BYTES
    with pytest.raises(ValueError, match=why):
        documents.parse(text if kind is bytes else text.decode(), limit=limit)
    with pytest.raises(ValueError):
        documents.decode(text, dict[str, object], limit=limit)


def test_json_up_to_its_limits_is_read():
    assert documents.parse(b"[" * 127 + b"]" * 127) is not None
    assert len(documents.parse("[" + "1," * 999_998 + "1]")) == 999_999
    assert documents.parse(b'["' + b"[{," * 10_000 + b'"]') == ["[{," * 10_000], "brackets in a text are no depth"
    wide = ",".join(['{"a":[]}'] * 200 + ["[" * 126 + "]" * 126] * 2)
    assert documents.parse(f"[{wide}]") is not None
    with pytest.raises(documents.TooDeep):
        documents.parse(f"[[{wide}]]")


def test_what_errors_show_is_short():
    assert documents.shown("x" * 100_000) == repr("x" * 60 + "…")
    assert documents.shown(10**5000) == "a int" and documents.shown([1] * 9) == "a list of 9"


# -- YAML -----------------------------------------------------------------------------------------------------------

_LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
_MERGES = "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (_LAUGHS, "aliases written out"),
        (_MERGES, "aliases written out"),
        ("a: &a [*a]", "stands for what it stands in"),
        ("a: &a {b: *a}", "stands for what it stands in"),
        ("[" * 102 + "]" * 102, "levels deep"),
        ("[" * 5000, "levels deep"),
        ('{"a":[' * 600_000, "levels deep"),
        (
            f"a0: &a0 {'[' * 99}{']' * 99}\n"
            + "".join(f"a{i}: &a{i} {'[' * 90}*a{i - 1}{']' * 90}\n" for i in range(1, 9)),
            "levels deep, aliases",
        ),
        ("x: [" + "1," * 200_001 + "]", "more than 200000 values"),
        ("x" * 300, "larger than 256 bytes"),
        ("x: !!python/object/apply:os.system [true]", "constructor"),
        ("x: !!timestamp no", None),
        ("x: !!int ''", None),
        ("x: !!bool maybe", None),
        ("x: !!timestamp 2001-99-99", None),
        ("x: " + "9" * 5000, None),
        ("{[a]: b}", None),
        ("a: 1\n---\nb: 2", "another document"),
    ],
)
def test_threat_expansion_yaml(text, why):
    with pytest.raises(ValueError, match=why):
        yaml.parse_yaml(text.encode(), limit=256 if text == "x" * 300 else yaml.MAX_BYTES)


def test_yaml_aliases_that_stand_for_little_are_read():
    assert yaml.parse_yaml(b"a: &a {k: 1}\nb: *a\nc: {<<: *a, l: 2}") == {
        "a": {"k": 1},
        "b": {"k": 1},
        "c": {"k": 1, "l": 2},
    }
    assert yaml.parse_yaml(b"") is None


# -- CBOR -----------------------------------------------------------------------------------------------------------


def _laughs(depth: int) -> bytes:
    """Lists that each hold one list and a reference to it: 2 to the power of `depth` values in a few bytes."""
    inner = b"\x80"
    for number in reversed(range(depth)):
        inner = b"\x82\xd8\x1c" + inner + b"\xd8\x1d" + (bytes([number]) if number < 24 else bytes([0x18, number]))
    return inner


@pytest.mark.parametrize(
    "data",
    [
        _laughs(40),
        b"\xd8\x1c\x81\xd8\x1d\x00",  # a list that holds itself
        b"\xd9\x01\x00" + b"\x82\x63abc\xd8\x19\x00",  # texts by number
        b"\xc2\x59\x0a\x00" + b"\xff" * 2560,  # a number of 20,480 bits
        b"\xc3\x41\x01",
        b"\xc4\x82\x1b" + b"\x7f" + b"\xff" * 7 + b"\x01",  # ten to the power of much
        b"\xd9\x01\x02\x80",
        b"\xda\x7f\xff\xff\xff\x01",
        b"\x81" * 65 + b"\x01",
        b"\xa1\x01\x02",
        b"\xa2\x61a\x01\x61a\x02",
        b"\xf7",
        b"\xf8\x20",
    ],
)
def test_threat_expansion_cbor(data):
    with pytest.raises(MalformedArtifact):
        cbor.decode(data, limit=1 << 20)


def test_threat_expansion_cbor_items_are_counted_before_they_are_built():
    many = b"\x9a" + (2_000_000).to_bytes(4, "big") + b"\x80" * 2_000_000
    with pytest.raises(LimitExceeded, match="more than 1000000 items"):
        cbor.decode(many, limit=16 << 20)
    large = cbor.encode({"wasm": b"\0" * 2_000_000, "n": [2**40, "x" * 70_000]})
    assert cbor.decode(large, limit=16 << 20)["n"][0] == 2**40, "bytes are no items"


# -- images ---------------------------------------------------------------------------------------------------------


def _opened(data: bytes, limits: BundleLimits = DEFAULT_LIMITS) -> SquashImage:
    return SquashImage(lambda offset, count: data[offset : offset + count], len(data), limits)


def _image(tree: Path) -> bytes:
    out = io.BytesIO()
    write_image(tree, out)
    return out.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    return made


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (BundleLimits(path_bytes=20), "is a path of"),
        (BundleLimits(paths_bytes=40), "paths of the image together"),
        (BundleLimits(blocks=1), "more than 1 blocks"),
        (BundleLimits(metadata_blocks=2), "more than 2 metadata blocks"),
    ],
)
def test_threat_expansion_images(tree, limits, why):
    directory = tree / "a-long-name" / "another-long-name"
    directory.mkdir(parents=True)
    (directory / "file").write_bytes(bytes(range(256)) * 1024 + b"tail")
    data = _image(tree)
    assert list(_opened(data).entries())
    with pytest.raises(LimitExceeded, match=why):
        list(_opened(data, limits).entries())


def test_a_path_at_its_limit_is_read(tree):
    (tree / ("d" * 10) / ("ä" * 5)).mkdir(parents=True)
    entries = list(_opened(_image(tree), BundleLimits(path_bytes=21)).entries())
    assert [len(e.path.encode()) for e in entries] == [10, 21], "bytes count, not characters"
    with pytest.raises(LimitExceeded):
        list(_opened(_image(tree), BundleLimits(path_bytes=20)).entries())


def _with_mode(data: bytes, number: int, mode: int) -> bytes:
    """A plain image in which the inode with this number has the permission bits `mode`."""
    head = Superblock._make(SUPERBLOCK.unpack_from(data))
    for at in range(head.inode_table + 2, head.directory_table - 16):
        kind, _, uid, gid, modified, found = struct.unpack_from("<4H2I", data, at)
        if (uid, gid, modified, found) == (0, 0, 0, number) and kind in (1, 2, 3):
            return data[: at + 2] + mode.to_bytes(2, "little") + data[at + 4 :]
    raise AssertionError("no such inode")


@pytest.mark.parametrize(("number", "mode", "fine"), [(2, 0o2775, True), (2, 0o1777, True), (2, 0o6755, True), (3, 0o2755, False), (3, 0o4755, False), (3, 0o1644, True)])  # fmt: skip
def test_set_group_id_directories_of_volumes_are_read_and_such_files_refused(tree, number, mode, fine):
    (tree / "d").mkdir()
    (tree / "d" / "f").write_bytes(b"x")
    data = _with_mode(plain_image(_image(tree)), number, mode)
    if fine:
        assert [e.path for e in _opened(data).entries()] == ["d", "d/f"]
    else:
        with pytest.raises(MalformedArtifact, match="set-user-id or set-group-id"):
            list(_opened(data).entries())


# -- packs ----------------------------------------------------------------------------------------------------------


def _zip(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


class _Counted(io.BytesIO):
    largest = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.largest = max(self.largest, len(data))
        return data


def test_threat_expansion_the_list_of_a_pack_is_bounded_before_it_is_read():
    file = _Counted(_zip({f"{number:0200}": b"" for number in range(2000)}))
    with pytest.raises(LimitExceeded, match="list of entries has more than 100000 bytes"):
        PackArchive(file, PackLimits(directory_bytes=100_000))
    assert file.largest <= 100_001
    with pytest.raises(LimitExceeded, match="more than 1000 entries"):
        PackArchive(io.BytesIO(file.getvalue()), PackLimits(entries=1000))


@pytest.mark.parametrize(
    ("entries", "method", "why"),
    [
        ({"manifest.cbor": b"\xa0"}, zipfile.ZIP_LZMA, "compressed by method 14"),
        ({"manifest.cbor": b"\xa0"}, zipfile.ZIP_BZIP2, "compressed by method 12"),
        ({"a/" * 600 + "b": b""}, zipfile.ZIP_STORED, "unsafe path"),
        ({"n" * 256: b""}, zipfile.ZIP_STORED, "unsafe path"),
        ({"manifest.cbor": b"\x40" * 70_000}, zipfile.ZIP_STORED, "more than 65536"),
    ],
)
def test_threat_expansion_packs(entries, method, why):
    with pytest.raises(MalformedArtifact, match=why):
        PackArchive(io.BytesIO(_zip(entries, method)), PackLimits(manifest_bytes=65_536))


# -- the rest -------------------------------------------------------------------------------------------------------


def test_a_journal_of_many_ranges_is_read_once():
    spans = [[2 * n, 2 * n + 1] for n in range(100_000)]
    assert len(read_ranges(spans).spans) == 100_000


_HANDS = {
    # names of list items that this program wrote itself; keys that stand twice, in what was parsed before
    ("json", "loads"): ("k8s/ownership.py", "ground/documents.py"),
    ("json", "load"): (),
    ("msgspec.json", "decode"): ("ground/documents.py",),
    ("yaml", "load"): (),
    ("yaml", "safe_load"): (),
    ("cbor2", "loads"): ("pack/cbor.py", "components/interfaces.py"),
    ("cbor2", "load"): (),
    ("pickle", "loads"): (),
    ("pickle", "load"): (),
    ("marshal", "loads"): (),
    ("tarfile", "open"): ("materialize/import_archive.py", "materialize/export_archive.py"),
    ("zipfile", "ZipFile"): ("pack/archive.py", "author/pack_sign.py"),
}
"""Who may call what reads bytes; everybody else uses these hands."""


def test_nobody_parses_past_the_hands():
    source = ROOT / "src" / "greentic"
    past = []
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        if name.startswith("sdk/"):
            continue  # runs inside components
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                key = (ast.unparse(node.func.value), node.func.attr)
                if key in _HANDS and name not in _HANDS[key]:
                    past.append(f"{name}:{node.lineno}: {'.'.join(key)}")
    assert not past


def test_files_are_read_up_to_their_limit(tmp_path):
    path = tmp_path / "document"
    path.write_bytes(b"x" * 100)
    assert documents.read_file(path, 100) == b"x" * 100
    with pytest.raises(ValueError, match="larger than 99 bytes"):
        documents.read_file(path, 99)


def test_reading_a_document_waits_for_nobody_and_asks_for_no_more_memory_than_the_file_is_large(tmp_path):
    """A fifo in the place of `environment.json` held up the follower for good, and each look at a document asked for 64 MiB."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="nobody writes into it"):
        documents.read_file(tmp_path / "fifo")
    with pytest.raises(FetchError, match="nobody writes into it"):
        read_small(str(tmp_path / "fifo"), 100, Terms())
    with pytest.raises(TrustRootError):
        read_anchor(tmp_path / "fifo")
    (tmp_path / "small").write_bytes(b"x" * 100)
    tracemalloc.start()
    try:
        assert documents.read_file(tmp_path / "small") == b"x" * 100
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    reading, writing = os.pipe()  # as a shell hands on what a program writes; its size is not told
    os.write(writing, b"x" * 100)
    os.close(writing)
    assert documents.read_file(Path(f"/dev/fd/{reading}"), 100) == b"x" * 100
    os.close(reading)


@pytest.mark.parametrize("written", [b"", b"some"])
def test_who_has_a_fifo_open_and_does_not_end_is_not_waited_for(tmp_path, written):
    """A follower waited for such a document for good, and a turn for such a secret."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writing = os.open(path, os.O_RDWR)
    os.write(writing, written)
    with pytest.raises(TimeoutError, match="takes more than 0.05 s"):
        documents.read_file(path, patience=0.05)
    os.close(writing)


def test_what_a_person_names_is_waited_for_however_it_comes():
    reading, writing = os.pipe()
    begun = threading.Event()

    def late():
        begun.wait()
        for _ in range(3):
            os.write(writing, b"x" * 100_000)
        os.close(writing)

    writer = threading.Thread(target=late)
    writer.start()
    begun.set()
    assert documents.read_given(Path(f"/dev/fd/{reading}")) == b"x" * 300_000
    writer.join()
    os.close(reading)


def test_a_device_without_an_end_costs_no_more_than_its_limit():
    """Each piece was copied behind all before it: 64 MiB took six seconds."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="larger than"):
            documents.read_file(Path("/dev/zero"), 8 << 20)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20  # all of it once, and no copy
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["trust-root.json", "environment.json", "idempotency-ledger.json"])
def test_a_store_document_above_its_limit_is_a_typed_error(store, name, monkeypatch):
    paths = store.paths("prod")
    paths.root.mkdir(parents=True)
    (paths.root / name).write_bytes(b" " * (65 << 20))
    read = {
        "trust-root.json": lambda: store.trust_root("prod"),
        "environment.json": lambda: store.load("prod"),
        "idempotency-ledger.json": lambda: Ledger(paths.root / name, None, None).find("n", "v", "s", "k", "p"),
    }[name]
    with pytest.raises(GreenticError, match="larger than"):
        read()
