"""Errors of data preparation and training."""


class LearningError(Exception):
    """Data, a configuration or a checkpoint that cannot be used; the message says which and why."""
