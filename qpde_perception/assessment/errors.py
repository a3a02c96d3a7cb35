"""Errors of assessment."""


class AssessmentError(Exception):
    """Data that do not answer the question; the message names them and says what to do."""
