"""What this machine is, and the line that installs an accelerator's library on it."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

Kind = Literal["jetpack5", "jetpack6", "jetpack7", "cuda", "cpu"]

# Device nodes of discrete cards and Thor, of Orin's integrated GPU, and of its older driver.
_GPU_NODES = ("nvidiactl", "nvgpu", "nvhost-gpu")
_RELEASE = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")
_DRIVER = re.compile(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s")
_CUDA_13_DRIVER = 580
_CUDA_12 = '"cuda-python==12.*"'
_CUDA_13 = '"cuda-python==13.*"'
_NO_GPU = "needs an NVIDIA GPU"
_CLOSED = (
    "needs a GPU, and the NVIDIA driver opens none to this process: start the container with "
    "--gpus all (on a Jetson: --runtime nvidia)"
)
_TOO_OLD = "needs JetPack 6 or newer; flash the device with it"
_APT = "sudo apt install python3-libnvinfer"
# Done again to an environment that is there, this only opens it to the system's packages.
_VENV = "python3 -m venv --system-site-packages .venv"
_TORCH = "2.13.0"
_JETPACK_6_TORCH = "2.8.0"
_JETPACK_7_TORCH = "2.9.0"


@dataclass(frozen=True, slots=True)
class Platform:
    """The machine, as far as accelerators care.

    Attributes:
        kind: A Jetson by its JetPack, another machine with an NVIDIA driver, or one without.
        machine: The processor's architecture, for example `aarch64`.
        l4t: Release of Jetson Linux, for example `36.4.3`; empty on other machines.
        driver: Version of the NVIDIA driver; empty where the kernel tells none.
        gpu: Whether a GPU is open to this process.
        system_tensorrt: Whether the system's Python has TensorRT.
    """

    kind: Kind
    machine: str
    l4t: str
    driver: str
    gpu: bool
    system_tensorrt: bool

    @property
    def gpu_remedy(self) -> str:
        """What is to be done about the GPU; empty where one can serve."""
        if self.kind == "jetpack5":
            return _TOO_OLD
        if self.gpu:
            return ""
        return _NO_GPU if self.kind == "cpu" else _CLOSED


def platform_of(root: Path = Path("/"), machine: str | None = None) -> Platform:
    """Recognise the machine from a few files; milliseconds, no library is loaded.

    Args:
        root: Where the file system begins.
        machine: The processor's architecture; None asks the kernel.
    """
    release = _RELEASE.search(_text(root / "etc" / "nv_tegra_release"))
    driver = _DRIVER.search(_text(root / "proc" / "driver" / "nvidia" / "version"))
    gpu = any((root / "dev" / node).exists() for node in _GPU_NODES)
    packages = (root / "usr" / "lib").glob("python3*/dist-packages/tensorrt")
    kind: Kind = "cuda" if driver or gpu else "cpu"
    if release:
        kind = _jetpack(int(release[1]))
    return Platform(
        kind=kind,
        machine=machine or platform.machine(),
        l4t=f"{release[1]}.{release[2]}" if release else "",
        driver=driver[1] if driver else "",
        gpu=gpu,
        system_tensorrt=any(packages),
    )


def remedy(engine: str, found: Platform, torch: str | None = None) -> str:
    """Return the line that makes an engine's library usable on a machine.

    Args:
        engine: The engine whose library does not load.
        found: The machine.
        torch: Version of torch that is installed; None asks.
    """
    if engine not in ("tensorrt", "torch_tensorrt"):
        return f"pip install {engine}"
    if found.gpu_remedy:
        return found.gpu_remedy
    if engine == "torch_tensorrt":
        return _torch_tensorrt(found, torch if torch is not None else _installed_torch())
    if found.kind == "cuda":
        bindings = _bindings(found)
        library = "tensorrt-cu12" if bindings == _CUDA_12 else "tensorrt"
        return f"pip install {library} {bindings}"
    # TensorRT belongs to JetPack, and so to the system's Python: an environment must see it.
    system = () if found.system_tensorrt else (_APT,)
    return " && ".join((*system, _VENV, f".venv/bin/pip install {_bindings(found)}"))


def _torch_tensorrt(found: Platform, torch: str) -> str:
    if found.kind == "jetpack6":
        wanted = _JETPACK_6_TORCH
        return (
            f"pip install torch=={wanted} torch-tensorrt=={wanted} {_CUDA_12} "
            "(the last for JetPack 6; wheels from NVIDIA's index for it)"
        )
    cuda = _bindings(found)
    # A torch-tensorrt goes with the torch of its own number, and with no other.
    installed = re.match(r"\d+\.\d+\.\d+", torch)
    if installed:
        return f"pip install torch-tensorrt=={installed[0]} {cuda}"
    wanted = _TORCH if found.kind == "cuda" else _JETPACK_7_TORCH
    return f"pip install torch=={wanted} torch-tensorrt=={wanted} {cuda}"


def _bindings(found: Platform) -> str:
    """Return the CUDA bindings that the driver can serve; a Jetson's comes with its JetPack."""
    if found.kind in ("jetpack6", "jetpack7"):
        return _CUDA_12 if found.kind == "jetpack6" else _CUDA_13
    old = found.driver and int(found.driver.split(".")[0]) < _CUDA_13_DRIVER
    return _CUDA_12 if old else _CUDA_13


def _installed_torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def _jetpack(l4t: int) -> Kind:
    """Jetson Linux 36 is JetPack 6; JetPack 7 began with 38."""
    if l4t < 36:
        return "jetpack5"
    return "jetpack6" if l4t < 38 else "jetpack7"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
