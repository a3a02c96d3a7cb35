"""What a study has to make once: tasks that leave their rows in a file, some made at once."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Protocol

import torch

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments.experiment import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from qpde_perception.learning.experiments.experiment import Row


class Task(Protocol):
    """Something to be measured."""

    @property
    def path(self) -> Path:
        """File of its rows: it is there when the task is done."""
        ...

    def make(self) -> str:
        """Write the file, and return the name of what was measured."""
        ...


def require_device(device: str) -> None:
    """Stop before any work where a device is asked for that is not here.

    Raises:
        LearningError: If it is missing.
    """
    if device == "cuda" and not torch.cuda.is_available():
        msg = "--device cuda: torch finds no CUDA device here"
        raise LearningError(msg)


def answer_of(tasks: Sequence[Task], jobs: int, advance: Callable[[int, int, str], None]) -> Answer:
    """Make the tasks that are not done yet, and return the rows of all, in their order.

    Args:
        tasks: What a study needs.
        jobs: Number of processes.
        advance: Told the number of finished tasks, their total, and which finished.

    Raises:
        LearningError: If a file is damaged, or a task cannot be made.
    """
    waiting = [task for task in tasks if not task.path.is_file()]
    done = len(tasks) - len(waiting)
    advance(done, len(tasks), "")
    for finished in _make(waiting, jobs):
        done += 1
        advance(done, len(tasks), finished)
    results = [_read(task.path) for task in tasks]
    return Answer(
        rows=[row for result in results for row in result],
        runs=len(tasks),
        machines=sorted({r[0]["trained_on"] or r[0]["machine"] for r in results}),
        training_seconds=round(sum(r[0]["training_seconds"] or 0.0 for r in results), 1),
    )


def _make(tasks: Sequence[Task], jobs: int) -> Iterator[str]:
    if jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield task.make()
        return
    # CUDA does not survive a fork.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(task.make) for task in tasks]):
            yield future.result()


def _read(path: Path) -> list[Row]:
    try:
        rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        msg = f"{path}: is damaged; remove it and run again"
        raise LearningError(msg) from None
    return rows
