"""`qpde certify`: how far can the deployed network be from its float self?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.table import Table

from qpde_perception.bundles import CERTIFICATE, Bundle, find_model, golden_of, load_bundle
from qpde_perception.cli.data import read
from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.evaluate import run
from qpde_perception.cli.frame import Json, emit, progress
from qpde_perception.compiling.card import with_certificate
from qpde_perception.compiling.certificate import IMAGES, Certificate, certify
from qpde_perception.compiling.packing import CARD, write_bundle
from qpde_perception.compiling.specification import SPECIFICATION, WEIGHTS, Specification
from qpde_perception.engines import engine_status
from qpde_perception.engines.registry import build_engine
from qpde_perception.learning.signs import SPLITS, prepared_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

Model = Annotated[str | None, typer.Option(help="A model's name, or the folder of a bundle.")]
Data = Annotated[
    Path | None, typer.Option(help="Sign data; the model's golden frames when left out.")
]
Split = Annotated[str, typer.Option(help=f"One of: {', '.join(SPLITS)}.")]
Images = Annotated[int, typer.Option(min=1, help="Frames, evenly spaced; about a second each.")]
Write = Annotated[bool, typer.Option("--write", help="Write the certificate into the bundle.")]


def command(
    *,
    model: Model = None,
    data: Data = None,
    split: Split = "test-a",
    images: Images = IMAGES,
    write: Write = False,
    as_json: Json = False,
) -> None:
    """Bound and predict what quantizing the activations changes, and hold the engine against it.

    A theorem for every input, a theorem for each frame, and a model of the noise. Fails when the
    engine breaks a bound or its noise is not what the model predicts.
    """
    bundle = load_bundle(find_model(model))
    if data is None:
        pixels = golden_of(bundle).pixels
    else:
        pixels = prepared_pixels(read(data).split(split), bundle.manifest.input)
    certificate = certified(bundle, pixels, images)
    if write:
        card = with_certificate(bundle.read(CARD).decode(), certificate)
        contents = {CERTIFICATE: certificate.to_bytes(), CARD: card.encode()}
        write_bundle(Bundle(bundle.path, bundle.manifest, bundle.contents | contents))
    payload = {"model": bundle.manifest.name, **asdict(certificate)}
    emit(as_json, payload, lambda: _table(bundle.manifest.name, certificate))
    if not certificate.ok:
        raise typer.Exit(1)


def certified(bundle: Bundle, pixels: NDArray[np.uint8], images: int = IMAGES) -> Certificate:
    """Certify a bundle on evenly spaced frames with its first working engine."""
    chosen = np.linspace(0, len(pixels) - 1, min(images, len(pixels))).astype(int)
    pixels = pixels[chosen]
    # Not `open_engine`: it refuses an engine that strays, and here that is what is measured.
    engine = build_engine(bundle, _first_engine(bundle), threads=0)
    logits = run(engine, pixels)
    engine.close()
    specification = Specification.from_files(bundle.read(SPECIFICATION), bundle.read(WEIGHTS))
    with progress() as bar:
        task = bar.add_task("certificate", total=len(pixels))
        return certify(
            specification,
            pixels,
            logits,
            engine.name,
            lambda done: bar.update(task, completed=done),
        )


def _first_engine(bundle: Bundle) -> str:
    for name in bundle.manifest.engines:
        if engine_status(name).works:
            return name
    msg = f"none of the engines that can serve {bundle.manifest.name} is installed; see qpde doctor"
    raise CommandError(msg)


def _table(name: str, found: Certificate) -> Table:
    table = Table("question", "answer")
    table.title = f"{name}, {found.images} frames, {found.engine}"
    table.add_row("distance from the float reference, largest seen", f"{found.observed_max:.3g}")
    table.add_row("bound for every input", f"{found.global_bound:.3g}")
    table.add_row("bound where no grid cuts off", f"{found.rounding_bound:.3g}")
    table.add_row("largest constant of a stage", f"{max(found.stage_lipschitz):.4g}")
    table.add_row("frames certified against any rounding", f"{found.certified_share:.1%}")
    table.add_row("frames refuted by a rounding", f"{found.refuted_share:.1%}")
    shares = zip(found.quantizers, found.certified_from, strict=True)
    for quantizer, share in reversed([(q, share) for q, share in shares if share]):
        table.add_row(f"certified where rounding is free from {quantizer} on", f"{share:.1%}")
    table.add_row("margin, median", f"{found.margin_median:.3g}")
    table.add_row("its largest change, first order, median", f"{found.first_order_median:.3g}")
    table.add_row("frames with every margin over 5 sigma", f"{found.five_sigma_share:.1%}")
    table.add_row("noise, observed over predicted", f"{found.noise_ratio:.3f}")
    table.add_row("margins moved by over 3 sigma", f"{found.three_sigma_tail:.2%}")
    table.add_row("frames that break a bound", str(found.broken_bounds))
    table.add_row("", "ok" if found.ok else "not ok")
    return table
