"""`qpde compile`: make a model bundle of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from qpde_perception.bags import camera_frame, labels_of, open_drive, regions_of
from qpde_perception.bags.cameras import cameras_of
from qpde_perception.bundles import CERTIFICATE, Accuracy, Bundle
from qpde_perception.cli.certify import certified
from qpde_perception.cli.data import read
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.evaluate import run
from qpde_perception.cli.frame import Json, emit
from qpde_perception.compiling.card import with_certificate, write_card
from qpde_perception.compiling.evaluation import evaluate
from qpde_perception.compiling.folding import fold
from qpde_perception.compiling.packing import CARD, assemble, write_bundle
from qpde_perception.engines import open_engine
from qpde_perception.frames import decode, prepare
from qpde_perception.learning.networks import deployed_parameters
from qpde_perception.learning.signs import prepared_pixels
from qpde_perception.learning.trained_run import load_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from qpde_perception.frames import InputSpec

GOLDEN_FRAMES = 16

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished training run.")]
Out = Annotated[Path, typer.Option(help="Folder of the bundle; its name is the model's.")]
Golden = Annotated[
    Path, typer.Option(help="Drive with boxes and true classes: golden frames, and a first test.")
]
Data = Annotated[
    Path | None, typer.Option(help="Sign data: measures val and test-a and writes them down.")
]
Task = Annotated[str, typer.Option(help="What the model does, in a few words.")]


def command(
    run_folder: Run,
    *,
    out: Out,
    golden: Golden = Path("samples/traffic_signs.mcap"),
    data: Data = None,
    task: Task = "German traffic signs, 43 classes",
    as_json: Json = False,
) -> None:
    """Fold a trained network into integers, write its graphs, verify them, and pack the bundle."""
    trained = load_run(run_folder)
    config = trained.network.config
    pixels, truth = _boxes(golden, trained.spec)
    if len(pixels) < GOLDEN_FRAMES:
        msg = f"{golden}: has {len(pixels)} boxes of known class, {GOLDEN_FRAMES} are needed"
        raise CommandError(msg)
    bundle = assemble(
        fold(trained.network),
        path=out,
        task=task,
        network=trained.name,
        parameters=deployed_parameters(trained.network),
        weight_bits=config.weight_bits,
        activation_bits=config.activation_bits,
        spec=trained.spec,
        labels=trained.labels,
        golden_pixels=pixels[np.linspace(0, len(pixels) - 1, GOLDEN_FRAMES).astype(int)],
    )
    accuracy = _measured(bundle, data, golden, pixels, truth)
    manifest = bundle.manifest.model_copy(update={"accuracy": accuracy})
    certificate = certified(bundle, _frames_to_certify(data, trained.spec, pixels))
    card = with_certificate(write_card(manifest, trained, config.flavour), certificate)
    bundle.contents[CARD] = card.encode()
    bundle.contents[CERTIFICATE] = certificate.to_bytes()
    bundle = write_bundle(Bundle(out, manifest, bundle.contents))
    payload = {
        "path": str(out),
        "parameters": manifest.parameters,
        "accuracy": [entry.model_dump() for entry in accuracy],
        "files": {name: len(content) for name, content in bundle.contents.items()},
    }
    emit(as_json, payload, lambda: _table(payload))


def _frames_to_certify(
    data: Path | None, spec: InputSpec, pixels: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    return pixels if data is None else prepared_pixels(read(data).split("val"), spec)


def _measured(
    bundle: Bundle,
    data: Path | None,
    drive: Path,
    pixels: NDArray[np.uint8],
    truth: NDArray[np.int64],
) -> tuple[Accuracy, ...]:
    engine = open_engine(bundle)
    sets: list[tuple[str, str, NDArray[np.uint8], NDArray[np.int64]]] = []
    if data is not None:
        signs = read(data)
        for split in ("test-a", "val"):
            part = signs.split(split)
            command = f"qpde evaluate --data DATA --split {split}"
            images = prepared_pixels(part, bundle.manifest.input)
            sets.append((f"gtsrb/{split}", command, images, part.labels))
    sets.append((f"{drive.name}, boxes of known class", f"qpde replay {drive}", pixels, truth))
    return tuple(
        Accuracy(
            data=name,
            engine=engine.name,
            images=len(images),
            top1=evaluate(run(engine, images), labels).top1,
            command=command,
        )
        for name, command, images, labels in sets
    )


def _boxes(path: Path, spec: InputSpec) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the boxes of known class of a drive as the network sees them, and their classes."""
    batches, classes = [], []
    for batch, labels in _frames(path, spec):
        batches.append(batch)
        classes.append(labels)
    if not batches:
        return np.empty((0, spec.height, spec.width, 3), np.uint8), np.empty(0, np.int64)
    return np.concatenate(batches), np.concatenate(classes)


def _frames(path: Path, spec: InputSpec) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    with open_drive(path) as drive:
        camera = cameras_of(drive.topics)[0]
        if camera.truth_topic is None:
            msg = f"{path}: has no true classes beside {camera.topic}; see `qpde bag make`"
            raise CommandError(msg)
        truth = {}
        for recorded in drive.messages([camera.truth_topic]):
            stamp_ns, labels = labels_of(recorded)
            truth[stamp_ns] = (regions_of(recorded)[1], labels)
        for recorded in drive.messages([camera.topic]):
            frame = camera_frame(recorded)
            if frame.stamp_ns not in truth:
                continue
            regions, labels = truth[frame.stamp_ns]
            prepared = prepare(decode(frame), regions, spec)
            classes = np.delete(np.asarray(labels.class_indices, np.int64), prepared.rejected)
            yield prepared.batch[classes >= 0], classes[classes >= 0]


def _table(payload: dict[str, Any]) -> Table:
    table = Table("measured on", "images", "top-1", "engine")
    table.title = f"{payload['path']}: {payload['parameters']:,} parameters"
    for entry in payload["accuracy"]:
        top1 = f"{entry['top1']:.2%}"
        table.add_row(entry["data"], str(entry["images"]), top1, entry["engine"])
    return table
