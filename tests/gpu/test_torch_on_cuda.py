"""Learning on a GPU: a step of training is that of the CPU, within what float32 leaves open."""

from __future__ import annotations

import pytest

BATCH = 16


@pytest.fixture
def step_on(cuda_torch, make_network, images):
    """Take one step of the tiny network on a device; gives the loss and the gradients."""
    torch = cuda_torch
    from qpde_perception.learning.quantizers import set_active
    from qpde_perception.learning.stepping import EagerStep

    def step(device, *, quantized):
        network = make_network().train().to(device)
        set_active(network, active=quantized)
        pixels = torch.from_numpy(images(BATCH, 16, seed=51)).permute(0, 3, 1, 2)
        targets = torch.arange(BATCH) % 5
        # TensorFloat-32, the default of cuDNN, has ten bits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            taken = EagerStep(network, smoothing=0.1, half=False)
            loss = taken(pixels.to(device), targets.to(device))
        gradients = {
            name: parameter.grad.double().cpu()
            for name, parameter in network.named_parameters()
            if parameter.grad is not None
        }
        return loss.cpu(), gradients

    return step


def test_a_float_step_on_cuda_is_that_of_the_cpu(cuda_torch, step_on):
    loss, gradients = step_on("cpu", quantized=False)
    found, found_gradients = step_on("cuda", quantized=False)
    cuda_torch.testing.assert_close(found, loss, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == found_gradients.keys()
    for name, gradient in gradients.items():
        error = (found_gradients[name] - gradient).norm()
        assert error <= 1e-3 * gradient.norm() + 1e-6, name


def test_a_quantized_step_on_cuda_goes_the_way_of_the_cpus(cuda_torch, step_on):
    """A value at the border of two codes may take either, so single gradients may differ."""
    loss, gradients = step_on("cpu", quantized=True)
    found, found_gradients = step_on("cuda", quantized=True)
    cuda_torch.testing.assert_close(found, loss, rtol=0.02, atol=0)
    wanted = cuda_torch.cat([gradient.flatten() for gradient in gradients.values()])
    taken = cuda_torch.cat([found_gradients[name].flatten() for name in gradients])
    assert cuda_torch.nn.functional.cosine_similarity(taken, wanted, dim=0) >= 0.99
