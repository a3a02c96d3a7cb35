"""Packing a bundle: every file hashed, and the folder complete or not there at all."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from qpde_perception.bundles import (
    FORMAT_VERSION,
    GOLDEN,
    MANIFEST,
    Bundle,
    Golden,
    Manifest,
)
from qpde_perception.compiling.cpu_writer import cpu_graph
from qpde_perception.compiling.errors import CompilingError
from qpde_perception.compiling.parity import (
    float_reference_of,
    in_batches,
    quantization_noise,
    reference_of,
)
from qpde_perception.compiling.taps import taps_of
from qpde_perception.compiling.tensorrt_writer import tensorrt_graph
from qpde_perception.compiling.writer import float_graph, unrounded_graph
from qpde_perception.engines.registry import CPU_GRAPH, FLOAT_GRAPH, TENSORRT_GRAPH, UNROUNDED_GRAPH

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from qpde_perception.compiling.specification import Specification
    from qpde_perception.frames import InputSpec

CARD = "CARD.md"
ENGINE_ORDER = ("onnxruntime", "openvino")
"""CPU engines, best first by the measurement of `benchmarks/engines.py`."""


def assemble(
    specification: Specification,
    *,
    path: Path,
    task: str,
    network: str,
    parameters: int,
    weight_bits: int,
    activation_bits: int,
    spec: InputSpec,
    labels: Iterable[str],
    golden_pixels: NDArray[np.uint8],
) -> Bundle:
    """Write the graphs, let the references answer the golden frames, and name it all in a manifest.

    Args:
        specification: The network in integers.
        path: Where the bundle will lie; the folder's name is the model's.
        task: What the model does, in a few words.
        network: Name of the network's configuration.
        parameters: Number of trained parameters that are deployed.
        weight_bits: Bits of the weights.
        activation_bits: Bits of the activations.
        spec: The network's input.
        labels: Class names.
        golden_pixels: Golden frames, uint8, shape (n, height, width, 3).

    Returns:
        The bundle, in memory.
    """
    contents = specification.to_files()
    contents[CPU_GRAPH] = cpu_graph(specification)
    contents[TENSORRT_GRAPH] = tensorrt_graph(specification)
    contents[FLOAT_GRAPH] = float_graph(specification)
    contents[UNROUNDED_GRAPH] = unrounded_graph(specification)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=path.name,
        task=task,
        network=network,
        parameters=parameters,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        input=spec,
        labels=tuple(labels),
        engines=ENGINE_ORDER,
        files={},
    )
    bundle = Bundle(path, manifest, contents)
    logits, saturation = reference_of(bundle).observe(golden_pixels)
    unquantized = in_batches(float_reference_of(bundle), golden_pixels)
    noise = quantization_noise(logits, unquantized)
    taps = taps_of(specification.document)
    golden = Golden(golden_pixels, logits, noise, taps, saturation)
    contents[GOLDEN] = golden.to_bytes()
    return bundle


def write_bundle(bundle: Bundle) -> Bundle:
    """Write a bundle to its folder, replacing an older one of the same name.

    Returns:
        The bundle with the hashes of its files.

    Raises:
        CompilingError: If the folder exists and is no bundle, or cannot be written.
    """
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in bundle.contents.items()}
    manifest = bundle.manifest.model_copy(update={"files": dict(sorted(hashes.items()))})
    target = bundle.path
    if target.exists() and not (target / MANIFEST).is_file():
        msg = f"{target}: exists and is no model; choose another folder"
        raise CompilingError(msg)
    text = json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
            fresh, older = Path(work) / "fresh", Path(work) / "older"
            fresh.mkdir()
            for name, data in bundle.contents.items():
                (fresh / name).write_bytes(data)
            (fresh / MANIFEST).write_text(text, encoding="utf-8")
            if target.exists():
                target.rename(older)
            fresh.rename(target)
    except OSError as error:
        msg = f"{target}: cannot be written: {error.strerror}"
        raise CompilingError(msg) from None
    return Bundle(target, manifest, bundle.contents)
