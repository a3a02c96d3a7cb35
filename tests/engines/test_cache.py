"""The cache of built engines: kept by content, shared by processes, never trusted blindly."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qpde_perception.engines.cache import VARIABLE, EngineCache, EngineKey, default_folder

ROOT = Path(__file__).parents[2]
KEY = EngineKey(
    model="signs",
    graph_sha256=hashlib.sha256(b"graph").hexdigest(),
    engine="tensorrt",
    engine_version="10.3.0",
    gpu="Orin",
    compute_capability="8.7",
    driver="570.1",
    shapes={"max_batch": 8},
    options={"dla": None, "workspace_bytes": None},
)
PLAN = bytes(range(256)) * 16

# What a second process does: builds for a while, says so, and prints what it got.
BUILDER = """
import os, sys, time
from pathlib import Path
from qpde_perception.engines.cache import EngineCache
sys.path.insert(0, sys.argv[3])
from test_cache import KEY, PLAN
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
def build():
    with open(folder / "builds", "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(seconds)
    return PLAN
got = EngineCache(folder).get_or_build(KEY, build)
assert got.data == PLAN
print(got.hit)
"""


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "cache")


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog):
    caplog.set_level(logging.INFO, "qpde_perception")


def entries(cache):
    return sorted(cache.folder.glob("*.engine"))


def never():
    pytest.fail("built although it was kept")


def start(folder, seconds):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, folder, str(seconds), Path(__file__).parent],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for_a_build(folder):
    deadline = time.monotonic() + 60
    while not (folder / "builds").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (folder / "builds").exists()


def test_the_second_time_it_is_a_hit_and_nothing_is_built(cache, caplog):
    first = cache.get_or_build(KEY, lambda: PLAN)
    assert (first.data, first.hit) == (PLAN, False)
    assert first.reason == "no tensorrt engine was kept for signs"
    second = EngineCache(cache.folder).get_or_build(KEY, never)
    assert (second.data, second.hit) == (PLAN, True)
    assert "tensorrt for signs: cache miss: no tensorrt engine" in caplog.text
    assert "tensorrt for signs: cache hit: the same graph, engine" in caplog.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"driver": "575.2"}, "driver 570.1 -> 575.2"),
        ({"engine_version": "10.7.0"}, "engine_version 10.3.0 -> 10.7.0"),
        (
            {"gpu": "Thor", "compute_capability": "11.0"},
            "compute_capability 8.7 -> 11.0, gpu Orin -> Thor",
        ),
        ({"shapes": {"max_batch": 4}}, "shapes.max_batch 8 -> 4"),
        ({"options": {"dla": 0, "workspace_bytes": None}}, "options.dla None -> 0"),
        ({"graph_sha256": "0" * 64}, f"graph_sha256 {KEY.graph_sha256[:12]} -> 000000000000"),
    ],
)
def test_a_miss_names_what_changed_since_the_nearest_engine(cache, change, reason):
    cache.get_or_build(replace(KEY, driver="1", gpu="2", engine_version="3"), lambda: b"far")
    cache.get_or_build(KEY, lambda: PLAN)
    got = cache.get_or_build(replace(KEY, **change), lambda: b"new")
    assert (got.data, got.hit, got.reason) == (b"new", False, reason)
    assert cache.get_or_build(KEY, never).data == PLAN


def test_engines_of_another_model_or_library_are_no_neighbours(cache):
    cache.get_or_build(replace(KEY, model="lights"), lambda: b"other")
    cache.get_or_build(replace(KEY, engine="torch_tensorrt"), lambda: b"other")
    got = cache.get_or_build(KEY, lambda: PLAN)
    assert got.reason == "no tensorrt engine was kept for signs"


@given(st.data())
def test_the_digest_tells_every_two_keys_apart_and_no_order_of_options(data):
    names = st.text(max_size=3)
    keys = st.builds(
        EngineKey,
        **{name: names for name in asdict(KEY) if name not in ("shapes", "options")},
        shapes=st.dictionaries(names, st.integers(), max_size=2),
        options=st.dictionaries(names, st.none() | st.integers() | names, max_size=3),
    )
    one, other = data.draw(keys), data.draw(keys)
    assert (one.digest == other.digest) == (one == other)
    assert replace(one, options=dict(reversed(one.options.items()))).digest == one.digest


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_one_changed_byte_is_never_served(tmp_path, position, flip):
    cache = EngineCache(tmp_path / "cache")
    cache.get_or_build(KEY, lambda: PLAN)
    (path,) = entries(cache)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= flip
    path.write_bytes(content)
    got = cache.get_or_build(KEY, lambda: b"fresh")
    # A changed byte of the description may leave what it says as it was: 1e0 is 1.
    assert got.data == (PLAN if got.hit else b"fresh")
    path.unlink()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_what_is_cut_off_is_never_served(tmp_path, share):
    cache = EngineCache(tmp_path / "cache")
    cache.get_or_build(KEY, lambda: PLAN)
    (path,) = entries(cache)
    os.truncate(path, int(share * path.stat().st_size))
    got = cache.get_or_build(KEY, lambda: b"fresh")
    assert (got.data, got.hit) == (b"fresh", False)
    assert got.reason.startswith("the cached engine was dropped: ")
    path.unlink()


def with_header(path, change):
    line, data = path.read_bytes().split(b"\n", 1)
    header = json.loads(line)
    change(header)
    path.write_bytes(json.dumps(header).encode() + b"\n" + data)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "it has 4095 bytes of 4096"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"!"), "its bytes changed"),
        (lambda p: p.write_bytes(b""), "its description cannot be read"),
        (lambda p: p.write_bytes(b"[1, 2]\n" + PLAN), "its description cannot be read"),
        (lambda p: p.write_bytes(b"[" * 60_000 + b"\n"), "its description cannot be read"),
        (lambda p: with_header(p, lambda h: h.pop("sha256")), "its description cannot be read"),
        (lambda p: with_header(p, lambda h: h["key"].update(options=3)), "description cannot"),
        (lambda p: with_header(p, lambda h: h["key"].pop("driver")), "description cannot"),
        (
            lambda p: with_header(p, lambda h: h["key"].update(engine_version="10.13.0")),
            "built for something else (engine_version 10.13.0 -> 10.3.0)",
        ),
        (
            lambda p: with_header(p, lambda h: h["key"].update(gpu="line\nbreak")),
            r"built for something else (gpu 'line\nbreak' -> Orin)",
        ),
    ],
)
def test_a_poisoned_entry_is_dropped_with_its_reason_and_built_again(cache, caplog, spoil, reason):
    cache.get_or_build(KEY, lambda: PLAN)
    (path,) = entries(cache)
    spoil(path)
    got = cache.get_or_build(KEY, lambda: b"fresh")
    assert (got.data, got.hit) == (b"fresh", False)
    assert reason in got.reason
    assert reason in "".join(r.getMessage() for r in caplog.records if r.levelname == "WARNING")
    assert cache.get_or_build(KEY, never).data == b"fresh"


def test_an_engine_of_another_graph_under_the_same_name_is_not_served(cache):
    other = replace(KEY, graph_sha256="f" * 64)
    cache.get_or_build(other, lambda: b"other graph")
    (cache.folder / f"{other.digest}.engine").rename(cache.folder / f"{KEY.digest}.engine")
    got = cache.get_or_build(KEY, lambda: PLAN)
    assert (got.data, got.hit) == (PLAN, False)
    assert f"graph_sha256 ffffffffffff -> {KEY.graph_sha256[:12]}" in got.reason


def test_a_build_that_fails_keeps_nothing_and_frees_the_lock(cache):
    def fail():
        msg = "no memory"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="no memory"):
        cache.get_or_build(KEY, fail)
    assert entries(cache) == []
    assert cache.get_or_build(KEY, lambda: PLAN).data == PLAN


def test_a_stale_engine_is_built_again_and_stays_until_that_is_done(cache):
    cache.get_or_build(KEY, lambda: PLAN)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_build(KEY, lambda: 1 // 0, stale="it strays")
    assert cache.get_or_build(KEY, never).data == PLAN
    got = cache.get_or_build(KEY, lambda: b"fresh", stale="it strays")
    assert (got.data, got.hit, got.reason) == (b"fresh", False, "it strays")
    assert cache.get_or_build(KEY, never).data == b"fresh"


def test_two_processes_that_want_the_same_engine_build_it_once(tmp_path):
    builders = [start(tmp_path / "cache", 0.5) for _ in range(2)]
    answers = sorted(builder.communicate(timeout=60)[0].strip() for builder in builders)
    assert answers == ["False", "True"]
    assert len((tmp_path / "cache" / "builds").read_text().split()) == 1


def test_a_killed_build_leaves_nothing_that_hinders_the_next(cache):
    builder = start(cache.folder, 600)
    wait_for_a_build(cache.folder)
    builder.send_signal(signal.SIGKILL)
    builder.wait(timeout=60)
    assert entries(cache) == []
    got = cache.get_or_build(KEY, lambda: PLAN)
    assert (got.data, got.hit) == (PLAN, False)


def test_what_killed_writers_left_is_swept_but_not_what_is_being_written(cache):
    other, busy = replace(KEY, gpu="Thor"), replace(KEY, driver="1")
    left = [cache.folder / f"{key.digest}.a1b2c3.part" for key in (KEY, other)]
    written = cache.folder / f"{busy.digest}.a1b2c3.part"

    def build():
        for path in (*left, written):
            path.write_bytes(b"half")
        cache.get_or_build(KEY, lambda: PLAN)
        # The lock of what is being built is held, and of nothing else.
        assert [path.exists() for path in (*left, written)] == [False, False, True]
        return b"busy"

    cache.get_or_build(busy, build)
    cache.get_or_build(KEY, never)
    assert not written.exists()


def test_above_the_limit_the_entries_unused_for_longest_go(tmp_path):
    size = len(PLAN) + 1000
    cache = EngineCache(tmp_path, limit_bytes=3 * size)
    keys = [replace(KEY, driver=str(index)) for index in range(4)]
    for age, key in enumerate(keys[:3]):
        cache.get_or_build(key, lambda: PLAN)
        os.utime(tmp_path / f"{key.digest}.engine", (age, age))
    cache.get_or_build(keys[0], never)  # used again
    cache.get_or_build(keys[3], lambda: PLAN)
    kept = {path.stem for path in entries(cache)}
    assert kept == {keys[index].digest for index in (0, 2, 3)}


def test_the_engine_just_built_stays_even_if_it_is_above_the_limit_alone(tmp_path):
    cache = EngineCache(tmp_path, limit_bytes=10)
    old = replace(KEY, driver="1")
    cache.get_or_build(old, lambda: PLAN)
    cache.get_or_build(KEY, lambda: PLAN)
    assert [path.stem for path in entries(cache)] == [KEY.digest]
    assert cache.get_or_build(KEY, never).hit


@pytest.mark.parametrize("place", ["a file", "/proc/qpde"])
def test_a_folder_that_cannot_be_used_costs_one_warning_and_the_engine_is_served(
    tmp_path, caplog, place
):
    folder = Path(place) if place.startswith("/") else tmp_path / "file" / "cache"
    (tmp_path / "file").write_text("not a folder")
    cache = EngineCache(folder)
    for _ in range(2):
        got = cache.get_or_build(KEY, lambda: PLAN)
        assert (got.data, got.hit) == (PLAN, False)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert str(folder) in warnings[0]
    assert VARIABLE in warnings[0]


def test_a_full_disk_costs_one_warning_and_leaves_nothing_half_written(tmp_path, caplog):
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", sys.executable, "-c", FULL, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "served\n"
    assert "free some space" in done.stderr
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob("*.engine"))


# The shell's limit on the size of files stands for a disk that is full.
FULL = f"""
import signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from pathlib import Path
from test_cache import KEY
from qpde_perception.engines.cache import EngineCache
big = bytes(100_000)
got = EngineCache(Path(sys.argv[1])).get_or_build(KEY, lambda: big)
print("served" if got.data == big else "not served")
"""


def test_a_kept_engine_is_served_from_a_folder_that_is_only_read(cache, caplog):
    cache.get_or_build(KEY, lambda: PLAN)
    (cache.folder / f"{KEY.digest}.lock").unlink()
    (cache.folder / f"{KEY.digest}.lock").mkdir()  # opening it for writing fails, as there
    caplog.clear()
    assert cache.get_or_build(KEY, never).hit
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_the_folder_is_the_variables_else_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/counts/as/none")
    assert default_folder() == tmp_path / ".cache" / "qpde_perception" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "qpde_perception" / "engines"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "named"))
    assert default_folder() == tmp_path / "named"
