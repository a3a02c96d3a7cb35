"""One step of training: as PyTorch runs it, or replayed as a CUDA graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812  (the field's name)

from qpde_perception.learning.rounding_noise import otherwise_rounded, variance_of_differences

if TYPE_CHECKING:
    from torch import Tensor, nn

    from qpde_perception.learning.distillation import Teachers

WARM_UP = 3
"""Steps before a capture: libraries choose and allocate what they need."""

PENALISED = 4
"""One of so many frames of a batch is looked at for the penalty on rounding noise."""


def sign_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the cross-entropy of a batch; what is unknown shall be of all classes alike.

    Source of the second part: Hendrycks, Mazeika, Dietterich, "Deep anomaly detection with outlier
    exposure", ICLR 2019.

    Args:
        logits: Shape (n, classes).
        targets: Class indexes, or a negative number for what no class stands for, shape (n,).
        smoothing: Probability mass spread over the other classes.
    """
    known = F.cross_entropy(
        logits, targets.clamp_min(0), label_smoothing=smoothing, reduction="none"
    )
    unknown = -F.log_softmax(logits, dim=1).mean(1)
    return torch.where(targets >= 0, known, unknown).mean()


class EagerStep:
    """Computes loss and gradients, operation by operation."""

    def __init__(
        self,
        network: nn.Module,
        *,
        smoothing: float,
        half: bool,
        noise_penalty: float = 0.0,
        teachers: Teachers | None = None,
        taught_share: float = 0.0,
    ) -> None:
        """Prepare.

        Args:
            network: Whose gradients are wanted.
            smoothing: Probability mass spread over the other classes.
            half: Compute in bfloat16 where that is safe.
            noise_penalty: Weight of the predicted variance of the logits' differences in the loss.
            teachers: Whose probabilities are learned as well.
            taught_share: Share of the loss that is the distance to the teachers, in [0, 1].
        """
        self.network = network
        self._smoothing, self._half = smoothing, half
        self._noise_penalty = noise_penalty
        self._teachers, self._taught_share = teachers, taught_share

    def __call__(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, and leave its gradients in the parameters."""
        for parameter in self.network.parameters():
            parameter.grad = None
        kind = pixels.device.type
        # A graph must hold the conversion of the weights, so they are not cached across steps.
        with torch.autocast(kind, torch.bfloat16, enabled=self._half, cache_enabled=kind == "cpu"):
            logits, variance = self._answers(pixels)
        loss = sign_loss(logits, targets, self._smoothing)
        if self._teachers is not None:
            loss = torch.lerp(loss, self._teachers.loss(logits, pixels), self._taught_share)
        if variance is not None:
            loss = loss + self._noise_penalty * variance.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _answers(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return logits, and of some frames what rounding does to them where that is penalised."""
        if not self._noise_penalty:
            return self.network(pixels).float(), None
        count = max(1, len(pixels) // PENALISED)
        with otherwise_rounded(self.network, count):
            logits = self.network(torch.cat([pixels, pixels[:count]])).float()
        own, other = logits[: len(pixels)], logits[len(pixels) :]
        return own, variance_of_differences(own[:count], other)


class GraphedStep:
    """Replays one recorded step: a small network's thousands of kernels without their launches."""

    def __init__(self, step: EagerStep) -> None:
        """Prepare; the first call records.

        Args:
            step: What is recorded; the network must be on a CUDA device and stay in its mode.
        """
        self._step, self.network = step, step.network
        self._recorded: _Recording | None = None

    def __call__(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, and leave its gradients in the parameters.

        All batches have the shape and type of the first one.
        """
        if self._recorded is None:
            self._recorded = _Recording(self._step, pixels, targets)
        return self._recorded.replay(pixels, targets)


class _Recording:
    def __init__(self, step: EagerStep, pixels: Tensor, targets: Tensor) -> None:
        self._pixels, self._targets = pixels.clone(), targets.clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step(self._pixels, self._targets)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = step(self._pixels, self._targets)
        # The graph writes its gradients into these; an optimizer may not let go of them.
        self._gradients = [(p, p.grad) for p in step.network.parameters()]

    def replay(self, pixels: Tensor, targets: Tensor) -> Tensor:
        self._pixels.copy_(pixels, non_blocking=True)
        self._targets.copy_(targets, non_blocking=True)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss.clone()
