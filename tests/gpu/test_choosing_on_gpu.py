"""Opening a model where a GPU is: TensorRT serves, tested, and is built once."""

from __future__ import annotations

from qpde_perception.engines import Building, choose_engine, engine_status
from qpde_perception.engines.cache import EngineCache
from qpde_perception.engines.platforms import platform_of


def test_the_first_start_builds_and_the_second_loads(
    gpu, shipped_bundle, tmp_path, record_property
):
    assert platform_of().gpu
    assert engine_status("tensorrt").works
    building = Building(EngineCache(tmp_path))
    opened = [choose_engine(shipped_bundle, building=building) for _ in range(2)]
    for one in opened:
        one.engine.close()
        record_property(f"{one.cache}: milliseconds", one.build_ms)
    assert [one.engine.name for one in opened] == ["tensorrt", "tensorrt"]
    assert [one.cache for one in opened] == ["miss", "hit"]
    assert all(one.self_test.ok and one.refusals == () for one in opened)
    assert opened[1].build_ms < opened[0].build_ms
