"""The tasks of the diagnostics: figures in; levels and values out, as docs/diagnostics.md says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qpde_perception.monitoring.accounting import Counts, DropReason
from qpde_perception.monitoring.levels import (
    Findings,
    Level,
    TaskStatus,
    count,
    decimal,
    listed,
    truth,
)

if TYPE_CHECKING:
    from qpde_perception.monitoring.losses import LossSnapshot
    from qpde_perception.monitoring.rates import StreamSnapshot
    from qpde_perception.monitoring.watchdog import InputAge, WatchdogReport

WAITING = "Waiting for the node to perform inference."
_NOT_YET = "n/a"  # Autoware's word; greenwave_monitor's is N/A
# Stamps may be this much ahead of the node's clock: two computers are never exactly in step.
_CLOCK_SKEW_MS = 10.0
_NOTHING = Counts(received=0, published=0, dropped={})


@dataclass(frozen=True, slots=True)
class CameraReport:
    """All that is known of one camera at one moment.

    Attributes:
        topic: Topic of the camera.
        stream: Its rates, delay and jitter.
        losses: Frames that never arrived.
        counts: Frames that arrived, and how they ended.
        age: How long it has been silent.
    """

    topic: str
    stream: StreamSnapshot
    losses: LossSnapshot
    counts: Counts
    age: InputAge


@dataclass(frozen=True, slots=True)
class EngineReport:
    """Which engine serves, and why this one.

    Attributes:
        model: Name of the model.
        name: The engine; empty where none serves.
        version: Version of its library.
        waiting: Why none was chosen yet, for example that one is being built; else empty.
        cache: `hit` where it was kept from before, else `miss`; `none` where it is built at each
            start.
        cache_reason: Why it was a hit or a miss.
        build_ms: Time for building or loading it, milliseconds; None where nobody measured.
        refused: Engines earlier in the list that do not serve, and why.
        rms_over_noise: Distance of its golden logits from the integer reference, root mean square,
            in units of the quantization noise; None where it was not tested.
        max_over_noise: The largest single distance, in the same unit.
    """

    model: str
    name: str
    version: str
    waiting: str = ""
    cache: str = "none"
    cache_reason: str = ""
    build_ms: float | None = None
    refused: dict[str, str] = field(default_factory=dict)
    rms_over_noise: float | None = None
    max_over_noise: float | None = None


@dataclass(frozen=True, slots=True)
class TransportReport:
    """What the middleware said of one camera's subscription since the start.

    Attributes:
        topic: Topic of the camera.
        incompatible_qos: Publishers found whose quality of service does not fit; None where the
            middleware does not report them.
        policies: The policies that did not fit.
        messages_lost: Messages that it lost; None where it does not report them.
    """

    topic: str
    incompatible_qos: int | None
    policies: tuple[str, ...]
    messages_lost: int | None


def processing_time_task(report: WatchdogReport) -> TaskStatus:
    """Say whether frames are processed in time, and whether every camera still sends."""
    findings = Findings()
    if report.processing_time_ms is None:
        findings.add(Level.OK, WAITING)
    elif not report.in_expected_range:
        allowed_ms = report.limits.max_allowed_processing_time_ms
        camera = f" ({report.slowest})" if len(report.inputs) > 1 else ""
        findings.add(
            Level.WARN,
            f"Processing time exceeds the acceptable limit of {decimal(allowed_ms)} ms by "
            f"{decimal(report.processing_time_ms - allowed_ms)} ms{camera}.",
        )
    if not report.delay_in_range:
        findings.add(
            Level.ERROR, "Processing delay has consecutively exceeded the acceptable limit."
        )
    for topic in report.stopped:
        findings.add(Level.ERROR, _stopped(topic, report.inputs[topic]))
    ages_ms = [age.age_ms for age in report.inputs.values()]
    stages_ms = report.stages_ms
    preprocess_ms = [stages_ms[name] for name in ("decode", "prepare") if name in stages_ms]
    return findings.status(
        "processing_time_status",
        {
            "is_processing_time_ms_in_expected_range": truth(report.in_expected_range),
            "processing_time_ms": decimal(report.processing_time_ms, _NOT_YET),
            "is_consecutive_processing_delay_in_range": truth(report.delay_in_range),
            "consecutive_processing_delay_ms": decimal(report.consecutive_delay_ms, _NOT_YET),
            "preprocess_time_ms": decimal(sum(preprocess_ms) if preprocess_ms else None, _NOT_YET),
            "inference_time_ms": decimal(stages_ms.get("infer"), _NOT_YET),
            "postprocess_time_ms": decimal(stages_ms.get("postprocess"), _NOT_YET),
            "slowest_camera": report.slowest or _NOT_YET,
            "input_age_ms": decimal(max(ages_ms, default=None), _NOT_YET),
            "stopped_cameras": listed(report.stopped),
        },
    )


def camera_input_task(report: CameraReport, before: CameraReport | None = None) -> TaskStatus:
    """Say how a camera's frames arrive.

    Args:
        report: The camera now.
        before: The same camera in the last report; what happened since then sets the level.
    """
    stream, losses = report.stream, report.losses
    findings = Findings()
    if report.age.stopped:
        findings.add(Level.ERROR, _stopped(report.topic, report.age))
    elif not report.age.seen:
        findings.add(Level.STALE, f"Waiting for the first frame of {report.topic}.")
    else:
        _judge_rates(stream, findings)
        _judge_stamps(stream, before.stream if before else None, findings)
        lost = (losses.lost or 0) - ((before.losses.lost or 0) if before else 0)
        if lost > 0:
            findings.add(Level.WARN, f"{lost} frames lost before they arrived.")
    expected = stream.expected
    return findings.status(
        f"camera_input {report.topic}",
        {
            "frame_rate_node": decimal(stream.frame_rate_node),
            "frame_rate_msg": decimal(stream.frame_rate_msg),
            "current_delay_from_realtime_ms": decimal(stream.current_delay_from_realtime_ms),
            "expected_frequency": decimal(expected.frequency_hz if expected else None),
            "tolerance": decimal(expected.tolerance_percent if expected else None),
            "mean_abs_jitter_node": decimal(stream.mean_abs_jitter_node),
            "mean_abs_jitter_msg": decimal(stream.mean_abs_jitter_msg),
            "max_abs_jitter_node": decimal(stream.max_abs_jitter_node),
            "max_abs_jitter_msg": decimal(stream.max_abs_jitter_msg),
            "num_jitter_outliers_node": count(stream.num_jitter_outliers_node),
            "num_jitter_outliers_msg": count(stream.num_jitter_outliers_msg),
            "num_non_increasing_msg": count(stream.num_non_increasing_msg),
            "num_unstamped": count(stream.num_unstamped),
            "num_restarts": count(stream.num_restarts),
            "total_dropped_frames": count(losses.lost),
            "dropped_frames_source": losses.source.value if losses.source else "N/A",
            "received": count(report.counts.received),
            "published": count(report.counts.published),
            "dropped": count(sum(report.counts.dropped.values())),
            "input_age_ms": decimal(report.age.age_ms),
        },
    )


def frame_accounting_task(totals: Counts, before: Counts = _NOTHING) -> TaskStatus:
    """Say how the frames of all cameras ended.

    Args:
        totals: The counts now.
        before: The counts of the last report; what happened since then sets the level.
    """
    findings = Findings()
    ended = totals.published + sum(totals.dropped.values())
    if ended > totals.received:
        findings.add(Level.ERROR, f"{ended} frames ended but {totals.received} were received.")
    news = {
        reason: totals.dropped.get(reason, 0) - before.dropped.get(reason, 0)
        for reason in DropReason
    }
    for reason, frames in news.items():
        # A newer frame that takes the place of an older one is how a busy node keeps up.
        if frames > 0 and reason is not DropReason.SUPERSEDED:
            level = Level.ERROR if reason is DropReason.ENGINE_DOWN else Level.WARN
            findings.add(level, f"{frames} frames dropped: {reason.value}.")
    superseded = news[DropReason.SUPERSEDED]
    published = totals.published - before.published
    if superseded > published:
        findings.add(Level.WARN, f"{superseded} frames superseded, only {published} published.")
    return findings.status(
        "frame_accounting",
        {
            "received": count(totals.received),
            "published": count(totals.published),
            "waiting": count(max(totals.received - ended, 0)),
            **{
                f"dropped_{reason.value}": count(totals.dropped.get(reason, 0))
                for reason in DropReason
            },
        },
    )


def engine_task(report: EngineReport) -> TaskStatus:
    """Say which engine serves, and what became of the ones before it."""
    findings = Findings()
    refused = tuple(report.refused)
    why = "; ".join(f"{name}: {reason}" for name, reason in report.refused.items())
    if report.waiting:
        findings.add(Level.STALE, report.waiting)
    elif not report.name:
        findings.add(Level.ERROR, f"No engine serves {report.model}. {why}".rstrip())
    elif refused:
        findings.add(Level.WARN, f"{report.name} serves in place of {listed(refused)}. {why}")
    return findings.status(
        "engine",
        {
            "model": report.model or "none",
            "engine": report.name or "none",
            "version": report.version or "none",
            "cache": report.cache,
            "cache_reason": report.cache_reason or "none",
            "build_ms": decimal(report.build_ms),
            "refused": why or "none",
            "rms_over_noise": decimal(report.rms_over_noise),
            "max_over_noise": decimal(report.max_over_noise),
        },
        fine=f"{report.name} {report.version} serves {report.model}.",
    )


def transport_task(
    cameras: tuple[TransportReport, ...], before: tuple[TransportReport, ...] = ()
) -> TaskStatus:
    """Say what the middleware reports of the cameras' subscriptions.

    Args:
        cameras: Every camera now.
        before: The cameras in the last report; messages lost since then set the level.
    """
    findings = Findings()
    lost_before = {camera.topic: camera.messages_lost or 0 for camera in before}
    for camera in cameras:
        if camera.incompatible_qos:
            findings.add(
                Level.WARN,
                f"{camera.topic}: {camera.incompatible_qos} publishers with incompatible quality "
                f"of service ({listed(camera.policies)}); ask for theirs.",
            )
        lost = (camera.messages_lost or 0) - lost_before.get(camera.topic, 0)
        if lost > 0:
            findings.add(Level.WARN, f"{camera.topic}: {lost} messages lost in transport.")
    policies = sorted({policy for camera in cameras for policy in camera.policies})
    return findings.status(
        "transport",
        {
            "incompatible_qos": count(_sum([camera.incompatible_qos for camera in cameras])),
            "incompatible_policies": listed(tuple(policies)),
            "messages_lost": count(_sum([camera.messages_lost for camera in cameras])),
            "cameras": listed(tuple(camera.topic for camera in cameras)),
        },
    )


def _stopped(topic: str, age: InputAge) -> str:
    what = "No frame" if age.seen else "No first frame"
    return f"{what} from {topic} for {decimal(age.age_ms)} ms."


def _judge_rates(stream: StreamSnapshot, findings: Findings) -> None:
    if stream.expected is None:
        return
    for clock, rate in (("node", stream.frame_rate_node), ("msg", stream.frame_rate_msg)):
        if rate is not None and not stream.expected.holds(rate):
            findings.add(
                Level.WARN,
                f"frame_rate_{clock} is {decimal(rate)} Hz, expected "
                f"{decimal(stream.expected.frequency_hz)} Hz.",
            )


def _judge_stamps(
    stream: StreamSnapshot, before: StreamSnapshot | None, findings: Findings
) -> None:
    unstamped = stream.num_unstamped - (before.num_unstamped if before else 0)
    if unstamped > 0:
        findings.add(Level.WARN, f"{unstamped} frames without a stamp.")
    stuck = stream.num_non_increasing_msg - (before.num_non_increasing_msg if before else 0)
    if stuck > 0:
        findings.add(Level.WARN, f"{stuck} stamps not above the one before.")
    delay_ms = stream.current_delay_from_realtime_ms
    if delay_ms is not None and delay_ms < -_CLOCK_SKEW_MS:
        findings.add(
            Level.WARN,
            f"Stamps are {decimal(-delay_ms)} ms ahead of the clock; check use_sim_time.",
        )


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
