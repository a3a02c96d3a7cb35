"""What every verb shares: where its output goes, and how it looks."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import RenderableType
    from rich.progress import Progress

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")
]


def notes() -> Console:
    """Return the console for progress, warnings and errors: stderr."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def progress() -> Progress:
    """Return a progress display on stderr; it draws nothing where stderr is no terminal."""
    # Imported here: `qpde --help` and the short verbs have no use for it.
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=notes(),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def emit(
    as_json: bool, payload: Mapping[str, Any], human: Callable[[], RenderableType | str]
) -> None:
    """Print a verb's result on stdout.

    Args:
        as_json: Whether the user asked for JSON.
        payload: The result; its keys are the verb's promise.
        human: Makes what a person reads instead.
    """
    if as_json:
        sys.stdout.write(json_text(payload) + "\n")
    else:
        Console(highlight=False, markup=False).print(human())
    sys.stdout.flush()


def json_text(payload: Mapping[str, Any], indent: int | None = None) -> str:
    """Return a JSON object; a number that JSON does not have is a fault of ours and raises."""
    return json.dumps(payload, allow_nan=False, indent=indent)


def warn(message: str) -> None:
    """Print one line about something the user should know."""
    notes().print(f"warning: {message}", style="yellow")
