"""The traffic-sign data, on a small archive of the published layout and on the real one."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from itertools import pairwise

import cv2
import numpy as np
import pytest

from qpde_perception.frames import InputSpec, resize
from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.signs import load_signs, prepared_pixels, save_signs

COLUMNS = (
    "filename split class_id track_id frame width height roi_x1 roi_y1 roi_x2 roi_y2 jpeg_quality"
)
TRACKS = {0: 2, 1: 12, 2: 31}
FRAMES = 3
TEST_IMAGES = 5
TRAIN_PER_CLASS = (
    "210 2220 2250 1410 1980 1860 420 1440 1410 1470 2010 1320 2100 2160 780 630 420 1110 1200 210 "
    "360 330 390 510 270 1500 600 240 540 270 450 780 240 689 420 1200 390 210 2070 300 360 240 240"
)


def jpeg(seed):
    rng = np.random.default_rng(seed)
    shape = (*rng.integers(8, 20, 2), 3)
    return cv2.imencode(".jpg", rng.integers(0, 256, shape, np.uint8))[1].tobytes()


def write_pack(folder, damage=None):
    """Write an archive of the published layout; `damage` changes its files before that."""
    files = {}
    rows = []
    for class_id, tracks in TRACKS.items():
        for track in range(tracks):
            for frame in range(FRAMES):
                name = f"train/{class_id:05d}/{track:05d}_{frame:05d}.jpg"
                files[name] = jpeg(len(files))
                identifier = f"{class_id:05d}_{track:05d}"
                rows.append([name, "train", class_id, identifier, frame, *[0] * 7])
    for number in range(TEST_IMAGES):
        name = f"test/{number:05d}.jpg"
        files[name] = jpeg(len(files))
        rows.append([name, "test-a", number % 3, "", "", *[0] * 7])
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS.split())
    table.writerows(rows)
    files["labels.csv"] = text.getvalue().encode()
    if damage:
        damage(files)
    with zipfile.ZipFile(folder / "gtsrb.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    (folder / "classes.csv").write_text('class_id,name\n0,stop\n1,"go, slowly"\n2,turn\n')
    return files


@pytest.fixture
def pack(tmp_path):
    write_pack(tmp_path)
    return tmp_path


def test_every_image_is_in_exactly_one_split(pack):
    signs = load_signs(pack)
    sizes = [len(signs.split(name)) for name in ("train", "val", "test-a")]
    assert sum(sizes) == len(signs) == sum(TRACKS.values()) * FRAMES + TEST_IMAGES
    assert sizes[2] == TEST_IMAGES
    assert signs.names == ("stop", "go, slowly", "turn")


def test_no_track_is_in_two_splits_and_none_is_torn(pack):
    signs = load_signs(pack)
    tracks = {
        name: Counter(r.track for r in signs.split(name).records) for name in ("train", "val")
    }
    assert not set(tracks["train"]) & set(tracks["val"])
    assert set((tracks["train"] + tracks["val"]).values()) == {FRAMES}


def test_a_tenth_of_the_tracks_of_every_class_is_held_out_and_at_least_one(pack):
    held_out = {(r.class_index, r.track) for r in load_signs(pack).split("val").records}
    assert Counter(class_index for class_index, _ in held_out) == {0: 1, 1: 1, 2: 3}


def test_the_split_is_the_same_every_time_and_whatever_the_order_of_the_list(pack, tmp_path):
    def shuffle(files):
        head, *rows = files["labels.csv"].decode().splitlines()
        files["labels.csv"] = "\n".join([head, *rows[::-1]]).encode()

    first = load_signs(pack)
    assert load_signs(pack).records == first.records
    write_pack(tmp_path, shuffle)
    assert load_signs(tmp_path).records == first.records


def test_images_are_those_of_the_archive(pack):
    files = write_pack(pack)
    signs = load_signs(pack)
    names = sorted(name for name in files if name.endswith(".jpg"))
    for index, name in enumerate(names):
        expected = cv2.imdecode(np.frombuffer(files[name], np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(signs.image(index), expected)


def test_frames_of_a_track_are_in_temporal_order(pack):
    records = load_signs(pack).split("train").records
    offsets = {}
    for record in records:
        offsets.setdefault(record.track, []).append(record.offset)
    assert all(a < b for track in offsets.values() for a, b in pairwise(track))


def test_prepared_form_gives_back_what_was_saved(pack, tmp_path):
    signs = load_signs(pack)
    save_signs(signs, tmp_path / "prepared")
    loaded = load_signs(tmp_path / "prepared")
    assert list(loaded.records) == list(signs.records)
    assert loaded.names == signs.names
    assert np.array_equal(loaded.pixels, signs.pixels)
    assert np.array_equal(loaded.labels, signs.labels)


def test_images_are_prepared_as_the_vehicle_prepares_them(pack):
    signs, spec = load_signs(pack).split("test-a"), InputSpec(height=6, width=5)
    pixels = prepared_pixels(signs, spec)
    assert pixels.shape == (TEST_IMAGES, 6, 5, 3)
    assert np.array_equal(pixels[2], resize(signs.image(2), spec)[..., ::-1])


def test_progress_ends_at_the_number_of_images(pack):
    heard = []
    signs = load_signs(pack, lambda done, total: heard.append((done, total)))
    assert heard[0] == (1, len(signs))
    assert heard[-1] == (len(signs), len(signs))


def test_unknown_split_error_names_the_known_ones(pack):
    with pytest.raises(LearningError, match=r"'test'.*train, val, test-a"):
        load_signs(pack).split("test")


def test_folder_without_data_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(LearningError, match="qpde data prepare"):
        load_signs(tmp_path)


def drop(name):
    return lambda files: files.pop(name)


def replace(name, content):
    return lambda files: files.update({name: content})


@pytest.mark.parametrize(
    "damage",
    [
        drop("labels.csv"),
        drop("train/00001/00003_00001.jpg"),
        replace("train/00001/00003_00001.jpg", b"no picture"),
        replace("train/00001/00003_00001.jpg", b""),
        replace("labels.csv", b""),
        replace("labels.csv", b"\xff\xfe\x00"),
        replace("labels.csv", f"{COLUMNS}\n".replace(" ", ",").encode()),
        replace("labels.csv", b"filename,split,class_id,track_id\ntest/00000.jpg,test-a,stop,\n"),
    ],
)
def test_damaged_archive_is_refused_by_name(tmp_path, damage):
    write_pack(tmp_path, damage)
    with pytest.raises(LearningError, match=r"gtsrb\.zip|00003_00001"):
        load_signs(tmp_path)


def test_cut_off_archive_is_refused_by_name(pack):
    content = (pack / "gtsrb.zip").read_bytes()
    (pack / "gtsrb.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(LearningError, match=r"gtsrb\.zip"):
        load_signs(pack)


def test_archive_with_a_changed_byte_is_refused(pack):
    content = bytearray((pack / "gtsrb.zip").read_bytes())
    content[len(content) // 2] ^= 1
    (pack / "gtsrb.zip").write_bytes(content)
    with pytest.raises(LearningError):
        load_signs(pack)


def test_missing_class_names_are_refused_by_name(pack):
    (pack / "classes.csv").unlink()
    with pytest.raises(LearningError, match=r"classes\.csv"):
        load_signs(pack)


@pytest.mark.parametrize("content", ["", "offset\n1\n", "a,b,c,d,e,f\n1,x,3,4,t,val\n"])
def test_damaged_prepared_index_is_refused_with_the_remedy(pack, tmp_path, content):
    folder = tmp_path / "prepared"
    save_signs(load_signs(pack), folder)
    (folder / "index.csv").write_text(content)
    with pytest.raises(LearningError, match="qpde data prepare"):
        load_signs(folder)


def test_cut_off_prepared_pixels_are_refused_with_the_remedy(pack, tmp_path):
    folder = tmp_path / "prepared"
    save_signs(load_signs(pack), folder)
    content = (folder / "pixels.npy").read_bytes()
    (folder / "pixels.npy").write_bytes(content[:-100])
    with pytest.raises(LearningError, match="qpde data prepare"):
        load_signs(folder)


def test_published_data_have_the_published_counts(published_signs):
    signs = published_signs
    learned = Counter(r.class_index for r in signs.records if r.split != "test-a")
    assert [learned[c] for c in range(43)] == [int(n) for n in TRAIN_PER_CLASS.split()]
    assert len(signs.split("test-a")) == 6236
    train, val = ({r.track for r in signs.split(name).records} for name in ("train", "val"))
    assert len(train | val) == 1307
    assert not train & val
    for name in ("train", "val", "test-a"):
        assert set(signs.split(name).labels.tolist()) == set(range(43))
    assert len(signs.names) == 43
