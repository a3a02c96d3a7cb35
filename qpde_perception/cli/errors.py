"""Errors of the command line."""


class CommandError(Exception):
    """A command that cannot do what it was asked; the message says what to write instead."""
