"""One step of training: the loss and gradients that autograd gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from qpde_perception.learning.quantizers import ActivationQuantizer
from qpde_perception.learning.rounding_noise import otherwise_rounded, variance_of_differences
from qpde_perception.learning.stepping import EagerStep, GraphedStep, sign_loss


def network(device="cpu"):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return layers.to(device)


def batch(seed, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(8, 3, 6, 6, generator=generator)
    return pixels.to(device), torch.randint(0, 5, (8,), generator=generator).to(device)


def gradients(net):
    return [parameter.grad.clone() for parameter in net.parameters()]


def expected(net, pixels, targets):
    loss = F.cross_entropy(net(pixels), targets, label_smoothing=0.1)
    return loss.detach(), torch.autograd.grad(loss, list(net.parameters()))


def test_a_step_gives_the_loss_and_its_gradients_whatever_was_there_before():
    net = network()
    step = EagerStep(net, smoothing=0.1, half=False)
    for seed in (1, 2):
        pixels, targets = batch(seed)
        loss, wanted = expected(net, pixels, targets)
        torch.testing.assert_close(step(pixels, targets), loss)
        for found, gradient in zip(gradients(net), wanted, strict=True):
            torch.testing.assert_close(found, gradient)


def test_half_precision_is_near_and_its_gradients_are_in_full():
    net = network()
    pixels, targets = batch(3)
    loss, _ = expected(net, pixels, targets)
    found = EagerStep(net, smoothing=0.1, half=True)(pixels, targets)
    assert found != loss
    torch.testing.assert_close(found, loss, rtol=0.02, atol=0)
    assert all(gradient.dtype == torch.float32 for gradient in gradients(net))


class Rectified(nn.Module):
    """A network whose activation is quantized."""

    def __init__(self):
        super().__init__()
        self.quantizer = ActivationQuantizer(8, signed=False)
        self.body = network()

    def forward(self, x):
        return self.body(self.quantizer(torch.relu(x)))


def test_a_penalty_adds_the_noise_of_a_quarter_of_the_batch():
    net = Rectified()
    pixels, targets = batch(7)
    torch.manual_seed(3)
    loss = EagerStep(net, smoothing=0.1, half=False, noise_penalty=5.0)(pixels, targets)
    found = gradients(net.body)
    torch.manual_seed(3)
    with otherwise_rounded(net, 2):
        logits = net(torch.cat([pixels, pixels[:2]]))
    noise = variance_of_differences(logits[:2], logits[8:]).mean()
    wanted = F.cross_entropy(logits[:8], targets, label_smoothing=0.1) + 5.0 * noise
    torch.testing.assert_close(loss, wanted.detach())
    for gradient, right in zip(
        found, torch.autograd.grad(wanted, list(net.body.parameters())), strict=True
    ):
        torch.testing.assert_close(gradient, right)
    plain = EagerStep(net, smoothing=0.1, half=False)(pixels, targets)
    assert plain < loss


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_recorded_step_is_the_step_itself():
    net = network("cuda")
    eager = EagerStep(net, smoothing=0.1, half=False)
    graphed = GraphedStep(eager)
    for seed in (5, 6):
        pixels, targets = batch(seed, "cuda")
        loss = eager(pixels, targets)
        wanted = gradients(net)
        torch.testing.assert_close(graphed(pixels, targets), loss)
        for found, gradient in zip(gradients(net), wanted, strict=True):
            torch.testing.assert_close(found, gradient)


def test_an_unknown_sign_is_best_given_all_classes_alike():
    logits = torch.zeros(2, 4, requires_grad=True)
    loss = sign_loss(logits, torch.tensor([-1, -1]), 0.0)
    loss.backward()
    assert float(loss) == pytest.approx(np.log(4))
    torch.testing.assert_close(logits.grad, torch.zeros(2, 4))


def test_known_and_unknown_signs_of_a_batch_count_alike():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([2, -1, 0, 3, -1])
    each = [float(sign_loss(logits[i : i + 1], targets[i : i + 1], 0.1)) for i in range(5)]
    assert float(sign_loss(logits, targets, 0.1)) == pytest.approx(np.mean(each))
    wanted = F.cross_entropy(logits[:1], targets[:1], label_smoothing=0.1)
    assert each[0] == pytest.approx(float(wanted))
