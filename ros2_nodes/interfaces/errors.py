"""Errors of the interface packages."""


class InterfacesError(Exception):
    """A package that cannot be built; the message names the step and the remedy."""


class ToolsMissingError(InterfacesError):
    """This machine lacks what a build needs; the message says what to install."""
