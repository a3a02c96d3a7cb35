"""Cameras that are not there, and what goes wrong with them."""

from __future__ import annotations

from itertools import islice

import cv2
import numpy as np
import pytest

from qpde_perception.bags import (
    ENCODINGS,
    BagError,
    Faults,
    make_drive,
    simulated_camera,
    with_faults,
)
from qpde_perception.bags.simulated import encoded
from qpde_perception.frames import decode


def shades(count):
    """Small frames that can be told apart by their first byte."""
    return [encoded(np.full((4, 4, 3), number, np.uint8), "bgr8") for number in range(count)]


def first_bytes(frames):
    return [None if frame is None else frame.data[0] for frame in frames]


def bgr(frame):
    picture = decode(frame)
    turned = {"rgb": cv2.COLOR_RGB2BGR, "bgra": cv2.COLOR_BGRA2BGR, "rgba": cv2.COLOR_RGBA2BGR}
    if picture.order == "mono":
        return cv2.cvtColor(np.ascontiguousarray(picture.pixels), cv2.COLOR_GRAY2BGR)
    if picture.order in turned:
        return cv2.cvtColor(np.ascontiguousarray(picture.pixels), turned[picture.order])
    return picture.pixels


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_decodes_to_the_picture_it_was_made_from(encoding):
    row = np.linspace(20, 220, 31).astype(np.uint8)
    pixels = np.stack([row, row[::-1], np.full_like(row, 90)], axis=1)
    pixels = np.repeat(pixels[None], 16, axis=0)
    shown = bgr(encoded(pixels, encoding)).astype(int)
    expected = pixels[:, : shown.shape[1]].astype(int)
    assert expected.shape[1] >= 30
    if encoding == "mono8":
        expected = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    lossy = {"jpeg": 12, "uyvy": 12, "yuyv": 12}
    assert np.abs(shown - expected).max() <= lossy.get(encoding, 0)


def test_the_pattern_moves_has_the_size_asked_for_and_tells_cameras_apart():
    cameras = [
        [
            bgr(frame)
            for frame in islice(simulated_camera(None, "bgr8", camera=camera, size=(48, 64)), 3)
        ]
        for camera in range(2)
    ]
    assert all(frame.shape == (48, 64, 3) for frames in cameras for frame in frames)
    for row in (0, 24):  # of the gradient and of the square
        assert not np.array_equal(cameras[0][0][row], cameras[0][1][row])
        assert not np.array_equal(cameras[0][0][row], cameras[1][0][row])


def test_a_folder_is_shown_in_order_again_and_again_at_the_size_asked_for(tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 6, 3), 50 * number, np.uint8))
    frames = islice(simulated_camera(tmp_path, "bgr8", size=(4, 10)), 7)
    shown = [(frame.height, frame.width, frame.data[0]) for frame in frames]
    assert shown == [(4, 10, 50 * (number % 3)) for number in range(7)]


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_a_drive_shows_the_pictures_of_its_camera_again_and_again(tmp_path, encoding):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 6, 3), 50 * number, np.uint8))
    drive = make_drive(tmp_path, tmp_path / "drive.mcap", encoding=encoding).path
    shown = [bgr(frame) for frame in islice(simulated_camera(drive, "png"), 4)]
    assert [frame.shape for frame in shown] == [(8, 6, 3)] * 4
    assert [int(frame.mean().round()) for frame in shown] == [0, 50, 100, 0]


def test_a_source_without_pictures_is_refused_by_name(tmp_path):
    with pytest.raises(BagError, match="holds no images"):
        next(simulated_camera(tmp_path, "bgr8"))
    with pytest.raises(BagError, match="does not exist"):
        next(simulated_camera(tmp_path / "none", "bgr8"))


def test_without_faults_every_frame_passes_unchanged():
    frames = shades(20)
    assert list(with_faults(frames, Faults())) == frames


def test_a_frozen_camera_repeats_the_last_picture_before_it_froze():
    frozen = with_faults(shades(6), Faults(freeze_after=3))
    assert first_bytes(frozen) == [0, 1, 2, 2, 2, 2]


def test_shares_are_kept_and_equal_seeds_give_equal_faults():
    frames = shades(250) * 4
    faults = Faults(drop_share=0.2, corrupt_share=0.4, seed=5)
    once, again = (list(with_faults(frames, faults)) for _ in range(2))
    assert once == again
    assert once != list(with_faults(frames, Faults(drop_share=0.2, corrupt_share=0.4, seed=6)))
    came = [frame for frame in once if frame is not None]
    cut = [frame for frame in came if len(frame.data) < 48]
    assert 1 - len(came) / 1000 == pytest.approx(0.2, abs=0.04)
    assert len(cut) / len(came) == pytest.approx(0.4, abs=0.05)


def test_one_fault_does_not_move_another():
    frames = shades(200)
    dropped = first_bytes(with_faults(frames, Faults(drop_share=0.3, seed=1)))
    both = first_bytes(
        frame if frame is None or len(frame.data) else frames[0]
        for frame in with_faults(frames, Faults(drop_share=0.3, corrupt_share=0.5, seed=1))
    )
    assert [each is None for each in dropped] == [each is None for each in both]


def test_shares_of_one_drop_or_cut_every_frame():
    assert set(with_faults(shades(20), Faults(drop_share=1.0))) == {None}
    cut = list(with_faults(shades(20), Faults(corrupt_share=1.0)))
    assert all(len(frame.data) < 48 for frame in cut)
