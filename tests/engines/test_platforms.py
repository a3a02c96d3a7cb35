"""Recognising the machine from small file trees, and what is told to do on each."""

from __future__ import annotations

import pytest

from qpde_perception.engines.platforms import platform_of, remedy

RELEASE = "# R{} (release), REVISION: {}, GCID: 1, BOARD: generic, EABI: aarch64, DATE: today\n"
DRIVERS = {
    "560.35.03": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Fri Aug 16 21:39:15\n"
    "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n",
    "580.65.06": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release\n",
    "540.4.0": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n",
}
CUDA_12 = '"cuda-python==12.*"'
CUDA_13 = '"cuda-python==13.*"'
VENV = "python3 -m venv --system-site-packages .venv"


@pytest.fixture
def machine(tmp_path):
    """Make a file system's root from what tells machines apart."""

    def make(l4t=None, driver=None, node=None, *, packages=False, architecture="aarch64"):
        files = {}
        if l4t:
            files["etc/nv_tegra_release"] = RELEASE.format(*l4t.split(".", 1))
        if driver:
            files["proc/driver/nvidia/version"] = DRIVERS[driver]
        if node:
            files[f"dev/{node}"] = ""
        if packages:
            files["usr/lib/python3.10/dist-packages/tensorrt/__init__.py"] = ""
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return platform_of(tmp_path, architecture)

    return make


def test_a_jetson_with_jetpack_6_installs_with_apt_and_opens_its_environment(machine):
    orin = machine("36.4.3", "540.4.0", "nvgpu")
    assert (orin.kind, orin.l4t, orin.driver, orin.gpu) == ("jetpack6", "36.4.3", "540.4.0", True)
    steps = ("sudo apt install python3-libnvinfer", VENV, ".venv/bin/pip install " + CUDA_12)
    assert remedy("tensorrt", orin) == " && ".join(steps)
    assert remedy("torch_tensorrt", orin).startswith("pip install torch==2.8.0 torch-tensorrt==2.8")


def test_tensorrt_that_the_systems_python_has_need_not_be_installed(machine):
    orin = machine("36.4.3", None, "nvhost-gpu", packages=True)
    assert orin.system_tensorrt
    assert remedy("tensorrt", orin) == f"{VENV} && .venv/bin/pip install {CUDA_12}"


@pytest.mark.parametrize("l4t", ["38.2.0", "39.2.1"])
def test_a_jetson_with_jetpack_7_takes_cuda_13_and_newer_wheels(machine, l4t):
    thor = machine(l4t, "580.65.06", "nvidiactl")
    assert (thor.kind, thor.gpu_remedy) == ("jetpack7", "")
    assert remedy("tensorrt", thor).endswith('.venv/bin/pip install "cuda-python==13.*"')
    assert remedy("torch_tensorrt", thor, torch="") == (
        f"pip install torch==2.9.0 torch-tensorrt==2.9.0 {CUDA_13}"
    )


def test_an_older_jetson_is_told_to_be_flashed(machine):
    xavier = machine("35.4.1", None, "nvhost-gpu")
    assert xavier.kind == "jetpack5"
    for engine in ("tensorrt", "torch_tensorrt"):
        assert remedy(engine, xavier) == "needs JetPack 6 or newer; flash the device with it"
    assert xavier.gpu_remedy == remedy("tensorrt", xavier)


@pytest.mark.parametrize(
    ("driver", "line"),
    [
        ("580.65.06", 'pip install tensorrt "cuda-python==13.*"'),
        ("560.35.03", 'pip install tensorrt-cu12 "cuda-python==12.*"'),
    ],
)
def test_a_server_installs_what_its_driver_can_run(machine, driver, line):
    server = machine(None, driver, "nvidiactl", architecture="x86_64")
    assert (server.kind, server.driver, server.machine) == ("cuda", driver, "x86_64")
    assert remedy("tensorrt", server) == line


@pytest.mark.parametrize(
    ("torch", "line"),
    [
        ("2.11.0+cu130", f"pip install torch-tensorrt==2.11.0 {CUDA_13}"),
        ("", f"pip install torch==2.13.0 torch-tensorrt==2.13.0 {CUDA_13}"),
    ],
)
def test_torch_tensorrt_goes_with_the_torch_that_is_installed(machine, torch, line):
    assert remedy("torch_tensorrt", machine(None, "580.65.06", "nvidiactl"), torch=torch) == line


def test_a_machine_without_a_gpu_needs_one(machine):
    laptop = machine(architecture="x86_64")
    assert (laptop.kind, laptop.gpu, laptop.l4t, laptop.driver) == ("cpu", False, "", "")
    for engine in ("tensorrt", "torch_tensorrt"):
        assert remedy(engine, laptop) == "needs an NVIDIA GPU"
    assert remedy("openvino", laptop) == "pip install openvino"


@pytest.mark.parametrize("l4t", [None, "36.4.3"])
def test_a_container_that_sees_the_driver_but_no_gpu_is_told_how_to_be_started(machine, l4t):
    container = machine(l4t, "580.65.06")
    assert not container.gpu
    assert "--gpus all" in remedy("tensorrt", container)
    assert "--runtime nvidia" in container.gpu_remedy


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe\0", b"# R (release)"])
def test_files_that_say_nothing_make_no_jetson(tmp_path, content):
    for name in ("etc/nv_tegra_release", "proc/driver/nvidia/version"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(content)
    assert platform_of(tmp_path).kind == "cpu"


def test_this_machine_is_recognised_without_an_error():
    assert platform_of().machine
