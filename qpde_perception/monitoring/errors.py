"""Errors of monitoring."""


class MonitoringError(Exception):
    """A setting that cannot be watched; the message names it and says what to do."""
