"""`qpde build`: build a model's engine before the road needs it, and tell what came of it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.table import Table

from qpde_perception.bundles import find_model, load_bundle
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.frame import Json, emit, notes, progress
from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Specification
from qpde_perception.compiling.tensorrt_writer import tensorrt_graph
from qpde_perception.engines import (
    ACCELERATORS,
    Building,
    EngineError,
    build_only,
    choose_engine,
)
from qpde_perception.engines.cache import VARIABLE, EngineCache
from qpde_perception.engines.registry import TENSORRT_GRAPH
from qpde_perception.engines.tensorrt_plan import PlanOptions
from qpde_perception.engines.tensorrt_rtx import NAME as GATE
from qpde_perception.engines.tensorrt_rtx import inspect

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType
    from rich.progress import Progress, TaskID

    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import OpenedEngine
    from qpde_perception.engines.tensorrt_rtx import FusedLayer, Inspection

BUILT = (*ACCELERATORS, GATE)
TORCH = "torch_tensorrt"
MAX_BATCH = PlanOptions().max_batch

Model = Annotated[str | None, typer.Option(help="A model's name, or the folder of a bundle.")]
Engine = Annotated[str, typer.Option(help=f"One of: {', '.join(BUILT)}.")]
Device = Annotated[int, typer.Option(min=0, help="Number of the GPU to build on and for.")]
Dla = Annotated[
    int | None, typer.Option(min=0, help="Number of a Jetson's DLA core that takes what it can.")
]
TimingCache = Annotated[
    Path | None, typer.Option(help="File of measured kernel times: read if there, and written.")
]
MaxBatch = Annotated[int, typer.Option(min=1, help="Largest batch that the engine takes.")]
BuildOnly = Annotated[
    bool, typer.Option("--build-only", help="Without the self-test: for a factory or cloud job.")
]
CacheDir = Annotated[
    Path | None, typer.Option(help=f"Where engines are kept. Default: ${VARIABLE}.")
]
Inspect = Annotated[
    bool, typer.Option("--inspect", help="List every fused layer with the types it reads, writes.")
]


def command(
    *,
    engine: Engine,
    model: Model = None,
    device: Device = 0,
    dla: Dla = None,
    timing_cache: TimingCache = None,
    max_batch: MaxBatch = MAX_BATCH,
    build_without_test: BuildOnly = False,
    cache_dir: CacheDir = None,
    inspect_layers: Inspect = False,
    as_json: Json = False,
) -> None:
    """Build a model's engine into the cache, on the device that runs it, and test it.

    tensorrt_rtx is a gate: it needs no GPU, runs nothing and keeps nothing. It fails when a
    convolution is not int8, or a float layer stands between quantized ones.
    """
    if engine not in BUILT:
        msg = f"no engine {engine!r} to build; known are {', '.join(BUILT)}"
        raise CommandError(msg)
    if inspect_layers and engine == TORCH:
        msg = f"--inspect: {TORCH} tells no layers; take another of {', '.join(BUILT)}"
        raise CommandError(msg)
    bundle = load_bundle(find_model(model))
    options = PlanOptions(max_batch=max_batch, dla=dla, device=device, timing_cache=timing_cache)
    try:
        if engine == GATE:
            payload, table = _gate(bundle, max_batch, inspect_layers)
        else:
            cache = EngineCache(cache_dir)
            opened = _open(bundle, engine, options, cache, build_without_test)
            payload, table = _told(bundle, opened, cache, inspect_layers)
            opened.engine.close()
    except EngineError as error:
        failed = {"model": bundle.manifest.name, "engine": engine, "ok": False, "error": str(error)}
        if as_json:
            emit(as_json, failed, str)
        notes().print(f"error: {error}", style="red")
        raise typer.Exit(1) from None
    emit(as_json, payload, table)
    if not payload["ok"]:
        raise typer.Exit(1)


def _open(
    bundle: Bundle, engine: str, options: PlanOptions, cache: EngineCache, without_test: bool
) -> OpenedEngine:
    with progress() as bar:
        building = Building(
            cache, options, _phases(bar), program=lambda: _program(bundle, options), rebuilds=True
        )
        if without_test:
            return build_only(bundle, engine, building)
        return choose_engine(bundle, engine, building=building)


def _told(
    bundle: Bundle, opened: OpenedEngine, cache: EngineCache, inspect_layers: bool
) -> tuple[dict[str, Any], Callable[[], RenderableType]]:
    engine: Any = opened.engine  # only one that has layers is asked for them
    test = opened.self_test
    payload: dict[str, Any] = {
        "model": bundle.manifest.name,
        "engine": engine.name,
        "version": engine.version,
        "cache": opened.cache,
        "reason": opened.reason,
        "folder": str(cache.folder),
        "build_ms": opened.build_ms,
        "self_test": None if test is None else asdict(test) | {"ok": test.ok},
        "faults": (),
        "ok": True,
    }
    if not inspect_layers:
        return payload, lambda: _summary(payload, opened)
    payload["layers"] = engine.layers()
    return payload, lambda: Group(_summary(payload, opened), _told_layers(payload["layers"]))


def _program(bundle: Bundle, options: PlanOptions) -> Any:
    # Imports torch.
    from qpde_perception.compiling.torch_program import program_of  # noqa: PLC0415

    return program_of(_specification(bundle), options.max_batch)


def _phases(bar: Progress) -> Callable[[str, int, int], None]:
    """Show each phase of a build as long as it lasts."""
    tasks: dict[str, TaskID] = {}

    def tell(phase: str, done: int, steps: int) -> None:
        if phase not in tasks:
            tasks[phase] = bar.add_task(phase, total=steps)
        bar.update(tasks[phase], completed=done, visible=done < steps)

    return tell


def _summary(payload: dict[str, Any], opened: OpenedEngine) -> Table:
    table = Table("what", "figure", show_header=False)
    table.title = f"{payload['model']}, {payload['engine']} {payload['version']}"
    test = opened.self_test
    told = "skipped (--build-only): nothing is known of its answers" if test is None else test.told
    table.add_row(f"cache {payload['cache']}", payload["reason"])
    table.add_row("kept in", payload["folder"])
    table.add_row("built or loaded in", f"{payload['build_ms'] / 1e3:.1f} s")
    table.add_row("self-test", told)
    return table


def _told_layers(layers: tuple[dict[str, Any], ...]) -> Table:
    table = Table("layer", "kind", "reads", "writes")
    for layer in layers:
        reads, writes = (
            # TensorRT 11 has the type apart, 10 within the words for the format.
            ", ".join(str(one.get("DataType") or one.get("Format/Datatype")) for one in tensors)
            for tensors in (layer.get("Inputs", ()), layer.get("Outputs", ()))
        )
        table.add_row(str(layer.get("Name")), str(layer.get("LayerType", "")), reads, writes)
    return table


def _gate(
    bundle: Bundle, max_batch: int, inspect_layers: bool
) -> tuple[dict[str, Any], Callable[[], RenderableType]]:
    graph = _graph_of(bundle)
    started = time.perf_counter()
    inspection = inspect(graph, max_batch=max_batch)
    payload: dict[str, Any] = {
        "model": bundle.manifest.name,
        "engine": GATE,
        "version": inspection.version,
        "cache": "miss",
        "reason": f"what {GATE} builds is never kept",
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
    return payload, lambda: _table(payload, inspection, inspect_layers)


def _graph_of(bundle: Bundle) -> bytes:
    if TENSORRT_GRAPH in bundle.contents:
        return bundle.read(TENSORRT_GRAPH)
    # A bundle from before it was packed; it is written from the same integers.
    return tensorrt_graph(_specification(bundle))


def _specification(bundle: Bundle) -> Specification:
    return Specification.from_files(bundle.read(SPECIFICATION), bundle.read(WEIGHTS))


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
