"""Errors of engines."""


class EngineError(Exception):
    """An engine that cannot be built or fails to run; the message says which and what to do."""
