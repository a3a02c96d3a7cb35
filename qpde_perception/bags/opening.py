"""Finding out what a recording is, and opening its files."""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qpde_perception.bags import salvage_mcap, salvage_rosbag1, salvage_sqlite
from qpde_perception.bags.errors import BagError
from qpde_perception.bags.indexed import IndexedPart
from qpde_perception.bags.packed import DAMAGED, compression_of, decompressor

if TYPE_CHECKING:
    from collections.abc import Callable

    from qpde_perception.bags.parts import Part

_STORAGE = tuple(
    f"{kind}{packed}" for kind in (".mcap", ".db3") for packed in ("", ".zstd", ".lz4")
)
RECORDINGS = (*_STORAGE[::3], ".bag", *(name for name in _STORAGE if name.count(".") > 1))
"""How the names of recordings end: the plain ones first."""
_LISTED = re.compile(
    r"^\s*-\s*['\"]?([^'\"\n]+?\.(?:mcap|db3)(?:\.(?:zstd|lz4))?)['\"]?\s*$", re.MULTILINE
)
_PIECE = 1 << 20
_KNOWN = "a rosbag1 file (.bag), a rosbag2 folder, an .mcap file or a .db3 file"


class _Kind(NamedTuple):
    name: str
    magic: bytes
    salvage: Callable[[Path], Part]


_KINDS = (
    _Kind("rosbag1", salvage_rosbag1.MAGIC, salvage_rosbag1.salvage_rosbag1),
    _Kind("mcap", salvage_mcap.MAGIC, salvage_mcap.salvage_mcap),
    _Kind("sqlite3", salvage_sqlite.MAGIC, salvage_sqlite.salvage_sqlite),
)


class Opened(NamedTuple):
    """An open recording.

    Attributes:
        format: `rosbag1`, `mcap`, `sqlite3`, `rosbag2/mcap` or `rosbag2/sqlite3`.
        parts: Its files.
        losses: Files that are missing or cannot be read.
        stack: Closes everything.
    """

    format: str
    parts: tuple[Part, ...]
    losses: tuple[str, ...]
    stack: ExitStack


def open_recording(path: Path) -> Opened:
    """Open a file or a folder.

    Raises:
        BagError: If it does not exist, is no recording, or is one without a readable file.
    """
    stack = ExitStack()
    try:
        if path.is_dir():
            return _open_folder(path, stack)
        kind, part = _open_file(path, stack)
        return Opened(kind, (part,), (), stack)
    except OSError as error:
        stack.close()
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise BagError(msg) from None
    except BaseException:
        stack.close()
        raise


def is_recording(path: Path) -> bool:
    """Tell whether a file begins as a recording does.

    Raises:
        OSError: If it cannot be read.
    """
    head = _head(path)
    return any(head.startswith(kind.magic) for kind in _KINDS)


def is_drive_folder(folder: Path) -> bool:
    """Tell whether a folder is one rosbag2 drive, and not a folder of drives.

    A recorder that was killed leaves no metadata.yaml; its files bear the folder's name and count.

    Raises:
        OSError: If it cannot be read.
    """
    metadata = folder / "metadata.yaml"
    if metadata.is_file():
        return "rosbag2_bagfile_information" in metadata.read_text("utf-8", "replace")
    counted = re.compile(re.escape(folder.name) + r"_\d+\.")
    stored = [each.name for each in folder.iterdir() if each.name.endswith(_STORAGE)]
    return bool(stored) and all(counted.match(name) for name in stored)


def _open_folder(path: Path, stack: ExitStack) -> Opened:
    files, losses = _files(path)
    kinds: list[str] = []
    parts: list[Part] = []
    for file in files:
        try:
            kind, part = _open_file(file, stack)
        except (BagError, OSError) as error:
            losses.append(f"{file.name}: cannot be read: {error}")
            continue
        kinds.append(kind)
        parts.append(part)
    if not parts:
        msg = f"{path}: none of its files can be read: {'; '.join(losses)}"
        raise BagError(msg)
    return Opened(f"rosbag2/{kinds[0]}", tuple(parts), tuple(losses), stack)


def _files(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files of a rosbag2 folder, and a line for each that is missing."""
    listed: list[str] = []
    metadata = path / "metadata.yaml"
    if metadata.is_file():
        listed = [
            Path(name).name for name in _LISTED.findall(metadata.read_text("utf-8", "replace"))
        ]
    # metadata.yaml is written last: a killed recorder's folder has none.
    names = listed or sorted(
        each.name for each in path.iterdir() if each.name.endswith(_STORAGE) and each.is_file()
    )
    if not names:
        inside = sorted(each.name for each in path.glob("*.bag"))
        advice = f"name one of its files: {', '.join(inside)}" if inside else f"expected {_KNOWN}"
        msg = f"{path} is a folder without a rosbag2 recording; {advice}"
        raise BagError(msg)
    names = list(dict.fromkeys(names))
    losses = [
        f"{name}: is named in metadata.yaml and missing"
        for name in names
        if not (path / name).is_file()
    ]
    return [path / name for name in names if (path / name).is_file()], losses


def _open_file(path: Path, stack: ExitStack) -> tuple[str, Part]:
    if not path.exists():
        msg = f"{path} does not exist; expected {_KNOWN}"
        raise BagError(msg)
    head = _head(path)
    if not head:
        msg = f"{path} is empty; the recorder has written nothing"
        raise BagError(msg)
    if compression := compression_of(head):
        path = _unpack(path, compression, stack)
        head = _head(path)
    for kind in _KINDS:
        if head.startswith(kind.magic):
            return kind.name, _open_part(path, kind, stack)
    msg = f"{path} is no recording; expected {_KNOWN}"
    raise BagError(msg)


def _open_part(path: Path, kind: _Kind, stack: ExitStack) -> Part:
    def salvage() -> Part:
        return kind.salvage(path)

    part: Part
    if kind.name == "sqlite3" and salvage_sqlite.needs_salvage(path):
        part = salvage()
    else:
        try:
            part = IndexedPart(path, rosbag1=kind.name == "rosbag1", salvage=salvage)
        except Exception:  # noqa: BLE001  # a damaged file makes the library fail in many ways
            part = salvage()
    stack.callback(part.close)
    return part


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(64)


def _unpack(path: Path, compression: str, stack: ExitStack) -> Path:
    """Unpack a file that was compressed as a whole; of one that is cut off, what is there."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="qpde-"))
    target = Path(folder, path.name.removesuffix(f".{compression}"))
    unpacker = decompressor(compression)
    with path.open("rb") as packed, target.open("wb") as unpacked:
        while piece := packed.read(_PIECE):
            try:
                part = unpacker.decompress(piece)
            except DAMAGED:
                break  # the file inside is then cut off, and says so itself
            unpacked.write(part)
    return target
