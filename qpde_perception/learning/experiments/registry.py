"""The experiments by name, and how one is made from its settings to its page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpde_perception.learning.errors import LearningError
from qpde_perception.learning.experiments import bits, graph, layer_error, tv
from qpde_perception.learning.experiments.jobs import Place, perform
from qpde_perception.learning.experiments.page import write_page
from qpde_perception.learning.experiments.runs import write_json
from qpde_perception.learning.experiments.settings import load_profile, settings_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qpde_perception.learning.experiments.experiment import Experiment
    from qpde_perception.learning.experiments.jobs import Result

WORK = Path("runs") / "experiments"
RESULTS = "results.json"

EXPERIMENTS: dict[str, Experiment] = {
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
) -> dict[str, Any]:
    """Make what is missing of an experiment's runs, and write its results and its page.

    Args:
        name: Name of the experiment; its settings are `experiments/NAME.yaml`.
        data: Folder of the data sets.
        out: Folder of the pages; gets `NAME/results.json`, `NAME/README.md` and the plots.
        device: `cpu` or `cuda`: where to run, and which profile of the settings.
        jobs: Number of runs at once.
        advance: Told the number of finished steps, their total, and which finished.

    Returns:
        The results as they are written.

    Raises:
        LearningError: If there is no such experiment, its settings or data are unusable, or the
            device is missing.
    """
    if name not in EXPERIMENTS:
        msg = f"no experiment {name!r}; known are {', '.join(EXPERIMENTS)}"
        raise LearningError(msg)
    experiment = EXPERIMENTS[name]
    profile = load_profile(settings_path(name), device, experiment.settings)
    place = Place(data, WORK, device)
    results = perform(experiment.plan(profile, data), place, jobs, advance)
    document = {
        "experiment": name,
        "question": experiment.question,
        "device": device,
        "settings": profile.model_dump(mode="json"),
        "seeds": list(profile.seeds),
        **_effort(results),
        "rows": experiment.summarise(results),
    }
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESULTS, document)
    write_page(document, experiment.present(document["rows"]), folder)
    return document


def _effort(results: Sequence[Result]) -> dict[str, Any]:
    return {
        "runs": len(results),
        "machines": sorted({result.outcome.machine for result in results}),
        "training_seconds": round(sum(result.outcome.seconds for result in results), 1),
    }
