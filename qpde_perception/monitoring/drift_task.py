"""The task of the diagnostics that says whether the network still is what was validated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpde_perception.monitoring.levels import Findings, TaskStatus, count, decimal, listed, truth

if TYPE_CHECKING:
    from qpde_perception.monitoring.verdicts import DriftReport


def drift_task(report: DriftReport) -> TaskStatus:
    """Say what has changed, how it was found, and how much speaks for it.

    Values, `N/A` where nothing is known:

    - `cause`, `rule`, `fault`, `remedy`: of the worst verdict; `none` where there is none;
    - `causes`: all of them, worst first;
    - `unwatched`: what is not watched, and why;
    - `observed`: sampled items that were compared with the reference;
    - `noise_ratio`: recent squared distance to the reference over that of a healthy engine;
    - `disagreement`: recent share of items of another first class than the reference's;
    - `saturation_worst_tap`, `saturation`: tap with the largest recent share of cut-off
      activations, and that share;
    - `evidence`: decimal logarithm of the combined evidence; at `evidence_alarm` a verdict is
      raised;
    - `strongest`, `strongest_evidence`: the observable with the most evidence, and its logarithm;
    - `golden_checks`, `golden_identical`, `golden_rms_over_noise`, `golden_max_over_noise`: how
      often golden frames were asked, and how they were answered last;
    - `entropy`, `class_mix_distance`: recent entropy in nats and total variation of the classes;
      for information.
    """
    findings = Findings()
    for verdict in report.causes:
        findings.add(verdict.level, f"{verdict.cause.value}: {verdict.message} {verdict.remedy}")
    worst = report.causes[0] if report.causes else None
    tap = max(report.saturation, key=lambda name: report.saturation[name], default=None)
    strongest = max(report.evidence, key=lambda name: report.evidence[name], default=None)
    identical = report.golden_identical
    causes = dict.fromkeys(verdict.cause.value for verdict in report.causes)
    return findings.status(
        "quantization_drift",
        {
            "cause": worst.cause.value if worst else "none",
            "rule": worst.rule if worst else "none",
            "fault": (worst.fault if worst else "") or "none",
            "remedy": worst.remedy if worst else "none",
            "causes": listed(tuple(causes)),
            "unwatched": "; ".join(report.unwatched) or "none",
            "observed": count(report.observed),
            "noise_ratio": decimal(report.noise_ratio),
            "disagreement": decimal(report.disagreement),
            "saturation_worst_tap": tap or "none",
            "saturation": decimal(report.saturation[tap] if tap else None),
            "evidence": decimal(report.combined_evidence),
            "evidence_alarm": decimal(report.alarm_at),
            "strongest": strongest or "none",
            "strongest_evidence": decimal(report.evidence[strongest] if strongest else None),
            "golden_checks": count(report.golden_checks),
            "golden_identical": "N/A" if identical is None else truth(identical),
            "golden_rms_over_noise": decimal(report.golden_rms_over_noise),
            "golden_max_over_noise": decimal(report.golden_max_over_noise),
            "entropy": decimal(report.entropy),
            "class_mix_distance": decimal(report.class_mix_distance),
        },
        fine="OK" if report.observed or report.golden_checks else "Nothing observed yet.",
    )
