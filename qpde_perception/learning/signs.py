"""The traffic-sign data (GTSRB): reading, splitting by track, and the prepared form.

Source: Stallkamp, Schlipsing, Salmen, Igel, "Man vs. computer: benchmarking machine learning
algorithms for traffic sign recognition", Neural Networks 32 (2012).
"""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from qpde_perception.frames import resize
from qpde_perception.learning.errors import LearningError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from qpde_perception.frames import InputSpec

SPLITS = ("train", "val", "test-a")
VALIDATION_SHARE = 0.1
REGION_MARGIN = 0.2
"""Margin around a detector's box, as a share of its size on each side.

The data's own images have 0.16 around the sign, median. On the 283 boxes of another country's roads
that are not in the sample drive the shipped network's accuracy is between 99.6 and 100 % from 0.16
to 0.25, and falls to 95 % at 0.4.
"""
ARCHIVE = "gtsrb.zip"
NAMES = "classes.csv"
PIXELS = "pixels.npy"
INDEX = "index.csv"
SPLIT_SEED = 20220923


class SignRecord(NamedTuple):
    """Where one image lies in the pixel store, and what it shows."""

    offset: int
    height: int
    width: int
    class_index: int
    track: str
    split: str


@dataclass(frozen=True, slots=True)
class SignSet:
    """Images of one split, at their own resolutions.

    Attributes:
        pixels: Pixels of all images one after another, uint8 BGR, flat.
        records: One record per image, those of a track in temporal order.
        names: Class names; the position is the class index.
    """

    pixels: NDArray[np.uint8]
    records: Sequence[SignRecord]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.records)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return one image, uint8 BGR, shape (height, width, 3)."""
        record = self.records[index]
        size = record.height * record.width * 3
        flat = self.pixels[record.offset : record.offset + size]
        return flat.reshape(record.height, record.width, 3)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indexes of all images, shape (n,)."""
        return np.array([record.class_index for record in self.records], dtype=np.int64)

    def split(self, name: str) -> SignSet:
        """Return the images of one split.

        Raises:
            LearningError: If there is no such split.
        """
        if name not in SPLITS:
            msg = f"no split {name!r}; known are {', '.join(SPLITS)}"
            raise LearningError(msg)
        chosen = [record for record in self.records if record.split == name]
        return SignSet(self.pixels, chosen, self.names)


def load_signs(folder: Path, advance: Callable[[int, int], None] | None = None) -> SignSet:
    """Read the sign data from the published pack or from its prepared form.

    Args:
        folder: Holds either `gtsrb.zip` and `classes.csv`, or what `save_signs` wrote.
        advance: Told the number of images read and their total, for a progress bar.

    Raises:
        LearningError: If the folder holds neither.
    """
    if (folder / INDEX).is_file():
        return _load_prepared(folder)
    if (folder / ARCHIVE).is_file():
        return _read_archive(folder, advance or (lambda _done, _total: None))
    msg = f"{folder}: holds neither {ARCHIVE} nor prepared data ({INDEX}); see `qpde data prepare`"
    raise LearningError(msg)


def save_signs(signs: SignSet, folder: Path) -> None:
    """Write the prepared form: `pixels.npy`, `index.csv` and `classes.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / PIXELS, signs.pixels)
    with (folder / NAMES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class_id", "name"])
        writer.writerows(enumerate(signs.names))
    with (folder / INDEX).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(SignRecord._fields)
        table.writerows(signs.records)


def prepared_pixels(signs: SignSet, spec: InputSpec) -> NDArray[np.uint8]:
    """Resize every image as the vehicle does; uint8 RGB, shape (n, height, width, 3)."""
    batch = np.empty((len(signs), spec.height, spec.width, 3), np.uint8)
    for index in range(len(signs)):
        batch[index] = resize(signs.image(index), spec)[..., ::-1]
    return batch


def _load_prepared(folder: Path) -> SignSet:
    try:
        pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
        with (folder / INDEX).open(newline="", encoding="utf-8") as file:
            rows = [
                SignRecord(*map(int, row[:4]), *row[4:])  # type: ignore[arg-type]
                for row in list(csv.reader(file))[1:]
            ]
    except (OSError, ValueError, TypeError) as error:
        msg = f"{folder}: prepared data is damaged ({error}); run `qpde data prepare` again"
        raise LearningError(msg) from None
    if not rows or sum(row.height * row.width * 3 for row in rows) != pixels.size:
        msg = (
            f"{folder}: {INDEX} and {PIXELS} do not belong together; run `qpde data prepare` again"
        )
        raise LearningError(msg)
    return SignSet(pixels, rows, _read_names(folder))


def _read_archive(folder: Path, advance: Callable[[int, int], None]) -> SignSet:
    names = _read_names(folder)
    try:
        with zipfile.ZipFile(folder / ARCHIVE) as archive:
            listing = io.TextIOWrapper(archive.open("labels.csv"), "utf-8")
            rows = sorted(csv.DictReader(listing), key=lambda row: row["filename"])
            if not rows:
                msg = f"{folder / ARCHIVE}: its labels.csv lists no images"
                raise LearningError(msg)
            held_out = _validation_tracks(rows)
            records: list[SignRecord] = []
            chunks: list[NDArray[np.uint8]] = []
            offset = 0
            for done, (row, image) in enumerate(_decoded(archive, rows), start=1):
                track = row["track_id"]
                split = "val" if track in held_out else row["split"]
                height, width = image.shape[:2]
                class_index = int(row["class_id"])
                records.append(SignRecord(offset, height, width, class_index, track, split))
                chunks.append(image.reshape(-1))
                offset += image.size
                advance(done, len(rows))
    except (zipfile.BadZipFile, KeyError, OSError, ValueError) as error:
        msg = f"{folder / ARCHIVE}: cannot be read as the sign data: {error}"
        raise LearningError(msg) from None
    return SignSet(np.concatenate(chunks), records, names)


def _decoded(
    archive: zipfile.ZipFile, rows: Sequence[dict[str, str]]
) -> Iterator[tuple[dict[str, str], NDArray[np.uint8]]]:
    for row in rows:
        encoded = np.frombuffer(archive.read(row["filename"]), np.uint8)
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
        if image is None:
            msg = f"{row['filename']}: cannot be decoded; the archive is damaged"
            raise LearningError(msg)
        yield row, np.asarray(image, dtype=np.uint8)


def _validation_tracks(rows: Sequence[dict[str, str]]) -> set[str]:
    """Choose a tenth of the tracks of every class, at least one, the same ones every time."""
    tracks: dict[int, set[str]] = {}
    for row in rows:
        if row["track_id"]:
            tracks.setdefault(int(row["class_id"]), set()).add(row["track_id"])
    rng = np.random.default_rng(SPLIT_SEED)
    held_out: set[str] = set()
    for class_id in sorted(tracks):
        unique = sorted(tracks[class_id])
        count = max(1, round(VALIDATION_SHARE * len(unique)))
        held_out.update(rng.choice(unique, size=count, replace=False).tolist())
    return held_out


def _read_names(folder: Path) -> tuple[str, ...]:
    try:
        with (folder / NAMES).open(newline="", encoding="utf-8") as file:
            return tuple(row[1] for row in list(csv.reader(file))[1:])
    except (OSError, IndexError) as error:
        msg = f"{folder / NAMES}: cannot be read: {error}"
        raise LearningError(msg) from None
