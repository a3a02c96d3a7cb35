"""Finding bundles: by folder, or by the name of one that ships."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from qpde_perception.bundles.bundle import MANIFEST
from qpde_perception.bundles.errors import BundleError

DEFAULT_MODEL = "traffic_signs"
VARIABLE = "QPDE_MODELS"


def shared_folders(name: str) -> list[Path]:
    """Return the folders of a name that ship: of the checkout, then of the installation."""
    checkout = Path(__file__).resolve().parents[2] / name
    # pip installs to the prefix of Python, a ROS 2 workspace to one of those that were sourced.
    sourced = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    prefixes = [Path(prefix) for prefix in (*sourced, sys.prefix) if prefix]
    installed = [prefix / "share" / "qpde_perception" / name for prefix in prefixes]
    return [folder for folder in (checkout, *installed) if folder.is_dir()]


def shelves() -> list[Path]:
    """Return the folders that hold bundles: of the user, of the checkout, of the installation."""
    own = [Path(folder) for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]
    return [*own, *shared_folders("models")]


def list_models() -> list[Path]:
    """Return the folders of all bundles that can be named, each name once, sorted."""
    found: dict[str, Path] = {}
    for shelf in shelves():
        for manifest in sorted(shelf.glob(f"[!.]*/{MANIFEST}")):
            found.setdefault(manifest.parent.name, manifest.parent)
    return [found[name] for name in sorted(found)]


def find_model(name_or_path: str | None) -> Path:
    """Return a bundle's folder.

    Args:
        name_or_path: A folder, or the name of a bundle that ships; None for the traffic-sign model.

    Raises:
        BundleError: If there is none.
    """
    wanted = name_or_path or DEFAULT_MODEL
    if (Path(wanted) / MANIFEST).is_file():
        return Path(wanted)
    models = {path.name: path for path in list_models()}
    if wanted in models:
        return models[wanted]
    known = ", ".join(models) or f"none; set {VARIABLE} to the folder that holds them"
    msg = f"no model {wanted!r}: neither a folder with a {MANIFEST} nor one of: {known}"
    raise BundleError(msg)
