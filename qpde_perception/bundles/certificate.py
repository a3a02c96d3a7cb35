"""The certificate as far as a vehicle reads it: the bound that no healthy engine can cross."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qpde_perception.bundles.errors import BundleError

if TYPE_CHECKING:
    from qpde_perception.bundles.bundle import Bundle

CERTIFICATE = "certificate.json"


class _Certificate(BaseModel):
    model_config = ConfigDict(frozen=True)  # what else it says is for people

    global_bound: Annotated[float, Field(gt=0, allow_inf_nan=False)]


def global_bound_of(bundle: Bundle) -> float | None:
    """Return the largest distance of the logits from the float reference's, for every input.

    Returns:
        The Euclidean distance; None where the bundle has no certificate.

    Raises:
        BundleError: If the file is damaged.
    """
    if CERTIFICATE not in bundle.contents:
        return None
    try:
        return _Certificate.model_validate_json(bundle.read(CERTIFICATE)).global_bound
    except ValidationError as error:
        msg = f"{bundle.path / CERTIFICATE}: {error.errors()[0]['msg']}; certify the model again"
        raise BundleError(msg) from None
