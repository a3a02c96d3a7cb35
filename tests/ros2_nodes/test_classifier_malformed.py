"""The classifier under images and boxes that cannot be, sent by real publishers."""

import array

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")
pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed (the extra `ros`)")

from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from qpde_perception.bags.messages import frame_in
from qpde_perception.frames import FrameError, decode

STAMP_NS = 1_600_000_000_000_000_000
CORE = {"engine": "onnxruntime", "threads": 1}
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
WARN = 1
UINT32 = st.integers(0, 2**32 - 1)
ENCODINGS = st.sampled_from(
    [
        "bgr8",
        "rgb8",
        "mono8",
        "mono16",
        "nv12",
        "yuv422",
        "bayer_rggb8",
        "bgra8",
        "32FC1",
        "",
        "x\n",
    ]
)


def stamped(message, seconds=0, nanoseconds=0):
    message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
    return message


SMALL_OR_ANY = st.one_of(st.integers(0, 70), UINT32)
IMAGES = st.builds(
    lambda seconds, nanoseconds, height, width, encoding, big, step, data: stamped(
        Image(
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=big,
            step=step,
            data=array.array("B", data),
        ),
        seconds,
        nanoseconds,
    ),
    st.integers(-(2**31), 2**31 - 1),
    UINT32,
    SMALL_OR_ANY,
    SMALL_OR_ANY,
    st.one_of(
        ENCODINGS, st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
    ),
    st.integers(0, 255),
    SMALL_OR_ANY,
    st.binary(max_size=300),
)
"""Images whose data are less than any size of theirs needs, but for the smallest."""


@st.composite
def compressed_images(draw, files):
    """Files with bytes cut off, put in or changed, under any name of a format."""
    data = bytearray(draw(st.sampled_from(files)))
    for position in draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=8)):
        data[position] = draw(st.integers(0, 255))
    data = data[: draw(st.integers(0, len(data) - 1))]
    kind = draw(st.sampled_from(["jpeg", "png", "bgr8; jpeg compressed bgr8", "", "h264", ";"]))
    message = CompressedImage(format=kind, data=array.array("B", data))
    return stamped(message, draw(st.integers(-(2**31), 2**31 - 1)), draw(UINT32))


def malformed(image):
    """Whether the frame of a message must be refused, said by the decoder itself."""
    try:
        decode(frame_in(image, compressed=isinstance(image, CompressedImage)))
    except FrameError:
        return True
    return False


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_malformed_images_are_counted_and_the_other_camera_is_served(
    classifier, messages, transport
):
    compressed = transport == "compressed"
    make = messages.jpeg if compressed else messages.raw
    good = make(PIXELS, STAMP_NS)
    rig = classifier(cameras="[good, bad]", image_transport=transport, **CORE)
    healthy = rig.camera("good", compressed=compressed)
    broken = rig.camera("bad", compressed=compressed)
    healthy.meet(good)
    met = broken.meet(good)
    sent = {True: 0, False: 0}
    images = compressed_images([bytes(good.data)]) if compressed else IMAGES

    @settings(
        max_examples=60,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(image=images)
    def send(image):
        bad = malformed(image)
        broken.send(image)
        sent[bad] += 1
        # The mailbox keeps one frame of a camera: the answer says that this one was read.
        healthy.answer(good)

    send()
    accounts = rig.wait_accounts(dropped_malformed=sent[True])
    assert sent[True] >= 20
    assert accounts["received"] - met["received"] == 60 + 60
    assert accounts["published"] - met["published"] == 60 + sent[False]
    assert any(
        "frames dropped: malformed." in status.message and ord(status.level) == WARN
        for status in rig.statuses("frame_accounting")
    )
    # What is no message at all never becomes a frame.
    for raw in (b"", b"\0\1\0\0", serialize_message(good)[:40], b"\xff" * 100):
        broken.images.publish(raw)
        healthy.answer(good)
    # A reliable reader waits for what it cannot read, until the publisher's queue has forgotten it.
    broken.meet(good)
    rig.finish()


def test_boxes_that_cannot_be_are_left_out_and_the_others_are_classified(classifier, messages):
    rig = classifier(regions="topic", **CORE)
    camera = rig.camera()
    good = (8.0, 8.0, 40.0, 40.0)
    met = camera.meet(messages.raw(PIXELS, STAMP_NS), messages.boxes([good], STAMP_NS))
    stamps = iter(range(STAMP_NS, STAMP_NS + 10**9, 10**6))
    number = st.floats(allow_nan=True, allow_infinity=True)

    @settings(
        max_examples=40,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.tuples(number, number, number, number), max_size=5))
    def send(boxes):
        stamp_ns = next(stamps)
        image = messages.raw(PIXELS, stamp_ns)
        result = camera.answer(image, messages.boxes([*boxes, good], stamp_ns))
        assert result.detections[-1].id == str(len(boxes))
        assert all(each.results for each in result.detections)

    send()
    accounts = rig.finish()
    for name in ("received", "published"):
        assert accounts[name] - met[name] == 40
