"""The compressors of SquashFS 4.0, each bounded: output never exceeds what the caller allows.

gzip and xz come with Python. zstd, lz4 and lzo need a package of the extra `squashfs-extra`; an image that needs one that
is missing says so.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from greentic.ground.errors import MalformedArtifact

GZIP, LZMA, LZO, XZ, LZ4, ZSTD = 1, 2, 3, 4, 5, 6
NAMES = {GZIP: "gzip", LZMA: "lzma", LZO: "lzo", XZ: "xz", LZ4: "lz4", ZSTD: "zstd"}
XZ_MEMORY = 128 << 20
"""Bytes that a damaged xz header may make the decoder ask for."""


class Decompress(Protocol):
    def __call__(self, data: bytes, limit: int) -> bytes:
        """Everything that `data` inflates to. Raises `MalformedArtifact` when damaged or larger than `limit` bytes."""
        ...


def decompressor(compressor: int) -> Decompress:
    """The decompressor of a superblock's compressor id. Raises `MalformedArtifact` for one that cannot be had."""
    known: dict[int, Callable[[], Decompress]] = {
        GZIP: lambda: _gzip,
        XZ: lambda: _xz,
        ZSTD: _load_zstd,
        LZ4: _load_lz4,
        LZO: _load_lzo,
    }
    if compressor not in known:
        name = NAMES.get(compressor, str(compressor))
        raise MalformedArtifact(f"SquashFS compressor `{name}` is not supported; expected gzip, xz, zstd, lz4 or lzo")
    try:
        return known[compressor]()
    except ImportError as error:
        raise MalformedArtifact(
            f"the image is compressed with {NAMES[compressor]}, and the package `{error.name}` is not installed",
            hint="install it with: pip install 'greentic[squashfs-extra]'",
        ) from None


def _bounded(data: bytes, limit: int, name: str) -> bytes:
    if len(data) > limit:
        raise MalformedArtifact(f"a {name} block inflates to more than its {limit} bytes")
    return data


def _gzip(data: bytes, limit: int) -> bytes:
    inflate = zlib.decompressobj()
    try:
        out = inflate.decompress(data, limit + 1)
    except zlib.error as error:
        raise MalformedArtifact(f"damaged gzip block: {error}") from None
    if not inflate.eof and len(out) <= limit:
        raise MalformedArtifact("damaged gzip block: it ends early")
    return _bounded(out, limit, "gzip")


def _xz(data: bytes, limit: int) -> bytes:
    try:
        inflate = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        out = inflate.decompress(data, limit + 1)
    except lzma.LZMAError as error:
        raise MalformedArtifact(f"damaged xz block: {error}") from None
    if not inflate.eof and len(out) <= limit:
        raise MalformedArtifact("damaged xz block: it ends early")
    return _bounded(out, limit, "xz")


def _load_zstd() -> Decompress:
    import zstandard

    def inflate(data: bytes, limit: int) -> bytes:
        try:
            with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as stream:
                out: bytes = stream.read(limit + 1)
                while 0 < len(out) <= limit and (more := stream.read(limit + 1 - len(out))):
                    out += more
        except zstandard.ZstdError as error:
            raise MalformedArtifact(f"damaged zstd block: {error}") from None
        return _bounded(out, limit, "zstd")

    return inflate


def _load_lz4() -> Decompress:
    import lz4.block

    def inflate(data: bytes, limit: int) -> bytes:
        try:
            out: bytes = lz4.block.decompress(data, uncompressed_size=limit)
        except lz4.block.LZ4BlockError as error:
            raise MalformedArtifact(f"damaged lz4 block: {error}") from None
        return _bounded(out, limit, "lz4")

    return inflate


def _load_lzo() -> Decompress:
    import lzallright

    codec = lzallright.LZOCompressor()

    def inflate(data: bytes, limit: int) -> bytes:
        try:
            out: bytes = codec.decompress(data, output_size_hint=limit)
        except (lzallright.LZOError, ValueError) as error:
            raise MalformedArtifact(f"damaged lzo block: {error}") from None
        return _bounded(out, limit, "lzo")

    return inflate
