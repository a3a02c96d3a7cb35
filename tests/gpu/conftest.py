"""What the tests on a GPU share. Without CUDA or TensorRT they skip and say what is missing."""

from __future__ import annotations

import pytest

from qpde_perception.engines import EngineError

GRAPH = "tensorrt.onnx"
MAX_BATCH = 8


@pytest.fixture(scope="session")
def gpu():
    """The GPU that the tests run on, with TensorRT beside it."""
    from qpde_perception.engines.cuda import device_of
    from qpde_perception.engines.tensorrt_library import tensorrt_version

    try:
        tensorrt_version()
        return device_of(0)
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shipped_plan(gpu, shipped_bundle, tmp_path_factory):
    """A plan of the model that ships, for batches of up to eight."""
    from qpde_perception.engines.tensorrt_plan import PlanOptions, build_plan

    times = tmp_path_factory.mktemp("tensorrt") / "times"
    options = PlanOptions(max_batch=MAX_BATCH, timing_cache=times)
    return build_plan(shipped_bundle.read(GRAPH), options)


@pytest.fixture
def make_engine(shipped_plan):
    """Make engines of the model that ships; they are closed at the end."""
    from qpde_perception.engines.tensorrt import TensorRtEngine

    made = []

    def make(**options):
        made.append(TensorRtEngine(shipped_plan, **options))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(scope="session")
def cuda_torch():
    """PyTorch, where it finds a CUDA device."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device on this machine")
    return torch
