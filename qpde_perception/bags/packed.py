"""Compressed bytes: what they are, and what can be unpacked of them."""

from __future__ import annotations

import bz2
from typing import Literal, Protocol, cast

import lz4.frame
import zstandard

_MAGICS: dict[bytes, Literal["zstd", "lz4"]] = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
COMPRESSIONS = ("zstd", "lz4", "bz2")
# What the libraries raise for damaged bytes, and for bytes after the end.
DAMAGED = (zstandard.ZstdError, RuntimeError, EOFError, OSError, ValueError)


class Decompressor(Protocol):
    """Unpacks piece by piece."""

    @property
    def eof(self) -> bool:
        """Whether the end was reached."""

    def decompress(self, data: bytes) -> bytes:
        """Unpack the next piece."""


def compression_of(data: bytes) -> Literal["zstd", "lz4"] | None:
    """Return the compression that bytes begin with; None where they begin with none.

    bz2 is not among them: recorders use it only where they say so.
    """
    return _MAGICS.get(data[:4])


def decompressor(compression: str) -> Decompressor:
    """Return a fresh decompressor of one of `COMPRESSIONS`."""
    if compression == "zstd":
        return cast("Decompressor", zstandard.ZstdDecompressor().decompressobj())
    if compression == "lz4":
        return cast("Decompressor", lz4.frame.LZ4FrameDecompressor())
    return bz2.BZ2Decompressor()
