"""Model bundles: what a trained network ships as."""

from qpde_perception.bundles.bundle import Bundle, load_bundle
from qpde_perception.bundles.errors import BundleError
from qpde_perception.bundles.manifest import Accuracy, Manifest

__all__ = ["Accuracy", "Bundle", "BundleError", "Manifest", "load_bundle"]
