"""From recorded bytes to messages, by the definitions that the recording brings along."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rosbags.interfaces import MessageDefinitionFormat
from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)

from qpde_perception.bags.definitions import typestore
from qpde_perception.bags.errors import BagError
from qpde_perception.bags.layouts import HEADER, layout_of
from qpde_perception.bags.packed import DAMAGED, compression_of, decompressor

if TYPE_CHECKING:
    from rosbags.interfaces import MessageDefinition
    from rosbags.interfaces.typing import Typesdict
    from rosbags.typesys.store import Typestore

    from qpde_perception.bags.layouts import Layout
    from qpde_perception.bags.parts import Channel, Stored

_IDL_SEPARATOR = "=" * 80 + "\n"


def raw_bytes(stored: Stored) -> bytes:
    """Return the serialized message, unpacked where the recorder compressed each by itself.

    Raises:
        ValueError: If it cannot be unpacked.
    """
    # A CDR message begins with a zero byte, so the two cannot be mistaken for each other.
    compression = compression_of(stored.data)
    if stored.channel.encoding != "cdr" or compression is None:
        return stored.data
    unpacker = decompressor(compression)
    try:
        raw = bytes(unpacker.decompress(stored.data))
    except DAMAGED as error:
        raise ValueError(str(error)) from None
    if not unpacker.eof:
        msg = f"{compression}: cut off"
        raise ValueError(msg)
    return raw


def decode_message(channel: Channel, raw: bytes) -> object:
    """Deserialize a message.

    Raises:
        BagError: If its type has no definition here or in the file, or it is not of ROS.
        ValueError: If the bytes are no such message.
    """
    store = _known_store(channel)
    deserialize = store.deserialize_ros1 if channel.encoding == "ros1" else store.deserialize_cdr
    try:
        return deserialize(memoryview(raw), channel.type)  # of bytes, it would make a copy
    except Exception as error:  # noqa: BLE001  # damaged bytes make the generated parsers fail in many ways
        msg = f"{channel.topic}: no {channel.type}: {error}"
        raise ValueError(msg) from None


def cdr_bytes(channel: Channel, raw: bytes) -> bytes:
    """Return a message in the serialization of ROS 2.

    Raises:
        BagError: As `decode_message`.
        ValueError: If the bytes are no such message.
    """
    if channel.encoding == "cdr":
        return raw
    try:
        return bytes(_ros2_store(channel).ros1_to_cdr(raw, channel.type))
    except SerdeError as error:
        msg = f"{channel.topic}: no {channel.type}: {error}"
        raise ValueError(msg) from None


def recorded_layout(channel: Channel) -> Layout:
    """Return what the fields of a channel's messages are once they are CDR; see `layout_of`.

    Raises:
        BagError: As `decode_message`.
    """
    return layout_of(_ros2_store(channel).fielddefs, channel.type)


def _ros2_store(channel: Channel) -> Typestore:
    store = _known_store(channel)
    return store if channel.encoding == "cdr" else _without_sequence_numbers(store, channel.type)


@lru_cache(maxsize=64)
def _without_sequence_numbers(store: Typestore, kind: str) -> Typestore:
    """Return the types of ROS 1 with the header of ROS 2, for which conversion is made."""
    types = {name: store.fielddefs[name] for name in layout_of(store.fielddefs, kind)}
    if HEADER in types:
        constants, fields = types[HEADER]
        types[HEADER] = constants, [field for field in fields if field[0] != "seq"]
    converting = get_typestore(Stores.EMPTY)
    converting.register(types)
    return converting


def _known_store(channel: Channel) -> Typestore:
    if channel.encoding not in {"cdr", "ros1"}:
        msg = f"{channel.topic}: is encoded as {channel.encoding!r}; only ROS messages are read"
        raise BagError(msg)
    store = _store(channel.type, channel.encoding, channel.definition)
    if channel.type not in store.types:
        msg = f"{channel.topic}: {channel.type} has no definition, neither here nor in the file"
        raise BagError(msg)
    return store


@lru_cache(maxsize=64)
def _store(kind: str, encoding: str, definition: MessageDefinition) -> Typestore:
    try:
        types = _types(kind, definition)
        store = get_typestore(Stores.EMPTY)
        store.register(types)
        if kind in types:
            store.get_msgdef(kind)
    except Exception:  # noqa: BLE001  # a damaged definition is as good as none
        types = {}
    if kind in types:
        return store
    return get_typestore(Stores.ROS1_NOETIC) if encoding == "ros1" else typestore()


def _types(kind: str, definition: MessageDefinition) -> Typesdict:
    if definition.format == MessageDefinitionFormat.MSG and definition.data.strip():
        return get_types_from_msg(definition.data, kind)
    types: Typesdict = {}
    if definition.format == MessageDefinitionFormat.IDL:
        text = definition.data
        if text.startswith(f"{_IDL_SEPARATOR}IDL: "):
            parts = [part.partition("\n")[2] for part in text.split(_IDL_SEPARATOR)[1:]]
        else:
            parts = [text]
        for part in parts:
            types.update(get_types_from_idl(part))
    return types
