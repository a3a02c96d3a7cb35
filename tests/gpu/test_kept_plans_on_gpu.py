"""Plans of TensorRT through the cache: built once, and never a wrong one served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qpde_perception.engines import EngineError
from qpde_perception.engines.building import Building
from qpde_perception.engines.cache import EngineCache
from qpde_perception.engines.registry import choose_engine

GRAPH = "tensorrt.onnx"


@pytest.fixture
def building(gpu, tmp_path):
    return Building(cache=EngineCache(tmp_path))


def opened(bundle, building):
    found = choose_engine(bundle, "tensorrt", building=building)
    logits = found.engine.infer(np.zeros((1, 48, 48, 3), np.uint8))
    found.engine.close()
    return found, logits


def test_the_second_opening_uses_the_plan_of_the_first(shipped_bundle, building):
    first, expected = opened(shipped_bundle, building)
    second, logits = opened(shipped_bundle, building)
    assert (first.cache, second.cache) == ("miss", "hit")
    assert np.array_equal(logits, expected)


def test_a_plan_spoilt_on_the_disk_is_built_again(shipped_bundle, building):
    opened(shipped_bundle, building)
    (path,) = building.cache.folder.glob("*.engine")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert opened(shipped_bundle, building)[0].cache == "miss"
    assert opened(shipped_bundle, building)[0].cache == "hit"


def test_a_graph_with_other_weights_is_not_served(shipped_bundle, building):
    """It has a key and a plan of its own, and strays on the golden frames."""
    opened(shipped_bundle, building)
    model = onnx.load_from_string(shipped_bundle.read(GRAPH))
    weight = next(c for c in model.graph.initializer if c.name == "stem.weight")
    turned = np.ascontiguousarray(numpy_helper.to_array(weight)[::-1])
    weight.CopyFrom(numpy_helper.from_array(turned, weight.name))
    contents = {**shipped_bundle.contents, GRAPH: model.SerializeToString()}
    with pytest.raises(EngineError, match=r"tensorrt.*strays from the integer reference"):
        opened(replace(shipped_bundle, contents=contents), building)
    assert opened(shipped_bundle, building)[0].cache == "hit"
