"""The penalised noise against exact derivatives, and against the certificate's own prediction."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qpde_perception.learning.quantizers import ActivationQuantizer, set_active
from qpde_perception.learning.rounding_noise import (
    RANGE,
    otherwise_rounded,
    variance_of_differences,
)

FRAMES = 4


@pytest.fixture(scope="module")
def network(make_network):
    """The tiny network, not quantized."""
    made = make_network()
    set_active(made, active=False)
    return made


@pytest.fixture
def pixels(images):
    return torch.from_numpy(images(FRAMES, 16, seed=11)).permute(0, 3, 1, 2)


@pytest.fixture
def fine(monkeypatch):
    """Have grids so fine that no ReLU switches."""
    from qpde_perception.learning import rounding_noise

    monkeypatch.setattr(rounding_noise, "RANGE", RANGE * 0.01)
    return 0.01


def draws(network, pixels, count):
    """The variance of the differences over many draws of the errors, mean over draws."""
    n = len(pixels)
    with torch.no_grad(), otherwise_rounded(network, n * count):
        logits = network(torch.cat([pixels, pixels.repeat(count, 1, 1, 1)]))
    own = logits[:n].repeat(count, 1)
    return variance_of_differences(own, logits[n:]).reshape(count, n).mean(0)


def exact_variance(network, pixels):
    """`sum_j s_j^2 / 12 || grad_{a_j} (z_t - z_r) ||^2`, one derivative for each class."""
    uses = []

    def note(quantizer, given, output):
        leaf = torch.zeros_like(output, requires_grad=True)
        uses.append((quantizer, given[0].detach(), leaf))
        return output + leaf

    quantizers = [part for part in network.modules() if isinstance(part, ActivationQuantizer)]
    hooks = [quantizer.register_forward_hook(note) for quantizer in quantizers]
    logits = network(pixels)
    for hook in hooks:
        hook.remove()
    first = logits.argmax(1)
    total = torch.zeros(len(pixels), dtype=logits.dtype)
    for r in range(logits.shape[1]):
        difference = (logits.gather(1, first[:, None])[:, 0] - logits[:, r]).sum()
        gradients = torch.autograd.grad(difference, [leaf for *_, leaf in uses], retain_graph=True)
        for (quantizer, exact, _), gradient in zip(uses, gradients, strict=True):
            step = RANGE * exact.square().mean().sqrt() / quantizer.q_max
            inside = torch.ones_like(exact) if quantizer.signed else (exact > 0).to(exact)
            total += step**2 / 12 * (gradient * inside).square().flatten(1).sum(1)
    return total / (logits.shape[1] - 1)


def test_draws_of_the_errors_average_to_the_exact_gain(network, pixels, fine):
    torch.manual_seed(0)
    found = draws(network, pixels, 400) / fine**2
    # A mean of 400 squares of nearly normal values scatters by at most sqrt(2 / 400) = 7 %.
    torch.testing.assert_close(found, exact_variance(network, pixels), rtol=0.25, atol=0)
    total = found.sum() / exact_variance(network, pixels).sum()
    assert 0.9 < total < 1.1


@given(st.floats(0.1, 10.0))
@settings(max_examples=10)
def test_the_unit_of_a_feature_map_changes_nothing(factor):
    quantizer = ActivationQuantizer(8, signed=True)
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    changes = []
    for unit in (1.0, factor):
        torch.manual_seed(2)
        with otherwise_rounded(quantizer, 3):
            changes.append((quantizer(unit * x) / unit - x)[3:])
    torch.testing.assert_close(*changes)


def test_errors_are_of_the_last_frames_alone_and_within_half_a_step():
    quantizer = ActivationQuantizer(8, signed=False)
    x = torch.relu(torch.randn(5, 2, 8, 8))
    with otherwise_rounded(quantizer, 2):
        change = quantizer(x) - x
    assert (change[:3] == 0).all()
    half = RANGE * x[3:].square().mean().sqrt() / 255 / 2
    assert 0.9 * half < change[3:].abs().max() <= half + 1e-6
    assert (change[3:][x[3:] == 0] == 0).all(), "where ReLU cuts off, zero is exact"


def test_in_quantization_the_last_frames_are_clipped_and_not_rounded():
    quantizer = ActivationQuantizer(8, signed=True)
    quantizer.alpha.data.fill_(1.0)
    quantizer.active = True
    x = torch.randn(4, 2, 8, 8)
    with otherwise_rounded(quantizer, 1):
        given = quantizer(x)
    scale = quantizer.scale
    assert torch.equal(given[:3], quantizer(x)[:3])
    assert torch.equal(given[3:], x[3:].clamp(-128 * scale, 127 * scale))
    assert torch.equal(quantizer(x)[3:] % scale, torch.zeros_like(x[3:]))


def test_observed_noise_of_a_quantized_network_is_what_its_certificate_predicts(
    make_network, images
):
    from qpde_perception.compiling.certificate.noise import NoiseModel
    from qpde_perception.compiling.folding import fold

    made = make_network()
    frames = images(64, 16, seed=5)
    model = NoiseModel(fold(made))
    predicted = model.predict(model.execution.codes(frames)).variance.sum()
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    with torch.no_grad(), otherwise_rounded(made, len(pixels)):
        logits = made(torch.cat([pixels, pixels]))
    observed = variance_of_differences(logits[:64], logits[64:]).sum() * (logits.shape[1] - 1)
    assert 0.85 < float((observed / predicted).sqrt()) < 1.15


def test_gradient_descent_lowers_the_noise(make_network, images):
    made = make_network().eval()
    set_active(made, active=False)
    pixels = torch.from_numpy(images(16, 16, seed=4)).permute(0, 3, 1, 2)
    optimizer = torch.optim.SGD(made.parameters(), lr=1e-2)
    noises = []
    for _ in range(8):
        torch.manual_seed(0)
        with otherwise_rounded(made, 16):
            logits = made(torch.cat([pixels, pixels]))
        noise = variance_of_differences(logits[:16], logits[16:]).mean()
        optimizer.zero_grad()
        noise.log().backward()
        optimizer.step()
        noises.append(noise.item())
    assert noises[-1] < 0.7 * noises[0]


def test_nothing_is_left_behind(network, pixels):
    with otherwise_rounded(network, 1):
        pass
    assert not any(part._forward_hooks for part in network.modules())
    assert torch.equal(network(pixels), network(pixels))
