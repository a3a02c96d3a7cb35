"""The repository as a ROS 2 package of type ament_python, built by colcon."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[1]
NAME = "qpde_perception"
# Used where it is installed.
OPTIONAL = {"autoware_internal_debug_msgs"}


def manifest():
    return ET.parse(ROOT / "package.xml").getroot()


def scripts():
    """The console scripts of pyproject.toml, by name."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = text.split("[project.scripts]\n")[1].split("\n\n")[0].splitlines()
    return dict(line.replace('"', "").split(" = ") for line in lines)


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def colcon(tmp_path_factory):
    """The path of a `colcon` in an environment of its own."""
    folder = tmp_path_factory.mktemp("colcon")
    run([sys.executable, "-m", "venv", "--without-pip", folder])
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"]
    lock = ROOT / "requirements" / "colcon.txt"
    done = run([*pip, "--quiet", "--no-deps", "--requirement", lock])
    if done.returncode:
        pytest.skip(f"colcon cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return folder / "bin" / "colcon"


@pytest.fixture(scope="module")
def installed(colcon, tmp_path_factory):
    """The install space of the package, and what the build added to the repository."""
    folder = tmp_path_factory.mktemp("workspace")
    before = set(ROOT.iterdir())
    command = [colcon, "build", "--base-paths", ROOT, "--packages-select", NAME]
    # A distribution that was sourced here is none of this workspace's business.
    foreign = ("AMENT_PREFIX_PATH", "COLCON_PREFIX_PATH", "CMAKE_PREFIX_PATH", "PYTHONPATH")
    variables = {key: value for key, value in os.environ.items() if key not in foreign}
    done = run(command, cwd=folder, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "install", set(ROOT.iterdir()) - before


def test_colcon_installs_the_marker_the_manifest_and_every_launch_file(installed):
    prefix = installed[0] / NAME
    assert (prefix / "share" / "ament_index" / "resource_index" / "packages" / NAME).is_file()
    assert (prefix / "share" / NAME / "package.xml").is_file()
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "launch").rglob("*")
        if path.is_file() and path.suffix in {".py", ".yaml", ".xml"}
    }
    share = prefix / "share" / NAME
    found = {str(path.relative_to(share)) for path in (share / "launch").rglob("*.*")}
    assert wanted == found
    assert wanted > {"launch/perception.launch.py", "launch/config/classifier.param.yaml"}


def test_colcon_installs_every_executable_where_ros2_run_looks(installed):
    folder = installed[0] / NAME / "lib" / NAME
    assert {path.name for path in folder.iterdir()} == set(scripts())
    assert all(os.access(path, os.X_OK) for path in folder.iterdir())


def test_colcon_installs_nothing_but_the_packages_and_what_they_share(installed):
    prefix, added = installed[0] / NAME, installed[1]
    (packages,) = prefix.glob("lib/python*/site-packages")
    found = {path.name for path in packages.iterdir() if not path.name.endswith(".egg-info")}
    assert found == {NAME, "ros2_nodes"}
    shared = {path.name for path in (prefix / "share" / NAME).iterdir() if path.is_dir()}
    folders = {"launch", "models", "samples", "security", "hook"}
    assert {"launch", "models", "samples"} <= shared <= folders
    assert added == set()
    # The generators of messages read texts that lie beside them.
    assert (packages / "ros2_nodes" / "interfaces" / "CMakeLists.txt").is_file()


def test_a_sourced_workspace_finds_its_own_code_and_models(installed, tmp_path):
    shell = shutil.which("sh")
    if shell is None:
        pytest.skip("no shell, which the workspace's set-up file is for")
    program = (
        "import qpde_perception as q, ros2_nodes as r\n"
        "from qpde_perception.bundles import find_model\n"
        "print(q.__file__, r.__file__, find_model(None), sep='\\n')"
    )
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables["COLCON_CURRENT_PREFIX"] = str(installed[0])
    line = '. "$COLCON_CURRENT_PREFIX/local_setup.sh" && exec "$@"'
    command = [shell, "-c", line, "sh", sys.executable, "-c", program]
    done = run(command, cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stderr
    found = [Path(text) for text in done.stdout.split()]
    prefix = installed[0] / NAME
    assert len(found) == 3
    assert all(path.is_relative_to(prefix) for path in found), found
    assert found[2] == prefix / "share" / NAME / "models" / "traffic_signs"


@pytest.mark.parametrize("name", scripts())
def test_every_executable_starts_a_function_that_exists(name):
    module, function = scripts()[name].split(":")
    source = (ROOT / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    assert f"def {function}(" in source or f"{function} = " in source


def test_the_manifest_says_what_pyproject_says():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert manifest().get("format") == "3"
    assert f'name = "{manifest().findtext("name")}"' in text
    assert f'version = "{manifest().findtext("version")}"' in text
    assert manifest().findtext("export/build_type") == "ament_python"


def test_the_manifest_names_every_ros_package_that_the_nodes_import():
    imported = set()
    for folder in ("ros2_nodes", "launch"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.split(".")[0])
    ros = {name for name in imported if name.endswith(("_msgs", "_srvs", "_interfaces"))}
    ros |= imported & {"rclpy", "launch", "launch_ros", "ament_index_python"}
    assert {"rclpy", "vision_msgs", "launch_ros"} <= ros
    assert ros - OPTIONAL <= {depend.text for depend in manifest().iter("exec_depend")}
