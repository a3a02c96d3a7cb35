"""The engines that can serve a model, one after another."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qpde_perception.engines import (
    Building,
    EngineError,
    OpenedEngine,
    choose_engine,
    open_reference,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpde_perception.bundles import Bundle
    from qpde_perception.engines import Engine


class EngineLine:
    """The engines that can serve a model, best first; one serves, the next stands in for it."""

    def __init__(self, bundle: Bundle, names: Sequence[str], threads: int) -> None:
        """Prepare; nothing is opened.

        Args:
            bundle: The model.
            names: Engines in the order in which they are tried.
            threads: Number of threads of a CPU engine; 0 lets it choose.
        """
        self._bundle, self._names, self._threads = bundle, tuple(names), threads
        self.building = ""
        """How far the building of an engine is; empty where none is being built."""
        self._left = list(self._names)
        self.opened: OpenedEngine | None = None
        self.refusals: dict[str, str] = {}

    @property
    def engine(self) -> Engine | None:
        """The engine that serves; None where none does."""
        return self.opened.engine if self.opened else None

    @property
    def why_none(self) -> str:
        """Why no engine serves, where none does."""
        refusals = "; ".join(self.refusals.values())
        return f"no engine serves {self._bundle.manifest.name}: {refusals}"

    def advance(self) -> Engine | None:
        """Open the next engine that passes its self-test, which also warms it up; None if none."""
        self.close()
        while self._left:
            name = self._left.pop(0)
            try:
                self.opened = choose_engine(
                    self._bundle,
                    name,
                    threads=self._threads,
                    building=Building(progress=self._progress),
                )
            except EngineError as error:
                self.refusals[name] = _one_line(error)
                continue
            finally:
                self.building = ""
            return self.engine
        return None

    def _progress(self, phase: str, done: int, total: int) -> None:
        # Said with the next diagnostics: a builder makes thousands of steps.
        self.building = f"building an engine: {phase}, {done} of {total}"

    def fail(self, error: EngineError) -> str:
        """Free the serving engine, since it failed; return why, in one line."""
        assert self.engine is not None
        name, fault = self.engine.name, _one_line(error)
        self.close()  # first: what is refused does not serve, whoever looks at both in between
        self.refusals[name] = fault
        return fault

    def stand_in(self, why: str) -> Engine:
        """Put the float reference in the place of the serving engine, and return it.

        Args:
            why: What is wrong with the engine.

        Raises:
            BundleError: If the model has no float reference; the engine then goes on.
            EngineError: If it cannot be opened; the engine then goes on.
        """
        started = time.perf_counter()
        reference = open_reference(self._bundle, threads=self._threads)
        assert self.engine is not None
        name, build_ms = self.engine.name, (time.perf_counter() - started) * 1e3
        self.close()
        self.refusals[name] = why
        self.opened = OpenedEngine(reference, "none", f"it stands in for {name}", build_ms)
        return reference

    def restart(self) -> Engine | None:
        """Try all engines again, from the first."""
        self._left = list(self._names)
        self.refusals.clear()
        return self.advance()

    def close(self) -> None:
        """Free the serving engine."""
        if self.opened is not None:
            self.opened.engine.close()
            self.opened = None


def _one_line(error: EngineError) -> str:
    return " ".join(str(error).split())  # libraries explain themselves over many lines
