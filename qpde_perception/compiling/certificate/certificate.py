"""The certificate of one model: three answers on the same frames, and whether they agree."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from qpde_perception.compiling.certificate.execution import LOGITS, unquantized
from qpde_perception.compiling.certificate.lipschitz import global_bound
from qpde_perception.compiling.certificate.local import LocalBound, adversarial_logits
from qpde_perception.compiling.certificate.noise import NoiseModel
from qpde_perception.compiling.errors import CompilingError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from qpde_perception.compiling.specification import Specification

IMAGES = 200
"""Frames of a certificate, where no other number is asked for."""
BATCH = 4
SIGMAS = 5.0
TAIL_SIGMAS = 3.0
ATTACKS = (1.0, 0.25)
"""Shares of the half step that roundings against a margin use: a long step can overshoot."""
RATIO_TOLERANCE, RATIO_SPREAD = 0.1, 2.5
"""A healthy noise ratio is within `0.1 + 2.5 / sqrt(frames)` of one.

The logits of a frame share most of their noise: with independent uniform roundings the ratio of 16
frames scattered by 0.16, so the second term is four deviations.
"""
FLOAT32_LOGITS = 1e-5
"""Relative rounding of float32 logits, allowed for when an engine's margins meet a bound."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """How far the deployed network is from its float self; lists are in order of execution.

    Attributes:
        images: Frames that were examined.
        engine: What computed the deployed logits.
        global_bound: Largest possible Euclidean distance of the logits from the float reference's,
            for every input.
        rounding_bound: The same where no grid cuts a value off.
        observed_max: Largest distance seen.
        certified_share: Share of frames that keep their class whatever all roundings are.
        refuted_share: Share for which roundings within half a step change the class: for these no
            such certificate can exist.
        margin_median: Of the margin between first and second class.
        first_order_median: Of the largest change of that margin to first order.
        five_sigma_share: Share of frames whose every margin exceeds five predicted deviations.
        noise_ratio: Observed over predicted deviation of margins, root mean squares.
        three_sigma_tail: Share of margins that moved by more than three predicted deviations; of a
            normal distribution it is 0.0027.
        clipping_rms: Root mean square of what clipping without rounding changes in a logit.
        broken_bounds: Frames whose deployed margins are below what any rounding of the last
            quantizer allows, or whose certified class is not the deployed one.
        stages: Names of the steps of the trunk.
        stage_lipschitz: Proven upper bound of each one's Lipschitz constant.
        stage_measured: The same by power iteration, from below.
        stage_symmetric: Whether it is a block whose two sides are transposes.
        quantizers: Names of the quantizers that round.
        noise_gain: `|| d logits / d a ||_F` in real units, mean over frames.
        noise_share: Share of the predicted variance.
        certified_from: Share of frames that keep their class whatever the roundings of this
            quantizer and all after it are.
        ok: Whether no bound is broken and the noise ratio is healthy.
    """

    images: int
    engine: str
    global_bound: float
    rounding_bound: float
    observed_max: float
    certified_share: float
    refuted_share: float
    margin_median: float
    first_order_median: float
    five_sigma_share: float
    noise_ratio: float
    three_sigma_tail: float
    clipping_rms: float
    broken_bounds: int
    stages: tuple[str, ...]
    stage_lipschitz: tuple[float, ...]
    stage_measured: tuple[float, ...]
    stage_symmetric: tuple[bool, ...]
    quantizers: tuple[str, ...]
    noise_gain: tuple[float, ...]
    noise_share: tuple[float, ...]
    certified_from: tuple[float, ...]
    ok: bool

    def to_bytes(self) -> bytes:
        """Return the content of `certificate.json`."""
        return (json.dumps(asdict(self), indent=1, allow_nan=False) + "\n").encode()


def certify(
    specification: Specification,
    pixels: NDArray[np.uint8],
    logits: NDArray[np.float32],
    engine: str,
    advance: Callable[[int], None] = lambda _done: None,
) -> Certificate:
    """Examine a model on frames.

    Args:
        specification: The network in integers.
        pixels: Frames, uint8, shape (n, height, width, 3).
        logits: What the deployed network answers to them, shape (n, classes).
        engine: What computed `logits`.
        advance: Is told how many frames are done.

    Raises:
        CompilingError: If there is no frame, or no noise to compare with.
    """
    if not len(pixels):
        msg = "a certificate needs at least one frame"
        raise CompilingError(msg)
    bound = global_bound(specification)
    examination = _Examination(specification)
    parts = []
    for start in range(0, len(pixels), BATCH):
        chunk = slice(start, start + BATCH)
        parts.append(examination.frames(pixels[chunk], torch.from_numpy(logits[chunk]).double()))
        advance(min(start + BATCH, len(pixels)))
    frames = {key: torch.cat([part[key] for part in parts]).double() for key in parts[0]}
    predicted = frames["variance"].sum()
    if predicted <= 0:
        msg = "nothing in this network is rounded on these frames; there is no noise to certify"
        raise CompilingError(msg)
    observed_max = float(frames["distance"].max())
    noise_ratio = float((frames["observed"].sum() / predicted).sqrt())
    broken = int(frames["broken"].sum())
    names = examination.local.names
    depths = frames["depth"]
    certified_from = [float((depths >= len(names) - i).double().mean()) for i in range(len(names))]
    return Certificate(
        images=len(pixels),
        engine=engine,
        global_bound=bound.total,
        rounding_bound=bound.rounding,
        observed_max=observed_max,
        certified_share=certified_from[0],
        refuted_share=float(frames["refuted"].mean()),
        margin_median=float(frames["margin"].median()),
        first_order_median=float(frames["first_order"].median()),
        five_sigma_share=float(frames["five_sigma"].mean()),
        noise_ratio=noise_ratio,
        three_sigma_tail=float(frames["tail"].mean()),
        clipping_rms=float(frames["clipping"].mean().sqrt()),
        broken_bounds=broken,
        stages=tuple(stage.name for stage in bound.stages),
        stage_lipschitz=tuple(stage.lipschitz for stage in bound.stages),
        stage_measured=tuple(stage.measured for stage in bound.stages),
        stage_symmetric=tuple(stage.symmetric for stage in bound.stages),
        quantizers=names,
        noise_gain=tuple(frames["gain"].mean(0).tolist()),
        noise_share=tuple((frames["variance"].sum(0) / predicted).tolist()),
        certified_from=tuple(certified_from),
        ok=not broken
        and observed_max <= bound.total
        and abs(noise_ratio - 1.0) <= RATIO_TOLERANCE + RATIO_SPREAD / len(pixels) ** 0.5,
    )


class _Examination:
    """Puts the three questions to a few frames at a time."""

    def __init__(self, specification: Specification) -> None:
        self.local = LocalBound(specification)
        self.noise = NoiseModel(specification)

    @torch.no_grad()
    def frames(self, pixels: NDArray[np.uint8], answered: Tensor) -> dict[str, Tensor]:
        """Examine frames; every value has the frames as its first axis."""
        execution = self.local.execution
        x = execution.codes(pixels)
        floating = execution.run(x, unquantized)[LOGITS]
        classes = floating.argmax(1)
        noise = self.noise.predict(x.float())
        centre, variance = noise.logits.double(), noise.variance.double()
        best = centre.topk(2, dim=1).indices
        same = best[:, 0] == classes
        margins, moved = _margins(centre, best[:, 0]), _margins(answered, best[:, 0])
        others = torch.ones_like(margins, dtype=torch.bool).scatter(1, best[:, :1], value=False)
        deviation = variance.sum(0).sqrt()
        depth = self.local.depth(x, classes)
        lowest = self.local.margins(x, self.local.names[-1], classes)
        allowed = FLOAT32_LOGITS * answered.abs().amax(1, keepdim=True).clamp_min(1.0)
        given = _margins(answered, classes)
        apart = torch.arange(given.shape[1]) != classes[:, None]
        below = (given[apart].reshape(lowest.shape) < lowest - allowed).any(1)
        refuted = ~same  # clipping without any error of rounding is admissible
        for share in ATTACKS:
            attacked = adversarial_logits(self.noise.execution, x.float(), noise.direction, share)
            refuted |= attacked.argmax(1) != classes
        return {
            "distance": (answered - floating).norm(dim=1),
            "clipping": (centre - floating).square().mean(1),
            "depth": depth,
            "refuted": refuted,
            "broken": below | ((depth > 0) & (answered.argmax(1) != classes)),
            "margin": margins.gather(1, best[:, 1:])[:, 0],
            "first_order": noise.worst.sum(0).gather(1, best[:, 1:])[:, 0],
            "five_sigma": same & ((margins > SIGMAS * deviation) | ~others).all(1),
            "observed": (moved - margins).square().sum(1),
            "tail": ((moved - margins).abs() > TAIL_SIGMAS * deviation)[others].reshape(len(x), -1),
            "variance": variance.sum(2).T,
            "gain": noise.gain.T,
        }


def _margins(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]) - logits
