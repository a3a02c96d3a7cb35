"""Taps: few, in every residual branch, and such that they tell something."""

from __future__ import annotations

import pytest

from qpde_perception.bundles import golden_of
from qpde_perception.compiling.folding import fold
from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Add, Specification
from qpde_perception.compiling.taps import taps_of


def sums(document):
    return [layer for layer in document.layers if isinstance(layer, Add)]


@pytest.mark.parametrize("network", ["symmetric_mobilenet_v2", "twin_mobilenet_v2_tiny"])
def test_the_last_branch_of_every_stage_has_a_tap_and_so_have_the_features(make_network, network):
    document = fold(make_network(network)).document
    last = {layer.output.split(".")[0]: layer.output for layer in sums(document)}
    branches = [name.replace(".sum", ".depthwise") for name in last.values()]
    assert taps_of(document) == (*branches, "features")


def test_an_ordinary_network_has_no_tap_where_no_branch_is_added(make_network):
    document = fold(make_network("ordinary_mobilenet_v2_tiny")).document
    *branches, features = taps_of(document)
    assert features == "features"
    assert 0 < len(branches) <= len(sums(document))
    assert {name.replace(".depthwise", ".sum") for name in branches} <= {
        layer.output for layer in sums(document)
    }


def test_the_shipped_model_has_few_taps_and_its_golden_frames_saturate_each(shipped_bundle):
    texts = (shipped_bundle.read(name) for name in (SPECIFICATION, WEIGHTS))
    golden = golden_of(shipped_bundle)
    assert golden.taps == taps_of(Specification.from_files(*texts).document)
    assert len(golden.taps) == 4
    assert golden.saturation.shape == (len(golden.pixels), len(golden.taps))
    assert golden.saturation.max(axis=0).all()
    assert golden.saturation.max() < 0.5
