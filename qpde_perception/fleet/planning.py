"""Which drives are meant, and the name that each has in the results."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qpde_perception.bags.opening import RECORDINGS, is_drive_folder
from qpde_perception.bags.results import MARKER
from qpde_perception.fleet.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FLEET_MARKER = ".made_by_qpde_fleet"


class PlannedDrive(NamedTuple):
    """A drive to replay.

    Attributes:
        name: Its path below the folder that all drives share, with slashes: unique, and never the
            beginning of another's path.
        path: The drive, as the user named it.
    """

    name: str
    path: Path


class _Named(NamedTuple):
    """What one argument stands for: drives, and the folder that their names start from."""

    root: Path
    drives: tuple[Path, ...]


def plan_drives(named: Sequence[str]) -> tuple[PlannedDrive, ...]:
    """Find the drives of files, folders and globs.

    In folders, nested too, a drive is a recording by its file name, or a rosbag2 folder; hidden
    files and the results of earlier replays are passed over. A file that is named is a drive
    whatever it is called. A part of a rosbag2 folder that is found as well is no drive of its own.

    Args:
        named: Files, folders, or patterns (`*`, `?`, `[...]`, `**` for any depth).

    Returns:
        The drives, sorted by name. A drive of one folder or one pattern keeps its name when others
        come or go.

    Raises:
        FleetError: If something named does not exist, or no drive is found.
    """
    found = [_named(each) for each in named]
    root = os.path.commonpath([each.root for each in found]) if found else ""
    paths = {_plain(path): path for each in found for path in each.drives}
    whole = [path for path in paths if paths.keys().isdisjoint(path.parents)]
    if not whole:
        msg = (
            f"{', '.join(named)}: no drive there; expected files {', '.join(RECORDINGS[:3])} or "
            "rosbag2 folders, at any depth (the folders of earlier results are passed over)"
        )
        raise FleetError(msg)
    drives = [PlannedDrive(path.relative_to(root).as_posix(), paths[path]) for path in whole]
    return tuple(sorted(drives, key=lambda drive: drive.name.split("/")))


def _named(name: str) -> _Named:
    path = Path(name)
    if path.is_dir() and not is_drive_folder(path):
        return _Named(_plain(path), tuple(_within(path, frozenset())))
    if path.exists():
        return _Named(_plain(path).parent, (path,))
    if not glob.has_magic(name):
        msg = f"{name}: does not exist; name a folder of drives, a drive, or a pattern in quotes"
        raise FleetError(msg)
    matches = glob.glob(name, recursive=True)  # noqa: PTH207  (Path's takes hidden files too)
    drives = tuple(drive for match in matches for drive in _found(Path(match), frozenset()))
    return _Named(_plain(_literal(name)), drives)


def _found(path: Path, inside: frozenset[str]) -> Iterator[Path]:
    if not path.is_dir():
        if path.name.endswith(RECORDINGS):
            yield path
    elif is_drive_folder(path):
        yield path
    else:
        yield from _within(path, inside)


def _within(folder: Path, inside: frozenset[str]) -> Iterator[Path]:
    """Yield the drives of a folder; `inside` are the folders above, lest a link leads back."""
    real = os.path.realpath(folder)
    if real in inside or any((folder / marker).exists() for marker in (MARKER, FLEET_MARKER)):
        return
    for path in folder.iterdir():
        if not path.name.startswith("."):
            yield from _found(path, inside | {real})


def _literal(pattern: str) -> Path:
    """Return the folders of a pattern before the first that is none by itself."""
    parts = Path(pattern).parts
    plain = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:plain])


def _plain(path: Path) -> Path:
    """Return a path from the root on, links left as they are: they may be how drives are chosen."""
    return Path(os.path.normpath(path.absolute()))
