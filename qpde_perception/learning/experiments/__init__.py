"""Experiments of the method: trained runs, measurements on them, and one page for each."""
