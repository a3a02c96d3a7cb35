"""Who provides a package now, and from what an own one was built."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path


def is_provided(name: str) -> bool:
    """Tell whether a sourced ROS 2 installation or a wheel has a package of this name."""
    sourced = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    others = [Path(prefix) for prefix in sourced if prefix and not _is_own(Path(prefix))]
    marker = Path("share", "ament_index", "resource_index", "packages", name)
    if any((prefix / marker).is_file() for prefix in others):
        return True
    return not stamp_of(name).is_file() and find_spec(name) is not None


def is_current(name: str, fingerprint: str) -> bool:
    """Tell whether this environment's package was built from what the fingerprint stands for."""
    stamp = stamp_of(name)
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == fingerprint


def stamp_of(name: str) -> Path:
    """Return the file that holds the fingerprint of a package that was built here."""
    return Path(sys.prefix) / "share" / name / "built_from"


def _is_own(prefix: Path) -> bool:
    return prefix.resolve() == Path(sys.prefix).resolve()
