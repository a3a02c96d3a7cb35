"""Drives of every format give the same messages."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from mcap.writer import Writer as RawMcapWriter
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from qpde_perception.bags import BagError, drive_info, open_drive

FORMATS = {
    "rosbag1-none": "rosbag1",
    "rosbag1-bz2": "rosbag1",
    "rosbag1-lz4": "rosbag1",
    "sqlite3": "rosbag2/sqlite3",
    "sqlite3-file": "rosbag2/sqlite3",
    "sqlite3-message": "rosbag2/sqlite3",
    "mcapfolder": "rosbag2/mcap",
    "mcapfolder-file": "rosbag2/mcap",
    "mcapfolder-message": "rosbag2/mcap",
    "mcapfolder-storage": "rosbag2/mcap",
    "sqlite3-file_lz4": "rosbag2/sqlite3",
    "sqlite3-message_lz4": "rosbag2/sqlite3",
    "mcapfolder-file_lz4": "rosbag2/mcap",
    "mcap": "mcap",
    "mcap-lz4": "mcap",
    "mcap-zstd": "mcap",
}
TOPICS = ("/a/image", "/b/image")


def _read(drive, topics=TOPICS, **selection):
    return [
        (each.log_time_ns, each.topic, bytes(each.message.data))
        for each in drive.messages(topics, **selection)
    ]


def _expected(messages):
    rows = [(each.log_time_ns, each.topic, each.data) for each in messages]
    return sorted(rows, key=lambda each: each[:2])


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_all_messages_by_time_and_topic(kind, tmp_path, record, some_messages):
    with open_drive(record(tmp_path / "drive", kind, some_messages)) as drive:
        assert drive.format == FORMATS[kind]
        assert [(each.name, each.type, each.count) for each in drive.topics] == [
            ("/a/image", "sensor_msgs/msg/CompressedImage", 20),
            ("/b/image", "sensor_msgs/msg/CompressedImage", 20),
        ]
        assert _read(drive) == _expected(some_messages)
        assert drive.start_ns == min(each.log_time_ns for each in some_messages)
        assert drive.end_ns == max(each.log_time_ns for each in some_messages)
        assert drive.losses == ()
        assert _read(drive) == _expected(some_messages)


@pytest.mark.parametrize("kind", ["rosbag1-lz4", "sqlite3", "sqlite3-message", "mcapfolder-file"])
@pytest.mark.parametrize("fault", ["metadata", "none"])
def test_folder_without_metadata_and_bare_file_lose_nothing(
    kind, fault, tmp_path, record, some_messages
):
    path = record(tmp_path / "drive", kind, some_messages)
    if path.is_dir():
        (path / "metadata.yaml").unlink()
        if fault == "none":
            (path,) = path.iterdir()
    with open_drive(path) as drive:
        assert _read(drive) == _expected(some_messages)
        assert drive.losses == ()


@pytest.mark.parametrize("kind", ["rosbag1-bz2", "sqlite3", "mcapfolder", "mcap-zstd"])
def test_selection_of_topic_and_time(kind, tmp_path, record, some_messages):
    with open_drive(record(tmp_path / "drive", kind, some_messages)) as drive:
        rows = [each for each in _expected(some_messages) if each[1] == "/a/image"]
        chosen = _read(drive, ["/a/image"], start_s=0.1, duration_s=0.05)
        low, high = drive.start_ns + 100_000_000, drive.start_ns + 150_000_000
        assert chosen == [each for each in rows if low <= each[0] < high]
        assert chosen
        assert _read(drive, ["/a/image"], start_s=99.0) == []


def test_split_folder_is_merged_by_time(tmp_path, record, some_messages):
    folder = tmp_path / "split"
    folder.mkdir()
    record(folder / "split_0", "mcap", some_messages[::2])
    record(folder / "split_1", "mcap-zstd", some_messages[1::2])
    with open_drive(folder) as drive:
        assert drive.format == "rosbag2/mcap"
        assert _read(drive) == _expected(some_messages)


def test_file_named_in_metadata_but_missing_is_reported(tmp_path, record, some_messages):
    path = record(tmp_path / "drive", "mcapfolder", some_messages)
    text = (path / "metadata.yaml").read_text()
    text = text.replace("- drive.mcap", "- drive.mcap\n    - drive_1.mcap")
    (path / "metadata.yaml").write_text(text)
    with open_drive(path) as drive:
        assert _read(drive) == _expected(some_messages)
        assert drive.losses == ("drive_1.mcap: is named in metadata.yaml and missing",)


def test_missing_topic_is_refused_with_the_topics_that_exist(tmp_path, record, some_messages):
    with (
        open_drive(record(tmp_path / "drive", "mcap", some_messages)) as drive,
        pytest.raises(BagError, match=r"no topic /c; .*/a/image \(sensor_msgs/msg/CompressedIm"),
    ):
        drive.messages(["/c"])


def test_folder_that_is_named_like_a_recording_is_none(tmp_path):
    (tmp_path / "drive.mcap").mkdir()
    with pytest.raises(BagError, match="is a folder without a rosbag2 recording"):
        open_drive(tmp_path)


def test_missing_path_is_refused(tmp_path):
    with pytest.raises(BagError, match="does not exist"):
        open_drive(tmp_path / "drive.mcap")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("no drive\n" * 99), "is no recording"),
        (lambda path: path.mkdir(), "folder without a rosbag2 recording"),
        (lambda path: (path.mkdir(), (path / "x.bag").touch()), r"name one of its files: x\.bag"),
        (lambda path: (path.mkdir(), (path / "x.db3").touch()), "none of its files can be read"),
    ],
)
def test_what_is_no_drive_is_refused(make, message, tmp_path):
    make(tmp_path / "drive.mcap")
    with pytest.raises(BagError, match=message):
        open_drive(tmp_path / "drive.mcap")


def test_topics_of_other_encodings_do_not_matter_until_asked_for(tmp_path):
    path = tmp_path / "drive.mcap"
    with path.open("wb") as stream:
        writer = RawMcapWriter(stream)
        writer.start(profile="")
        schema = writer.register_schema("Odd", "jsonschema", b"{}")
        channel = writer.register_channel("/odd", "json", schema)
        text = b"uint8 value\n"
        good = writer.register_channel(
            "/good", "cdr", writer.register_schema("acme_msgs/Number", "ros2msg", text)
        )
        bare = writer.register_channel(
            "/bare", "cdr", writer.register_schema("acme_msgs/msg/Bare", "", b"")
        )
        writer.add_message(channel, 1, json.dumps({"a": 1}).encode(), 1)
        writer.add_message(good, 2, b"\0\1\0\0\x2a", 2)
        writer.add_message(bare, 3, b"\0\1\0\0\x2a", 3)
        writer.finish()
    with open_drive(path) as drive:
        (only,) = drive.messages(["/good"])
        assert (only.type, only.message.value) == ("acme_msgs/msg/Number", 42)
        assert drive.losses == ()
        with pytest.raises(BagError, match="/odd: is encoded as 'json'"):
            list(drive.messages(["/odd"]))
        with pytest.raises(BagError, match="acme_msgs/msg/Bare has no definition"):
            list(drive.messages(["/bare"]))


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_definition_in_the_drive_goes_before_ours(storage, tmp_path):
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg("uint16 class_id\n", "vision_msgs/msg/VisionClass"))
    kind = "vision_msgs/msg/VisionClass"
    with Rosbag2Writer(tmp_path / "drive", version=9, storage_plugin=storage) as writer:
        connection = writer.add_connection("/odd", kind, typestore=store)
        writer.write(connection, 5, store.serialize_cdr(store.types[kind](class_id=9), kind))
    with open_drive(tmp_path / "drive") as drive:
        (only,) = drive.messages(["/odd"])
        assert only.message.class_id == 9
        assert not hasattr(only.message, "class_name")


def test_old_sqlite_without_definitions_is_read_with_ours(tmp_path, record, some_messages):
    path = record(tmp_path / "drive", "sqlite3", some_messages) / "drive.db3"
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE message_definitions")
        database.execute("DROP TABLE schema")
        database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
    with open_drive(path) as drive:
        assert drive.format == "sqlite3"
        assert _read(drive) == _expected(some_messages)
        assert drive.losses == ()


def test_damaged_message_is_left_out_and_reported(tmp_path):
    path = tmp_path / "drive.mcap"
    with path.open("wb") as stream:
        raw = RawMcapWriter(stream)
        raw.start(profile="ros2")
        schema = raw.register_schema(
            "std_msgs/msg/Header", "ros2msg", b"builtin_interfaces/Time stamp\nstring frame_id\n"
        )
        channel = raw.register_channel("/header", "cdr", schema)
        raw.add_message(channel, 1, b"\0\1\0\0\x01", 1)
        raw.finish()
    with open_drive(path) as drive:
        assert list(drive.messages(["/header"])) == []
        assert drive.losses == ("/header: 1 messages are damaged and were left out",)


def test_info_tells_what_the_command_promises(tmp_path, record, some_messages):
    path = record(tmp_path / "drive", "sqlite3-message", some_messages)
    with open_drive(path) as drive:
        info = drive_info(drive)
    assert info["format"] == "rosbag2/sqlite3"
    assert info["duration_s"] == pytest.approx(0.39)
    assert info["topics"][0] == {
        "name": "/a/image",
        "type": "sensor_msgs/msg/CompressedImage",
        "count": 20,
    }
    assert info["readable_to_end"] is True
    json.dumps(info)


def test_reading_holds_a_few_chunks_and_not_the_drive(tmp_path, record):
    data = np.random.default_rng(1).bytes(200_000)
    sent = [SimpleNamespace(topic="/a", log_time_ns=index, data=data) for index in range(150)]
    path = record(tmp_path / "drive", "mcap", sent)
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(path.read_bytes()[:-1000])
    for each in (path, cut):
        tracemalloc.start()
        with open_drive(each) as drive:
            assert sum(1 for _ in drive.messages(["/a"])) == 150
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 12e6
