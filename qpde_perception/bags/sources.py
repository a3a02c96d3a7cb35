"""Where the frames of a made drive come from: images, a video, sign tracks, bursts with boxes."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from qpde_perception.bags.errors import BagError
from qpde_perception.bags.messages import UNKNOWN_CLASS
from qpde_perception.bags.opening import is_recording
from qpde_perception.bags.tracking import Tracker

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"})


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A sign on a shot: x_min, y_min, x_max, y_max in pixels, track identifier, class index."""

    box: tuple[float, float, float, float]
    track_id: str
    class_index: int


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture on its way into a drive.

    Attributes:
        clip: Which uninterrupted sequence it belongs to.
        name: What errors call it.
        image: The bytes of an image file, or pixels (height, width, 3) uint8 BGR.
        boxes: Its labelled boxes; None where the source has no labels.
    """

    clip: str
    name: str
    image: bytes | NDArray[np.uint8]
    boxes: tuple[LabelledBox, ...] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Shots in order, and how many there are (0: not known before the end)."""

    count: int
    shots: Iterator[Shot]


@dataclass(slots=True)
class _Burst:
    frames: dict[str, list[dict[str, str]]] = field(default_factory=lambda: defaultdict(list))
    signs: set[str] = field(default_factory=set)


def open_source(path: Path, parts: Collection[str] | None = None) -> Source:
    """Recognise what a drive is to be made from.

    Args:
        path: A folder of images, a zip of bursts with `boxes.csv`, a zip of sign tracks with
            `labels.csv`, or a video.
        parts: The bursts or tracks to take, in the order of the archive; None takes all.

    Raises:
        BagError: If it is none of these, or a part is not in it.
    """
    if not path.exists():
        msg = f"{path} does not exist; name a folder of images, a video or a zip of signs"
        raise BagError(msg)
    if zipfile.is_zipfile(path):
        return _open_archive(path, parts)
    if parts is not None:
        msg = f"{path} has no parts to choose from; only a zip of bursts or tracks has"
        raise BagError(msg)
    if path.is_dir():
        return _folder(path)
    # A video library finds JPEGs in recordings too, and takes them for a film without stamps.
    if is_recording(path):
        msg = f"{path} is a recorded drive already; see it with `qpde bag info`"
        raise BagError(msg)
    return _video(path)


def shot_pixels(shot: Shot) -> NDArray[np.uint8]:
    """Return the pixels of a shot, uint8 (height, width, 3) BGR.

    Raises:
        BagError: If its file is no image that can be read.
    """
    if not isinstance(shot.image, bytes):
        return shot.image
    pixels = None
    if shot.image:
        pixels = cv2.imdecode(np.frombuffer(shot.image, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        msg = f"{shot.name} is not an image that can be read; take it out of the source"
        raise BagError(msg)
    return np.asarray(pixels, np.uint8)


def choose_bursts(path: Path, each: int, *, shortest: int = 4) -> tuple[str, ...]:
    """Choose bursts of a zip so that every kind of sign is seen, by a rule and not by a result.

    Every kind of sign gets the first `each` bursts that show it and have at least `shortest`
    frames. Boxes that nobody could read are no kind of sign.

    Args:
        path: A zip of bursts with `boxes.csv`.
        each: Bursts for each kind of sign.
        shortest: Frames that a burst must have.

    Raises:
        BagError: If it is no such zip.
    """
    if not path.exists():
        msg = f"{path} does not exist; name a zip of bursts with boxes.csv"
        raise BagError(msg)
    with _archive(path) as archive:
        bursts = _bursts(archive, path)
    chosen: set[str] = set()
    for sign in {sign for burst in bursts.values() for sign in burst.signs}:
        if sign.endswith("unread"):
            continue
        fit = [
            name
            for name, burst in bursts.items()
            if sign in burst.signs and len(burst.frames) >= shortest
        ]
        chosen.update(fit[:each])
    return tuple(name for name in bursts if name in chosen)


def _folder(path: Path) -> Source:
    names = sorted(each for each in path.iterdir() if each.suffix.lower() in _IMAGE_SUFFIXES)
    if not names:
        msg = f"{path} holds no images ({', '.join(sorted(_IMAGE_SUFFIXES))})"
        raise BagError(msg)
    return Source(len(names), (Shot("", each.name, each.read_bytes()) for each in names))


def _video(path: Path) -> Source:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        msg = f"{path} is neither a video that can be read, nor a folder of images, nor a zip"
        raise BagError(msg)

    def shots() -> Iterator[Shot]:
        index = 0
        try:
            while True:
                good, pixels = capture.read()
                if not good:
                    return
                yield Shot("", f"frame {index}", np.asarray(pixels, np.uint8))
                index += 1
        finally:
            capture.release()

    return Source(max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0), shots())


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        msg = f"{path} cannot be opened as a zip: {error}"
        raise BagError(msg) from None


def _open_archive(path: Path, parts: Collection[str] | None) -> Source:
    with _archive(path) as archive:
        names = set(archive.namelist())
        if "boxes.csv" in names:
            bursts = _bursts(archive, path)
            chosen = _choose(path, bursts, parts)
            count = sum(len(bursts[name].frames) for name in chosen)
            return Source(count, _burst_shots(path, {name: bursts[name] for name in chosen}))
        if "labels.csv" in names:
            tracks: dict[str, list[dict[str, str]]] = defaultdict(list)
            for row in _rows(archive, path, "labels.csv"):
                if row["track_id"]:
                    tracks[row["track_id"]].append(row)
            chosen = _choose(path, tracks, parts)
            count = sum(len(tracks[name]) for name in chosen)
            return Source(count, _track_shots(path, {name: tracks[name] for name in chosen}))
    msg = f"{path} has neither boxes.csv (bursts) nor labels.csv (tracks of signs)"
    raise BagError(msg)


def _choose(path: Path, there: Iterable[str], parts: Collection[str] | None) -> list[str]:
    names = list(there)
    if parts is None:
        return names
    if missing := sorted(set(parts) - set(names)):
        msg = f"{path} has no {', '.join(missing)}; it has {names[0]} to {names[-1]}"
        raise BagError(msg)
    return [name for name in names if name in set(parts)]


def _rows(archive: zipfile.ZipFile, path: Path, name: str) -> list[dict[str, str]]:
    try:
        with archive.open(name) as stream:
            return list(csv.DictReader(io.TextIOWrapper(stream, "utf-8")))
    except (KeyError, OSError, ValueError, csv.Error, zipfile.BadZipFile) as error:
        msg = f"{path}: {name} cannot be read: {error}"
        raise BagError(msg) from None


def _bursts(archive: zipfile.ZipFile, path: Path) -> dict[str, _Burst]:
    bursts: dict[str, _Burst] = defaultdict(_Burst)
    try:
        for row in _rows(archive, path, "boxes.csv"):
            burst = bursts[row["burst"]]
            burst.frames[row["frame"]].append(row)
            burst.signs.add(row["sign"])
    except KeyError as error:
        msg = f"{path}: boxes.csv has no column {error}"
        raise BagError(msg) from None
    return bursts


def _burst_shots(path: Path, bursts: dict[str, _Burst]) -> Iterator[Shot]:
    with _archive(path) as archive:
        for name, burst in bursts.items():
            tracker = Tracker(name)
            for frame, rows in sorted(burst.frames.items()):
                boxes = [
                    tuple(float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax"))
                    for row in rows
                ]
                ids = tracker.update(boxes, [row["sign"] for row in rows])
                yield Shot(
                    name,
                    frame,
                    _member(archive, path, frame),
                    tuple(
                        LabelledBox((box[0], box[1], box[2], box[3]), track, _class_index(row))
                        for box, track, row in zip(boxes, ids, rows, strict=True)
                    ),
                )


def _class_index(row: dict[str, str]) -> int:
    return int(row["gtsrb_class_id"] or UNKNOWN_CLASS)


def _track_shots(path: Path, tracks: dict[str, list[dict[str, str]]]) -> Iterator[Shot]:
    with _archive(path) as archive:
        for name, rows in tracks.items():
            for row in sorted(rows, key=lambda each: int(each["frame"])):
                whole = (0.0, 0.0, float(row["width"]), float(row["height"]))
                label = LabelledBox(whole, name, int(row["class_id"]))
                data = _member(archive, path, row["filename"])
                yield Shot(name, row["filename"], data, (label,))


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> bytes:
    try:
        return archive.read(name)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        msg = f"{path}: {name} cannot be read: {error}"
        raise BagError(msg) from None
