"""A tiny archive of images, a tiny graph, and settings for runs of seconds."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from qpde_perception.learning.experiments.images import ARCHIVE
from qpde_perception.learning.experiments.jobs import Place

IMAGES, TEST_IMAGES = 500, 60
STRIP = 500


def coloured_images(count, seed):
    """Ten classes: a bright bar at a place of its own, under noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % 10
    pixels = rng.integers(0, 120, (count, 32, 32, 3), np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[3 * label : 3 * label + 4, :, label % 3] = 250
    return pixels, labels


def write_archive(data):
    """Write images as the published pack has them."""
    path = data / ARCHIVE
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for split, count, seed in (("train", IMAGES, 1), ("test", TEST_IMAGES, 2)):
            pixels, labels = coloured_images(count, seed)
            stream = io.BytesIO()
            np.save(stream, labels)
            archive.writestr(f"{split}_labels.npy", stream.getvalue())
            strip = Image.fromarray(pixels.reshape(-1, 32, 3))
            stream = io.BytesIO()
            strip.save(stream, "webp", lossless=True)
            archive.writestr(f"{split}_000.webp", stream.getvalue())


def write_graph(data, name, nodes=60, words=12):
    """Write a graph of three classes whose nodes share edges and words with their own kind."""
    rng = np.random.default_rng(3)
    labels = np.arange(nodes) % 3
    pairs = {(i, j) for i in range(nodes) for j in (i + 3, i + 6) if j < nodes}
    pairs |= {tuple(sorted(rng.choice(nodes, 2, replace=False))) for _ in range(8)}
    rows = [np.unique([4 * label + rng.integers(4), rng.integers(words)]) for label in labels]
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    order = rng.permutation(nodes)
    (data / "planetoid").mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        data / "planetoid" / f"{name}.npz",
        x_data=np.ones(indptr[-1], np.float32),
        x_indices=np.concatenate(rows).astype(np.int32),
        x_indptr=indptr.astype(np.int32),
        x_shape=np.array([nodes, words]),
        edges=np.array(sorted(pairs), np.int32),
        self_loops=np.array([0, 5], np.int32),
        labels=labels.astype(np.int64),
        idx_train=order[:12],
        idx_val=order[12:30],
        idx_test=order[30:],
    )


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with a tiny archive of images and a tiny graph."""
    folder = tmp_path_factory.mktemp("data")
    write_archive(folder)
    write_graph(folder, "cora")
    return folder


@pytest.fixture
def place(data, tmp_path):
    return Place(data, tmp_path / "work", "cpu")


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    """Make the networks of the experiments small enough for seconds."""
    from qpde_perception.learning.experiments import image_task
    from qpde_perception.learning.zoo import build

    def tiny(name, flavour, **settings):
        return build(name, flavour, **settings, depths=(1, 1), widths=(4, 8))

    monkeypatch.setattr(image_task, "build", tiny)
