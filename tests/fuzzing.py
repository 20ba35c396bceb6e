"""A structure-aware fuzzer for what is parsed from outside. Deterministic: the same target and numbers give the same inputs.

Rules:
1. A parser is one line: `Target(name, seeds, parse)`. `parse` gets bytes and may return anything or raise one of `refuses`; every other
   exception, five seconds of processor time or half a gibibyte of memory for one input is a defect.
2. Seeds are made by code, so that the corpus is fixed and readable. A seed is bytes, or a tree of plain values with a writer (`Form`):
   trees are changed as trees and written again, so that checksums, lengths and syntax hold and the rules behind them are reached.
3. An input depends on the target's name and its own number alone: a failure names both, and `input_of` makes it again. Tests take
   the first numbers, the benchmark lane goes on where it stopped.
"""

from __future__ import annotations

import io
import random
import resource
import signal
import struct
import tarfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from greentic.ground.errors import GreenticError

T = TypeVar("T")

SECONDS = 5.0
MEMORY = 512 << 20
_PROBE_AFTER = 64
"""Inputs between two looks at the memory."""

Seed = object
"""Bytes, or a tree that the target's form writes."""


class Form(NamedTuple):
    """How a tree becomes bytes, and how those may be damaged further."""

    write: Callable[[object, random.Random], bytes]
    keys: tuple[str, ...] = ()
    """Words that stand for something in this form; changed trees get them as keys and texts."""


class Target(NamedTuple):
    """One parser of untrusted bytes."""

    name: str
    seeds: Callable[[], list[Seed]]
    parse: Callable[[bytes], object]
    form: Form | None = None
    refuses: tuple[type[BaseException], ...] = (GreenticError,)
    share: int = 1
    """How many times as many inputs as other targets."""


class Report(NamedTuple):
    """What a run of a target came to."""

    name: str
    inputs: int
    taken: int
    refused: Counter[str]
    slowest: float
    """Seconds of processor time."""
    slowest_input: int
    peak: int
    """Bytes that the process's memory grew by at most."""


class Defect(AssertionError):
    """An input that broke rule 1."""


class _TooSlow(BaseException):
    pass


def run(target: Target, count: int, start: int = 0) -> Report:
    """Feed `count` inputs from number `start` on. Raises `Defect` for the first that breaks rule 1."""
    made = target.seeds()
    refused: Counter[str] = Counter()
    taken, slowest, slowest_input = 0, 0.0, start
    before = _peak()
    for number in range(start, start + count):
        data = _input(target, made, number)
        began = time.process_time()
        try:
            with _deadline():
                target.parse(data)
            taken += 1
        except target.refuses as error:
            refused[kind_of(error)] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | GeneratorExit):
                raise
            what = f"took more than {SECONDS:.0f} s" if isinstance(error, _TooSlow) else f"ended in {error!r:.300}"
            raise Defect(f"{target.name}: input {number} {what}; {len(data)} bytes: {data[:200]!r}") from error
        spent = time.process_time() - began
        if spent > slowest:
            slowest, slowest_input = spent, number
        if number % _PROBE_AFTER == 0 and _peak() - before > MEMORY:
            raise Defect(f"{target.name}: an input up to {number} took more than {MEMORY >> 20} MiB of memory")
    return Report(target.name, count, taken, refused, slowest, slowest_input, _peak() - before)


def input_of(target: Target, number: int) -> bytes:
    """The input of a number, to look at a failure."""
    return _input(target, target.seeds(), number)


def kind_of(error: BaseException) -> str:
    return f"{error.kind}/{type(error).__name__}" if isinstance(error, GreenticError) else type(error).__name__


def _input(target: Target, seeds: list[Seed], number: int) -> bytes:
    rng = random.Random(f"{target.name}/{number}")
    seed = seeds[number % len(seeds)]
    if number < len(seeds):
        return seed if isinstance(seed, bytes) else _written(target.form, seed, _Honest())
    if isinstance(seed, bytes):
        others = [s for s in seeds if isinstance(s, bytes)]
        return change_bytes(seed, rng, others)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        seed = change_tree(seed, rng, seeds, target.form.keys if target.form else ())
    data = _written(target.form, seed, rng)
    return change_bytes(data, rng, [data]) if rng.random() < 0.15 else data


class _Honest(random.Random):
    """No chance at all: a form that is given it writes a tree as it is."""

    def random(self) -> float:
        return 1.0

    def choice(self, seq: Sequence[T]) -> T:  # type: ignore[override]
        return seq[0]


def _written(form: Form | None, seed: object, rng: random.Random) -> bytes:
    assert form is not None, "a tree needs a form"
    return form.write(seed, rng)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@contextmanager
def _deadline() -> Iterator[None]:
    """End what runs after `SECONDS` of processor time; a busy machine does not count."""

    def ended(number: int, frame: object) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGPROF, ended)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# -- changing bytes -------------------------------------------------------------------------------------------------

_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    4095,
    4096,
    8191,
    8192,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)


def change_bytes(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """The data with one to eight changes of the kinds that break readers."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        if not out:
            return rng.randbytes(rng.randrange(64))
        at = rng.randrange(len(out))
        kind = rng.randrange(9)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind in (2, 3):
            width = rng.choice((1, 2, 4, 8))
            number = (rng.choice(_NUMBERS) + rng.choice((0, 0, -1, 1))) % (1 << 8 * width)
            out[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 4:
            del out[at : at + rng.choice((1, 2, 4, 16, 256))]
        elif kind == 5:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 8, 64)))
        elif kind == 6:
            piece = out[at : at + rng.choice((1, 4, 16, 128))]
            out[at:at] = piece * rng.choice((1, 2, 50))
        elif kind == 7:
            del out[at:]
        else:
            other = rng.choice(others)
            begin = rng.randrange(len(other) + 1)
            out[at : at + rng.choice((0, 8, 64))] = other[begin : begin + rng.choice((4, 32, 512))]
    return bytes(out)


# -- changing trees -------------------------------------------------------------------------------------------------


class Raw(NamedTuple):
    """Bytes that a form writes as they are, where it can."""

    data: bytes


def _deep(levels: int) -> object:
    value: object = []
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


_VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 1.5, 2**31, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 10**30, 10**400, 1e308, float("nan"), "", "0", " ", ".",
    "..", "../../etc/passwd", "/", "a/b", "\0", "a\nb", "\u202e", "\U0001f600", "ä" * 300, "x" * 70_000, "https://[::1", "http://a:99999999/",
    "{{#each a}}{{/if}}", "{{" * 200, "${HOME}", "sha256:" + "0" * 64, "01JTKW5B4W4Q5Y1CQW93F7S5VG", "1.0.0", "é@1.0.0", b"", b"\xff" * 40,
    [], {}, [[]], {"": {}}, [None] * 300, Raw(b"\xd8\x1c\x81\xd8\x1d\x00"), Raw(b"\xc2\x59\x01\x00" + b"\xff" * 256), Raw(b"\x9f"), _deep(30), _deep(130), _deep(3000),
)  # fmt: skip


_TEXTS = tuple(value for value in _VALUES if isinstance(value, str) and len(value) < 1000)


def change_tree(tree: object, rng: random.Random, seeds: list[Seed], words: tuple[str, ...] = ()) -> object:
    """The tree with one node replaced, dropped, doubled, moved, or retyped; the original is not touched."""
    path = _some_path(tree, rng)
    return _at(tree, path, lambda node: _changed(node, rng, seeds, words))


def _some_path(tree: object, rng: random.Random) -> list[object]:
    path: list[object] = []
    while isinstance(tree, dict | list) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        path.append(key)
        tree = tree[key]
    return path


def _at(tree: object, path: list[object], change: Callable[[object], object]) -> object:
    if not path:
        return change(tree)
    if isinstance(tree, dict):
        return {k: _at(v, path[1:], change) if k == path[0] else v for k, v in tree.items()}
    assert isinstance(tree, list)
    return [_at(v, path[1:], change) if i == path[0] else v for i, v in enumerate(tree)]


def _changed(node: object, rng: random.Random, seeds: list[Seed], words: tuple[str, ...]) -> object:
    kind = rng.randrange(8)
    if isinstance(node, dict) and node and kind < 5:
        out = dict(node)
        key = rng.choice(list(out))
        if kind == 0:
            del out[key]
        elif kind == 1:
            out[rng.choice(words or ("x",))] = rng.choice(_VALUES)
        elif kind == 2:
            out[rng.choice(_TEXTS)] = out.pop(key)
        elif kind == 3:
            out = {k: rng.choice(_VALUES) if rng.random() < 0.3 else v for k, v in out.items()}
        else:
            out[key] = rng.choice(list(out.values()))
        return out
    if isinstance(node, list) and node and kind < 4:
        out_list = list(node)
        at = rng.randrange(len(out_list))
        if kind == 0:
            del out_list[at]
        elif kind == 1:
            out_list[at:at] = [out_list[at]] * rng.choice((1, 2, 300))
        elif kind == 2:
            rng.shuffle(out_list)
        else:
            out_list.append(rng.choice(_VALUES))
        return out_list
    if isinstance(node, str) and kind < 4:
        if kind == 0 and words:
            return rng.choice(words)
        return change_bytes(node.encode(errors="replace"), rng, [b"{}[]/.:@=,-_%"]).decode(errors="replace")
    if isinstance(node, bytes) and kind < 6:
        return change_bytes(node, rng, [node])
    if isinstance(node, int) and not isinstance(node, bool) and kind < 3:
        return node + rng.choice((-1, 1, 255, 2**31, -(2**63)))
    if kind == 6:  # a part of another seed
        other = rng.choice(seeds)
        for key in _some_path(other, rng):
            other = other[key]  # type: ignore[index]
        return other
    return rng.choice(_VALUES)


# -- forms ----------------------------------------------------------------------------------------------------------


def _as_json(tree: object, rng: random.Random) -> bytes:
    out = bytearray()
    pending: list[object] = [tree]
    while pending:  # by hand, for trees deeper than the library descends
        item = pending.pop()
        if isinstance(item, Raw):
            out += item.data
        elif isinstance(item, dict):
            inner: list[object] = [Raw(b"{")]
            for index, (key, value) in enumerate(item.items()):
                inner += [Raw(b"," if index else b""), str(key), Raw(b":"), value]
            pending += reversed([*inner, Raw(b"}")])
        elif isinstance(item, list | tuple):
            inner = [Raw(b"[")]
            for index, value in enumerate(item):
                inner += [Raw(b"," if index else b""), value]
            pending += reversed([*inner, Raw(b"]")])
        else:
            out += _json_scalar(item)
    return bytes(out)


def _json_scalar(item: object) -> bytes:
    import json

    text = item.decode("latin-1") if isinstance(item, bytes) else item
    return json.dumps(text, ensure_ascii=False).encode(errors="surrogatepass")


def _as_cbor(tree: object, rng: random.Random) -> bytes:
    out = bytearray()
    pending: list[object] = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, Raw):
            out += item.data
        elif isinstance(item, dict):
            out += _cbor_head(5, len(item))
            pending += reversed([part for pair in item.items() for part in pair])
        elif isinstance(item, list | tuple):
            out += _cbor_head(4, len(item))
            pending += reversed(item)
        else:
            out += _cbor_scalar(item)
    return bytes(out)


def _cbor_head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    width = next(w for w in (1, 2, 4, 8) if number < 1 << 8 * w)
    return bytes([major << 5 | 24 + width.bit_length() - 1]) + number.to_bytes(width, "big")


def _cbor_scalar(item: object) -> bytes:
    if item is None or isinstance(item, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[item]
    if isinstance(item, int):
        if -(2**64) <= item < 2**64:
            return _cbor_head(0, item) if item >= 0 else _cbor_head(1, -1 - item)
        raw = abs(item).to_bytes((abs(item).bit_length() + 7) // 8, "big")
        return (b"\xc2" if item > 0 else b"\xc3") + _cbor_head(2, len(raw)) + raw
    if isinstance(item, float):
        return b"\xfb" + struct.pack(">d", item)
    raw = item if isinstance(item, bytes) else str(item).encode(errors="replace")
    return _cbor_head(2 if isinstance(item, bytes) else 3, len(raw)) + raw


def _as_yaml(tree: object, rng: random.Random) -> bytes:
    """YAML in its flow style is JSON; some nodes get anchors, and aliases stand for others."""
    data = _as_json(tree, rng)
    if rng.random() < 0.2:
        data = data.replace(b"[", b"&a [", 1).replace(b"{}", b"*a").replace(b"null", b"*a")
    if rng.random() < 0.1:
        tag = rng.choice(
            (
                b"!!int ",
                b"!!timestamp ",
                b"!!binary ",
                b"!!set ",
                b"!!omap ",
                b"!!float ",
                b"!!python/object:os.system ",
            )
        )
        at = data.find(b":", rng.randrange(len(data) + 1)) + 1
        data = data[:at] + b" " + tag + data[at:]
    return data


def _as_zip(tree: object, rng: random.Random) -> bytes:
    """A pack: entries by name, `.cbor` ones written as CBOR. Now and then a head of the archive lies."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in tree.items() if isinstance(tree, dict) else ():
            if isinstance(content, bytes):
                data = content
            elif str(name).endswith((".sig", ".json")):
                data = _as_json(content, rng)
            else:
                data = _as_cbor(content, rng)
            info = zipfile.ZipInfo(str(name).replace("\0", "0")[:60_000] or "q", (1980, 1, 1, 0, 0, 0))
            info.compress_type = rng.choice((0, 0, 0, 8, 8, 12, 14)) if rng.random() < 0.3 else 0
            if rng.random() < 0.05:
                info.external_attr = rng.getrandbits(32)
            archive.writestr(info, data)
    packed = bytearray(out.getvalue())
    if rng.random() < 0.2:
        signature = rng.choice((b"PK\1\2", b"PK\3\4", b"PK\5\6"))
        at = packed.find(signature, rng.randrange(len(packed)))
        if at >= 0:
            field = at + rng.randrange(4, 46)
            packed[field : field + 2] = (rng.choice(_NUMBERS) % 65536).to_bytes(2, "little")
    return bytes(packed)


def _as_tar(tree: object, rng: random.Random) -> bytes:
    """An archive of names and contents; some members are no files, and some heads lie and have a right checksum."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=rng.choice((tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    ) as archive:
        for name, content in tree.items() if isinstance(tree, dict) else ():
            data = content if isinstance(content, bytes) else _as_json(content, rng)
            info = tarfile.TarInfo(str(name).replace("\0", "")[:90] or "q")
            info.size = len(data)
            if rng.random() < 0.1:
                info.type, info.linkname = (
                    rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, b"S", b"K", b"x")),
                    "environment.json",
                )
            try:
                archive.addfile(info, io.BytesIO(data))
            except (ValueError, UnicodeError):
                continue
    packed = bytearray(out.getvalue())
    if rng.random() < 0.3:
        at = 512 * rng.randrange(len(packed) // 512)
        field = at + rng.choice((0, 100, 124, 128, 135, 156, 257, 263, 345, 386, 482))
        packed[field : field + 4] = rng.choice(
            (b"\x80\xff\xff\xff", b"7777", b"\0\0\0\0", b"-001", b"\xff\xff\xff\xff")
        )
        packed[at + 148 : at + 156] = b" " * 8
        packed[at + 148 : at + 156] = b"%06o\0 " % (sum(packed[at : at + 512]) % 0o1000000)
    return bytes(packed)


def _as_words(tree: object, rng: random.Random) -> bytes:
    """A command line: words with a zero byte between them."""
    words = tree if isinstance(tree, list) else [tree]
    written = (w if isinstance(w, str) else _as_json(w, rng).decode(errors="replace") for w in words)
    return "\0".join(w[:4000].replace("\0", "") for w in written).encode(errors="replace")


JSON = Form(_as_json)
CBOR = Form(_as_cbor)
YAML = Form(_as_yaml)
ZIP = Form(_as_zip)
TAR = Form(_as_tar)
WORDS = Form(_as_words)


def plain_image(image: bytes) -> bytes:
    """A small SquashFS image of ours with its metadata stored instead of deflated, so that changed bytes are changed inodes."""
    from greentic.bundle.squashfs_layout import ABSENT, SUPERBLOCK, Superblock

    head = Superblock._make(SUPERBLOCK.unpack_from(image))

    def block(at: int) -> bytes:
        size = int.from_bytes(image[at : at + 2], "little")
        raw = image[at + 2 : at + 2 + (size & 0x7FFF)]
        raw = raw if size & 0x8000 else zlib.decompress(raw)
        return (len(raw) | 0x8000).to_bytes(2, "little") + raw

    out = bytearray(image[: head.inode_table])
    inodes = len(out)
    out += block(head.inode_table)
    listings = len(out)
    out += block(head.directory_table)
    indexes = []
    for table in (head.fragment_table, head.id_table):
        if table == ABSENT:
            indexes.append(ABSENT)
            continue
        at = len(out)
        out += block(int.from_bytes(image[table : table + 8], "little"))
        indexes.append(len(out))
        out += at.to_bytes(8, "little")
    out[: SUPERBLOCK.size] = head._replace(
        bytes_used=len(out),
        inode_table=inodes,
        directory_table=listings,
        fragment_table=indexes[0],
        id_table=indexes[1],
    ).pack()
    return bytes(out)
