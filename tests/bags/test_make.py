"""Drives made from pictures; the sample is one of them."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from qpde_perception.bags import BagError, camera_frame, labels_of, make_drive, open_drive
from qpde_perception.bags.make import CLIP_GAP_NS, START_NS
from qpde_perception.bags.messages import stamp_of
from qpde_perception.bags.sources import choose_bursts
from qpde_perception.frames import decode

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
BURSTS = DATA / "road_drive" / "roadsign_drive.zip"
SIGNS = DATA / "gtsrb" / "gtsrb.zip"
CLIP = DATA / "road_drive" / "highway_1280x720_25fps.mp4"
SAMPLE = ROOT / "samples" / "traffic_signs.mcap"
JPEG = "/camera/front/image/compressed"
RAW = "/camera/front/image"
TRUTH = "/camera/front/ground_truth"
REGIONS = "/camera/front/regions"


def needs(path: Path):
    return pytest.mark.skipif(not path.exists(), reason=f"{path.name} is not in ../shared/data")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(2)
    for name in ("b.jpg", "a.png", "c.bmp"):
        pixels = random.integers(0, 256, (20, 30, 3), np.uint8)
        assert cv2.imwrite(str(folder / name), pixels)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_folder_becomes_a_drive_in_the_order_of_names(images, tmp_path):
    seen = []
    made = make_drive(
        images, tmp_path / "d.mcap", rate_hz=4, progress=lambda *counts: seen.append(counts)
    )
    assert (made.frames, made.clips, made.boxes_per_class) == (3, 1, {})
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with open_drive(made.path) as drive:
        assert [each.name for each in drive.topics] == [JPEG]
        messages = list(drive.messages([JPEG]))
    stamps = [stamp_of(each.message) for each in messages]
    assert stamps == [START_NS + number * 250_000_000 for number in range(3)]
    assert [each.log_time_ns for each in messages] == stamps
    assert bytes(messages[1].message.data) == (images / "b.jpg").read_bytes()
    assert {decode(camera_frame(each)).pixels.shape for each in messages} == {(20, 30, 3)}


def test_raw_drive_carries_the_pixels(images, tmp_path):
    made = make_drive(images, tmp_path / "d.mcap", encoding="raw")
    with open_drive(made.path) as drive:
        frames = [camera_frame(each) for each in drive.messages([RAW])]
    assert [frame.encoding for frame in frames] == ["bgr8"] * 3
    assert np.array_equal(decode(frames[0]).pixels, cv2.imread(str(images / "a.png")))
    assert np.array_equal(decode(frames[2]).pixels, cv2.imread(str(images / "c.bmp")))


def test_file_that_is_there_is_kept_unless_told(images, tmp_path):
    out = tmp_path / "d.mcap"
    out.write_text("precious")
    with pytest.raises(BagError, match=r"d\.mcap exists; .* --overwrite"):
        make_drive(images, out)
    assert out.read_text() == "precious"
    make_drive(images, out, overwrite=True)
    with open_drive(out) as drive:
        assert drive.topics[0].count == 3


def test_what_is_no_source_is_refused(images, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "d.mcap"
    with pytest.raises(BagError, match="holds no images"):
        make_drive(empty, out)
    with pytest.raises(BagError, match="does not exist"):
        make_drive(tmp_path / "nowhere", out)
    with pytest.raises(BagError, match="neither a video"):
        make_drive(images / "notes.txt", out)
    with pytest.raises(BagError, match="has no parts"):
        make_drive(images, out, parts=["1"])
    with pytest.raises(BagError, match="0 Hz"):
        make_drive(images, out, rate_hz=0)
    assert not out.exists()
    with pytest.raises(BagError, match=r"d\.mcap is a recorded drive already"):
        make_drive(make_drive(images, tmp_path / "d.mcap").path, tmp_path / "e.mcap")
    out.unlink()
    (images / "d.jpg").write_bytes(b"")
    with pytest.raises(BagError, match=r"d\.jpg is not an image"):
        make_drive(images, out)


def test_the_source_is_never_written_over(images, tmp_path):
    source = tmp_path / "film.mp4"
    source.write_text("precious")
    with pytest.raises(BagError, match="is the source as well"):
        make_drive(source, source, overwrite=True)
    assert source.read_text() == "precious"


@needs(CLIP)
def test_video_becomes_a_drive(tmp_path):
    made = make_drive(CLIP, tmp_path / "d.mcap", rate_hz=25)
    assert made.frames == 38
    with open_drive(made.path) as drive:
        assert drive.end_ns - drive.start_ns == 37 * 40_000_000
        first = next(drive.messages([JPEG]))
    assert decode(camera_frame(first)).pixels.shape == (720, 1280, 3)


@needs(SIGNS)
def test_sign_tracks_become_clips_with_their_class(tmp_path):
    made = make_drive(SIGNS, tmp_path / "d.mcap", parts=["00014_00003", "00001_00000"])
    assert (made.frames, made.clips, made.boxes_per_class) == (60, 2, {1: 30, 14: 30})
    with open_drive(made.path) as drive:
        truth = [labels_of(each) for each in drive.messages([TRUTH])]
        frames = [decode(camera_frame(each)) for each in drive.messages([JPEG])]
    assert [labels.class_indices for _, labels in truth] == [(1,)] * 30 + [(14,)] * 30
    assert truth[30][0] - truth[29][0] == CLIP_GAP_NS
    for (_, labels), frame in zip(truth, frames, strict=True):
        assert labels.regions.boxes.tolist() == [[0, 0, frame.width, frame.height]]


@needs(SIGNS)
def test_part_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(BagError, match="has no 99999_00000"):
        make_drive(SIGNS, tmp_path / "d.mcap", parts=["99999_00000"])


@needs(BURSTS)
def test_sample_is_made_again_byte_for_byte(tmp_path):
    parts = choose_bursts(BURSTS, 2)
    made = make_drive(BURSTS, tmp_path / "traffic_signs.mcap", parts=parts)
    assert made.path.read_bytes() == SAMPLE.read_bytes()
    text = (ROOT / "samples" / "README.md").read_text()
    assert f"bursts {', '.join(parts[:-1])} and {parts[-1]}." in text
    assert f"{made.frames} frames in {made.clips} clips" in text
    known = [str(count) for name, count in made.boxes_per_class.items() if name >= 0]
    assert f"| boxes | {' | '.join(known)} | {made.boxes_per_class[-1]} |" in text


def test_sample_is_small_whole_and_the_one_that_its_checksum_names():
    data = SAMPLE.read_bytes()
    assert len(data) < 6_000_000
    expected, name = (SAMPLE.parent / "traffic_signs.mcap.sha256").read_text().split()
    assert name == SAMPLE.name
    assert hashlib.sha256(data).hexdigest() == expected


def test_sample_has_every_class_and_regions_that_hide_it():
    with open_drive(SAMPLE) as drive:
        counts = {each.name: each.count for each in drive.topics}
        assert counts == {JPEG: 137, REGIONS: 137, TRUTH: 137}
        regions = [labels_of(each) for each in drive.messages([REGIONS])]
        truth = [labels_of(each) for each in drive.messages([TRUTH])]
        frames = [camera_frame(each) for each in drive.messages([JPEG])]
        assert drive.losses == ()
    seen = {name for _, labels in truth for name in labels.class_indices}
    assert seen == {1, 2, 3, 4, 5, 7, 8, 14, -1}
    for (stamp, found), (true_stamp, labels), frame in zip(regions, truth, frames, strict=True):
        assert stamp == true_stamp == frame.stamp_ns
        assert found.class_indices == (-1,) * len(found.regions)
        assert found.regions.ids == labels.regions.ids
        assert len(set(found.regions.ids)) == len(found.regions.ids)
        assert np.array_equal(found.regions.boxes, labels.regions.boxes)
        boxes, picture = found.regions.boxes, decode(frame)
        assert np.all(boxes >= 0)
        assert np.all(boxes[:, 2] <= picture.width)
        assert np.all(boxes[:, 3] <= picture.height)
    gaps = {b[0] - a[0] for a, b in pairwise(truth)}
    assert gaps == {100_000_000, CLIP_GAP_NS}
