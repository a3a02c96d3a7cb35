"""Messages as ROS 2 sends them: bytes, fields, and how topics were offered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from rosbags.typesys import Stores, get_typestore

from qpde_perception.bags import (
    Offer,
    begins_with_header,
    open_drive,
    reads_alike,
    restamped,
    typestore,
)
from qpde_perception.bags.layouts import layout_of
from qpde_perception.bags.messages import header_of
from qpde_perception.bags.offers import parse_offers, together

IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"
HEADER_TYPE = "std_msgs/msg/Header"


@pytest.mark.parametrize("kind", ["rosbag1-lz4", "sqlite3", "mcapfolder-message", "mcap"])
def test_every_format_gives_the_bytes_of_ros_2(kind, tmp_path, record, some_messages):
    store = typestore()
    with open_drive(record(tmp_path / "drive", kind, some_messages)) as drive:
        got = list(drive.serialized(("/a/image", "/b/image")))
        assert not drive.losses
        fields = drive.layout("/a/image")[IMAGE_TYPE]
    expected = {}
    for each in some_messages:
        message = store.types[IMAGE_TYPE](
            header=header_of(each.log_time_ns, "front"),
            format="jpeg",
            data=np.frombuffer(each.data, np.uint8),
        )
        expected[each.log_time_ns, each.topic] = bytes(store.serialize_cdr(message, IMAGE_TYPE))
    assert {(each.log_time_ns, each.topic): each.cdr for each in got} == expected
    assert fields == {"header": "std_msgs/Header", "format": "string", "data": "sequence<uint8>"}


def test_a_message_that_cannot_be_read_is_not_sent_and_counted(tmp_path):
    store = typestore()
    with Rosbag2Writer(
        tmp_path / "drive", version=9, storage_plugin=StoragePlugin.SQLITE3
    ) as writer:
        connection = writer.add_connection("/headers", HEADER_TYPE, typestore=store)
        whole = bytes(store.serialize_cdr(header_of(7, "front"), HEADER_TYPE))
        writer.write(connection, 1, whole)
        writer.write(connection, 2, whole[:14])
        writer.write(connection, 3, whole)
    with open_drive(tmp_path / "drive") as drive:
        assert [each.log_time_ns for each in drive.serialized(["/headers"])] == [1, 3]
        assert drive.losses == ("/headers: 1 messages are damaged and were left out",)


@given(st.integers(0, 2**31 - 1), st.integers(0, 10**9 - 1), st.text(), st.booleans())
def test_a_restamped_message_differs_in_its_stamp_only(seconds, nanoseconds, name, little):
    store = typestore()
    before = header_of(12_345_678_901, name)
    cdr = bytes(store.serialize_cdr(before, HEADER_TYPE, little_endian=little))
    after = store.deserialize_cdr(restamped(cdr, seconds * 10**9 + nanoseconds), HEADER_TYPE)
    assert (after.stamp.sec, after.stamp.nanosec) == (seconds, nanoseconds)
    assert after.frame_id == name


def test_layouts_name_types_as_generated_messages_do():
    fielddefs = typestore().fielddefs
    layout = layout_of(fielddefs, "sensor_msgs/msg/CameraInfo")
    assert layout["sensor_msgs/msg/CameraInfo"]["k"] == "double[9]"
    assert layout["sensor_msgs/msg/CameraInfo"]["d"] == "sequence<double>"
    assert layout["builtin_interfaces/msg/Time"] == {"sec": "int32", "nanosec": "uint32"}
    assert layout["sensor_msgs/msg/RegionOfInterest"]["do_rectify"] == "boolean"
    assert layout_of(fielddefs, "std_msgs/msg/Empty") == {"std_msgs/msg/Empty": {}}
    statuses = layout_of(fielddefs, "diagnostic_msgs/msg/DiagnosticArray")
    assert statuses["diagnostic_msgs/msg/DiagnosticStatus"]["level"] == "octet"


@pytest.mark.parametrize(
    ("recorded", "installed", "alike"),
    [
        ({"D": "sequence<double>"}, {"d": "sequence<double>"}, True),
        ({"a": "sequence<double>"}, {"a": "sequence<double, 3>"}, True),
        ({"a": "string"}, {"a": "string<10>"}, True),
        ({"a": "double[3]"}, {"a": "double[4]"}, False),
        ({"a": "float"}, {"a": "double"}, False),
        ({"a": "float", "b": "float"}, {"b": "float", "a": "float"}, False),
        ({"a": "float"}, {"a": "float", "b": "float"}, False),
    ],
)
def test_definitions_read_alike_where_fields_have_the_same_types_in_order(
    recorded, installed, alike
):
    assert reads_alike(recorded, installed) is alike


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(HEADER_TYPE, True), (IMAGE_TYPE, True), ("std_msgs/msg/String", False)],
)
def test_only_types_with_a_header_first_begin_with_one(kind, expected):
    layout = layout_of(typestore().fielddefs, kind)
    assert begins_with_header(layout, kind) is expected


def test_the_header_of_ros_1_has_no_sequence_number_in_ros_2(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    with Rosbag1Writer(tmp_path / "drive.bag") as writer:
        connection = writer.add_connection("/h", HEADER_TYPE, typestore=store, latching=1)
        stamp = store.types["builtin_interfaces/msg/Time"](sec=3, nanosec=7)
        header = store.types[HEADER_TYPE](seq=9, stamp=stamp, frame_id="front")
        writer.write(connection, 1, store.serialize_ros1(header, HEADER_TYPE))
    with open_drive(tmp_path / "drive.bag") as drive:
        assert list(drive.layout("/h")[HEADER_TYPE]) == ["stamp", "frame_id"]
        (message,) = drive.serialized(["/h"])
        assert drive.topics[0].offer == Offer(reliable=True, latched=True, depth=1)
    again = typestore().deserialize_cdr(message.cdr, HEADER_TYPE)
    assert (again.stamp.sec, again.stamp.nanosec, again.frame_id) == (3, 7, "front")


@pytest.mark.parametrize("plugin", ["SQLITE3", "MCAP"])
@pytest.mark.parametrize("damaged", [False, True])
def test_offers_are_read_also_from_what_is_saved_of_a_damaged_file(
    tmp_path, make_qos, plugin, damaged
):
    store, path = typestore(), tmp_path / "drive"
    text = store.types["std_msgs/msg/String"](data="x" * 1000)
    raw = store.serialize_cdr(text, "std_msgs/msg/String")
    offered = {
        "/best_effort": [make_qos(reliable=False, latched=False, depth=3)],
        "/latched": [make_qos(depth=1), make_qos(depth=2)],
        "/unsaid": [],
    }
    with Rosbag2Writer(path, version=9, storage_plugin=StoragePlugin[plugin]) as writer:
        for topic, profiles in offered.items():
            connection = writer.add_connection(
                topic, "std_msgs/msg/String", typestore=store, offered_qos_profiles=profiles
            )
            for number in range(20):
                writer.write(connection, 10**18 + number, raw)
    (file,) = (each for each in path.iterdir() if each.name != "metadata.yaml")
    if damaged:
        (path / "metadata.yaml").unlink()
        content = file.read_bytes()
        file.write_bytes(content[: -len(content) // 5])
    with open_drive(path) as drive:
        assert bool(drive.losses) is damaged
        assert {topic.name: topic.offer for topic in drive.topics} == {
            "/best_effort": Offer(reliable=False, latched=False, depth=3),
            "/latched": Offer(reliable=True, latched=True, depth=3),
            "/unsaid": None,
        }


@pytest.mark.parametrize("text", ["", "- {", "- history: 1", "just words", "- 7"])
def test_offers_that_cannot_be_read_are_none(text):
    assert parse_offers(text) == ()


def test_a_depth_that_the_recorder_did_not_know_is_that_of_sensor_data():
    (offer,) = parse_offers(
        "- {history: 3, depth: 0, reliability: 1, durability: 2, deadline: {sec: 0, nsec: 0}, "
        "lifespan: {sec: 0, nsec: 0}, liveliness: 1, avoid_ros_namespace_conventions: false, "
        "liveliness_lease_duration: {sec: 0, nsec: 0}}"
    )
    assert offer == Offer(reliable=True, latched=False, depth=5)


def test_together_serves_every_subscriber_that_one_of_them_served():
    best_effort, latched = Offer(False, False, 5), Offer(True, True, 1)
    assert together([best_effort, latched]) == Offer(True, True, 6)
    assert together([]) is None
