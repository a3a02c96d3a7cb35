"""Tiny sign data and tiny bursts: five classes, each a bright square at a place of its own."""

from __future__ import annotations

import zipfile

import cv2
import numpy as np
import pytest

from qpde_perception.frames import InputSpec

CLASSES, TRACKS, FRAMES, TEST_IMAGES = 5, 3, 4, 20


def picture(class_index, rng, size=24):
    """A picture of a class, the same layout at every size."""
    image = rng.integers(60, 110, (size, size, 3), np.uint8)
    row, column = divmod(class_index, 3)
    third = size // 3
    image[third * row : third * (row + 1), third * column : third * (column + 1)] = 240
    return image


def _jpeg(image):
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def _write_signs(folder, rng):
    folder.mkdir()
    rows = ["filename,split,class_id,track_id,frame"]
    with zipfile.ZipFile(folder / "gtsrb.zip", "w") as archive:
        for class_index in range(CLASSES):
            for track in range(TRACKS):
                for frame in range(FRAMES):
                    name = f"train/{class_index:05d}/{track:05d}_{frame:05d}.jpg"
                    archive.writestr(name, _jpeg(picture(class_index, rng, 20 + frame)))
                    rows.append(f"{name},train,{class_index},{class_index:05d}_{track:05d},{frame}")
        for number in range(TEST_IMAGES):
            name = f"test/{number:05d}.jpg"
            archive.writestr(name, _jpeg(picture(number % CLASSES, rng)))
            rows.append(f"{name},test-a,{number % CLASSES},,0")
        archive.writestr("labels.csv", "\n".join(rows))
    names = "\n".join(f"{index},sign {index}" for index in range(CLASSES))
    (folder / "classes.csv").write_text(f"class_id,name\n{names}\n")


def _write_bursts(path, rng):
    """Three bursts of `go` (class 1, the first two ship) and one of what no class stands for."""
    path.parent.mkdir()
    rows = ["frame,burst,index_in_burst,source_class,sign,gtsrb_class_id,xmin,ymin,xmax,ymax"]
    with zipfile.ZipFile(path, "w") as archive:
        for burst, (sign, class_index) in enumerate([("go", 1)] * 3 + [("cow", -1)]):
            for index in range(4):
                image = rng.integers(0, 60, (60, 80, 3), np.uint8)
                image[10:34, 20:44] = picture(max(class_index, 0), rng)
                name = f"frame_{burst}{index}.jpg"
                archive.writestr(name, _jpeg(image))
                rows.append(f"{name},{burst},{index},x,{sign},{class_index},20,10,44,34")
        archive.writestr("boxes.csv", "\n".join(rows))


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder of data sets in the published layout."""
    folder = tmp_path_factory.mktemp("assessed")
    rng = np.random.default_rng(5)
    _write_signs(folder / "gtsrb", rng)
    _write_bursts(folder / "road_drive" / "roadsign_drive.zip", rng)
    return folder


@pytest.fixture(scope="session")
def spec():
    return InputSpec(height=16, width=16)
