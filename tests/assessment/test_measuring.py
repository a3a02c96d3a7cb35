"""Measuring one network: the rows hold what the parts of the package say on their own."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from qpde_perception.assessment.boxes import read_boxes
from qpde_perception.assessment.candidates import Deployed, Execution, Role
from qpde_perception.assessment.corruptions import CORRUPTIONS, corrupt
from qpde_perception.assessment.measuring import (
    Protocol,
    corrupted_signs,
    measure,
    pictures_of,
)
from qpde_perception.compiling.errors import CompilingError
from qpde_perception.engines.onnxruntime import OnnxRuntimeEngine
from qpde_perception.frames import resize
from qpde_perception.learning.signs import load_signs

PROTOCOL = Protocol(2, 1, rate_hz=10.0, time_constant_s=0.3, reset_after_s=1.0)


@pytest.fixture(scope="module")
def signs(data):
    return load_signs(data / "gtsrb")


@pytest.fixture(scope="module")
def pictures(signs, spec):
    return pictures_of(signs, spec, PROTOCOL)


@pytest.fixture(scope="module")
def boxes(data, spec):
    return read_boxes(data / "road_drive" / "roadsign_drive.zip", spec)


@pytest.fixture(scope="module")
def network(tiny_bundle, spec):
    """A bundle, whose float reference stands in for a float network as well."""
    integers, real = (tiny_bundle.read(name) for name in ("cpu.onnx", "reference_fp32.onnx"))
    executions = (
        Execution(Role.DEPLOYED, "W8A8", integers),
        Execution(Role.UNQUANTIZED, "W8, activations float", real),
        Execution(Role.FLOAT, "float", real),
    )
    return Deployed(spec, 123, 4567, executions, None, None)


@pytest.fixture(scope="module")
def rows(network, signs, pictures, boxes):
    return measure(network, signs, pictures, boxes, PROTOCOL)


def test_every_second_image_is_corrupted_at_its_own_resolution_before_the_resize(
    signs, pictures, spec
):
    test = signs.split("test-a")
    for name in CORRUPTIONS:
        batch = pictures.corrupted[name, 4]
        assert len(batch) == 10
        expected = resize(corrupt(test.image(6), name, 4, (1, 3)), spec)[..., ::-1]
        assert np.array_equal(batch[3], expected)


def test_corrupted_images_keep_their_records_but_for_the_offset(signs):
    val = signs.split("val")
    changed = corrupted_signs(val, "fog", 2, 1)
    assert [record[1:] for record in changed.records] == [record[1:] for record in val.records]
    assert np.array_equal(changed.image(5), corrupt(val.image(5), "fog", 2, (1, 5)))


def test_accuracy_is_that_of_the_engine_in_every_execution(rows, network, signs, pictures):
    labels = signs.split("test-a").labels
    for row, execution in zip(rows, network.executions, strict=True):
        answers = OnnxRuntimeEngine(execution.graph, 1).infer(pictures.test).argmax(axis=1)
        assert row["test_top1"] == pytest.approx(np.mean(answers == labels), abs=1e-6)
        clean = np.mean(answers[::2] == labels[::2])
        assert row["robustness"]["clean"] == pytest.approx(clean, abs=1e-6)
    assert [row["role"] for row in rows] == ["deployed", "unquantized", "float"]
    assert {(row["parameters"], row["multiply_adds"]) for row in rows} == {(123, 4567)}


def test_confidence_is_measured_where_the_deployed_weights_are(rows):
    for name in ("temperature", "unknown", "calibration", "agreement"):
        assert [name in row for row in rows] == [True, True, False]


def test_the_parts_of_the_boxes_add_up(rows):
    counts = rows[0]["counts"]
    assert (counts["known"], counts["shipped"], counts["unknown"]) == (12, 8, 4)
    for row in rows:
        found = row["boxes"]
        assert 12 * found["all"] == pytest.approx(8 * found["shipped"] + 4 * found["others"])
        assert found["signs"]["sign 1"] == {"right": round(12 * found["all"]), "boxes": 12}


def test_agreement_is_that_of_the_two_engines(rows, network, boxes):
    answers = [
        OnnxRuntimeEngine(execution.graph, 1).infer(boxes.pixels).argmax(axis=1)
        for execution in network.executions[:2]
    ]
    expected = np.mean(answers[0] == answers[1])
    assert {row["agreement"]["boxes"] for row in rows[:2]} == {round(float(expected), 6)}


def test_rows_are_plain_values_and_the_same_every_time(rows, network, signs, pictures, boxes):
    again = measure(network, signs, pictures, boxes, PROTOCOL)
    assert json.dumps(again, allow_nan=False) == json.dumps(rows, allow_nan=False)


def test_a_network_of_fewer_classes_is_refused(network, signs, pictures, boxes):
    records = [record._replace(class_index=7) for record in signs.records]
    with pytest.raises(CompilingError, match="do not fit a network of 5 classes"):
        measure(network, replace(signs, records=records), pictures, boxes, PROTOCOL)
