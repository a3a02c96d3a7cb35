"""`qpde build`: build a model's engine, and tell what the builder made of it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.frame import Json, emit
from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Specification
from qpde_perception.compiling.tensorrt_writer import TENSORRT_GRAPH, tensorrt_graph
from qpde_perception.engines.tensorrt_rtx import NAME, inspect

if TYPE_CHECKING:
    from qpde_perception.bundles import Bundle
    from qpde_perception.engines.tensorrt_rtx import FusedLayer, Inspection

BUILT = (NAME,)

Model = Annotated[str | None, typer.Option(help="A model's name, or the folder of a bundle.")]
Engine = Annotated[str, typer.Option(help=f"One of: {', '.join(BUILT)}.")]
Inspect = Annotated[bool, typer.Option("--inspect", help="List every fused layer with its types.")]


def command(
    *, engine: Engine, model: Model = None, inspect_layers: Inspect = False, as_json: Json = False
) -> None:
    """Build a model's engine. tensorrt_rtx needs no GPU and runs nothing: it is a gate.

    Fails when a convolution is not int8, or a float layer stands between quantized ones.
    """
    if engine not in BUILT:
        msg = f"no engine {engine!r} to build; known are {', '.join(BUILT)}"
        raise CommandError(msg)
    bundle = load_bundle(find_model(model))
    graph = _graph_of(bundle)
    started = time.perf_counter()
    inspection = inspect(graph)
    payload: dict[str, Any] = {
        "model": bundle.manifest.name,
        "engine": engine,
        "version": inspection.version,
        "cache": "miss",
        "reason": f"what {engine} builds is never kept",
        "build_ms": (time.perf_counter() - started) * 1e3,
        "self_test": None,
        "faults": inspection.faults,
        "ok": not inspection.faults,
    }
    if inspect_layers:
        payload |= {
            "convolutions": len(inspection.convolutions),
            "convolutions_int8": len(inspection.int8),
            "float_islands": len(inspection.float_islands),
            "layers": [asdict(layer) for layer in inspection.layers],
        }
    emit(as_json, payload, lambda: _table(payload, inspection, inspect_layers))
    if inspection.faults:
        raise typer.Exit(1)


def _graph_of(bundle: Bundle) -> bytes:
    if TENSORRT_GRAPH in bundle.contents:
        return bundle.read(TENSORRT_GRAPH)
    # A bundle from before it was packed; it is written from the same integers.
    texts = bundle.read(SPECIFICATION), bundle.read(WEIGHTS)
    return tensorrt_graph(Specification.from_files(*texts))


def _table(payload: dict[str, Any], inspection: Inspection, inspect_layers: bool) -> Table:
    table = Table("layer", "kind", "reads", "writes")
    table.title = (
        f"{payload['model']}, {payload['engine']} {payload['version']}: "
        f"{len(inspection.int8)} of {len(inspection.convolutions)} convolutions int8, "
        f"{len(inspection.float_islands)} float islands, {len(inspection.layers)} layers, "
        f"{payload['build_ms'] / 1e3:.1f} s"
    )
    for layer in inspection.layers if inspect_layers else ():
        table.add_row(*_row(layer))
    for fault in inspection.faults:
        table.add_row(fault, "fault", "", "")
    return table


def _row(layer: FusedLayer) -> tuple[str, ...]:
    reads, writes = (
        ", ".join(tensor.type for tensor in tensors) for tensors in (layer.inputs, layer.outputs)
    )
    return layer.name, layer.kind, reads, writes
