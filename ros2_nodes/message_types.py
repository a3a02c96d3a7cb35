"""The message types that are installed, by the names that recordings use."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.type_support import check_for_type_support
from rosidl_generator_py.import_type_support_impl import UnsupportedTypeSupport

from qpde_perception.bags import reads_alike

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"([a-z][a-z0-9_]*)/msg/([A-Z][A-Za-z0-9]*)")


class InterfaceError(ValueError):
    """A message type that is not installed, or not as it was recorded."""


def message_class(kind: str) -> Any:
    """Return the class of a message type, `sensor_msgs/msg/Image`.

    Raises:
        InterfaceError: If it is not installed, or its libraries cannot be loaded.
    """
    named = _NAME.fullmatch(kind)
    if named is None:
        msg = f"{kind} is not the name of a message type"
        raise InterfaceError(msg)
    package, name = named.groups()
    found = None
    # The name comes from a file: only a package of messages is imported.
    spec = find_spec(package)
    places = () if spec is None else spec.submodule_search_locations or ()
    if any(Path(place, "msg", "__init__.py").is_file() for place in places):
        found = _load(package, name)
    if found is None:
        msg = f"{kind} is not installed"
        raise InterfaceError(msg)
    return found


def demand_layout(layout: Mapping[str, Mapping[str, str]]) -> None:
    """Make sure that recorded bytes mean to the installed types what they meant when recorded.

    Args:
        layout: See `qpde_perception.bags.Drive.layout`.

    Raises:
        InterfaceError: If a type is not installed, or has other fields.
    """
    for kind, recorded in layout.items():
        installed = message_class(kind).get_fields_and_field_types()
        if not reads_alike(recorded, installed):
            msg = (
                f"{kind} was recorded with the fields {_listed(recorded)}; the installed version "
                f"has {_listed(installed)}"
            )
            raise InterfaceError(msg)


def _load(package: str, name: str) -> Any:
    try:
        found = getattr(import_module(f"{package}.msg"), name, None)
        if found is not None:
            check_for_type_support(found)
    except (ImportError, UnsupportedTypeSupport) as error:
        msg = f"{package}/msg/{name} is installed and cannot be loaded: {error}"
        raise InterfaceError(msg) from None
    return found


def _listed(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{kind} {name}" for name, kind in fields.items()) or "none"
