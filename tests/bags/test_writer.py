"""Whatever ends the writing, the file can be read, also by others."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from qpde_perception.bags import BagError, McapWriter, open_drive, typestore
from qpde_perception.bags.messages import detections, header_of
from qpde_perception.frames import Regions

ROOT = Path(__file__).parents[2]
NS = 10**18


def _annotations() -> object:
    types = typestore().types
    color = types["foxglove_msgs/msg/Color"](r=1.0, g=0.5, b=0.0, a=1.0)
    point = types["foxglove_msgs/msg/Point2"](x=3.0, y=4.0)
    stamp = header_of(NS, "").stamp
    return types["foxglove_msgs/msg/ImageAnnotations"](
        circles=[],
        points=[
            types["foxglove_msgs/msg/PointsAnnotation"](
                timestamp=stamp,
                type=2,
                points=[point, point],
                outline_color=color,
                outline_colors=[],
                fill_color=color,
                thickness=2.0,
            )
        ],
        texts=[
            types["foxglove_msgs/msg/TextAnnotation"](
                timestamp=stamp,
                position=point,
                text="stop 97 %",
                font_size=12.0,
                text_color=color,
                background_color=color,
            )
        ],
    )


def _all_kinds() -> dict[str, object]:
    types = typestore().types
    header = header_of(NS, "front")
    hypothesis = types["vision_msgs/msg/ObjectHypothesis"](class_id="14", score=0.97)
    label = types["vision_msgs/msg/VisionClass"](class_id=14, class_name="stop")
    value = types["diagnostic_msgs/msg/KeyValue"](key="p99_ms", value="4.2")
    status = types["diagnostic_msgs/msg/DiagnosticStatus"](
        level=0, name="perception", message="", hardware_id="", values=[value]
    )
    return {
        "/regions": detections(NS, "front", Regions(np.ones((1, 4), np.float32), ("1",)), [14]),
        "/classification": types["vision_msgs/msg/Classification"](
            header=header, results=[hypothesis]
        ),
        "/label_info": types["vision_msgs/msg/LabelInfo"](
            header=header, class_map=[label], threshold=0.5
        ),
        "/vision_info": types["vision_msgs/msg/VisionInfo"](
            header=header, method="m", database_location="d", database_version=1
        ),
        "/annotations": _annotations(),
        "/diagnostics": types["diagnostic_msgs/msg/DiagnosticArray"](
            header=header, status=[status]
        ),
    }


def _write(path: Path, *, compress: bool = True) -> None:
    with McapWriter(path, compress=compress) as writer:
        for number in range(3):
            for topic, message in _all_kinds().items():
                writer.write(topic, message, NS + number)


@pytest.mark.parametrize("compress", [True, False])
def test_file_is_of_profile_ros2_with_whole_schemas(compress, tmp_path):
    _write(tmp_path / "drive.mcap", compress=compress)
    with (tmp_path / "drive.mcap").open("rb") as stream:
        reader = make_reader(stream)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
    assert {each.encoding for each in summary.schemas.values()} == {"ros2msg"}
    assert {each.message_encoding for each in summary.channels.values()} == {"cdr"}
    assert summary.statistics.message_count == 18
    assert {each.compression for each in summary.chunk_indexes} == {"zstd" if compress else ""}
    texts = {each.name: each.data.decode() for each in summary.schemas.values()}
    assert "MSG: foxglove_msgs/Color" in texts["foxglove_msgs/msg/ImageAnnotations"]
    assert "MSG: geometry_msgs/Quaternion" in texts["vision_msgs/msg/Detection2DArray"]


def test_others_read_every_message_with_the_schemas_of_the_file_alone(tmp_path):
    _write(tmp_path / "drive.mcap")
    sent = _all_kinds()
    with AnyReader([tmp_path / "drive.mcap"]) as reader:
        count = 0
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            expected = typestore().serialize_cdr(sent[connection.topic], connection.msgtype)
            assert reader.typestore.serialize_cdr(message, connection.msgtype) == expected
            count += 1
    assert count == 18


@pytest.mark.parametrize("compress", [True, False])
def test_same_messages_give_the_same_bytes(compress, tmp_path):
    _write(tmp_path / "a.mcap", compress=compress)
    _write(tmp_path / "b.mcap", compress=compress)
    assert (tmp_path / "a.mcap").read_bytes() == (tmp_path / "b.mcap").read_bytes()


def test_message_of_ros1_is_written_with_the_fields_it_shares(tmp_path, record, some_messages):
    path = record(tmp_path / "drive", "rosbag1-none", some_messages)
    with open_drive(path) as drive, McapWriter(tmp_path / "copy.mcap") as writer:
        for each in drive.messages(["/a/image"]):
            assert hasattr(each.message.header, "seq")
            writer.write(each.topic, each.message, each.log_time_ns)
    with open_drive(tmp_path / "copy.mcap") as copy:
        data = [bytes(each.message.data) for each in copy.messages(["/a/image"])]
    assert data == [each.data for each in some_messages if each.topic == "/a/image"]


def test_error_within_the_block_leaves_a_file_that_can_be_read(tmp_path):
    path = tmp_path / "drive.mcap"
    with suppress(ZeroDivisionError), McapWriter(path) as writer:
        writer.write("/header", header_of(NS, "front"), NS)
        1 / 0  # noqa: B018
    with open_drive(path) as drive:
        assert len(list(drive.messages(["/header"]))) == 1
        assert drive.losses == ()


def test_message_that_does_not_fit_is_refused_and_the_file_goes_on(tmp_path):
    path = tmp_path / "drive.mcap"
    with McapWriter(path) as writer:
        writer.write("/header", header_of(NS, "front"), NS)
        bad = header_of(NS, "front")
        bad.stamp.sec = 2**40
        with pytest.raises(BagError, match="/header: a message does not fit std_msgs/msg/Header"):
            writer.write("/header", bad, NS)
        odd = type("Odd", (), {"__msgtype__": "acme_msgs/msg/Odd"})()
        with pytest.raises(BagError, match="/odd: acme_msgs/msg/Odd has no definition"):
            writer.write("/odd", odd, NS)
        writer.write("/header", header_of(NS, "front"), NS + 1)
    with open_drive(path) as drive:
        assert [each.name for each in drive.topics] == ["/header"]
        assert len(list(drive.messages(["/header"]))) == 2


def test_file_that_cannot_be_made_is_named(tmp_path):
    with pytest.raises(BagError, match=r"nowhere/drive\.mcap cannot be written: No such file"):
        McapWriter(tmp_path / "nowhere" / "drive.mcap")


def test_full_disk_is_named_and_what_was_written_can_be_read(tmp_path):
    path = tmp_path / "drive.mcap"
    noise = np.random.default_rng(0)
    kind = "sensor_msgs/msg/CompressedImage"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_500_000, before[1]))

    def write() -> None:
        with McapWriter(path) as writer:
            for number in range(100):
                data = noise.integers(0, 256, 100_000, np.uint8)
                header = header_of(NS + number, "front")
                message = typestore().types[kind](header=header, format="jpeg", data=data)
                writer.write("/image", message, NS + number)

    try:
        with pytest.raises(BagError, match=r"drive\.mcap cannot be written: File too large"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    with open_drive(path) as drive:
        assert len(list(drive.messages(["/image"]))) > 20
        assert drive.losses


def test_interrupt_leaves_a_file_that_can_be_read(tmp_path):
    program = """
        import itertools, signal, sys
        from pathlib import Path
        from qpde_perception.bags import McapWriter
        from qpde_perception.bags.messages import header_of
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
        with McapWriter(Path(sys.argv[1])) as writer:
            for number in itertools.count():
                writer.write("/header", header_of(number, "front" * 500), number)
                if number == 100:
                    print("begun", flush=True)
        """
    path = tmp_path / "drive.mcap"
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
        assert "KeyboardInterrupt" in errors
        with open_drive(path) as drive:
            stamps = [each.log_time_ns for each in drive.messages(["/header"])]
            assert len(stamps) > 100
            assert stamps == list(range(len(stamps)))
            assert drive.losses == ()
