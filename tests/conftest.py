"""Networks, bundles and data that several rooms test with."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

# Before the libraries that read it; more threads are slower on networks this small.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

# Shared machines time nothing reliably.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

ROOT = Path(__file__).parents[1]
SIGN_DATA = ROOT.parent / "shared" / "data" / "gtsrb"
TINY = "symmetric_mobilenet_v2_tiny"
FLAVOURS = ("symmetric", "twin", "ordinary")


def pytest_collection_modifyitems(items):
    """Keep a file's tests in one process, for what they share, and all nodes in one, for time."""
    for item in items:
        name = item.path.relative_to(ROOT / "tests").as_posix()
        nodes = name.startswith("ros2_nodes/") or "_ros" in name
        item.add_marker(pytest.mark.xdist_group("nodes" if nodes else name))


def noise_images(count, size, seed):
    """Pictures of soft blobs under noise of every strength, uint8 (n, size, size, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3))
    blobs = coarse.repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    share = np.linspace(0.0, 1.0, count)[:, None, None, None]
    noise = rng.integers(0, 256, blobs.shape)
    return ((1 - share) * blobs + share * noise).astype(np.uint8)


@pytest.fixture(scope="session", params=FLAVOURS)
def flavour(request):
    """Each flavour of the deployable network in turn."""
    return request.param


@pytest.fixture(scope="session")
def make_network():
    """Make networks with random weights whose normalisations and clippings have seen data."""
    import torch

    from qpde_perception.learning.layers import PositiveBatchNorm
    from qpde_perception.learning.networks import build_network
    from qpde_perception.learning.quantizers import ActivationQuantizer, set_active

    def make(name=TINY, seed=0):
        torch.manual_seed(seed)
        network = build_network(name)
        quantizers = [m for m in network.modules() if isinstance(m, ActivationQuantizer)]
        norms = [m for m in network.modules() if isinstance(m, PositiveBatchNorm)]
        images = noise_images(16, network.config.input_size, seed)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        with torch.no_grad():
            for norm in norms:
                norm.log_scale += 0.3 * torch.randn_like(norm.log_scale)
                norm.shift += 0.3 * torch.randn_like(norm.shift)
                norm.momentum = 1.0
            network.train()(pixels)
            for quantizer in quantizers:
                quantizer.observe()
            network.eval()(pixels)
            for quantizer in quantizers:
                quantizer.calibrate()
                quantizer.alpha *= 0.6  # so that something saturates
            network.head.weight.normal_(std=0.3)
            network.head.bias.normal_()
        set_active(network, active=True)
        return network

    return make


@pytest.fixture(scope="session")
def make_bundle():
    """Make bundles of networks, in memory; `write_bundle` puts them into their folders."""
    from qpde_perception.compiling.folding import fold
    from qpde_perception.compiling.packing import assemble
    from qpde_perception.frames import InputSpec
    from qpde_perception.learning.networks import deployed_parameters

    def make(network, path):
        config = network.config
        return assemble(
            fold(network),
            path=path,
            task="blobs under noise",
            network=TINY,
            parameters=deployed_parameters(network),
            weight_bits=config.weight_bits,
            activation_bits=config.activation_bits,
            spec=InputSpec(height=config.input_size, width=config.input_size),
            labels=[f"class {index}" for index in range(config.classes)],
            golden_pixels=noise_images(6, config.input_size, seed=99),
        )

    return make


@pytest.fixture(scope="session")
def tiny_bundle(make_network, make_bundle, tmp_path_factory):
    """A bundle of a tiny network, in its folder."""
    from qpde_perception.compiling.packing import write_bundle

    return write_bundle(make_bundle(make_network(), tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def shipped_bundle():
    """The traffic-sign model that ships."""
    from qpde_perception.bundles import find_model, load_bundle

    return load_bundle(find_model(None))


@pytest.fixture(scope="session")
def published_signs():
    """The published traffic-sign data; skips where they are not beside the checkout."""
    from qpde_perception.learning.signs import load_signs

    if not SIGN_DATA.is_dir():
        pytest.skip("the traffic-sign data are not beside the checkout (../shared/data/gtsrb)")
    return load_signs(SIGN_DATA)


@pytest.fixture(scope="session")
def images():
    """Make pictures of soft blobs under noise."""
    return noise_images


@dataclass(frozen=True)
class DocumentedKey:
    """A row of the diagnostics' tables."""

    unit: str
    meaning: str
    level_rules: str
    readers: str


@dataclass(frozen=True)
class DiagnosticsContract:
    """What docs/diagnostics.md says: the keys of each task, and the defaults of the limits."""

    tasks: dict[str, dict[str, DocumentedKey]]
    defaults: dict[str, str]

    def levels(self, task):
        """Names of the levels that a task's rules name; OK is every task's."""
        rules = " ".join(key.level_rules for key in self.tasks[task].values())
        return {"OK", *re.findall(r"\b(WARN|ERROR|STALE)\b", rules)}

    def check(self, name, values):
        """Hold a status against its task: the keys both ways, and each value against its unit.

        Args:
            name: The task's name, without the node's; a camera's topic may follow it.
            values: Values by key.
        """
        keys = self.tasks[name.split()[0]]
        assert list(values) == list(keys)
        for key, value in values.items():
            pattern = UNITS[keys[key].unit]
            assert re.fullmatch(pattern, value), f"{name}: {key} = {value!r} is no {pattern}"


NUMBER = r"-?\d+\.\d{3}|N/A|n/a"
UNITS = {
    **dict.fromkeys(("ms", "us", "Hz", "percent", "ratio"), NUMBER),
    "count": r"\d+|N/A",
    "bool": "True|False",
    "text": r"\S.*",
    "list": r"\S.*",
}


@pytest.fixture(scope="session")
def diagnostics_contract():
    """The contract of the diagnostics, read from its page."""
    page = (ROOT / "docs" / "diagnostics.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))

    def rows(section):
        lines = [line for line in section.splitlines() if line.startswith("| `")]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        table = {row[0].strip("`"): row[1:] for row in cells}
        assert len(table) == len(cells), "a key stands twice in one table"
        return table

    return DiagnosticsContract(
        tasks={
            title.split("`")[1]: {
                key: DocumentedKey(*cells) for key, cells in rows(section).items()
            }
            for title, section in sections.items()
            if title.startswith("Task ")
        },
        defaults={name: cells[1] for name, cells in rows(sections["Limits"]).items()},
    )
