"""Parameters of a node as one table, declared with types, ranges and descriptions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.parameter import Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rclpy.node import Node

_LARGEST = (1 << 63) - 1
_KINDS = {
    bool: "true or false",
    int: "a whole number, such as 2",
    float: "a number with a point, such as 2.0",
    str: "a text",
}


class DeclarationError(ValueError):
    """A value that a parameter cannot have."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One parameter.

    Attributes:
        name: Its name.
        default: Its value where none is given, which also gives the type; a tuple for a list, an
            empty tuple for a list of texts.
        description: What it does, with unit, as `ros2 param describe` shows it.
        minimum: Its smallest value, where it is a number.
        maximum: Its largest value, where it is a number.
        choices: The values allowed; None for any.
        read_only: Whether it is fixed once the node runs.
    """

    name: str
    default: bool | float | str | tuple[bool, ...] | tuple[float, ...] | tuple[str, ...]
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: Sequence[bool | float | str] | None = None
    read_only: bool = True

    @property
    def kind(self) -> str:
        """What a value is, in words."""
        if isinstance(self.default, tuple):
            items = _KINDS[type(self.default[0]) if self.default else str]
            return f"a list, each item {items}"
        return _KINDS[type(self.default)]

    @property
    def limits(self) -> str:
        """Which values are allowed, in words; empty where all are."""
        if self.choices is not None:
            return f"one of: {', '.join(str(each) or repr(each) for each in self.choices)}"
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum} to {self.maximum}"
        if self.minimum is not None:
            return f"at least {self.minimum}"
        return "" if self.maximum is None else f"at most {self.maximum}"

    def allows(self, value: Any) -> bool:
        """Whether a value of the right type lies within the limits."""
        values = value if isinstance(self.default, tuple) else (value,)
        if self.choices is not None:
            return all(each in self.choices for each in values if each != "")
        if self.minimum is None and self.maximum is None:
            return True
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        return all(low <= each <= high for each in values)


def declare(node: Node, declarations: Iterable[Declaration]) -> dict[str, Any]:
    """Declare the parameters of a node, and return the values it was started with.

    A list comes back as a tuple without its empty texts: ROS cannot tell the type of an empty
    list, so launch files write `['']` for one.

    Raises:
        DeclarationError: If a value has another type or is not allowed; the text names both.
    """
    table = {each.name: each for each in declarations}

    def check(parameters: list[Parameter[Any]]) -> SetParametersResult:
        for parameter in parameters:
            declaration = table.get(parameter.name)
            if declaration is None or parameter.value is None:
                continue
            if not declaration.allows(parameter.value):
                reason = f"{parameter.name} is {declaration.limits}"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)
    return {each.name: _declare(node, each) for each in table.values()}


class ConfiguredParameters:
    """The parameters of a lifecycle node: set while it is unconfigured, checked at configure.

    A wrong value that the node was started with does not stop the node; it is refused at configure
    until another one is set.
    """

    def __init__(
        self, node: Node, declarations: Iterable[Declaration], locked: Callable[[], bool]
    ) -> None:
        """Declare the parameters.

        Args:
            node: The node.
            declarations: Its parameters.
            locked: Whether the node is configured, so that no value may change.
        """
        self._node, self._locked = node, locked
        self._table = {each.name: replace(each, read_only=False) for each in declarations}
        self._faults: dict[str, str] = {}
        self._shown: dict[str, list[str]] = {}
        for declaration in self._table.values():
            try:
                _declare(node, declaration)
            except DeclarationError as error:  # noqa: PERF203  (once)
                self._faults[declaration.name] = str(error)
                _declare(node, declaration, given=False)
        node.add_on_set_parameters_callback(self._check)

    def values(self) -> dict[str, Any]:
        """Return the values, a list as a tuple without its empty texts.

        Raises:
            DeclarationError: If the node was started with a wrong value, still not replaced.
        """
        if self._faults:
            raise DeclarationError("; ".join(self._faults.values()))
        return {
            name: _plain(declaration, self._node.get_parameter(name).value)
            for name, declaration in self._table.items()
        }

    def show(self, name: str, values: list[str]) -> None:
        """Let others read a parameter that nobody else can set."""
        self._shown[name] = values
        if self._node.has_parameter(name):
            self._node.set_parameters([Parameter(name, value=values)])
        else:
            self._node.declare_parameter(name, values, ignore_override=True)

    def _check(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name in self._shown and parameter.value != self._shown[parameter.name]:
                reason = f"{parameter.name} is the node's own; it cannot be set"
                return SetParametersResult(successful=False, reason=reason)
        known = [each for each in parameters if each.name in self._table]
        for parameter in known:
            declaration = self._table[parameter.name]
            reason = ""
            if self._locked():
                reason = f"{parameter.name} is taken over at configure; clean the node up first"
            elif not _fits(declaration, parameter.value):
                limits = ", ".join(part for part in (declaration.kind, declaration.limits) if part)
                reason = f"{parameter.name}: give {limits}"
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        for parameter in known:
            self._faults.pop(parameter.name, None)
        return SetParametersResult(successful=True)


def markdown_table(declarations: Iterable[Declaration]) -> str:
    """Return the parameters as a table of a Markdown page, the defaults as YAML writes them."""
    rows = ["| parameter | default | allowed | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{each.name}` | `{_yaml(each.default)}` | {each.limits} | {each.description} |"
        for each in declarations
    ]
    return "\n".join(rows)


def _yaml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return value if value and isinstance(value, str) else repr(value)


def _declare(node: Node, declaration: Declaration, *, given: bool = True) -> Any:
    """Declare one parameter, with the value it was given at the start or with its default."""
    default: Any = declaration.default
    if isinstance(default, tuple):
        default = list(default) or [""]
    try:
        value = node.declare_parameter(
            declaration.name, default, _descriptor(declaration), ignore_override=not given
        ).value
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        raise _refused(declaration, str(error)) from None
    if given and not _fits(declaration, value):
        if not declaration.read_only:
            node.undeclare_parameter(declaration.name)
        raise _refused(declaration, f"It is {value!r}.")
    return _plain(declaration, value)


def _refused(declaration: Declaration, what: str) -> DeclarationError:
    expected = ", ".join(part for part in (declaration.kind, declaration.limits) if part)
    return DeclarationError(f"parameter {declaration.name}: give {expected}. {what}")


def _fits(declaration: Declaration, value: Any) -> bool:
    if value is None:  # an empty list arrives as no value
        return isinstance(declaration.default, tuple)
    return declaration.allows(value)


def _plain(declaration: Declaration, value: Any) -> Any:
    if isinstance(declaration.default, tuple):
        return tuple(each for each in value or () if each != "")
    return value


def _descriptor(declaration: Declaration) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=declaration.description,
        additional_constraints=declaration.limits,
        read_only=declaration.read_only,
    )
    if declaration.minimum is None and declaration.maximum is None:
        return descriptor
    low, high = declaration.minimum, declaration.maximum
    if isinstance(declaration.default, int):
        descriptor.integer_range = [
            IntegerRange(
                from_value=-_LARGEST - 1 if low is None else int(low),
                to_value=_LARGEST if high is None else int(high),
            )
        ]
    elif isinstance(declaration.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(
                from_value=-math.inf if low is None else float(low),
                to_value=math.inf if high is None else float(high),
            )
        ]
    return descriptor
