"""`qpde profile --ros`: the real node, the real player, one command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from qpde_perception.cli.errors import CommandError
from qpde_perception.cli.nodes import own_domain, played_camera
from qpde_perception.cli.ros_bench import RosBench
from qpde_perception.profiling import compare, read_profile

needs_ros = pytest.mark.skipif(
    find_spec("rclpy") is None or find_spec("vision_msgs") is None,
    reason="rclpy or vision_msgs is not installed",
)
BASIC = "BasicPerformanceMetrics."
SHORT = (
    *("--ros", "--engine", "onnxruntime", "--seconds", "0.6", "--trials", "1"),
    *("--highest", "20", "--rate", "10", "--sensor-interval", "0.1"),
)
# As in tests/ros2_nodes/conftest.py: publishers ask often whether all was received.
QUICK = """\
<?xml version="1.0" encoding="UTF-8" ?>
<dds xmlns="http://www.eprosima.com"><profiles>
  <data_writer profile_name="quick" is_default_profile="true">
    <times><heartbeat_period><sec>0</sec><nanosec>50000000</nanosec></heartbeat_period></times>
  </data_writer>
</profiles></dds>
"""


@pytest.fixture(scope="module")
def profiled(command, tmp_path_factory):
    """A short profile of the sample drive with a budget that it breaks: the folder and the call."""
    folder = tmp_path_factory.mktemp("ros-profile")
    (folder / "quick.xml").write_text(QUICK)
    (folder / "budgets.yaml").write_text(
        "budgets:\n"
        "- {source: ROS jpeg 300x400 at 10 Hz, missed_share: 1.0}\n"
        "- {source: ROS jpeg 300x400 at peak, p50_ms: 0.001}\n"
    )
    done = subprocess.run(
        [*command, "profile", *SHORT, "--out", folder, "--budget", folder / "budgets.yaml"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"FASTDDS_DEFAULT_PROFILES_FILE": str(folder / "quick.xml")},
    )
    return folder, done


@needs_ros
def test_a_profile_through_ros_leaves_its_files_and_shows_a_table(profiled):
    folder, done = profiled
    assert "onnxruntime, stamp to publish (ms)" in done.stdout, done.stderr
    assert "10 Hz" in done.stdout
    assert "Traceback" not in done.stderr
    assert (folder / "profile.html").read_text().startswith("<!DOCTYPE html>")
    assert {"profile.json", "ros2_benchmark.json"} <= {path.name for path in folder.iterdir()}


@needs_ros
def test_every_frame_sent_is_answered_or_missed_and_no_answer_precedes_its_frame(profiled):
    document = json.loads((profiled[0] / "ros2_benchmark.json").read_text())
    peak, ten = read_profile(profiled[0] / "profile.json").rows
    for figures, row in ((document, peak), (document["10.0fps"], ten)):
        assert row.paced.frames == row.histogram.count + row.paced.misses
        assert 0 < figures[f"{BASIC}MIN_LATENCY"] <= figures[f"{BASIC}MAX_LATENCY"] < 1000
        assert figures[f"{BASIC}FIRST_INPUT_LATENCY"] >= figures[f"{BASIC}MIN_LATENCY"]
        assert row.memory_mib > 50
        assert 0 < figures["NodeMetrics.CPU_MS_PER_FRAME"] < 1000
    assert ten.paced.frames == document["10.0fps"][f"{BASIC}NUM_FRAMES_SENT"] == 6
    assert ten.paced.misses == document["10.0fps"][f"{BASIC}NUM_MISSED_FRAMES"]
    assert 10.0 <= peak.sent_hz <= 20.0


@needs_ros
def test_the_metadata_names_the_drive_by_its_hash_and_the_sensors_were_read(profiled, sample):
    folder, _ = profiled
    meta = json.loads((folder / "ros2_benchmark.json").read_text())["metadata"]
    expected = subprocess.run(["md5sum", sample], check=True, capture_output=True, text=True)
    assert meta["BenchmarkMetadata.INPUT_DATA_HASH"] == expected.stdout.split()[0]
    assert meta["BenchmarkMetadata.INPUT_DATA_SIZE"] == sample.stat().st_size
    profile = read_profile(folder / "profile.json")
    assert profile.settings.drive_md5 == expected.stdout.split()[0]
    assert profile.rows[1].batch == 1
    assert any(name.startswith("load_percent.cpu") for name in profile.sensors.series)


@needs_ros
def test_a_broken_budget_is_exit_code_1_and_a_kept_one_is_not_named(profiled):
    _, done = profiled
    assert done.returncode == 1
    assert "at peak: p50_ms" in done.stderr
    assert "at 10 Hz" not in done.stderr


@needs_ros
def test_a_fixed_rate_compares_with_itself(profiled):
    profile = read_profile(profiled[0] / "profile.json")
    rate = profile.model_copy(update={"rows": profile.rows[1:]})
    assert compare(rate, rate).verdict == "no difference"


@needs_ros
def test_the_file_of_ros2_benchmark_is_no_profile_and_the_one_to_compare_is_named(profiled, qpde):
    path = profiled[0] / "ros2_benchmark.json"
    call = qpde("profile", "compare", path, path)
    assert call.code == 2
    assert "give the profile.json of qpde profile" in call.err


KEEP_A_DOMAIN = """
from qpde_perception.cli.nodes import own_domain
with own_domain() as domain:
    print(domain, flush=True)
    input()
"""


@pytest.fixture
def locks(tmp_path, monkeypatch):
    """Other tests keep domains meanwhile."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.usefixtures("locks")
def test_a_ros_domain_belongs_to_one_command_until_it_ends():
    command = [sys.executable, "-c", KEEP_A_DOMAIN]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert int(other.stdout.readline()) == 88
    with own_domain() as first, own_domain() as second:
        assert (first, second) == (89, 90)
        other.communicate("\n")
        with own_domain() as third:
            assert third == 88


@pytest.mark.usefixtures("locks")
def test_where_all_ros_domains_are_taken_a_command_says_so():
    with ExitStack() as stack:
        taken = [stack.enter_context(own_domain()) for _ in range(14)]
        assert taken == list(range(88, 102))
        with pytest.raises(CommandError, match="all ROS domains from 88 to 101 are in use here"):
            stack.enter_context(own_domain())


@needs_ros
def test_a_node_that_cannot_serve_is_given_up_with_what_it_said(tmp_path, sample):
    camera = played_camera(sample, None)
    wrong = {"model": str(tmp_path / "nowhere")}
    with (
        pytest.raises(CommandError, match=r"classifier cannot serve(.|\n)*nowhere"),
        RosBench(camera, wrong, tmp_path),
    ):
        pytest.fail("it served")


@needs_ros
def test_a_node_that_is_silent_and_a_player_and_a_node_that_end_are_said(
    tmp_path, sample, model, monkeypatch
):
    (tmp_path / "quick.xml").write_text(QUICK)
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(tmp_path / "quick.xml"))
    parameters = {"model": str(model), "engine": "onnxruntime", "max_age_ms": "0.001"}
    camera = played_camera(sample, None)
    with RosBench(camera, parameters, tmp_path) as bench:
        with pytest.raises(CommandError, match="did not answer one of 10 frames sent at 50 Hz"):
            bench.trial(50.0, 0.2)
        bench._camera = replace(camera, topic="/nope")
        with pytest.raises(CommandError, match=r"player has ended with code 2(.|\n)*/nope"):
            bench.trial(50.0, 0.2)
        bench._classifier.process.kill()
        with pytest.raises(CommandError, match="classifier has ended with code -9"):
            bench.trial(50.0, 0.2)


def test_without_ros_the_extra_that_brings_it_is_named(command, tmp_path):
    blocked = tmp_path / "sitecustomize.py"
    blocked.write_text(
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'rclpy' else found(name, *rest)\n"
    )
    done = subprocess.run(
        [*command, "profile", *SHORT],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert done.returncode == 2
    assert 'pip install "qpde_perception[ros]"' in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--drive", "x.mcap"), "--drive: only with --ros"),
        (("--ros", "--batch", "2"), "--batch: not with --ros"),
        (("--ros", "--deadline-ms", "5", "--rate", "9"), "--deadline-ms: not with --ros"),
    ],
)
def test_options_of_the_other_way_are_refused(qpde, options, told):
    call = qpde("profile", *options)
    assert call.code == 2
    assert told in call.err


@needs_ros
def test_a_camera_an_engine_and_a_drive_that_are_not_there_are_named(qpde, tmp_path):
    call = qpde("profile", "--ros", "--camera", "/nowhere")
    assert (call.code, "/nowhere: the drive has no such topic" in call.err) == (2, True)
    missing = tmp_path / "no.mcap"
    call = qpde("profile", "--ros", "--drive", missing)
    assert (call.code, str(missing) in call.err) == (2, True)
    call = qpde("profile", "--ros", "--engine", "openvino", "--engine", "onnxruntime")
    assert (call.code, "one at a time" in call.err) == (2, True)
    assert not Path("profile").exists()
