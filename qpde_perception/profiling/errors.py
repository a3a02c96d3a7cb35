"""Errors of profiling."""


class ProfilingError(Exception):
    """A profile that cannot be measured, read or compared; the message names what to do."""
