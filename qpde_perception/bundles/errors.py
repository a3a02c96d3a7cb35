"""Errors of model bundles."""


class BundleError(Exception):
    """A bundle missing, changed, damaged or of another format; the message names the file."""
