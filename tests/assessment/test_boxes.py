"""Boxes of another country: cut out as the vehicle does, each with its class and burst."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from qpde_perception.assessment.boxes import read_boxes
from qpde_perception.bags import BagError
from qpde_perception.frames import InputSpec, resize

DATA = Path(__file__).parents[2].parent / "shared" / "data"
BURSTS = DATA / "road_drive" / "roadsign_drive.zip"


@pytest.fixture(scope="module")
def archive(data):
    return data / "road_drive" / "roadsign_drive.zip"


def test_boxes_have_their_classes_and_the_first_bursts_of_each_sign_ship(archive, spec):
    boxes = read_boxes(archive, spec)
    assert boxes.classes.tolist() == [1] * 12 + [-1] * 4
    assert boxes.shipped.tolist() == [True] * 8 + [False] * 4 + [True] * 4
    assert boxes.known.sum() == 12


def test_a_box_is_cut_out_with_its_margin_in_the_order_of_the_network(archive):
    spec = InputSpec(height=16, width=16, region_margin=0.25)
    with zipfile.ZipFile(archive) as opened:
        encoded = np.frombuffer(opened.read("frame_00.jpg"), np.uint8)
    frame = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    expected = resize(frame[4:40, 14:50], spec)[..., ::-1]
    assert np.array_equal(read_boxes(archive, spec).pixels[0], expected)


def test_an_archive_without_unknown_signs_is_refused(archive, spec, tmp_path):
    path = tmp_path / "known.zip"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b",-1,", b",2,"))
    with pytest.raises(BagError, match="signs that the model knows, and of others"):
        read_boxes(path, spec)


@pytest.mark.skipif(not BURSTS.exists(), reason="the bursts are not in ../shared/data")
def test_the_published_boxes_and_those_of_the_sample_drive():
    boxes = read_boxes(BURSTS, InputSpec(height=48, width=48, region_margin=0.16))
    assert (len(boxes.pixels), int(boxes.known.sum())) == (730, 400)
    # The README of the sample drive counts 201 boxes, 84 of them unknown.
    assert (int(boxes.shipped.sum()), int((boxes.shipped & ~boxes.known).sum())) == (201, 84)
