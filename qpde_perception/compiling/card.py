"""The model card: what an engineer must know before using a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpde_perception.bundles import Manifest


def write_card(manifest: Manifest, recipe: Mapping[str, Any]) -> str:
    """Return `CARD.md` of a traffic-sign model.

    Args:
        manifest: What the bundle says of itself, accuracies included.
        recipe: The training recipe, as plain values.
    """
    spec = manifest.input
    rows = "\n".join(
        f"| {entry.data} | {entry.images:,} | {entry.top1:.2%} | {entry.engine} "
        f"| `{entry.command}` |"
        for entry in manifest.accuracy
    )
    return f"""# {manifest.name}

{manifest.task}. Network `{manifest.network}`, {manifest.parameters:,} parameters, weights of
{manifest.weight_bits} bits, activations of {manifest.activation_bits} bits. Input: {spec.height} x
{spec.width} pixels, {spec.channel_order}, uint8, resampling `{spec.interpolation}`; the box of a
sign is grown by {spec.region_margin:.0%} of its size on each side before it is cut out.

## What it is

Symmetric MobileNetV2: every block is `x - K^T relu(K x + b)`, one pair of kernels for both ways, so
that a block is a gradient step that does not amplify the rounding of activations; total-variation
smoothing of feature maps; append-and-pool transitions. All scales are powers of two (weights: seven
bits times a power of two), so that every sum is exact in float32 and the CPU engines give the same
bits as the integer reference.

## Measured

| data | images | top-1, int8 | engine | command |
|---|---|---|---|---|
{rows}

`val` is a tenth of the tracks of every class of the official training set, held out by track;
choices were made on it. `test-a` is the half of the official test set that is at hand (6,236 of
12,630 images, chosen at random); it was looked at once for this model. The boxes of the sample
drive come from another country and another camera and were never trained on.

## Training

Data: German Traffic Sign Recognition Benchmark (Stallkamp et al., Neural Networks 32, 2012),
official training set without `val`. Recipe: {recipe["float_epochs"]} epochs in floating point,
{recipe["quantized_epochs"]} with quantization in the loop, the last {recipe["frozen_epochs"]} with
the normalisations as deployed; SGD with momentum 0.9, peak learning rate
{recipe["learning_rate"]}, cosine decay, weight decay {recipe["weight_decay"]}, batch
{recipe["batch"]}, label smoothing {recipe["label_smoothing"]}, seed {recipe["seed"]}. Augmentation:
position of the box, tilt, light, blur, resolution, noise, JPEG, occlusion.

## Limits

- It answers with one of its {len(manifest.labels)} classes whatever it is shown: a sign it does not
  know (40 or 90 km/h, a crossing) gets a class too, often with a high probability. Use it behind a
  detector and watch the probability.
- It has seen German signs by day and dusk, 15 to 250 pixels wide. Other countries' signs, night,
  snow, and signs under 15 pixels are not validated.
- It is no safety function and has not been validated as one.
"""
