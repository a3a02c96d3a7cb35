"""Model bundles: what a trained network ships as."""

from qpde_perception.bundles.bundle import MANIFEST, Bundle, load_bundle
from qpde_perception.bundles.calibration import (
    CALIBRATION,
    Calibration,
    Cause,
    InputReference,
    MeanReference,
    NoiseReference,
    Signature,
    StatisticReference,
    TapReference,
    calibration_of,
)
from qpde_perception.bundles.certificate import CERTIFICATE, global_bound_of
from qpde_perception.bundles.errors import BundleError
from qpde_perception.bundles.golden import (
    GOLDEN,
    MAX_OVER_NOISE,
    MAX_RMS_OVER_NOISE,
    Golden,
    golden_of,
)
from qpde_perception.bundles.manifest import FORMAT_VERSION, Accuracy, Manifest
from qpde_perception.bundles.shelf import DEFAULT_MODEL, find_model, list_models

__all__ = [
    "CALIBRATION",
    "CERTIFICATE",
    "DEFAULT_MODEL",
    "FORMAT_VERSION",
    "GOLDEN",
    "MANIFEST",
    "MAX_OVER_NOISE",
    "MAX_RMS_OVER_NOISE",
    "Accuracy",
    "Bundle",
    "BundleError",
    "Calibration",
    "Cause",
    "Golden",
    "InputReference",
    "Manifest",
    "MeanReference",
    "NoiseReference",
    "Signature",
    "StatisticReference",
    "TapReference",
    "calibration_of",
    "find_model",
    "global_bound_of",
    "golden_of",
    "list_models",
    "load_bundle",
]
