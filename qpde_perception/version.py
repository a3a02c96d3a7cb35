"""The version of this package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """Return the version of this package, or `not installed` in a bare checkout."""
    try:
        return version("qpde_perception")
    except PackageNotFoundError:
        return "not installed"
