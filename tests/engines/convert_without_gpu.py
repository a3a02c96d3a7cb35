"""Convert a model with torch-tensorrt on a machine without a GPU, and print what was built.

Run by a test in a process of its own, for it replaces what torch says of its GPU. The conversion
and the builder are the real ones, of TensorRT for RTX, which needs no GPU to build. Loading the
engine does, so the builder's bytes are passed on unloaded.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from pathlib import Path

import torch

CAPABILITY = (8, 6)
NOT_HERE = 77
"""Exit status where torch-tensorrt cannot be imported."""


def pretend_to_have_a_gpu():
    """Answer what torch-tensorrt asks when it is imported."""
    torch.cuda.get_device_capability = lambda *_: CAPABILITY
    torch.cuda.current_device = lambda: 0
    torch.cuda.mem_get_info = lambda *_: (2**33, 2**33)
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.empty_cache = lambda: None
    if not hasattr(torch._C, "_CudaDeviceProperties"):  # torch for CPUs
        torch._C._CudaDeviceProperties = object
    import tensorrt_rtx_bindings

    sys.modules["tensorrt_rtx"] = tensorrt_rtx_bindings


class Unloaded:
    """Stands for an engine that only a GPU could load."""

    def __init__(self, *_):
        self.data = b""

    def deserialize_cuda_engine(self, data):
        self.data = bytes(data)
        return self

    def serialize(self):
        return self.data


def build(program):
    """Return the engine, the messages of its builder, and the names of its tensors."""
    import tensorrt
    from torch_tensorrt.dynamo.conversion import _conversion, _TRTInterpreter

    from qpde_perception.engines.torch_tensorrt import compile_program

    class Detailed(_TRTInterpreter.TRTInterpreter):
        def run(self, *args):
            result = super().run(*args)
            names.extend([*result.input_names, *result.output_names])
            return result

        def _populate_trt_builder_config(self, *args):
            config = super()._populate_trt_builder_config(*args)
            config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
            config.num_compute_capabilities = 1
            config.set_compute_capability(tensorrt.ComputeCapability.SM86, 0)
            return config

    _conversion.TRTInterpreter = Detailed
    sys.modules["tensorrt_rtx"].Runtime = Unloaded
    messages, names = [], []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("torch_tensorrt"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.DEBUG)
    return compile_program(program), messages, names


def main(folder, max_batch):
    pretend_to_have_a_gpu()
    try:
        import torch_tensorrt
    except Exception as error:  # noqa: BLE001  (it raises whatever it meets first)
        sys.stderr.write(f"torch_tensorrt cannot be imported: {error!r}")
        sys.exit(NOT_HERE)
    from qpde_perception.bundles import load_bundle
    from qpde_perception.compiling.parity import reference_of
    from qpde_perception.compiling.torch_program import program_of
    from qpde_perception.engines import EngineError
    from qpde_perception.engines.tensorrt_rtx import CONVOLUTION, Inspection, _layers
    from qpde_perception.engines.torch_tensorrt import INPUT, OUTPUTS, TorchTensorRtEngine

    specification = reference_of(load_bundle(Path(folder)))._specification
    engine, messages, names = build(program_of(specification, max_batch))
    layers = _layers("\n".join(messages))
    convolutions = [layer for layer in layers if layer.kind == CONVOLUTION]
    types = Counter(
        "+".join(sorted({tensor.type for tensor in layer.inputs})) for layer in convolutions
    )
    try:
        TorchTensorRtEngine(engine, max_batch=max_batch)
        refusal = None
    except EngineError as error:
        refusal = str(error)
    found = {
        "version": torch_tensorrt.__version__,
        "bytes": len(engine),
        "tensors": names,
        "served": [INPUT, *OUTPUTS],
        "refusal": refusal,
        "convolutions": len(convolutions),
        "read": dict(types),
        "layers": len(layers),
        "float_islands": Inspection("", (), (), tuple(layers)).float_islands,
    }
    sys.stdout.write("\n" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
