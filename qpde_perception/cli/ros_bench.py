"""The classifier node under the player's load: processes of their own, watched and timed."""

from __future__ import annotations

import json
import math
import subprocess
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import psutil

from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.nodes import ended_after, node_command, on_domain, own_domain
from qpde_perception.profiling.trials import Trial
from qpde_perception.profiling.yardstick import Yardstick

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import IO

    from typing_extensions import Self

    from qpde_perception.cli.nodes import PlayedCamera

_MIB = 1 << 20
_LOOK_AGAIN_S = 0.05
# An accelerator's engine may have to be built first.
_OPENING_S = 1800.0
# Beyond the frames themselves: a process that starts, and the middleware that asks for receipts.
_PLAYER_S = 60.0
# Answers that come this long after the one before are lost.
_LATE_S = 1.0
_LAST_LINES = 12


class Watched:
    """A node's process; what it writes goes to a file, for when it fails."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name, self.process, self._log = name, process, log

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    @property
    def complained(self) -> bool:
        """Whether it logged an error."""
        return "[ERROR]" in self._log.read_text(encoding="utf-8", errors="replace")

    def give_up(self, what: str) -> NoReturn:
        """Raise an error that ends with what the node said last."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = "\n".join(f"  {line}" for line in lines[-_LAST_LINES:]) or "  (nothing)"
        msg = f"{self.name} {what}; what it said last:\n{said}"
        raise CommandError(msg)

    def demand_running(self) -> None:
        """Make sure that it runs.

        Raises:
            CommandError: If it has ended, with its last lines.
        """
        if not self.running:
            self.give_up(f"has ended with code {self.process.returncode}")


class RosBench:
    """A classifier and a monitor of its answers, ready for trials; use it as a context manager.

    Args:
        camera: What is played.
        parameters: The classifier's parameters.
        folder: Where logs may lie.
    """

    def __init__(self, camera: PlayedCamera, parameters: Mapping[str, str], folder: Path) -> None:
        self._camera, self._parameters, self._folder = camera, parameters, folder
        self._environment: dict[str, str] = {}
        self._yardstick = Yardstick()
        self._stack = ExitStack()
        self._ready = threading.Event()
        self._published: dict[int, int] = {}
        self._cpu_seen: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        """Start the nodes, and wait until the classifier has opened its engine.

        Raises:
            CommandError: If it does not, with what it said last.
        """
        with ExitStack() as stack:
            # Nobody else on this machine is meant to hear it, nor to be heard.
            domain = on_domain(stack.enter_context(own_domain()))
            self._environment = domain | {"ROS_LOG_DIR": str(self._folder / "ros")}
            kind = "detections" if self._camera.regions else "classification"
            answers = {"topic": f"/classifier/output/{kind}", "kind": kind}
            given = {**self._camera.parameters, **self._parameters}
            command = node_command("classifier_node", given, self._camera.remaps)
            self._classifier = self._started(stack, "classifier", command)
            self._monitor = self._started(
                stack, "monitor", node_command("latency_monitor", answers)
            )
            assert self._monitor.process.stdout is not None
            threading.Thread(
                target=self._listen, args=(self._monitor.process.stdout,), daemon=True
            ).start()
            self._wait_for_engine()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def trial(self, rate_hz: float, seconds: float) -> Trial:
        """Send frames at a rate for a while, and hear the answers.

        Args:
            rate_hz: Frames per second.
            seconds: For how long.

        Raises:
            CommandError: If a node ends, or not a single frame is answered.
        """
        self._published = {}
        yardstick_ms = self._yardstick.measure_ms()
        self._cpu_seen = []
        self._look()
        sent_ns = self._play(rate_hz, max(2, math.ceil(rate_hz * seconds)))
        answers = {stamp: self._published[stamp] for stamp in sent_ns if stamp in self._published}
        if not answers:
            self._classifier.give_up(
                f"did not answer one of {len(sent_ns)} frames sent at {rate_hz:g} Hz"
            )
        # Stamps are of the system's clock; readings of the sensors are of the monotonic one.
        apart_s = time.time() - time.monotonic()
        begin_s = sent_ns[0] / 1e9 - apart_s
        end_s = max(sent_ns[-1], *answers.values()) / 1e9 - apart_s
        seen = np.array(self._cpu_seen)
        cpu_s = np.interp([begin_s, end_s], seen[:, 0], seen[:, 1])
        return Trial(
            rate_hz=rate_hz,
            sent_ns=sent_ns,
            published_ns=answers,
            begin_s=begin_s,
            end_s=end_s,
            cpu_s=float(cpu_s[1] - cpu_s[0]),
            memory_mib=psutil.Process(self._classifier.process.pid).memory_info().rss / _MIB,
            yardstick_ms=(yardstick_ms + self._yardstick.measure_ms()) / 2.0,
        )

    def _started(self, stack: ExitStack, name: str, command: list[str]) -> Watched:
        log = self._folder / f"{name}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603
                command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if name == "monitor" else errors,
                stderr=errors,
            )
        stack.enter_context(ended_after(process))
        return Watched(name, process, log)

    def _listen(self, lines: IO[bytes]) -> None:
        for line in lines:
            if line == b"ready\n":
                self._ready.set()
            else:
                stamp_ns, published_ns = map(int, line.split())
                self._published.setdefault(stamp_ns, published_ns)

    def _wait_for_engine(self) -> None:
        end = time.monotonic() + _OPENING_S
        while not self._ready.wait(_LOOK_AGAIN_S):
            self._demand_nodes()
            if self._classifier.complained:
                self._classifier.give_up("cannot serve")
            if time.monotonic() > end:
                self._classifier.give_up(f"was not ready after {_OPENING_S:.0f} s")

    def _play(self, rate_hz: float, count: int) -> tuple[int, ...]:
        """Have a player send frames, and wait for the answers; return the stamps of the frames."""
        sent = self._folder / "sent.json"
        sent.unlink(missing_ok=True)
        topics = self._camera.topics
        parameters = {
            "drive": str(self._camera.drive),
            "topics": str(topics),
            "wait_for_subscribers": str(topics),
            "restamp": "now",
            "frame_rate_hz": f"{float(rate_hz)}",
            "frame_count": str(count),
            "sent_file": str(sent),
        }
        end = time.monotonic() + 3.0 * count / rate_hz + _PLAYER_S
        with ExitStack() as stack:
            player = self._started(stack, "player", node_command("bag_player_node", parameters))
            while not sent.exists():
                self._look()
                if not player.running:
                    player.give_up(f"has ended with code {player.process.returncode}")
                if time.monotonic() > end:
                    player.give_up(f"does not finish {count} frames at {rate_hz:g} Hz")
                time.sleep(_LOOK_AGAIN_S)
            stamps = tuple(json.loads(sent.read_text(encoding="utf-8")))
            # The player stays until then: what the middleware lost on the way it sends again.
            self._wait_for_answers(stamps[-1])
        return stamps

    def _wait_for_answers(self, last_ns: int) -> None:
        """Wait until the last frame is answered, or nothing comes any more."""
        heard, since_s = len(self._published), time.monotonic()
        while last_ns not in self._published and time.monotonic() - since_s < _LATE_S:
            self._look()
            time.sleep(_LOOK_AGAIN_S)
            if len(self._published) != heard:
                heard, since_s = len(self._published), time.monotonic()
        self._look()

    def _look(self) -> None:
        """Make sure that all is well, and note what the classifier has taken of a processor."""
        self._demand_nodes()
        taken = psutil.Process(self._classifier.process.pid).cpu_times()
        self._cpu_seen.append((time.monotonic(), taken.user + taken.system))

    def _demand_nodes(self) -> None:
        self._classifier.demand_running()
        self._monitor.demand_running()
