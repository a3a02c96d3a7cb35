"""The `qpde` command: finds the verb, and turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import re
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import Abort, TyperException
from typer.main import get_command

from qpde_perception.cli.frame import notes

if TYPE_CHECKING:
    from collections.abc import Sequence

# Verb: what `qpde --help` says of it. Each is a module of its name beside this one, with either a
# function `command` or a typer app `app` that holds verbs of its own.
VERBS = {
    "replay": "Classify the camera frames of a recorded drive.",
    "drift": "Tell what has changed in a drive: engine, input or world.",
    "data": "Read a published data set into what training needs.",
    "train": "Train a network on the sign data; an interrupted run goes on.",
    "compile": "Make a model of a finished training run.",
    "build": "Build a model's engine; without a GPU, a gate for TensorRT.",
    "evaluate": "Measure the accuracy of a model on the sign data.",
    "certify": "Bound what quantization may change, and hold the model to it.",
    "calibrate": "Measure what is normal, so that drift can be noticed.",
    "parity": "Hold every installed engine against the integer reference.",
    "experiment": "Make an experiment of the method, with its page.",
    "models": "List, show and verify the models.",
    "bag": "Look into a recorded drive, or make one.",
    "ros": "Run the ROS 2 nodes: a demo in one command.",
    "profile": "Measure how long frames take here, and whether it changed.",
    "doctor": "Tell what is installed, and what to do about the rest.",
}

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_INTERRUPTED = 130
# What `train`, `compile`, `certify`, `calibrate` and `experiment` want and a vehicle does without.
_LEARNING = ("torch", "onnx", "PIL")


def main() -> None:
    """Run the command with the arguments of the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: The arguments after the command's name.

    Returns:
        0 done, 1 the check failed, 2 wrong use or bad input, 130 interrupted.
    """
    debug = "--debug" in arguments
    rest = [argument for argument in arguments if argument != "--debug"]
    try:
        command = get_command(_application(rest[0] if rest else ""))
        code = command.main(rest or ["--help"], prog_name="qpde", standalone_mode=False)
    except (KeyboardInterrupt, Abort):
        code = _INTERRUPTED
    except TyperException as error:
        verb = f" {rest[0]}" if rest[0] in VERBS else ""
        return _fail(f"{error.format_message()} (see qpde{verb} --help)", debug)
    except OSError as error:
        return _fail(_describe(error), debug)
    except ModuleNotFoundError as error:
        if error.name not in _LEARNING:
            raise
        msg = f'{error.name} is not installed; pip install -e ".[learning]" brings it'
        return _fail(msg, debug)
    except Exception as error:
        if not _is_anticipated(error):
            raise
        return _fail(str(error), debug)
    if code == _INTERRUPTED:
        notes().print("interrupted: what was done until here is left valid")
    return int(code or 0) if rest else 2


def _application(verb: str) -> typer.Typer:
    """Build the command with only the asked verb imported: the others give their line of help."""
    application = typer.Typer(add_completion=False, rich_markup_mode=None)
    application.callback()(_qpde)
    for name, summary in VERBS.items():
        if name != verb:
            application.command(name, help=summary)(_not_asked)
            continue
        module = import_module(f"qpde_perception.cli.{name}")
        if hasattr(module, "app"):
            application.add_typer(module.app, name=name, help=summary)
        else:
            application.command(name, help=summary)(module.command)
    return application


def _qpde(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; also after a verb.")
    ] = False,
) -> None:
    """Real-time perception: replay drives, train, compile and check models."""


def _not_asked() -> None:
    """Stand for a verb that this call does not use."""


def _is_anticipated(error: Exception) -> bool:
    # Each room keeps its one exception class in its errors.py. Going by the name of the module
    # spares the import of every room.
    return re.fullmatch(r"qpde_perception(\.\w+)*\.errors", type(error).__module__) is not None


def _describe(error: OSError) -> str:
    subject = f"{error.filename}: " if error.filename else ""
    if error.errno in _DISK_FULL:
        return f"{subject}no space left to write; free some space and run again"
    return f"{subject}{error.strerror or error}"


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    notes().print(f"error: {message}", style="red")
    return 2


if __name__ == "__main__":
    main()
