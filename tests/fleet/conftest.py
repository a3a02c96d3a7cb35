"""Short drives cut out of the shipped one, and what one process makes of them."""

from __future__ import annotations

import pytest
from fleet_rig import SAMPLE, begin, cut, ended


@pytest.fixture(scope="session")
def ray():
    return pytest.importorskip("ray", reason='pip install "qpde_perception[fleet]" brings it')


@pytest.fixture(scope="session")
def drives(tmp_path_factory):
    """Five drives of many sorts: nested, without truth, with a damaged frame, no drive at all."""
    folder = tmp_path_factory.mktemp("drives")
    cut(folder / "b.mcap", 0.0, 4.0)
    cut(folder / "a" / "long.mcap", 10.0, 14.0)
    cut(folder / "a" / "no truth.mcap", 30.0, 3.0, truth=False)
    cut(folder / "a" / "damaged frame.mcap", 40.0, 4.0, damage=True)
    (folder / "c.mcap").write_bytes(b"what is left of a drive")
    return folder


@pytest.fixture(scope="session")
def long_drives(tmp_path_factory):
    """Two drives that take long enough for something to happen meanwhile."""
    folder = tmp_path_factory.mktemp("long")
    for name in ("one", "two"):
        (folder / f"{name}.mcap").symlink_to(SAMPLE)
    return folder


@pytest.fixture(scope="session")
def alone(drives, tmp_path_factory):
    """The drives replayed by one process: its folder, and the call."""
    out = tmp_path_factory.mktemp("alone") / "out"
    return out, ended(begin(drives, "--out", out, "--workers", 0))


@pytest.fixture(scope="session")
def long_alone(long_drives, tmp_path_factory):
    """The long drives replayed by one process: its folder."""
    out = tmp_path_factory.mktemp("long_alone") / "out"
    assert ended(begin(long_drives, "--out", out, "--workers", 0)).code == 0
    return out
