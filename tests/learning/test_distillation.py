"""Distillation: the distance to a teacher, and a training that has one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from coloured_signs import CONFIG, SPEC, Watcher, coloured_signs
from torch import nn

from qpde_perception.learning.distillation import TEMPERATURE, Teachers, load_teachers
from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.quantizers import ActivationQuantizer, on_grid
from qpde_perception.learning.signs import SignSet, prepared_pixels
from qpde_perception.learning.stepping import EagerStep
from qpde_perception.learning.trained_run import load_run
from qpde_perception.learning.training import predict, train


@pytest.fixture(scope="module")
def signs():
    return coloured_signs(60)


@pytest.fixture(scope="module")
def teacher(signs, tmp_path_factory):
    """A run that learned every sign by the name of the next one."""
    folder = tmp_path_factory.mktemp("teacher")
    renamed = [
        record._replace(class_index=(record.class_index + 1) % 5) for record in signs.records
    ]
    others = SignSet(signs.pixels, renamed, signs.names)
    train(replace(CONFIG, seed=5), others, SPEC, folder, Watcher())
    return folder


def linear(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(27, 4))


def divergence(of, from_):
    """In float64, term by term."""
    p, q = (torch.softmax(x.double() / TEMPERATURE, 1) for x in (from_, of))
    return float((p * (p / q).log()).sum(1).mean()) * TEMPERATURE**2


def test_the_distance_is_the_divergence_of_the_softened_probabilities():
    network, pixels = linear(1), torch.randn(5, 3, 3, 3)
    logits = torch.randn(5, 4)
    wanted = divergence(logits, network(pixels).detach())
    # The teacher answers in bfloat16.
    assert float(Teachers([network]).loss(logits, pixels)) == pytest.approx(wanted, rel=0.03)


def test_of_several_teachers_the_mean_of_the_softened_probabilities_is_learned():
    networks, pixels = [linear(1), linear(6)], torch.randn(5, 3, 3, 3)
    logits = torch.randn(5, 4)
    answers = [torch.softmax(network(pixels) / TEMPERATURE, 1).detach() for network in networks]
    wanted = divergence(logits, (sum(answers) / 2).log() * TEMPERATURE)
    assert float(Teachers(networks).loss(logits, pixels)) == pytest.approx(wanted, rel=0.03)


def test_who_answers_as_the_teacher_does_has_nothing_to_learn():
    network, pixels = linear(2), torch.randn(5, 3, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(pixels).detach().float().requires_grad_(True)
    loss = Teachers([network]).loss(logits, pixels)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert float(logits.grad.abs().max()) < 1e-6


def test_a_step_weighs_classes_and_teacher_and_leaves_the_teacher_alone():
    pupil, network = linear(3), linear(4)
    pixels, targets = torch.randn(6, 3, 3, 3), torch.randint(0, 4, (6,))
    teachers = Teachers([network])
    plain = EagerStep(pupil, smoothing=0.0, half=False)(pixels, targets)
    taught = teachers.loss(pupil(pixels).detach(), pixels)
    step = EagerStep(pupil, smoothing=0.0, half=False, teachers=teachers, taught_share=0.75)
    torch.testing.assert_close(step(pixels, targets), 0.25 * plain + 0.75 * taught)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.training


def test_a_pupil_believes_its_teacher_more_than_the_classes_where_that_has_all_the_loss(
    signs, teacher, tmp_path
):
    config = replace(CONFIG, distillation=1.0)
    train(config, signs, SPEC, tmp_path, Watcher(), teachers=[teacher])
    watched = signs.split("val")
    pixels = prepared_pixels(watched, SPEC)
    for folder in (teacher, tmp_path):
        answers = predict(load_run(folder).network, pixels).argmax(1)
        # The teacher learned every sign by the name of the next one.
        assert np.mean(answers == (watched.labels + 1) % 5) > 0.9


def test_a_compiled_training_fuses_the_rounding_of_its_teachers_as_well(
    signs, teacher, tmp_path, monkeypatch
):
    rounded = Counter()

    def fused(x, *grid):
        rounded[share] += 1
        return on_grid(x, *grid)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fused)
    for share, teachers in ((0.0, ()), (0.8, (teacher,))):
        config = replace(CONFIG, float_epochs=1, compiled=True, distillation=share)
        train(config, signs, SPEC, tmp_path / str(share), Watcher(), teachers=teachers)
    share, network = "once", load_run(teacher).network
    for part in network.modules():
        if isinstance(part, ActivationQuantizer):
            part.rounding = fused
    predict(network, np.zeros((1, 16, 16, 3), np.uint8))
    steps = len(signs.split("train")) // CONFIG.batch * CONFIG.quantized_epochs
    assert rounded[0.8] - rounded[0.0] == rounded["once"] * steps > 0


def test_a_killed_lesson_goes_on_to_the_same_weights_and_names_its_teacher(
    signs, teacher, tmp_path
):
    config = replace(CONFIG, distillation=0.8)
    whole = train(config, signs, SPEC, tmp_path / "whole", Watcher(), teachers=[teacher])
    with pytest.raises(KeyboardInterrupt):
        train(config, signs, SPEC, tmp_path / "killed", Watcher(2), teachers=[teacher])
    resumed = train(config, signs, SPEC, tmp_path / "killed", Watcher(), teachers=[teacher])
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())
    run = load_run(tmp_path / "killed")
    assert run.taught_by == (load_run(teacher).recipe,)
    assert run.recipe["distillation"] == 0.8


@pytest.mark.parametrize(("share", "named"), [(0.0, True), (0.5, False)])
def test_a_share_without_a_teacher_and_a_teacher_without_a_share_are_refused(
    signs, teacher, tmp_path, share, named
):
    config = replace(CONFIG, distillation=share)
    with pytest.raises(LearningError, match="share of distillation"):
        train(config, signs, SPEC, tmp_path, Watcher(), teachers=[teacher] if named else [])
    assert list(tmp_path.iterdir()) == []


def test_who_knows_other_classes_or_sees_another_input_cannot_teach(signs, teacher):
    with pytest.raises(LearningError, match="it has other classes than"):
        load_teachers([teacher], (*signs.names, "another"), SPEC)
    with pytest.raises(LearningError, match="it has other inputs than"):
        load_teachers([teacher], signs.names, SPEC.model_copy(update={"region_margin": 0.5}))


def test_a_folder_without_a_run_cannot_teach(signs, tmp_path):
    with pytest.raises(LearningError, match="holds no finished run"):
        load_teachers([tmp_path], signs.names, SPEC)


def test_a_teacher_is_not_changed_by_teaching(signs, teacher, tmp_path):
    files = {path.name: path.read_bytes() for path in teacher.iterdir()}
    config = replace(CONFIG, distillation=0.8, float_epochs=1)
    train(config, signs, SPEC, tmp_path, Watcher(), teachers=[teacher])
    assert {path.name: path.read_bytes() for path in teacher.iterdir()} == files
    assert np.isfinite(predict(load_run(teacher).network, prepared_pixels(signs, SPEC))).all()
