"""The walls and floors between the rooms, read from the imports of every file."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "qpde_perception"

# A room may import itself and the rooms named here, nothing else of the package.
FLOORS: dict[str, set[str]] = {
    "frames": set(),
    "engines": {"frames", "bundles"},
    "bundles": {"frames"},
    "perception": {"frames", "engines", "bundles"},
    "monitoring": {"bundles"},
    "drift": {"frames", "engines", "bundles", "perception", "monitoring"},
    "bags": {"frames", "engines", "bundles", "perception", "monitoring", "drift"},
    "profiling": {"frames", "engines", "bundles", "perception", "monitoring"},
    "reports": {"frames", "engines", "bundles", "perception", "monitoring", "profiling"},
    "fleet": {
        *("frames", "engines", "bundles", "perception", "monitoring", "drift", "bags"),
        "reports",
    },
    "learning": {"frames", "bundles"},
    "compiling": {"frames", "engines", "bundles", "learning"},
    "assessment": {
        *("frames", "engines", "bundles", "perception", "monitoring", "bags"),
        *("learning", "compiling"),
    },
}
VEHICLE = (
    *("frames", "engines", "bundles", "perception", "monitoring", "drift"),
    *("bags", "profiling", "reports", "fleet"),
)
TORCH_ENGINE = "engines/torch_tensorrt.py"
SOURCES = sorted(PACKAGE.rglob("*.py"))
NODES = sorted((PACKAGE.parent / "ros2_nodes").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in the file, as absolute names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(path) for path in SOURCES} - {""}
    assert rooms == {*FLOORS, "cli"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_lower_floor_never_imports_a_higher_one(path: Path) -> None:
    room = room_of(path)
    if room == "cli":
        return
    used = {name.split(".")[1] for name in imported(path) if name.startswith("qpde_perception.")}
    assert used & {*FLOORS, "cli"} <= {room} | FLOORS.get(room, set())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_in_the_package_imports_ros(path: Path) -> None:
    assert not {name for name in imported(path) if name.split(".")[0] in {"rclpy", "ros2_nodes"}}


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if room_of(path) in VEHICLE and not str(path).endswith(TORCH_ENGINE)],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_the_road_of_the_vehicle_imports_no_torch(path: Path) -> None:
    torch = {name for name in imported(path) if name.split(".")[0] in {"torch", "torchvision"}}
    assert not torch


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if room_of(path) == "monitoring"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_monitoring_gets_numbers_only(path: Path) -> None:
    foreign = {name.split(".")[0] for name in imported(path)} - sys.stdlib_module_names
    assert foreign <= {"numpy", "qpde_perception"}


@pytest.mark.parametrize("path", NODES, ids=lambda path: path.name)
def test_a_node_uses_the_road_of_the_vehicle_and_neither_torch_nor_what_makes_models(
    path: Path,
) -> None:
    names = imported(path)
    rooms = {name.split(".")[1] for name in names if name.startswith("qpde_perception.")}
    assert not rooms & {"learning", "compiling", "assessment", "cli"}
    assert not {name for name in names if name.split(".")[0] in {"torch", "torchvision"}}
