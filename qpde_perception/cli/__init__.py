"""The `qpde` command."""
