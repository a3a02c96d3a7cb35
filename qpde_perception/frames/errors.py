"""Errors of camera frames."""


class FrameError(Exception):
    """A frame that cannot be used; the message names the fault. It is dropped as `malformed`."""
