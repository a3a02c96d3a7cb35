"""`qpde models`: list, show and verify the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from qpde_perception.bundles import Bundle, BundleError, find_model, list_models, load_bundle
from qpde_perception.cli.frame import Json, emit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Name = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's name, or the folder of a bundle.")
]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="MODEL", help="Models to verify; all that are found when left out."),
]

app = typer.Typer()


@app.callback(invoke_without_command=True)
def command(context: typer.Context, as_json: Json = False) -> None:
    """List, show and verify the models; without a command, list them."""
    if context.invoked_subcommand is None:
        list_all(as_json=as_json)


@app.command("list")
def list_all(as_json: Json = False) -> None:
    """List the models that are found by name."""
    entries = [_entry(path) for path in list_models()]
    emit(as_json, {"models": entries}, lambda: _table(entries))


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show what one model says of itself, after verifying it."""
    bundle = load_bundle(find_model(name))
    manifest = bundle.manifest.model_dump(mode="json")
    emit(as_json, {**manifest, "path": str(bundle.path)}, lambda: _card(bundle))


@app.command()
def verify(names: Names = None, as_json: Json = False) -> None:
    """Verify the hash of every file of a model.

    Fails when one is changed or missing.
    """
    paths = [find_model(name) for name in names] if names else list_models()
    entries = [_entry(path) for path in paths]
    emit(as_json, {"models": entries}, lambda: _table(entries))
    if not all(entry["ok"] for entry in entries):
        raise typer.Exit(1)


def _entry(path: Path) -> dict[str, Any]:
    try:
        manifest = load_bundle(path).manifest
    except BundleError as error:
        nothing = {"task": None, "parameters": None, "top1_int8": None}
        return {"name": path.name, **nothing, "ok": False, "fault": str(error)}
    return {
        "name": manifest.name,
        "task": manifest.task,
        "parameters": manifest.parameters,
        "top1_int8": manifest.accuracy[0].top1 if manifest.accuracy else None,
        "ok": True,
    }


def _table(entries: Sequence[dict[str, Any]]) -> Table:
    table = Table("model", "task", "parameters", "top-1 (int8)", "files")
    for entry in entries:
        top1 = entry["top1_int8"]
        table.add_row(
            entry["name"],
            entry["task"] or "",
            f"{entry['parameters']:,}" if entry["ok"] else "",
            "" if top1 is None else f"{top1:.2%}",
            "verified" if entry["ok"] else entry["fault"],
        )
    return table


def _card(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    shape = f"{manifest.input.height}x{manifest.input.width} {manifest.input.channel_order}"
    table = Table(show_header=False)
    table.add_row("model", manifest.name)
    table.add_row("task", manifest.task)
    table.add_row("network", f"{manifest.network}, {manifest.parameters:,} parameters")
    table.add_row("bits", f"weights {manifest.weight_bits}, activations {manifest.activation_bits}")
    table.add_row("input", f"{shape}, region margin {manifest.input.region_margin:.0%}")
    table.add_row("engines", ", ".join(manifest.engines))
    table.add_row("classes", f"{len(manifest.labels)}: {', '.join(manifest.labels)}")
    for accuracy in manifest.accuracy:
        measured = f"{accuracy.top1:.2%} of {accuracy.images} images, {accuracy.engine}"
        table.add_row(accuracy.data, measured)
    table.add_row("files", f"{len(manifest.files)} in {bundle.path}, verified")
    return table
