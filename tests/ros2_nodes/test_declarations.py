"""Parameters of a node as one table."""

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed (the extra `ros`)")

from rclpy.context import Context  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from ros2_nodes.declarations import (  # noqa: E402
    Declaration,
    DeclarationError,
    declare,
    markdown_table,
)

TABLE = (
    Declaration("rate", 1.0, "speed", minimum=0.0, maximum=100.0),
    Declaration("depth", 5, "queue", minimum=1),
    Declaration("mode", "raw", "form", choices=("raw", "compressed"), read_only=False),
    Declaration("topics", (), "names"),
    Declaration("weights", (0.5, 0.25), "shares", maximum=1.0),
    Declaration("loop", False, "again"),
)


@pytest.fixture
def make_node():
    context = Context()
    rclpy.init(context=context)
    nodes = []

    def make(*arguments):
        flags = ["--ros-args", *(part for each in arguments for part in ("-p", each))]
        node = Node("declaring", context=context, cli_args=flags, use_global_arguments=False)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def test_defaults_are_returned_where_nothing_is_given(make_node):
    assert declare(make_node(), TABLE) == {
        "rate": 1.0,
        "depth": 5,
        "mode": "raw",
        "topics": (),
        "weights": (0.5, 0.25),
        "loop": False,
    }


def test_given_values_are_returned_with_their_types(make_node):
    node = make_node(
        "rate:=2.5", "depth:=1", "mode:=compressed", "topics:=[/a, /b]", "weights:=[1.0]"
    )
    values = declare(node, TABLE)
    assert values["rate"] == 2.5
    assert values["depth"] == 1
    assert values["mode"] == "compressed"
    assert values["topics"] == ("/a", "/b")
    assert values["weights"] == (1.0,)


@pytest.mark.parametrize("given", ["topics:=['']", "topics:=[]"])
def test_both_ways_to_write_an_empty_list_give_one(make_node, given):
    assert declare(make_node(given), TABLE)["topics"] == ()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("rate:=100.5", ("rate", "0.0 to 100.0", "100.5")),
        ("rate:=.nan", ("rate", "0.0 to 100.0", "nan")),
        ("rate:=2", ("rate", "a number with a point", "'2'")),
        ("rate:=fast", ("rate", "a number with a point", "fast")),
        ("depth:=0", ("depth", "at least 1", "0")),
        ("mode:=theora", ("mode", "one of: raw, compressed", "theora")),
        ("topics:=7", ("topics", "a list, each item a text", "7")),
        ("depth:=[]", ("depth", "a whole number")),
        ("weights:=[0.5, 1.5]", ("weights", "at most 1.0", "1.5")),
    ],
)
def test_a_wrong_value_is_refused_by_name_with_what_is_allowed(make_node, given, words):
    with pytest.raises(DeclarationError) as refused:
        declare(make_node(given), TABLE)
    assert all(word in str(refused.value) for word in words), refused.value


def test_the_table_is_what_describing_the_parameters_shows(make_node):
    node = make_node()
    declare(node, TABLE)
    rate, depth, mode = (node.describe_parameter(name) for name in ("rate", "depth", "mode"))
    assert rate.description == "speed"
    assert rate.read_only
    assert rate.floating_point_range[0].to_value == 100.0
    assert depth.integer_range[0].from_value == 1
    assert mode.additional_constraints == "one of: raw, compressed"


def test_once_running_only_what_is_not_read_only_changes_and_only_within_its_choices(make_node):
    node = make_node()
    declare(node, TABLE)

    def accepted(name, value):
        return node.set_parameters([Parameter(name, value=value)])[0].successful

    assert accepted("mode", "compressed")
    assert not accepted("mode", "theora")
    assert not accepted("rate", 2.0)
    assert node.get_parameter("mode").value == "compressed"


def test_the_page_shows_each_default_as_yaml_reads_it_back():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    empty = Declaration("path", "", "file", choices=("", "a"))
    head, line, *rows = markdown_table((*TABLE, empty)).splitlines()
    assert head.count("|") == line.count("|") == 5
    for declaration, row in zip((*TABLE, empty), rows, strict=True):
        name, default, allowed, meaning = (cell.strip() for cell in row.strip("|").split("|"))
        shown = yaml.safe_load(default.strip("`"))
        assert (tuple(shown) if isinstance(shown, list) else shown) == declaration.default
        assert type(shown) in {type(declaration.default), list}
        assert (name, allowed, meaning) == (
            f"`{declaration.name}`",
            declaration.limits,
            declaration.description,
        )
    assert "one of: '', a" in rows[-1]
