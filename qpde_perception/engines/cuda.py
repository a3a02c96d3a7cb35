"""CUDA's runtime: which GPU is here, and calls whose code is looked at."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from qpde_perception.engines.errors import EngineError

REMEDY = 'pip install "cuda-python>=12.3"'
ELSE = "or take a CPU engine"

# The second is the name of the first before version 12.6.1.
_MODULES = ("cuda.bindings.runtime", "cuda.cudart")
_REMEDIES = {
    "cudaErrorMemoryAllocation": "free memory of the GPU, or build for a smaller largest batch",
    "cudaErrorNoDevice": f"connect a GPU or make it visible (CUDA_VISIBLE_DEVICES), {ELSE}",
    "cudaErrorInsufficientDriver": f"install the NVIDIA driver or a newer one, {ELSE}",
    "cudaErrorInvalidDevice": "name a GPU that is here (nvidia-smi -L)",
}
_OTHER_REMEDY = f"open the engine again in a new process, {ELSE}"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, as far as what is built for it depends on it.

    Attributes:
        index: Its number in CUDA's order.
        name: Its name, for example `Orin`.
        capability: Its compute capability, for example `8.7`.
        driver: The newest version of CUDA that its driver serves, for example `12.6`.
    """

    index: int
    name: str
    capability: str
    driver: str


def device_of(index: int = 0) -> Device:
    """Describe a GPU.

    Raises:
        EngineError: If there is no such GPU, no driver, or no Python bindings of CUDA.
    """
    count = call("cudaGetDeviceCount")
    if not 0 <= index < count:
        msg = f"GPU {index} is not here; CUDA finds {count}, numbered from 0"
        raise EngineError(msg)
    properties = call("cudaGetDeviceProperties", index)
    return Device(
        index=index,
        name=properties.name.rstrip(b"\0").decode(),
        capability=f"{properties.major}.{properties.minor}",
        driver=version_text(call("cudaDriverGetVersion")),
    )


def version_text(version: int) -> str:
    """Write a version as people do: CUDA gives 12060 for 12.6."""
    return f"{version // 1000}.{version % 1000 // 10}"


@cache
def runtime() -> Any:
    """Return the module of CUDA's runtime.

    Raises:
        EngineError: If it cannot be loaded.
    """
    for name in _MODULES:
        try:
            return import_module(name)
        except (ImportError, OSError) as error:  # noqa: PERF203  (two names, once)
            reason = error
    msg = f"CUDA's Python bindings cannot be loaded ({reason}); {REMEDY}"
    raise EngineError(msg) from None


def call(name: str, *arguments: Any) -> Any:
    """Call a function of the runtime and look at its code.

    Returns:
        What the function returns beside its code: None, one value, or a tuple of several.

    Raises:
        EngineError: If the code says anything but success.
    """
    library = runtime()
    try:
        code, *values = getattr(library, name)(*arguments)
    except RuntimeError as error:
        # How the bindings before version 13 say that they find no driver.
        msg = f"CUDA's {name}: {error}; {_REMEDIES['cudaErrorInsufficientDriver']}"
        raise EngineError(msg) from None
    if int(code):
        raise EngineError(_explained(library, name, code))
    return values[0] if len(values) == 1 else tuple(values) or None


def _explained(library: Any, name: str, code: Any) -> str:
    label, text = (
        found.decode() if isinstance(found, bytes) else str(found)
        for found in (library.cudaGetErrorName(code)[1], library.cudaGetErrorString(code)[1])
    )
    if label == "cudaErrorInsufficientDriver" and library.cudaDriverGetVersion()[1] == 0:
        text = "no NVIDIA driver is loaded"
    return f"CUDA's {name}: {text} ({label}); {_REMEDIES.get(label, _OTHER_REMEDY)}"


def release(name: str, *arguments: Any) -> None:
    """Call a function that frees something; a failure is logged, so that the rest is freed too."""
    try:
        call(name, *arguments)
    except EngineError as error:
        _log.warning("%s", error)
