"""The player: a real node in a process of its own, heard over the middleware."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")
pytest.importorskip("std_srvs.srv", reason="std_srvs is not installed (the extra `ros`)")

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from rosbags.interfaces import (  # noqa: E402
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag1 import Writer as Rosbag1Writer  # noqa: E402
from rosbags.rosbag2 import StoragePlugin  # noqa: E402
from rosbags.rosbag2 import Writer as Rosbag2Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from std_msgs.msg import Header, String  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from qpde_perception.bags import open_drive, typestore  # noqa: E402
from qpde_perception.bags.messages import header_of  # noqa: E402
from ros2_nodes.message_types import InterfaceError, demand_layout, message_class  # noqa: E402

SAMPLE = Path(__file__).parents[2] / "samples" / "traffic_signs.mcap"
PLAYER = "ros2_nodes.bag_player_node"
EVERYTHING = QoSProfile(depth=1000)
START_NS = 10**18
STEP_NS = 50_000_000
FOREVER = QosTime(2147483647, 4294967295)
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    FOREVER,
    FOREVER,
    QosLiveliness.AUTOMATIC,
    FOREVER,
    avoid_ros_namespace_conventions=False,
)


@pytest.fixture
def headers_drive(tmp_path):
    """Twenty headers on /headers, 50 ms apart, and a latched text on /info before them."""
    path, store = tmp_path / "drive", typestore()
    text = store.types["std_msgs/msg/String"](data="labels")
    with Rosbag2Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        info = writer.add_connection(
            "/info", "std_msgs/msg/String", typestore=store, offered_qos_profiles=[LATCHED]
        )
        headers = writer.add_connection("/headers", "std_msgs/msg/Header", typestore=store)
        writer.write(info, START_NS, store.serialize_cdr(text, "std_msgs/msg/String"))
        for number in range(20):
            log_time_ns = START_NS + number * STEP_NS
            header = header_of(log_time_ns - 1, f"frame {number}")
            raw = store.serialize_cdr(header, "std_msgs/msg/Header")
            writer.write(headers, log_time_ns, raw)
    return path


def padded(raw):
    """The bytes as RTPS carries them: a multiple of four."""
    return raw + bytes(-len(raw) % 4)


def numbers(got):
    return [int(message.frame_id.removeprefix("frame ")) for _, message in got]


def test_every_message_of_the_sample_arrives_once_in_order_and_unchanged(start_node, listener):
    with open_drive(SAMPLE) as drive:
        sent = {topic.name: [] for topic in drive.topics}
        kinds = {topic.name: topic.type for topic in drive.topics}
        for message in drive.messages(sent.keys()):
            sent[message.topic].append(message.raw)
    got = {}
    for topic, kind in kinds.items():
        try:
            installed = message_class(kind)
        except InterfaceError:
            continue
        got[topic] = listener.collect(topic, installed, EVERYTHING, raw=True)
    player = start_node(PLAYER, drive=SAMPLE, rate=40.0, wait_for_subscribers=f"[{', '.join(got)}]")
    assert player.wait() == 0, player.output
    assert "/camera/front/image/compressed" in got
    for topic, kind in kinds.items():
        if topic in got:
            assert [message for _, message in got[topic]] == [padded(raw) for raw in sent[topic]]
            assert f"sent {len(sent[topic])} on {topic}" in player.output
        else:
            assert f"{topic} is left out: {kind} is not installed" in player.output


@pytest.mark.parametrize("rate", [0.5, 4.0])
def test_the_rate_scales_the_recorded_times(start_node, listener, headers_drive, rate):
    got = listener.collect("/headers", Header, EVERYTHING)
    player = start_node(PLAYER, drive=headers_drive, rate=rate, wait_for_subscribers="[/headers]")
    assert player.wait() == 0, player.output
    assert numbers(got) == list(range(20))
    times = [sent_ns for sent_ns, _ in got]
    assert times[-1] - times[0] == pytest.approx(19 * STEP_NS / rate, abs=1e8)


def test_paused_it_sends_only_what_is_stepped_and_goes_on_when_resumed(
    start_node, listener, headers_drive
):
    got = listener.collect("/headers", Header, EVERYTHING)
    player = start_node(
        PLAYER,
        drive=headers_drive,
        topics="[/headers]",
        rate=2.0,
        start_paused="true",
        wait_for_subscribers="[/headers]",
    )
    for number in range(2):
        assert listener.call(Trigger, "/bag_player/step", Trigger.Request()).success
        listener.wait_until(lambda: len(got) > number, "the message stepped to", player)  # noqa: B023
        assert numbers(got) == list(range(number + 1))
    assert listener.call(SetBool, "/bag_player/pause", SetBool.Request(data=False)).success
    refused = listener.call(Trigger, "/bag_player/step", Trigger.Request())
    assert not refused.success
    assert "not paused" in refused.message
    assert listener.call(SetBool, "/bag_player/pause", SetBool.Request(data=True)).success
    time.sleep(0.1)  # what was on its way arrives
    stood_at = len(got)
    time.sleep(0.3)
    assert len(got) == stood_at
    assert player.running
    assert listener.call(SetBool, "/bag_player/pause", SetBool.Request(data=False)).success
    assert player.wait() == 0, player.output
    assert 2 <= stood_at < 20
    assert numbers(got) == list(range(20))


def test_a_loop_begins_again_until_it_is_interrupted(start_node, listener, headers_drive):
    got = listener.collect("/headers", Header, EVERYTHING)
    player = start_node(
        PLAYER, drive=headers_drive, rate=20.0, loop="true", wait_for_subscribers="[/headers]"
    )
    listener.wait_until(lambda: len(got) > 45, "a third round", player)
    assert player.interrupt() == 0, player.output
    assert "Traceback" not in player.output
    assert numbers(got) == [number % 20 for number in range(len(got))]


def test_the_clock_ticks_between_messages_and_is_never_behind_one(
    start_node, listener, headers_drive
):
    clock = listener.collect("/clock", Clock, EVERYTHING)
    headers_qos = QoSProfile(depth=1000, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    got = listener.collect("/headers", Header, headers_qos)
    player = start_node(
        PLAYER,
        drive=headers_drive,
        publish_clock="true",
        clock_hz=100.0,
        wait_for_subscribers="[/headers]",
        **{"qos_overrides./headers.publisher.reliability": "best_effort"},
    )
    listener.wait_until(lambda: clock, "the clock", player)
    (offered,) = listener.node.get_publishers_info_by_topic("/headers")
    assert offered.qos_profile.reliability == QoSReliabilityPolicy.BEST_EFFORT
    assert player.wait() == 0, player.output
    ticks = [tick.clock.sec * 10**9 + tick.clock.nanosec for _, tick in clock]
    assert all(earlier <= later for earlier, later in pairwise(ticks))
    assert {START_NS + number * STEP_NS for number in range(20)} <= set(ticks)
    assert len(ticks) > 40
    assert len(got) > 10
    for sent_ns, message in got:
        until_then = [
            tick for (at_ns, _), tick in zip(clock, ticks, strict=True) if at_ns <= sent_ns
        ]
        stamp_ns = message.stamp.sec * 10**9 + message.stamp.nanosec
        assert max(until_then) >= stamp_ns


def test_a_latched_topic_reaches_a_late_subscriber_also_with_a_start_offset(
    start_node, listener, headers_drive
):
    got = listener.collect("/headers", Header, EVERYTHING)
    player = start_node(
        PLAYER, drive=headers_drive, start_offset_s=0.475, wait_for_subscribers="[/headers]"
    )
    listener.wait_until(lambda: got, "the first message after the offset", player)
    late = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    info = listener.collect("/info", String, late)
    listener.wait_until(lambda: info, "the latched message", player)
    assert player.wait() == 0, player.output
    assert info[0][1].data == "labels"
    assert numbers(got) == list(range(10, 20))


def test_restamped_headers_carry_the_time_of_sending_and_are_otherwise_unchanged(
    start_node, listener, headers_drive
):
    got = listener.collect("/headers", Header, EVERYTHING)
    before = listener.node.get_clock().now().nanoseconds
    player = start_node(
        PLAYER, drive=headers_drive, rate=10.0, restamp="now", wait_for_subscribers="[/headers]"
    )
    assert player.wait() == 0, player.output
    after = listener.node.get_clock().now().nanoseconds
    stamps = [message.stamp.sec * 10**9 + message.stamp.nanosec for _, message in got]
    assert numbers(got) == list(range(20))
    assert before < stamps[0]
    assert stamps == sorted(stamps)
    assert stamps[-1] < after


def test_messages_of_ros_1_arrive_as_those_of_ros_2(start_node, listener, tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    path = tmp_path / "drive.bag"
    with Rosbag1Writer(path) as writer:
        connection = writer.add_connection("/headers", "std_msgs/msg/Header", typestore=store)
        for number in range(3):
            stamp = store.types["builtin_interfaces/msg/Time"](sec=number, nanosec=7)
            header = store.types["std_msgs/msg/Header"](
                seq=9, stamp=stamp, frame_id=f"frame {number}"
            )
            raw = store.serialize_ros1(header, "std_msgs/msg/Header")
            writer.write(connection, START_NS + number, raw)
    got = listener.collect("/headers", Header, EVERYTHING, raw=True)
    player = start_node(PLAYER, drive=path, wait_for_subscribers="[/headers]")
    assert player.wait() == 0, player.output
    headers = [deserialize_message(raw, Header) for _, raw in got]
    assert [(each.stamp.sec, each.stamp.nanosec, each.frame_id) for each in headers] == [
        (number, 7, f"frame {number}") for number in range(3)
    ]


def test_a_damaged_drive_is_played_as_far_as_it_can_be_read(start_node, listener, headers_drive):
    (file,) = headers_drive.glob("*.db3")
    content = bytearray(file.read_bytes())
    content[content.rindex(b"frame 7") - 4] = 255  # its length
    file.write_bytes(content)
    got = listener.collect("/headers", Header, EVERYTHING)
    player = start_node(PLAYER, drive=headers_drive, rate=9.0, wait_for_subscribers="[/headers]")
    assert player.wait() == 0, player.output
    assert numbers(got) == [number for number in range(20) if number != 7]
    assert "not readable: /headers: 1 messages are damaged and were left out" in player.output


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"drive": "/no/such/drive.mcap"}, "/no/such/drive.mcap does not exist"),
        ({"drive": SAMPLE, "topics": "[/lidar]"}, "no topic /lidar; the drive has: /camera/front"),
        ({"drive": SAMPLE, "start_offset_s": 60.0}, "the drive ends before 60.0 s"),
        ({"drive": SAMPLE, "rate": 0.0}, "parameter rate: give a number with a point"),
    ],
)
def test_what_cannot_be_played_ends_with_code_2_and_one_line(start_node, parameters, words):
    player = start_node(PLAYER, **parameters)
    assert player.wait() == 2
    (line,) = player.output.splitlines()
    assert line.startswith("bag_player: error: ")
    assert words in line


def test_a_type_is_played_only_where_it_is_installed_with_the_recorded_fields():
    header = {"stamp": "builtin_interfaces/Time", "frame_id": "string"}
    demand_layout({"std_msgs/msg/Header": header})
    with pytest.raises(InterfaceError, match="the fields uint32 seq; the installed version has b"):
        demand_layout({"std_msgs/msg/Header": {"seq": "uint32"}})
    with pytest.raises(InterfaceError, match="no_msgs/msg/None is not installed"):
        demand_layout({"no_msgs/msg/None": {}})


@pytest.mark.parametrize(
    "name", ["antigravity/msg/Header", "os/msg/Path", "std_msgs/msg/header", "../msg/A", "x"]
)
def test_a_name_from_a_file_imports_nothing_but_messages(name):
    import sys

    with pytest.raises(InterfaceError):
        message_class(name)
    assert "antigravity" not in sys.modules
