"""What `profile.json` holds; docs/profiling.md explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qpde_perception.profiling.errors import ProfilingError
from qpde_perception.profiling.histogram import Histogram

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1
"""Grows by one when a reader of the former layout would misread the new one."""

QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999}
"""The quantiles of every table, by the name of their field."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Part):
    """The computer; what it does not tell is empty or null.

    Attributes:
        kind: A Jetson by its JetPack, another machine with an NVIDIA driver, or one without.
        board: What the board calls itself, for example `NVIDIA Jetson AGX Orin Developer Kit`.
        architecture: The processor's, for example `aarch64`.
        processor: The processor's name.
        processors: Number of logical processors this process may use.
        memory_mib: Memory, MiB.
        system: Operating system and kernel.
        gpu: Name of the GPU.
        driver: Version of the NVIDIA driver.
        l4t: Release of Jetson Linux.
        jetpack: Version of JetPack.
        tensorrt: Version of TensorRT that the system has installed.
        power_mode: The power mode by nvpmodel, with its number.
        jetson_clocks: Whether the clocks of CPU and GPU are held at one frequency.
    """

    kind: str
    board: str
    architecture: str
    processor: str
    processors: int
    memory_mib: float | None
    system: str
    gpu: str
    driver: str
    l4t: str
    jetpack: str
    tensorrt: str
    power_mode: str
    jetson_clocks: bool | None

    @property
    def name(self) -> str:
        """What to call it in a heading."""
        return self.board or self.processor or self.architecture


class Model(_Part):
    """The model.

    Attributes:
        name: Its name.
        sha256: SHA-256 of its manifest, which holds those of all its files.
    """

    name: str
    sha256: str


class Settings(_Part):
    """How it was measured.

    Attributes:
        frames: Measured frames of a configuration, over all rounds.
        warm_up: Frames before the first round.
        rounds: Number of rounds; the configurations take turns in each.
        idle_s: Rest before each frame after idle, seconds.
        rate_hz: Frame rate of the paced part; null without one.
        deadline_ms: Time that a frame has there, from its arrival.
        sensor_interval_s: Time between two readings of the sensors.
    """

    frames: int = Field(gt=0)
    warm_up: int = Field(ge=0)
    rounds: int = Field(gt=0)
    idle_s: float = Field(ge=0.0)
    rate_hz: float | None = None
    deadline_ms: float | None = None
    sensor_interval_s: float = Field(gt=0.0)


class RosSettings(_Part):
    """How it was measured through ROS.

    Attributes:
        drive_md5: MD5 of the drive whose frames were sent; ros2_benchmark's INPUT_DATA_HASH.
        seconds: Length of a trial.
        trials: Number of trials at the peak.
        rates_hz: The fixed rates.
        highest_hz: Where the search for the peak ended at the latest.
        sensor_interval_s: Time between two readings of the sensors.
    """

    drive_md5: str
    seconds: float = Field(gt=0.0)
    trials: int = Field(gt=0)
    rates_hz: tuple[float, ...]
    highest_hz: float = Field(gt=0.0)
    sensor_interval_s: float = Field(gt=0.0)


class Summary(_Part):
    """A stage of a configuration in steady state, milliseconds.

    Attributes:
        p50_ms: Half of the frames were at least this fast; the others alike.
        p90_ms: 90 %.
        p99_ms: 99 %.
        p999_ms: 99.9 %.
        max_ms: The slowest frame.
        mean_ms: The mean.
        deviation_ms: The standard deviation.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    mean_ms: float
    deviation_ms: float

    @classmethod
    def of(cls, histogram: Histogram) -> Summary:
        """Summarise a histogram that is not empty."""
        return cls(
            **{name: histogram.quantile_ms(share) for name, share in QUANTILES.items()},
            max_ms=histogram.max_ms,
            mean_ms=histogram.mean_ms,
            deviation_ms=histogram.deviation_ms,
        )


class Round(_Part):
    """One turn of a configuration.

    Attributes:
        begin_s: When it began, seconds since the profile's start.
        end_s: When it ended.
        yardstick_ms: What a fixed piece of work took around it: how fast the machine was.
        stages: Histogram of each stage, and of the whole road as `total`.
    """

    begin_s: float
    end_s: float
    yardstick_ms: float = Field(gt=0)
    stages: dict[str, Histogram]


class Opening(_Part):
    """An engine's first moments.

    Attributes:
        build_ms: Building the engine, or loading a kept one.
        first_ms: The first frame through the road: cold.
        first_infer_ms: The engine's part of it.
    """

    build_ms: float
    first_ms: float
    first_infer_ms: float


class Paced(_Part):
    """Frames that arrive at a fixed rate and queue until they are taken.

    Attributes:
        frames: Number of frames.
        misses: Those whose result came later than the deadline.
        latency: Histogram of the time from arrival to result.
    """

    frames: int = Field(gt=0)
    misses: int = Field(ge=0)
    latency: Histogram


class Row(_Part):
    """One configuration and what was measured of it.

    Attributes:
        engine: Name of the engine.
        engine_version: Version of its library.
        threads: Threads of the engine; 0: it decides.
        batch: Regions of a frame that the engine gets in one call.
        source: Encoding and size of the frames, for example `jpeg 1280x720`.
        sent_hz: Rate at which the frames were sent through ROS; null on the road itself, where a
            frame follows the one before.
        opening: The engine's first moments; null through ROS.
        after_idle_ms: The road's time for single frames, each after a rest.
        stages: Steady state of each stage, and of the whole road as `total`.
        frames_per_second: What one caller gets who asks without a pause.
        memory_mib: Growth of the process by this configuration, MiB; null where unknown.
        power_w: Mean power during its rounds, watts; null without a sensor.
        energy_mj: Energy per frame, millijoules; null without a sensor.
        paced: Frames at a fixed rate; null where none was asked for.
        rounds: The turns it took.
        course: Time since the start in seconds and the road's milliseconds of some of its frames;
            of equally many frames in a row the slowest is among them.
    """

    engine: str
    engine_version: str
    threads: int
    batch: int
    source: str
    sent_hz: float | None = None
    opening: Opening | None
    after_idle_ms: tuple[float, ...]
    stages: dict[str, Summary]
    frames_per_second: float
    memory_mib: float | None
    power_w: float | None
    energy_mj: float | None
    paced: Paced | None
    rounds: tuple[Round, ...]
    course: tuple[tuple[float, float], ...]

    @property
    def name(self) -> str:
        """The configuration in a few words."""
        threads = f"{self.threads} threads" if self.threads != 1 else "1 thread"
        return f"{self.engine}, {threads}, batch {self.batch}, {self.source}"

    @property
    def histogram(self) -> Histogram:
        """The whole road's times of all rounds."""
        return Histogram.merged([each.stages["total"] for each in self.rounds])


class Sensors(_Part):
    """Readings of the machine's sensors beside the frames.

    Attributes:
        times_s: When each reading was taken, seconds since the profile's start.
        series: Readings by name, with the unit before the dot; null where one failed.
        power_source: Which power the energy is of; empty without a sensor.
    """

    times_s: tuple[float, ...]
    series: dict[str, tuple[float | None, ...]]
    power_source: str


class Profile(_Part):
    """A profile.

    Attributes:
        schema_version: Version of this layout.
        package_version: Version of qpde_perception.
        began: When, UTC, ISO 8601.
        machine: The computer.
        model: The model.
        settings: How it was measured.
        rows: The configurations.
        sensors: Readings beside the frames.
    """

    schema_version: Literal[1] = 1
    package_version: str
    began: str
    machine: Machine
    model: Model
    settings: Settings | RosSettings
    rows: tuple[Row, ...] = Field(min_length=1)
    sensors: Sensors

    def document(self) -> dict[str, Any]:
        """Return what is written to `profile.json`."""
        return self.model_dump(mode="json")


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        ProfilingError: If it is none, or of another version.
        OSError: If it cannot be read.
    """
    try:
        return Profile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        msg = f"{path}: no profile of schema {SCHEMA_VERSION} ({place}: {first['msg']}); give the "
        msg += "profile.json of qpde profile"
        raise ProfilingError(msg) from None
