"""The experiments by name, and how one is made from its settings to its page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments import bits, graph, layer_error, tv
from qpde_perception.learning.experiments.jobs import Place
from qpde_perception.learning.experiments.page import write_page
from qpde_perception.learning.experiments.runs import write_json
from qpde_perception.learning.experiments.settings import load_profile, settings_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qpde_perception.learning.experiments.experiment import Study

WORK = Path("runs") / "experiments"
RESULTS = "results.json"

EXPERIMENTS: dict[str, Study] = {
    "layer-error": layer_error.EXPERIMENT,
    "bits": bits.EXPERIMENT,
    "tv": tv.EXPERIMENT,
    "graph": graph.EXPERIMENT,
}


def run_experiment(
    name: str,
    *,
    data: Path,
    out: Path,
    device: str,
    jobs: int,
    advance: Callable[[int, int, str], None],
    experiments: Mapping[str, Study] = EXPERIMENTS,
) -> dict[str, Any]:
    """Make what is missing of an experiment's runs, and write its results and its page.

    Args:
        name: Name of the experiment; its settings are `experiments/NAME.yaml`.
        data: Folder of the data sets.
        out: Folder of the pages; gets `NAME/results.json`, `NAME/README.md` and the plots.
        device: `cpu` or `cuda`: where to run, and which profile of the settings.
        jobs: Number of runs at once.
        advance: Told the number of finished steps, their total, and which finished.
        experiments: All that can be named; rooms above this one have their own.

    Returns:
        The results as they are written.

    Raises:
        LearningError: If there is no such experiment, its settings or data are unusable, or the
            device is missing.
    """
    if name not in experiments:
        msg = f"no experiment {name!r}; known are {', '.join(experiments)}"
        raise LearningError(msg)
    experiment = experiments[name]
    profile = load_profile(settings_path(name), device, experiment.settings)
    answer = experiment.answer(profile, Place(data, WORK, device), jobs, advance)
    document = {
        "experiment": name,
        "question": experiment.question,
        "device": device,
        "settings": profile.model_dump(mode="json"),
        "seeds": list(profile.seeds),
        **asdict(answer),
    }
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESULTS, document)
    write_page(document, experiment.present(answer.rows), folder)
    return document
