"""What the fields of recorded messages are, to tell whether other definitions read their bytes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rosbags.interfaces import Nodetype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rosbags.interfaces.typing import FieldDesc, Typesdict

    Layout = dict[str, dict[str, str]]

HEADER = "std_msgs/msg/Header"
_NAMES = {
    "bool": "boolean",
    "byte": "octet",
    "char": "uint8",
    "float32": "float",
    "float64": "double",
}
# Bounds limit what may be written and leave the bytes as they are.
_BOUND = re.compile(r", \d+(?=>)|(?<=string)<\d+>")


def layout_of(fielddefs: Typesdict, kind: str) -> Layout:
    """Return, for a message type and all within it, the type of each field by its name.

    Types are named as `get_fields_and_field_types` of a generated ROS 2 message names them,
    without bounds.
    """
    layout: Layout = {}
    rest = [kind]
    while rest:
        name = rest.pop()
        if name in layout:
            continue
        fields: dict[str, str] = {}
        for field, description in fielddefs[name][1]:
            if field != "structure_needs_at_least_one_member":
                fields[field], inner = _describe(description)
                rest.extend(inner)
        layout[name] = fields
    return layout


def reads_alike(recorded: Mapping[str, str], installed: Mapping[str, str]) -> bool:
    """Whether two definitions of one type give the same bytes; names may differ in case."""
    return [(name.lower(), kind) for name, kind in recorded.items()] == [
        (name.lower(), _BOUND.sub("", kind)) for name, kind in installed.items()
    ]


def begins_with_header(layout: Layout, kind: str) -> bool:
    """Whether a message starts with a `std_msgs/Header`, or is one."""
    return kind == HEADER or next(iter(layout[kind].values()), "") == "std_msgs/Header"


def _describe(description: FieldDesc) -> tuple[str, tuple[str, ...]]:
    """Return the name of a field's type, and the message types within it."""
    if description[0] is Nodetype.BASE:
        name = description[1][0]
        return _NAMES.get(name, name), ()
    if description[0] is Nodetype.NAME:
        return description[1].replace("/msg/", "/"), (description[1],)
    inner, size = description[1]
    text, kinds = _describe(inner)
    return (f"{text}[{size}]" if description[0] is Nodetype.ARRAY else f"sequence<{text}>"), kinds
