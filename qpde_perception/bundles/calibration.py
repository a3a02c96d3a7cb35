"""The calibration: what a healthy network does on the data that it was validated on."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qpde_perception.bundles.errors import BundleError

if TYPE_CHECKING:
    from qpde_perception.bundles.bundle import Bundle

CALIBRATION = "calibration.json"

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cause(str, Enum):
    """What has changed, where the deployed network is not what was validated."""

    ENGINE_CHANGED = "engine changed"
    WORLD_CHANGED = "world changed"
    PREPROCESSING_WRONG = "preprocessing wrong"
    CAMERA_DEGRADED = "camera degraded"
    REFERENCE_UNAVAILABLE = "reference unavailable"


class MeanReference(_Part):
    """An observable between 0 and 1.

    Attributes:
        mean: Mean over the groups.
        bound: Upper confidence bound of that mean, the null of the test: "given the past, at most
            this is expected".
    """

    mean: Share
    bound: Annotated[float, Field(gt=0, lt=1)]


class NoiseReference(_Part):
    """How far the engine's logits are from those of the network that does not round.

    Attributes:
        variance: Mean of the squared distance over the groups: the unit of the ratio whose mean is
            1 in a healthy engine.
        cap: Largest ratio that counts as such; larger ones count as this.
        capped: The capped ratio over the cap.
    """

    variance: Positive
    cap: Positive
    capped: MeanReference


class TapReference(_Part):
    """Saturation of a tap: the share of its codes at the largest value of its grid.

    Attributes:
        name: Its name.
        share: Mean share over the groups.
        cap: Largest share that counts as such; larger ones count as this. A bound of numbers as
            small as shares would say nothing, as anything up to 1 would be possible.
        capped: The capped share over the cap.
    """

    name: str
    share: Share
    cap: Positive
    capped: MeanReference


class StatisticReference(_Part):
    """One statistic of the network's input.

    Attributes:
        name: Its name.
        quantiles: Its quantiles at evenly spaced probabilities from 0 to 1: they turn a value into
            its rank among the calibration frames, between 0 and 1.
        above: Upper confidence bound of the mean rank.
        below: Upper confidence bound of the mean of 1 less the rank.
    """

    name: str
    quantiles: Annotated[tuple[Real, ...], Field(min_length=2)]
    above: MeanReference
    below: MeanReference


class Signature(_Part):
    """What a fault does to the statistics of the input.

    Attributes:
        fault: Its name.
        severity: 1 to 5; 0 where it has none.
        cause: What it is called.
        shift: Mean of the normal scores of the statistics, in their order, under the fault.
    """

    fault: str
    severity: Annotated[int, Field(ge=0)]
    cause: Cause
    shift: tuple[Real, ...]


class InputReference(_Part):
    """Statistics of the network's input.

    Attributes:
        statistics: Each of them.
        covariance: Of their normal scores (the normal quantile of the rank) over groups.
        signatures: Known faults.
    """

    statistics: tuple[StatisticReference, ...]
    covariance: tuple[tuple[Real, ...], ...]
    signatures: tuple[Signature, ...]

    @model_validator(mode="after")
    def _fits(self) -> InputReference:
        size = len(self.statistics)
        rows = {len(row) for row in self.covariance} | {len(each.shift) for each in self.signatures}
        if len(self.covariance) != size or rows - {size}:
            msg = f"{size} statistics, but a covariance or a signature of another size"
            raise ValueError(msg)
        return self


class Calibration(_Part):
    """What is normal.

    Attributes:
        format_version: Version of this format.
        source: The data: a set and its split, or a drive.
        grouping: What counts as one independent piece of it: frames within one depend on each
            other.
        groups: Number of such pieces.
        frames: Number of frames.
        confidence: Confidence of each bound.
        engine: Engine that gave the logits.
        noise: Distance to the network that does not round.
        disagreement: Share of frames whose first class differs from that network's.
        taps: Saturation, in the order of the graph's taps.
        inputs: Statistics of the network's input.
        class_mix: Share of frames of each class that the engine sees; for information.
        entropy: Mean entropy of the probabilities, nats; for information.
    """

    format_version: Annotated[int, Field(ge=1, le=1)] = 1
    source: str
    grouping: str
    groups: Annotated[int, Field(ge=1)]
    frames: Annotated[int, Field(ge=1)]
    confidence: Share
    engine: str
    noise: NoiseReference
    disagreement: MeanReference
    taps: tuple[TapReference, ...]
    inputs: InputReference
    class_mix: tuple[Share, ...]
    entropy: Annotated[float, Field(ge=0)]

    def to_bytes(self) -> bytes:
        """Return the content of `calibration.json`."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def calibration_of(bundle: Bundle) -> Calibration | None:
    """Read a bundle's calibration; None where it has none.

    Raises:
        BundleError: If the file is damaged.
    """
    if CALIBRATION not in bundle.contents:
        return None
    try:
        return Calibration.model_validate_json(bundle.read(CALIBRATION))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        msg = f"{bundle.path / CALIBRATION}: {where}: {first['msg']}; calibrate the model again"
        raise BundleError(msg) from None
