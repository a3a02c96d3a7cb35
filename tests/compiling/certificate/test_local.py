"""The local bound: no admissible rounding ever goes below it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qpde_perception.compiling.certificate.execution import (  # noqa: E402
    LOGITS,
    deployed,
    disturbed,
    saturating,
    unquantized,
)
from qpde_perception.compiling.certificate.local import (  # noqa: E402
    LocalBound,
    adversarial_logits,
    margin_rows,
)
from qpde_perception.compiling.certificate.noise import NoiseModel  # noqa: E402
from qpde_perception.compiling.folding import fold  # noqa: E402
from qpde_perception.compiling.specification import Specification  # noqa: E402


@pytest.fixture(scope="module")
def local(make_network, flavour):
    return LocalBound(fold(make_network(f"{flavour}_mobilenet_v2_tiny")))


@pytest.fixture(scope="module")
def setting(local, frames):
    x = local.execution.codes(frames)
    return x, local.execution.run(x, unquantized)[LOGITS].argmax(1)


def free_from(local, name, error):
    """Round as the integers do before a quantizer, and by `error(site, value)` from there on."""
    before = local.names[: local.names.index(name)]

    def put(site, value):
        if site.name in before or not site.rounds:
            return deployed(site, value)
        return disturbed(site, value, error(site, value))

    return put


def test_what_a_margin_loses_stays_below_its_bound(local, setting):
    x, _ = setting
    change = local.largest_change(x, local.names[0])
    noise = NoiseModel(local.execution.specification).predict(x.float())
    best = local.execution.run(x, saturating)[LOGITS].topk(2, dim=1)
    margin = best.values[:, 0] - best.values[:, 1]
    for share in (1.0, 0.25):
        attacked = adversarial_logits(local.execution, x, noise.direction, share)
        pair = attacked.gather(1, best.indices)
        lost = margin - (pair[:, 0] - pair[:, 1])
        assert (lost <= change).all()
        assert lost.max() > 0
    assert (local.largest_change(x, local.names[-1]) < change).all()


def margins(logits, classes):
    rows = margin_rows(classes, logits.shape[1]).double()
    return (rows @ logits.unsqueeze(2)).squeeze(2)


def test_no_random_rounding_of_any_quantizer_exceeds_the_bound(local, setting):
    x, classes = setting
    generator = torch.Generator().manual_seed(0)

    def sign(site, value):
        return torch.randint(0, 2, value.shape, generator=generator) - 0.5

    for name in local.names:
        bounds = local.margins(x, name, classes)
        for _ in range(4):
            logits = local.execution.run(x, free_from(local, name, sign))[LOGITS]
            assert (margins(logits, classes) >= bounds).all(), name


def test_no_rounding_against_a_margin_exceeds_the_bound_and_the_last_ones_reach_it(local, setting):
    x, classes = setting
    others = (classes + 1) % 5
    for name in local.names:
        leaves = {}

        def put(site, value, name=name, leaves=leaves):
            def leaf(_, value):
                leaves[site.name] = torch.zeros_like(value, requires_grad=True)
                return leaves[site.name]

            return free_from(local, name, leaf)(site, value)

        logits = local.execution.run(x, put)[LOGITS]
        margin = logits.gather(1, classes[:, None]) - logits.gather(1, others[:, None])
        gradients = torch.autograd.grad(margin.sum(), list(leaves.values()))
        steps = {key: -0.5 * g.sign() for key, g in zip(leaves, gradients, strict=True)}

        def against(site, value, steps=steps):
            return steps[site.name]

        attacked = local.execution.run(x, free_from(local, name, against))[LOGITS]
        bounds = local.margins(x, name, classes)
        assert (margins(attacked, classes) >= bounds).all(), name
        if name == "head":
            place = (others - (others > classes).long())[:, None]
            reached = margins(attacked, classes).gather(1, place)
            torch.testing.assert_close(reached, bounds.gather(1, place), rtol=1e-3, atol=1e-3)


def test_the_integers_themselves_are_an_admissible_rounding(local, setting):
    x, classes = setting
    logits = local.execution.run(x, deployed)[LOGITS]
    for name in local.names:
        assert (margins(logits, classes) >= local.margins(x, name, classes)).all()


def test_a_bound_grows_with_the_quantizers_that_are_free(local, setting):
    x, classes = setting
    ends = [local.margins(x, local.names[i], classes).mean() for i in (0, -3, -1)]
    assert ends[0] < ends[1] < ends[2]


def test_certified_frames_keep_their_class_under_attack(tiny_specification, changed, setting):
    x, classes = setting
    # A head that answers a hundred times louder leaves the noise behind the bias.
    loud = changed(tiny_specification, "head.bias", lambda bias: bias * 300)
    local, noise = LocalBound(loud), NoiseModel(loud)
    classes = local.execution.run(x, unquantized)[LOGITS].argmax(1)
    depth = local.depth(x, classes)
    assert (depth == len(local.names)).any(), "nothing is certified; the test would show nothing"
    direction = noise.predict(x.float()).direction
    attacked = adversarial_logits(noise.execution, x.float(), direction).argmax(1)
    certified = depth == len(local.names)
    assert (attacked[certified] == classes[certified]).all()


def test_a_refuted_frame_is_never_certified(tiny_specification, changed, setting):
    x, _ = setting
    # Without its bias the head has small margins.
    local = LocalBound(changed(tiny_specification, "head.bias", np.zeros_like))
    classes = local.execution.run(x, unquantized)[LOGITS].argmax(1)
    noise = NoiseModel(local.execution.specification)
    attacked = adversarial_logits(
        noise.execution, x.float(), noise.predict(x.float()).direction
    ).argmax(1)
    refuted = attacked != classes
    assert refuted.any()
    assert (local.depth(x, classes)[refuted] < len(local.names)).all()


def test_a_class_other_than_the_deployed_one_is_not_certified_at_all(local, setting):
    x, _ = setting
    deployed_classes = local.execution.run(x, deployed)[LOGITS].argmax(1)
    for other in range(1, 5):
        assert (local.depth(x, (deployed_classes + other) % 5) == 0).all()


def test_the_specification_is_all_that_is_read(setting, local):
    x, classes = setting
    files = local.execution.specification.to_files()
    again = LocalBound(Specification.from_files(*files.values()))
    assert (again.depth(x, classes) == local.depth(x, classes)).all()
