"""What a network wants to see: the contract between training and the road."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class InputSpec(BaseModel):
    """Shape, colour order and resampling of a network's input.

    Attributes:
        height: Rows of the input, pixels.
        width: Columns of the input, pixels.
        channel_order: Order of the three channels.
        interpolation: Resampling used in training, and so at run time.
        region_margin: Share of a box's size added on each of its four sides before the crop.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(gt=0, le=4096)
    width: int = Field(gt=0, le=4096)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    interpolation: Literal["area", "linear"] = "area"
    region_margin: float = Field(default=0.0, ge=0.0, le=1.0)
