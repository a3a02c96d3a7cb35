"""The frame of the command: help, exit codes, and which errors are ours."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from qpde_perception.cli import main, models
from qpde_perception.cli.main import VERBS, run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, qpde):
    call = qpde(verb, "--help")
    assert call.code == 0
    assert call.out.startswith(f"Usage: qpde {verb}")


@pytest.mark.parametrize("verb", ["bag", "data", "models"])
def test_the_list_of_a_verbs_commands_has_a_whole_line_for_each(verb, qpde):
    assert "..." not in qpde(verb, "--help").out.partition("Commands:")[2]


def test_the_list_of_verbs_has_a_whole_line_for_each(qpde):
    call = qpde("--help")
    assert call.code == 0
    for verb, summary in VERBS.items():
        assert f"{verb} " in call.out
        assert summary in call.out


def test_help_needs_no_heavy_library():
    program = """
import sys
from qpde_perception.cli.main import run
code = run(["--help"])
heavy = {"numpy", "cv2", "torch", "rosbags", "matplotlib", "onnxruntime"} & set(sys.modules)
print(code, sorted(heavy), sep=";")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0;[]"


def test_without_a_verb_there_is_help_and_code_2(qpde):
    call = qpde()
    assert call.code == 2
    assert "Usage: qpde" in call.out


@pytest.mark.parametrize("arguments", [["dance"], ["models", "dance"], ["--wrong"]])
def test_wrong_use_gets_one_line_and_code_2(arguments, qpde):
    call = qpde(*arguments)
    assert call.code == 2
    assert call.out == ""
    (line,) = call.err.splitlines()
    assert line.startswith("error: ")
    assert "--help" in line


def failing(error):
    def list_models():
        raise error

    return list_models


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left", "/out/a"), "/out/a: no space left to write"),
        (PermissionError(errno.EACCES, "Permission denied", "/b"), "/b: Permission denied"),
    ],
)
def test_errors_of_the_system_name_the_file(error, line, qpde, monkeypatch):
    monkeypatch.setattr(models, "list_models", failing(error))
    call = qpde("models")
    assert call.code == 2
    assert call.err.startswith(f"error: {line}")
    assert call.err.count("\n") == 1


@pytest.mark.parametrize("verb", ["train", "compile"])
def test_a_verb_whose_library_is_missing_names_the_line_that_installs_it(verb):
    program = f"""
import sys
sys.modules["torch"] = None
from qpde_perception.cli.main import run
sys.exit(run(["{verb}", "--help"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        'error: torch is not installed; pip install -e ".[learning]" brings it'
    )


def test_an_interrupted_verb_ends_with_130_and_one_line(qpde, monkeypatch):
    monkeypatch.setattr(models, "list_models", failing(KeyboardInterrupt()))
    call = qpde("models")
    assert call.code == 130
    assert call.err.startswith("interrupted")
    assert call.err.count("\n") == 1


def test_a_fault_of_ours_is_not_dressed_up_as_bad_input(monkeypatch):
    monkeypatch.setattr(models, "list_models", failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        run(["models"])


def test_errors_of_every_room_are_anticipated():
    from qpde_perception.bags import BagError
    from qpde_perception.bundles import BundleError
    from qpde_perception.cli.errors import CommandError
    from qpde_perception.engines import EngineError
    from qpde_perception.frames import FrameError

    for kind in (BagError, BundleError, CommandError, EngineError, FrameError):
        assert main._is_anticipated(kind("x"))
    assert not main._is_anticipated(ValueError("x"))
