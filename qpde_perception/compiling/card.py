"""The model card: what an engineer must know before using a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpde_perception.bundles import Calibration, Manifest
    from qpde_perception.compiling.certificate import Certificate
    from qpde_perception.learning.networks import Flavour
    from qpde_perception.learning.trained_run import TrainedRun

CERTIFICATE_SECTION, WATCHED_SECTION = "## Certificate\n", "## What is watched\n"
LAST_SECTION = "## Limits\n"
WHAT_IT_IS: Mapping[Flavour, str] = {
    "symmetric": """\
Symmetric MobileNetV2: every block is `x - K^T relu(K x + b)`, one pair of kernels for both ways, so
that a block is a gradient step: one that does not amplify the rounding of activations as long as
its step is small enough, which the certificate says of each; total-variation smoothing of feature
maps; append-and-pool transitions.""",
    "twin": """\
The twin of the symmetric MobileNetV2, for comparison: the same convolutions, each with a kernel of
its own, so that no block is a gradient step; total-variation smoothing of feature maps;
append-and-pool transitions.""",
    "ordinary": """\
Ordinary MobileNetV2, for comparison: inverted residuals, the first of a stage with stride 2; no
smoothing of feature maps.""",
}


def write_card(manifest: Manifest, trained: TrainedRun, flavour: Flavour) -> str:
    """Return `CARD.md` of a traffic-sign model.

    Args:
        manifest: What the bundle says of itself, accuracies included.
        trained: The run that it was compiled of.
        flavour: What the network's blocks are.
    """
    spec, recipe = manifest.input, trained.recipe
    weight = recipe["noise_penalty"]
    penalty = f"penalty on rounding noise {weight:g}, " if weight else ""
    rows = "\n".join(
        f"| {entry.data} | {entry.images:,} | {entry.top1:.2%} | {entry.engine} "
        f"| `{entry.command}` |"
        for entry in manifest.accuracy
    )
    return f"""# {manifest.name}

{manifest.task}. Network `{manifest.network}`, {manifest.parameters:,} parameters, weights of
{_bits(manifest)}. Input: {spec.height} x {spec.width} pixels,
{spec.channel_order}, uint8, resampling `{spec.interpolation}`; the box of a sign is grown by
{spec.region_margin:.0%} of its size on each side before it is cut out.

## What it is

{WHAT_IT_IS[flavour]} All scales are powers of two (weights: seven
bits times a power of two), so that every sum is exact in float32 and the CPU engines give the same
bits as the integer reference. `tensorrt.onnx` is the same function as TensorRT takes it; its bits
are the reference's where it is executed as it is written. No TensorRT device has been measured.

## Measured

| data | images | top-1, int8 | engine | command |
|---|---|---|---|---|
{rows}

`val` is a tenth of the tracks of every class of the official training set, held out by track;
choices were made on it. `test-a` is the half of the official test set that is at hand (6,236 of
12,630 images, chosen at random). The boxes of the sample drive come from another country and
another camera and were never trained on; how far a box is grown was chosen on other boxes of that
country's roads, which are not in the sample drive.

## Training

Data: German Traffic Sign Recognition Benchmark (Stallkamp et al., Neural Networks 32, 2012),
official training set without `val`. {_history(trained)}Recipe: {recipe["float_epochs"]} epochs
in floating point, {recipe["quantized_epochs"]} with quantization in the loop, the last
{recipe["frozen_epochs"]} with the normalisations as deployed; AdamW, peak learning rate
{recipe["learning_rate"]}, cosine decay, weight decay {recipe["weight_decay"]}, {penalty}batch
{recipe["batch"]}, label smoothing {recipe["label_smoothing"]}, seed {recipe["seed"]}. Augmentation:
position of the box, tilt and proportions, stroke width, light, blur, sharpness, resolution, noise,
JPEG, occlusion; speed limits repainted with figures of other typefaces. Pictures of no class (speed
limits of other numbers, boards, scrambled signs) shall get all classes alike. The logits are
divided by the temperature under which `val` is likeliest.

## Limits

- It answers with one of its {len(manifest.labels)} classes whatever it is shown: a sign it does not
  know (40 or 90 km/h, a crossing) gets a class too, mostly with a low probability, not always. Use
  it behind a detector and watch the probability.
- It has seen German signs by day and dusk, 15 to 250 pixels wide. Other countries' signs, night,
  snow, and signs under 15 pixels are not validated.
- It is no safety function and has not been validated as one.
"""


def _history(trained: TrainedRun) -> str:
    said = ""
    if earlier := trained.begun_with:
        said += (
            "Begun with the float network of an earlier run: "
            f"{earlier['float_epochs']} epochs, peak\n"
            f"learning rate {earlier['learning_rate']}, seed {earlier['seed']}. "
        )
    if trained.taught_by:
        names = [f"{each['network']} (seed {each['seed']})" for each in trained.taught_by]
        said += (
            f"Taught by {', '.join(names)}: "
            f"{'its probabilities' if len(names) == 1 else 'the means of their probabilities'}\n"
            f"have {trained.recipe['distillation']:.0%} of the loss. "
        )
    return said


def _bits(manifest: Manifest) -> str:
    own, activations = manifest.weight_bits, manifest.activation_bits
    wider = "" if own >= 8 else " in 1x1 convolutions and of 8 elsewhere, stored as int8"
    return f"{own} bits{wider}, activations of {activations} bits"


def with_certificate(card: str, certificate: Certificate) -> str:
    """Return a card with the section of a certificate, in place of an older one.

    Args:
        card: What `write_card` returned.
        certificate: Of the same model.
    """
    return _with_section(card, CERTIFICATE_SECTION, _certificate_text(certificate))


def with_calibration(card: str, calibration: Calibration) -> str:
    """Return a card with the section of a calibration, in place of an older one.

    Args:
        card: What `write_card` returned.
        calibration: Of the same model.
    """
    return _with_section(card, WATCHED_SECTION, _calibration_text(calibration))


def _with_section(card: str, heading: str, text: str) -> str:
    """Put a section where an older one of its heading is, else before the last."""
    before, old, after = card.partition(heading)
    if old:
        after = after[after.index("\n## ") + 1 :]
    else:
        before, last, after = card.partition(LAST_SECTION)
        after = last + after
    return f"{before}{heading}{text}\n{after}"


def _certificate_text(found: Certificate) -> str:
    blocks = zip(found.stages, found.stage_lipschitz, found.stage_symmetric, strict=True)
    constants = "\n".join(
        f"| `{name}` | {lipschitz:.3g} | {'yes' if symmetric else ''} |"
        for name, lipschitz, symmetric in blocks
    )
    each = zip(
        found.quantizers, found.noise_gain, found.noise_share, found.certified_from, strict=True
    )
    quantizers = "\n".join(
        f"| `{name}` | {gain:.3g} | {share:.1%} | {certified:.1%} |"
        for name, gain, share, certified in each
    )
    return f"""
What quantizing the activations changes, on {found.images} frames: the logits of `{found.engine}`
against the same integer weights with activations neither rounded nor clipped. Again with
`qpde certify --model MODEL --data DATA --images {found.images}`.

| question | answer |
|---|---|
| largest Euclidean distance of the logits: seen | {found.observed_max:.3g} |
| ... possible, for every input | {found.global_bound:.3g} |
| ... possible where no grid cuts a value off | {found.rounding_bound:.3g} |
| frames that keep their class whatever all roundings are (proven) | {found.certified_share:.1%} |
| frames for which some roundings within half a step change the class | {found.refuted_share:.1%} |
| margin between first and second class, median | {found.margin_median:.3g} |
| ... its largest change by roundings, to first order, median | {found.first_order_median:.3g} |
| frames with every margin over five predicted deviations | {found.five_sigma_share:.1%} |
| noise of the margins, observed over predicted | {found.noise_ratio:.3f} |
| margins that moved by over three predicted deviations | {found.three_sigma_tail:.2%} |
| what clipping changes in a logit, root mean square | {found.clipping_rms:.3g} |

A step of the trunk whose constant is at most one does not amplify what was rounded before it; a
block that is marked is a gradient step `x - K^T relu(K x + b)` in its integers.

| step | constant, at most | gradient step |
|---|---|---|
{constants}

Noise gain: Frobenius norm of the derivative of all logits by a tensor. The last column: frames that
keep their class whatever the roundings of this tensor and of all after it are.

| tensor | noise gain | share of the noise | certified from here on |
|---|---|---|---|
{quantizers}
"""


def _calibration_text(found: Calibration) -> str:
    taps = "\n".join(
        f"| saturated codes of `{tap.name}` | {tap.share:.3%} | {tap.cap * tap.capped.bound:.3%} |"
        for tap in found.taps
    )
    faults = ", ".join(dict.fromkeys(each.fault for each in found.inputs.signatures))
    statistics = ", ".join(each.name for each in found.inputs.statistics)
    limit = found.noise.cap * found.noise.capped.bound * found.noise.variance
    return f"""
What `{found.engine}` does on {found.frames:,} frames of {found.source}, in {found.groups}
independent groups ({found.grouping}). Each limit is the upper bound of a mean over groups, at a
confidence of {found.confidence:.1%}; an alarm needs evidence that the mean is above it. Again, on
data of the own camera, with `qpde calibrate --model MODEL --drive DRIVE --write`.

| watched on sampled frames | mean | limit of the mean |
|---|---|---|
| squared distance to the network without rounding | {found.noise.variance:.4g} | {limit:.4g} |
| first class differs from its | {found.disagreement.mean:.2%} \
| {found.disagreement.bound:.2%} |
{taps}

Of the input: {statistics}. What the following faults do to them is known: {faults}.
"""
