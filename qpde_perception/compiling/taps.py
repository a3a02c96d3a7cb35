"""Taps: the activations whose saturation is watched while a network runs.

A code at the largest value of its grid stands for everything beyond it as well. How many of them a
frame has tells whether the network still sees what its grids were calibrated on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpde_perception.compiling.specification import Add, Conv, Head

if TYPE_CHECKING:
    from qpde_perception.compiling.specification import Document

SATURATION = "saturation"
"""Name of the output: float32 (n, taps), share of a frame's codes that are the tap's `q_max`."""


def taps_of(document: Document) -> tuple[str, ...]:
    """Return the tapped tensors, in order of execution.

    They are the last output of a ReLU in the last residual branch of every resolution, and the last
    before the head. Code 0 of their grids is the zero of the ReLU, so only `q_max` saturates.
    """
    # Few, for each costs an engine two small kernels. Not the trunk, though it is narrower:
    # smoothing and pooling draw values together and sums add what was already cut off, so that it
    # hardly ever saturates, whatever the pictures are. After a ReLU some codes of most pictures do,
    # and how many changes as pictures get dull or blurred.
    taps = dict[str, None]()
    rectified, in_branch = list[str](), list[str]()
    for layer in document.layers:
        if isinstance(layer, Add):
            in_branch = rectified[-1:]
        elif isinstance(layer, Head):
            taps |= dict.fromkeys([*in_branch, *rectified[-1:]])
        else:
            if isinstance(layer, Conv) and layer.stride > 1:
                taps |= dict.fromkeys(in_branch)
            if document.grids[layer.output].rectifies:
                rectified.append(layer.output)
    return tuple(taps)
