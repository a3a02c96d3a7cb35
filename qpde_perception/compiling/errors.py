"""Errors of compiling."""


class CompilingError(Exception):
    """A network that cannot be deployed, or a specification that cannot be read."""
