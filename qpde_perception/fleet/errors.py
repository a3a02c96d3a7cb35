"""Errors of fleets."""


class FleetError(Exception):
    """Drives that cannot be replayed together; the message names the input and the remedy."""
