"""Every parameter of the classifier node, and the settings they make."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qpde_perception.frames import Regions
from qpde_perception.perception import ExponentialFilter, HysteresisFilter, NoFilter
from ros2_nodes.declarations import Declaration, DeclarationError

if TYPE_CHECKING:
    from qpde_perception.perception import TemporalFilter

ACTIONS = ("warn", "reference", "deactivate")
"""Values of drift.action."""
_NS_PER_MS = 1e6

DECLARATIONS = (
    Declaration("model", "", "A model's name or a bundle's folder; empty for traffic_signs."),
    Declaration("engine", "", "The one engine to use; empty for the first that works."),
    Declaration("threads", 1, "Threads of a CPU engine; 0 lets it choose.", minimum=0, maximum=256),
    Declaration(
        "decode_threads",
        0,
        "Threads that decode the frames of several cameras side by side; 0 for one a camera, at "
        "most half of the processors.",
        minimum=0,
        maximum=256,
    ),
    Declaration("autostart", True, "Configure and activate at the start, without a manager."),
    Declaration(
        "cameras",
        ("camera",),
        "Names of the cameras. One: its topics are ~/input/image and so on; several: "
        "~/NAME/input/image and so on.",
    ),
    Declaration(
        "image_transport",
        "raw",
        "raw takes Image on ~/input/image, compressed takes CompressedImage on "
        "~/input/image/compressed.",
        choices=("raw", "compressed"),
    ),
    Declaration(
        "image_reliability",
        "auto",
        "Reliability asked of the camera. best_effort hears every camera, and loses most large "
        "images; auto asks for reliable, and for best_effort once a camera offers no more.",
        choices=("auto", "best_effort", "reliable"),
    ),
    Declaration("image_depth", 5, "Images that wait in the middleware.", minimum=1, maximum=100),
    Declaration(
        "regions",
        "whole_frame",
        "What is classified: the whole frame, the boxes of ~/input/regions (Detection2DArray), or "
        "fixed_regions.",
        choices=("whole_frame", "topic", "fixed"),
    ),
    Declaration(
        "fixed_regions",
        (0.0,),
        "Boxes in pixels, four numbers each: x_min, y_min, x_max, y_max.",
    ),
    Declaration(
        "regions_slop_ms",
        0.0,
        "How far the stamps of an image and its boxes may be apart, ms; 0 for equal ones.",
        minimum=0.0,
        maximum=10_000.0,
    ),
    Declaration(
        "filter",
        "none",
        "Smoothing over time: none, exponential average, or hysteresis, which holds a class.",
        choices=("none", "exponential", "hysteresis"),
    ),
    Declaration(
        "filter_time_constant_s",
        0.3,
        "Exponential: time after which an old value weighs 1/e, s.",
        minimum=0.001,
        maximum=3600.0,
    ),
    Declaration(
        "filter_hold_s",
        0.5,
        "Hysteresis: how long another class must lead, s.",
        minimum=0.001,
        maximum=3600.0,
    ),
    Declaration(
        "filter_reset_after_s",
        1.0,
        "A thing not seen for longer than this starts anew, s.",
        minimum=0.0,
        maximum=3600.0,
    ),
    Declaration("top_k", 5, "Classes in a result, the best first.", minimum=1, maximum=65535),
    Declaration(
        "confidence_threshold",
        0.0,
        "Classes with a lower score are left out of a result.",
        minimum=0.0,
        maximum=1.0,
    ),
    Declaration(
        "max_age_ms",
        0.0,
        "Images older than this on arrival at the engine are dropped, ms; 0 for never.",
        minimum=0.0,
        maximum=3_600_000.0,
    ),
    Declaration(
        "expected_frequency",
        0.0,
        "Images a second that each camera should send, Hz; 0 where that is unknown.",
        minimum=0.0,
        maximum=10_000.0,
    ),
    Declaration(
        "tolerance",
        5.0,
        "How far rate and intervals may be off expected_frequency, percent.",
        minimum=0.0,
        maximum=100.0,
    ),
    Declaration(
        "input_timeout_ms",
        1000.0,
        "A camera without an image for this long is an ERROR, ms.",
        minimum=1.0,
        maximum=3_600_000.0,
    ),
    Declaration(
        "diagnostics.max_allowed_processing_time_ms",
        200.0,
        "A longer processing time is a WARN, ms.",
        minimum=0.001,
        maximum=3_600_000.0,
    ),
    Declaration(
        "diagnostics.max_acceptable_consecutive_delay_ms",
        1000.0,
        "Processing times too long for as long as this are an ERROR, ms.",
        minimum=0.001,
        maximum=3_600_000.0,
    ),
    Declaration(
        "diagnostics.validation_callback_interval_ms",
        100.0,
        "Period of processing_time_status on /diagnostics, ms.",
        minimum=1.0,
        maximum=60_000.0,
    ),
    Declaration(
        "diagnostic_updater.period",
        1.0,
        "Period of the other tasks on /diagnostics, s.",
        minimum=0.01,
        maximum=60.0,
    ),
    Declaration(
        "diagnostic_updater.use_fqn",
        False,
        "Name the tasks on /diagnostics by the node's full name.",
    ),
    Declaration(
        "drift.share",
        0.01,
        "Share of the classified items that are held against the float reference; 0 for none.",
        minimum=0.0,
        maximum=1.0,
    ),
    Declaration(
        "drift.golden_period_s",
        120.0,
        "How often the engine is asked the golden frames, between two frames, s; 0 for once.",
        minimum=0.0,
        maximum=86_400.0,
    ),
    Declaration(
        "drift.alpha",
        0.001,
        "Probability of ever a false verdict on evidence while one engine serves.",
        minimum=1e-9,
        maximum=0.5,
    ),
    Declaration(
        "drift.action",
        "warn",
        "What follows a verdict that is an ERROR, beside the warning: nothing, the float reference "
        "in place of a changed engine, or the node's deactivation.",
        choices=ACTIONS,
    ),
    Declaration("freeze_gc", True, "Take what exists out of garbage collection while active."),
    Declaration(
        "cpu_affinity",
        (-1,),
        "Processors that the node may use; -1 for all.",
        minimum=-1,
        maximum=4095,
    ),
    Declaration(
        "priority",
        0,
        "Priority of the worker in the real-time class SCHED_FIFO; 0 for ordinary scheduling.",
        minimum=0,
        maximum=99,
    ),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of all parameters at configure."""

    values: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @classmethod
    def of(cls, values: dict[str, Any]) -> Settings:
        """Check what no single parameter can.

        Raises:
            DeclarationError: If two parameters contradict each other; the text names them.
        """
        cameras = values["cameras"]
        if not cameras or len(set(cameras)) != len(cameras):
            msg = f"parameter cameras: give names that differ, at least one, not {list(cameras)}"
            raise DeclarationError(msg)
        for name in cameras:
            if not (name.isidentifier() and name.isascii()):
                msg = f"parameter cameras: {name!r} is no name of a topic; use letters and _"
                raise DeclarationError(msg)
        boxes = values["fixed_regions"]
        if values["regions"] == "fixed" and (len(boxes) % 4 or not boxes):
            msg = (
                f"parameter fixed_regions: {len(boxes)} numbers; regions is fixed, so give four "
                "for each box"
            )
            raise DeclarationError(msg)
        return cls(values)

    @property
    def fixed_regions(self) -> Regions | None:
        """The fixed boxes, or None where there are none."""
        if self["regions"] != "fixed":
            return None
        boxes = np.array(self["fixed_regions"], np.float32).reshape(-1, 4)
        return Regions(boxes, tuple(str(index) for index in range(len(boxes))))

    @property
    def slop_ns(self) -> int:
        """How far the stamps of an image and its boxes may be apart, nanoseconds."""
        slop_ms: float = self["regions_slop_ms"]
        return round(slop_ms * _NS_PER_MS)

    @property
    def decoders(self) -> int:
        """How many threads decode."""
        wanted: int = self["decode_threads"]
        return wanted or min(len(self["cameras"]), max((os.cpu_count() or 1) // 2, 1))

    def new_filter(self) -> TemporalFilter:
        """Return the temporal filter of one camera."""
        reset_after_s = self["filter_reset_after_s"]
        if self["filter"] == "exponential":
            time_constant_s = self["filter_time_constant_s"]
            return ExponentialFilter(time_constant_s=time_constant_s, reset_after_s=reset_after_s)
        if self["filter"] == "hysteresis":
            return HysteresisFilter(hold_s=self["filter_hold_s"], reset_after_s=reset_after_s)
        return NoFilter()
