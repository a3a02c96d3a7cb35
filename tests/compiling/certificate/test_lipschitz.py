"""The global bound: proven constants, and nothing that ever exceeds them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qpde_perception.compiling.certificate.execution import (  # noqa: E402
    LOGITS,
    Execution,
    deployed,
    unquantized,
)
from qpde_perception.compiling.certificate.lipschitz import global_bound  # noqa: E402
from qpde_perception.compiling.certificate.ranges import largest_errors  # noqa: E402
from qpde_perception.compiling.certificate.symmetry import (  # noqa: E402
    residual_branches,
    symmetric_form,
)
from qpde_perception.compiling.folding import fold  # noqa: E402
from qpde_perception.compiling.reference import IntegerReference  # noqa: E402
from qpde_perception.learning.limited import LimitedBlock  # noqa: E402
from qpde_perception.learning.networks import CONFIGS  # noqa: E402

TINY = "symmetric_mobilenet_v2_tiny"
BLOCK = "stage0.block0"


@pytest.fixture(scope="module")
def bound(tiny_specification):
    return global_bound(tiny_specification)


def distances(specification, pixels):
    execution = Execution(specification, torch.float64)
    floating = execution.run(execution.codes(pixels), unquantized)[LOGITS]
    given = torch.from_numpy(IntegerReference(specification).infer(pixels)).double()
    return (given - floating).norm(dim=1)


def test_no_frame_exceeds_the_bound(tiny_specification, frames, bound):
    assert distances(tiny_specification, frames).max() < bound.total
    assert bound.rounding < bound.total < float("inf")


def test_no_frame_found_by_ascent_on_the_distance_exceeds_the_bound(
    tiny_specification, frames, bound
):
    execution = Execution(tiny_specification, torch.float64)
    x = execution.codes(frames)

    def straight_through(site, value):
        clipped = value.clamp(site.low, site.high)
        return clipped + (deployed(site, value) - clipped).detach()

    for _ in range(5):
        x = x.detach().requires_grad_()
        gap = execution.run(x, straight_through)[LOGITS] - execution.run(x, unquantized)[LOGITS]
        (gradient,) = torch.autograd.grad(gap.square().sum(), x)
        x = (x + 16 * gradient.sign()).clamp(-128, 127).detach().round()
    pixels = (x + 128).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    climbed = distances(tiny_specification, pixels)
    assert climbed.max() > distances(tiny_specification, frames).max()
    assert climbed.max() < bound.total


def test_no_quantizer_errs_by_more_than_its_largest_error(tiny_specification, frames):
    errors = largest_errors(tiny_specification)
    execution = Execution(tiny_specification, torch.float64)
    cut = 0

    def put(site, value):
        nonlocal cut
        code = deployed(site, value)
        error = (code - unquantized(site, value)).abs().transpose(0, 1).flatten(1).amax(1)
        error = (error * site.step).numpy()
        assert (error <= errors[site.name].total).all(), site.name
        cut += (error > errors[site.name].rounding).sum()
        return code

    execution.run(execution.codes(frames), put)
    assert cut, "nothing saturates in these frames; the test would miss a wrong range"


def test_blocks_are_recognised_from_their_integers(tiny_specification, bound):
    symmetric = [stage.name for stage in bound.stages if stage.symmetric]
    assert symmetric == ["stage0.block0.sum", "stage1.block0.sum"]


def test_power_iteration_stays_below_every_proven_constant(bound):
    for stage in bound.stages:
        assert 0 < stage.measured <= stage.lipschitz, stage.name
        assert stage.lipschitz < 1.6 * stage.measured, stage.name


def test_a_block_moves_two_inputs_no_further_apart_in_its_own_norm_than_its_constant(
    tiny_specification, bound
):
    execution = Execution(tiny_specification, torch.float64)
    branches = {branch.name: branch for branch in residual_branches(tiny_specification)}
    for stage in bound.stages:
        if not stage.symmetric:
            continue
        branch = branches[stage.name]
        form = symmetric_form(tiny_specification, branch)
        weights = torch.from_numpy(form.outer)[:, None, None]
        generator = torch.Generator().manual_seed(1)
        shape = (32, len(form.outer), *form.size)
        pair = [torch.randn(shape, generator=generator).double() * 60 for _ in range(2)]
        after = []
        for x in pair:
            y = x
            for layer in branch.convolutions:
                site = execution.sites[layer.output]
                y = unquantized(site, execution.exact(layer, {layer.input: y}))
            after.append(x + y)
        apart, moved = (
            ((a - b).square() / weights).flatten(1).sum(1).sqrt() for a, b in (pair, after)
        )
        assert (moved <= apart * stage.lipschitz).all()


def test_a_block_whose_step_is_small_is_non_expansive(tiny_specification, changed):
    calm = tiny_specification
    for number in (0, 1):
        calm = changed(calm, f"stage{number}.block0.expand_t.scale", lambda scale: scale / 1024)
    constants = {stage.name: stage.lipschitz for stage in global_bound(calm).stages}
    assert constants["stage0.block0.sum"] == constants["stage1.block0.sum"] == 1.0


def test_a_flipped_bit_makes_a_block_lose_its_symmetry(
    tiny_specification, changed, flip_high_bit, bound
):
    broken = global_bound(changed(tiny_specification, f"{BLOCK}.depthwise_t.weight", flip_high_bit))
    stages = {stage.name: stage for stage in broken.stages}
    assert not stages[f"{BLOCK}.sum"].symmetric
    assert broken.rounding > bound.rounding


def test_a_block_without_its_minus_sign_is_not_symmetric(tiny_specification, changed):
    wrong = changed(tiny_specification, f"{BLOCK}.expand_t.weight", np.negative)
    assert symmetric_form(wrong, residual_branches(wrong)[0]) is None


def test_a_wrong_scale_changes_the_constant_of_its_block(tiny_specification, changed, bound):
    wrong = changed(
        tiny_specification, f"{BLOCK}.expand_t.scale", lambda scale: scale * np.float32(2.008)
    )
    before, after = (
        {stage.name: stage.lipschitz for stage in found.stages}[f"{BLOCK}.sum"]
        for found in (bound, global_bound(wrong))
    )
    assert after + 1 == pytest.approx(2.008 * (before + 1), rel=1e-6)


@pytest.fixture(scope="module")
def make_limited(make_network):
    """Make tiny networks that want to step too far, with the limit on their steps or without."""

    def make(stage_gain, *, level_channels=False):
        config = replace(
            CONFIGS[TINY], depths=(2, 1), stage_gain=stage_gain, level_channels=level_channels
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(CONFIGS, "steps", config)
            network = make_network("steps")
        blocks = [block for stage in network.stages for block in stage.blocks]
        with torch.no_grad():
            for block in blocks:
                block.outer_norm.log_scale += 3.0
                if isinstance(block, LimitedBlock):
                    block.settle()
        return fold(network)

    return make


def constants(bound):
    return [stage.lipschitz for stage in bound.stages if stage.symmetric]


def test_blocks_of_a_stable_network_are_proven_to_amplify_nothing(make_limited):
    free = global_bound(make_limited(None))
    assert min(constants(free)) > 2.0
    for level_channels in (False, True):
        stable = global_bound(make_limited(1.0, level_channels=level_channels))
        assert constants(stable) == [1.0, 1.0, 1.0]
        assert stable.total < free.total


def test_blocks_share_the_gain_of_their_stage(make_limited):
    first, second, alone = constants(global_bound(make_limited(4.0)))
    assert first == pytest.approx(2.0, rel=0.05)
    assert second == pytest.approx(2.0, rel=0.05)
    assert alone == pytest.approx(4.0, rel=0.05)
    assert max(first * second, alone) <= 4.0
