"""The launch files: what they name exists, and the nodes take their parameters."""

from __future__ import annotations

import ast
import importlib.util
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="the declarations of the parameters need rclpy")

import rclpy
from rclpy.context import Context
from rclpy.node import Node

from ros2_nodes import bag_player_node, parameters
from ros2_nodes.declarations import ConfiguredParameters, declare
from ros2_nodes.parameters import Settings

ROOT = Path(__file__).parents[1]
LAUNCH = sorted((ROOT / "launch").glob("*.launch.py"))
CONFIG = sorted((ROOT / "launch" / "config").glob("*.param.yaml"))
DECLARED = {
    "classifier_node": {each.name: each for each in parameters.DECLARATIONS},
    "bag_player_node": {each.name: each for each in bag_player_node.DECLARATIONS},
}
by_name = pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.name)


class LaunchFile:
    """What a launch file says, read from its syntax tree."""

    def __init__(self, path):
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.nodes = [self.keywords(call) for call in self.calls("Node")]
        self.arguments = {
            call.args[0].value: self.keywords(call) for call in self.calls("DeclareLaunchArgument")
        }
        self.used = {call.args[0].value for call in self.calls("LaunchConfiguration")}

    def calls(self, name, inside=None):
        walked = ast.walk(inside or self.tree)
        calls = [node for node in walked if isinstance(node, ast.Call)]
        return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == name]

    @staticmethod
    def keywords(call):
        return {keyword.arg: keyword.value for keyword in call.keywords}

    def paths(self):
        """The files of this package that are named, as they lie in the repository."""
        for call in self.calls("PathJoinSubstitution"):
            yield ROOT.joinpath(*(part.value for part in call.args[0].elts[1:]))

    def included(self):
        """The launch files of this package that are included, with the arguments given."""
        for call in self.calls("IncludeLaunchDescription"):
            given = self.keywords(call)["launch_arguments"].func.value
            (path,) = [path for path in self.paths() if path.name.endswith(".launch.py")]
            yield path, ast.literal_eval(given)


def test_there_are_launch_files():
    names = {path.name for path in LAUNCH}
    assert {"perception.launch.py", "replay.launch.py", "multi_camera.launch.py"} <= names


@by_name
def test_every_configuration_that_is_used_is_an_argument_of_the_file(path):
    launch = LaunchFile(path)
    assert launch.arguments
    assert launch.used == set(launch.arguments)


@by_name
def test_every_file_that_is_named_is_there(path):
    found = list(LaunchFile(path).paths())
    assert found
    assert all(file.is_file() for file in found), found


@by_name
def test_included_files_get_arguments_that_they_have(path):
    for included, given in LaunchFile(path).included():
        arguments = LaunchFile(included).arguments
        assert set(given) <= set(arguments)
        own = set(LaunchFile(path).arguments)
        assert not own & set(arguments), "an argument would mean two things"


@by_name
def test_every_node_is_an_executable_of_the_package_and_has_the_parameters_given(path):
    launch = LaunchFile(path)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert launch.nodes
    for node in launch.nodes:
        executable = node["executable"].value
        assert node["package"].value == "qpde_perception"
        assert f'{executable} = "ros2_nodes.{executable}:main"' in text
        table, file = node["parameters"].elts
        names = {key.value for key in table.keys}
        assert names <= {*DECLARED[executable], "use_sim_time"}
        assert file.args[0].value.endswith("params_file")


@by_name
def test_arguments_that_are_parameters_have_their_choices_and_defaults(path):
    launch = LaunchFile(path)
    for node in launch.nodes:
        declared = DECLARED[node["executable"].value]
        for name in declared.keys() & launch.arguments.keys():
            argument = launch.arguments[name]
            choices = declared[name].choices
            if choices is not None:
                assert ast.literal_eval(argument["choices"]) == list(choices)
            if isinstance(argument["default_value"], ast.Constant):
                default = yaml.safe_load(argument["default_value"].value)
                assert (default or "" if default is None else default) == plain(declared[name])


def plain(declaration):
    default = declaration.default
    return list(default) if isinstance(default, tuple) else default


def test_the_cameras_of_the_launch_file_are_those_of_its_parameters():
    path = ROOT / "launch" / "multi_camera.launch.py"
    assigned = [node for node in LaunchFile(path).tree.body if isinstance(node, ast.Assign)]
    (cameras,) = [node.value for node in assigned if node.targets[0].id == "CAMERAS"]
    settings = yaml.safe_load((path.parent / "config" / "multi_camera.param.yaml").read_text())
    assert settings["/**"]["ros__parameters"]["cameras"] == list(ast.literal_eval(cameras))


def values_of(path):
    """The parameters that the real node would have with a parameter file."""
    context = Context()
    rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context)
    try:
        node = Node("any_name", namespace="/any", context=context)
        if "bag_player" in path.name:
            return declare(node, bag_player_node.DECLARATIONS)
        read = ConfiguredParameters(node, parameters.DECLARATIONS, lambda: False).values()
        return Settings.of(read).values
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.parametrize("path", CONFIG, ids=lambda path: path.name)
def test_the_node_takes_every_value_of_a_parameter_file(path):
    given = yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    values = values_of(path)
    assert set(given) <= set(values)
    for name, value in given.items():
        assert values[name] == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("path", CONFIG, ids=lambda path: path.name)
def test_every_parameter_of_a_parameter_file_is_explained_above_it(path):
    table = bag_player_node.DECLARATIONS if "bag_player" in path.name else parameters.DECLARATIONS
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    explained = set()
    for declaration in table:
        said = f"{declaration.description} Allowed: {declaration.limits}."
        said = said if declaration.limits else declaration.description
        for number, line in enumerate(lines):
            if line.removeprefix("# ").startswith(f"{declaration.name}: "):
                above = " ".join(each.removeprefix("# ") for each in lines[:number])
                assert above.endswith(said)
                explained.add(declaration.name)
    given = yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    assert set(given) <= explained
    if path.name == "classifier.param.yaml":
        assert explained == {each.name for each in table}


def test_a_player_started_by_launch_without_topics_to_wait_for_waits_for_none(tmp_path):
    path = tmp_path / "bag_player.yaml"  # as launch_ros writes the arguments' defaults
    given = {"drive": "d.mcap", "rate": 1.0, "wait_for_subscribers": []}
    path.write_text(yaml.dump({"/**": {"ros__parameters": given}}))
    assert values_of(path)["wait_for_subscribers"] == ()


def test_the_topics_that_are_remapped_are_topics_of_the_node():
    code = (ROOT / "ros2_nodes" / "camera.py").read_text(encoding="utf-8")
    remapped = {
        text.rpartition("input/")[2]
        for path in LAUNCH
        for node in ast.walk(LaunchFile(path).tree)
        if isinstance(node, ast.Constant) and isinstance(text := node.value, str)
        if text.startswith(("~/input/", "/input/"))
    }
    assert remapped == {"image", "regions"}
    assert all(f"input/{name}" in code for name in remapped)


@by_name
@pytest.mark.skipif(find_spec("launch_ros") is None, reason="launch_ros has no wheel: source ROS 2")
def test_launch_itself_accepts_the_file(path):
    spec = importlib.util.spec_from_file_location("launch_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    names = {argument.name for argument in description.get_launch_arguments()}
    assert set(LaunchFile(path).arguments) <= names
