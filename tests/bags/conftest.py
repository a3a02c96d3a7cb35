"""Drives of every format, written by the library that others use."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import lz4.frame
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapLibraryWriter
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from rosbags.typesys import Stores, get_typestore

from qpde_perception.bags import McapWriter, typestore
from qpde_perception.bags.messages import header_of

IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"


class Sent(NamedTuple):
    """A message on its way into a drive: a compressed image with these bytes."""

    topic: str
    log_time_ns: int
    data: bytes


Record = Callable[[Path, str, Sequence[Sent]], Path]


def _rosbag1(path: Path, compression: str, messages: Sequence[Sent]) -> Path:
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    writer = Rosbag1Writer(path)
    # Short drives get several chunks, long ones a single large one.
    writer.chunk_threshold = 4096 if len(messages) < 100 else 1 << 22
    if compression != "none":
        writer.set_compression(Rosbag1Writer.CompressionFormat[compression.upper()])
    with writer:
        connections = {}
        for topic in dict.fromkeys(each.topic for each in messages):
            connections[topic] = writer.add_connection(topic, IMAGE_TYPE, typestore=store)
        for number, each in enumerate(messages):
            seconds, nanoseconds = divmod(each.log_time_ns, 10**9)
            stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
            header = types["std_msgs/msg/Header"](seq=number, stamp=stamp, frame_id="front")
            data = np.frombuffer(each.data, np.uint8)
            message = types[IMAGE_TYPE](header=header, format="jpeg", data=data)
            raw = store.serialize_ros1(message, IMAGE_TYPE)
            writer.write(connections[each.topic], each.log_time_ns, raw)
    return path


def _rosbag2(path: Path, storage: str, mode: str, messages: Sequence[Sent]) -> Path:
    writer = Rosbag2Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    if mode:
        writer.set_compression(CompressionMode[mode.upper()], CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic in dict.fromkeys(each.topic for each in messages):
            connections[topic] = writer.add_connection(topic, IMAGE_TYPE, typestore=typestore())
        for each in messages:
            raw = typestore().serialize_cdr(_message(each), IMAGE_TYPE)
            writer.write(connections[each.topic], each.log_time_ns, raw)
    return path


def _message(sent: Sent) -> object:
    header = header_of(sent.log_time_ns, "front")
    data = np.frombuffer(sent.data, np.uint8)
    return typestore().types[IMAGE_TYPE](header=header, format="jpeg", data=data)


def _pack_file(folder: Path) -> None:
    """Compress the file of a recording as a whole, as a recorder with an lz4 plugin does."""
    metadata = folder / "metadata.yaml"
    (file,) = (each for each in folder.iterdir() if each != metadata)
    file.with_name(f"{file.name}.lz4").write_bytes(lz4.frame.compress(file.read_bytes()))
    file.unlink()
    metadata.write_text(metadata.read_text().replace(file.name, f"{file.name}.lz4"))


def _pack_messages(folder: Path) -> None:
    """Compress each message of a database by itself."""
    (file,) = folder.glob("*.db3")
    with closing(sqlite3.connect(file)) as database, database:
        database.create_function("pack", 1, lz4.frame.compress)
        database.execute("UPDATE messages SET data = pack(data)")


def _pack_chunks(file: Path) -> None:
    """Write an MCAP file again, its chunks compressed."""
    with BytesIO(file.read_bytes()) as source, file.open("wb") as target:
        reader = make_reader(source)
        writer = McapLibraryWriter(target, compression=CompressionType.LZ4)
        writer.start(profile="ros2")
        channels: dict[int, int] = {}
        for schema, channel, message in reader.iter_messages():
            if channel.id not in channels:
                known = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.id] = writer.register_channel(channel.topic, "cdr", known)
            writer.add_message(
                channels[channel.id], message.log_time, message.data, message.publish_time
            )
        writer.finish()


_PACKERS = {
    "file_lz4": _pack_file,
    "message_lz4": _pack_messages,
    "lz4": _pack_chunks,
}


def record_drive(path: Path, kind: str, messages: Sequence[Sent]) -> Path:
    """Write a drive; `kind` is the format, then after a dash its compression."""
    name, _, compression = kind.partition("-")
    if name != "rosbag1" and compression in _PACKERS:
        plain = record_drive(path, name, messages)
        _PACKERS[compression](plain)
        return plain
    if name == "rosbag1":
        return _rosbag1(path.with_suffix(".bag"), compression, messages)
    if name in {"sqlite3", "mcapfolder"}:
        storage = "mcap" if name == "mcapfolder" else name
        return _rosbag2(path, storage, compression, messages)
    target = path.with_suffix(".mcap")
    with McapWriter(target, compress=compression == "zstd") as writer:
        for each in messages:
            writer.write(each.topic, _message(each), each.log_time_ns)
    return target


@pytest.fixture(scope="session")
def record() -> Record:
    return record_drive


@pytest.fixture(scope="session")
def some_messages() -> list[Sent]:
    """Forty images on two topics, 10 ms apart, every fourth pair at the same time."""
    random = np.random.default_rng(7)
    return [
        Sent(
            ("/b/image", "/a/image")[index % 2],
            10**18 + (index - (index % 8 == 1)) * 10_000_000,
            random.bytes(300 + 17 * index),
        )
        for index in range(40)
    ]


@pytest.fixture(scope="session")
def make_qos() -> Callable[..., Qos]:
    """Make the quality of service that a recorder noted; latched unless told otherwise."""

    def make(*, depth: int, reliable: bool = True, latched: bool = True) -> Qos:
        forever = QosTime(2147483647, 4294967295)
        return Qos(
            QosHistory.KEEP_LAST,
            depth,
            QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
            QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
            forever,
            forever,
            QosLiveliness.AUTOMATIC,
            forever,
            avoid_ros_namespace_conventions=False,
        )

    return make
