"""One entry of the engine cache: a file that says what it is, and is believed only if it is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

_MAX_HEADER_BYTES = 1 << 16
_SHA256_SHOWN = 12
_VALUE_SHOWN = 80


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything that a built engine depends on.

    Attributes:
        model: Name of the model.
        graph_sha256: SHA-256 of the graph that it is built from, hexadecimal.
        engine: Name of the engine.
        engine_version: Version of the library that builds and runs it.
        gpu: Name of the device.
        compute_capability: Of the device, for example `8.7`.
        driver: Version of the device's driver.
        shapes: Smallest, best and largest shape of each input, or whatever the builder is told.
        options: The builder's other options, by name.
    """

    model: str
    graph_sha256: str
    engine: str
    engine_version: str
    gpu: str
    compute_capability: str
    driver: str
    shapes: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all fields, hexadecimal: the entry's name."""
        return hashlib.sha256(_canonical(asdict(self))).hexdigest()


class PoisonedError(Exception):
    """An entry that is not what was written; the message says in which way."""


def write_entry(path: Path, key: EngineKey, data: bytes) -> None:
    """Write an entry: whole and on the disk under its name, or not there at all.

    Raises:
        OSError: If the folder cannot be written or the disk is full.
    """
    header = {
        "key": asdict(key),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    descriptor, name = tempfile.mkstemp(".part", f"{key.digest}.", path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_canonical(header) + b"\n")
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    # The name too must survive a power cut.
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_entry(path: Path, key: EngineKey) -> bytes:
    """Return the data of an entry that is what was written for a key.

    Raises:
        PoisonedError: If it is cut off, changed, or was built for another key.
        OSError: If it is not there or cannot be read.
    """
    content = path.read_bytes()
    header, start = _header(content[:_MAX_HEADER_BYTES])
    changes = changes_between(header["key"], key)
    if changes:
        msg = f"it was built for something else ({', '.join(changes)})"
        raise PoisonedError(msg)
    data = content[start:]
    if len(data) != header["bytes"]:
        msg = f"it has {len(data)} bytes of {header['bytes']}"
        raise PoisonedError(msg)
    if hashlib.sha256(data).hexdigest() != header["sha256"]:
        msg = "its bytes changed since it was built (SHA-256 differs)"
        raise PoisonedError(msg)
    return data


def read_key(file: BinaryIO) -> dict[str, Any]:
    """Return what an entry was built for, without reading its data.

    Raises:
        PoisonedError: If its description cannot be read.
    """
    key: dict[str, Any] = _header(file.read(_MAX_HEADER_BYTES))[0]["key"]
    return key


def changes_between(before: Mapping[str, Any], key: EngineKey) -> list[str]:
    """Name the fields that a key changes, each as `driver 570.1 -> 575.2`."""
    # As it is read back: JSON has lists for tuples.
    old, new = _flat(before), _flat(json.loads(_canonical(asdict(key))))
    return [
        f"{_printable(name)} {_short(name, old.get(name))} -> {_short(name, new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """Return an entry's first line, as far as it is one, and where the data start."""
    line, end, _ = content.partition(b"\n")
    try:
        header = json.loads(line)
        complete = (
            end == b"\n"
            and set(header) == {"key", "bytes", "sha256"}
            and set(header["key"]) == set(EngineKey.__dataclass_fields__)
            and all(isinstance(header["key"][name], dict) for name in ("shapes", "options"))
        )
    except (ValueError, TypeError, RecursionError):
        complete = False
    if not complete:
        msg = "its description cannot be read"
        raise PoisonedError(msg)
    return header, len(line) + 1


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{one}": inner for one, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _short(name: str, value: Any) -> str:
    return _printable(str(value)[: _SHA256_SHOWN if name == "graph_sha256" else _VALUE_SHOWN])


def _printable(text: str) -> str:
    # What a changed file says may hold anything, and it goes into a log.
    return text if text.isprintable() else ascii(text)
