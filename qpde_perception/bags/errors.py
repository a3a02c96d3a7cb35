"""Errors of recorded drives."""


class BagError(Exception):
    """A drive that cannot be read or written; the message names the file and the remedy."""
