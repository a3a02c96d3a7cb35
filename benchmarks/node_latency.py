"""The classifier node under load, beside the node that a user would write otherwise.

For every number of cameras, size and transport: frames a second at the edge of dropping, latency
from a header's stamp to the publication of its result, CPU seconds a frame, memory. Three nodes
take turns on the same stream: `ours`, `textbook` (textbook_node.py, fp32 MobileNetV2), and
`nothing`, which only answers with an empty result: the floor that the transport sets. Names of
figures are those of ros2_benchmark, with percentiles beside them.

    python benchmarks/node_latency.py                  # all of it: an hour
    python benchmarks/node_latency.py --quick          # one and four cameras, 1080p
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Classification

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = {"720p": (720, 1280), "1080p": (1080, 1920)}
NODES = ("ours", "textbook", "nothing")
LOST = 0.05  # share of frames that may be lost at the edge, as in ros2_benchmark
CALM = 0.5  # latency is measured at this share of the slowest node's edge
RATES_HZ = (8.0, 400.0)
STEP = 1.15  # rates nearer to each other are not told apart
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """Cameras of one kind."""

    cameras: int
    size: str
    compressed: bool

    @property
    def names(self) -> list[str]:
        return [f"/camera{index}" for index in range(self.cameras)]

    def topic(self, camera: str) -> str:
        return f"{camera}/image/compressed" if self.compressed else f"{camera}/image"


@dataclass(frozen=True)
class Figures:
    """What was seen of a node during one run."""

    sent: int
    answered: int
    latencies_ms: np.ndarray
    cpu_s: float
    seconds: float
    memory_mib: float

    @property
    def lost(self) -> float:
        return 1.0 - self.answered / self.sent


class Bench(Node):
    """Sends frames at a steady rate, in turns over the cameras, and hears the answers."""

    def __init__(self, load: Load, answers: list[str]) -> None:
        super().__init__("bench")
        kind = CompressedImage if load.compressed else Image
        self.message = frame(load)
        sensor = QoSProfile(depth=5)
        self.publishers_of = [
            self.create_publisher(kind, load.topic(name), sensor) for name in load.names
        ]
        self.sent_ns: list[int] = []
        self.latencies_ms: list[float] = []
        for topic in answers:
            self.create_subscription(Classification, topic, self.hear, 100)

    def hear(self, message: Any, info: Any) -> None:
        stamp = message.header.stamp
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        # When the middleware took the answer: from stamp to publication, not to this callback.
        self.latencies_ms.append((info["source_timestamp"] - stamp_ns) / 1e6)

    def send(self, rate_hz: float, seconds: float) -> None:
        """Send for a while on an absolute schedule; a frame that is late is sent at once."""
        start = time.monotonic()
        count = round(rate_hz * seconds)
        for index in range(count):
            delay_s = start + index / rate_hz - time.monotonic()
            if delay_s > 0:
                time.sleep(delay_s)
            self.message.header.stamp = self.get_clock().now().to_msg()
            self.publishers_of[index % len(self.publishers_of)].publish(self.message)
            self.sent_ns.append(time.monotonic_ns())


def frame(load: Load) -> Any:
    """Return a frame with the detail of a road, so that its JPEG has a road's size."""
    height, width = SIZES[load.size]
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    pixels = cv2.add(pixels, rng.integers(0, 8, pixels.shape, np.uint8))
    if load.compressed:
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        message = CompressedImage(format="bgr8; jpeg compressed bgr8")
    else:
        data = pixels
        message = Image(height=height, width=width, encoding="bgr8", step=width * 3)
    message.header.frame_id = "camera"
    message.data.frombytes(data.tobytes())
    return message


@contextmanager
def running(node: str, load: Load, network: Path) -> Iterator[tuple[int, list[str]]]:
    """Run a node; yield its process number and the topics of its answers."""
    answers = [f"{name}/classification" for name in load.names]
    here = Path(__file__).resolve()
    if node == "textbook":
        command = [str(here.parent / "textbook_node.py"), "--network", str(network)]
        command += [*(["--compressed"] if load.compressed else []), "--cameras", *load.names]
    elif node == "nothing":
        command = [str(here), "--nothing", json.dumps(vars(load))]
    else:
        names = [name.strip("/") for name in load.names]
        transport = "compressed" if load.compressed else "raw"
        command = ["-m", "ros2_nodes.classifier_node", "--ros-args", "--log-level", "error"]
        command += ["-p", f"image_transport:={transport}", "-p", f"cameras:={names}"]
        for name in names:
            prefix = "~/" if load.cameras == 1 else f"~/{name}/"
            command += ["-r", f"{prefix}input/image:=/{name}/image"]
            command += ["-r", f"{prefix}output/classification:=/{name}/classification"]
    process = subprocess.Popen([sys.executable, *command])  # noqa: S603
    try:
        yield process.pid, answers
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


def usage(pid: int) -> tuple[float, float]:
    """Return a process's CPU seconds and the most memory it had, MiB."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    return (int(fields[11]) + int(fields[12])) / _TICKS, peak_kib / 1024


class Runner:
    """One node with one load, ready to be measured at several rates."""

    def __init__(self, load: Load, pid: int, answers: list[str]) -> None:
        self._load, self._pid, self._answers = load, pid, answers

    def measure(self, rate_hz: float, seconds: float) -> Figures:
        bench = Bench(self._load, self._answers)
        executor = SingleThreadedExecutor()
        executor.add_node(bench)
        deadline = time.monotonic() + 30
        while not all(each.get_subscription_count() for each in bench.publishers_of) or not all(
            bench.count_publishers(topic) for topic in self._answers
        ):
            if time.monotonic() > deadline:
                msg = "the node does not appear"
                raise RuntimeError(msg)
            executor.spin_once(timeout_sec=0.1)
        self._spin(bench, executor, rate_hz, 1.0)  # warm
        bench.sent_ns.clear()
        bench.latencies_ms.clear()
        cpu_s, _ = usage(self._pid)
        start = time.monotonic()
        self._spin(bench, executor, rate_hz, seconds)
        elapsed_s = time.monotonic() - start
        cpu_after_s, memory_mib = usage(self._pid)
        figures = Figures(
            sent=len(bench.sent_ns),
            answered=len(bench.latencies_ms),
            latencies_ms=np.array(bench.latencies_ms),
            cpu_s=cpu_after_s - cpu_s,
            seconds=elapsed_s,
            memory_mib=memory_mib,
        )
        executor.shutdown()
        bench.destroy_node()
        return figures

    @staticmethod
    def _spin(bench: Bench, executor: Any, rate_hz: float, seconds: float) -> None:
        sender = Thread(target=bench.send, args=(rate_hz, seconds))
        sender.start()
        while sender.is_alive():
            executor.spin_once(timeout_sec=0.05)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)

    def edge(self, seconds: float) -> float:
        """Return the answers a second at the highest rate that loses at most 5 %, by bisection.

        A rate is given up after two tries: other work on the machine must not end the search.
        """
        low, high = RATES_HZ
        best = 0.0
        while high / low > STEP:
            rate_hz = (low * high) ** 0.5
            kept = self._kept(rate_hz, seconds) or self._kept(rate_hz, seconds)
            best = max(best, kept)
            low, high = (rate_hz, high) if kept else (low, rate_hz)
        return best

    def _kept(self, rate_hz: float, seconds: float) -> float:
        """Return the answers a second at a rate; 0 where it loses too much."""
        figures = self.measure(rate_hz, seconds)
        sent_in_time = figures.sent / seconds >= 0.9 * rate_hz
        return figures.answered / seconds if figures.lost <= LOST and sent_in_time else 0.0


def nothing(load: Load) -> None:
    """Run the node that only receives and answers."""
    rclpy.init()
    node = Node("nothing")
    kind = CompressedImage if load.compressed else Image
    for name in load.names:
        publisher = node.create_publisher(Classification, f"{name}/classification", 1)

        def answer(message: Any, publisher: Any = publisher) -> None:
            publisher.publish(Classification(header=message.header))

        node.create_subscription(kind, load.topic(name), answer, 10)
    with suppress(KeyboardInterrupt):
        rclpy.spin(node)


def export(path: Path) -> None:
    """Write the ordinary MobileNetV2 in float32, untrained: weights do not change its speed."""
    import torch  # noqa: PLC0415  (the nodes do without)

    from qpde_perception.learning.networks import build_network  # noqa: PLC0415
    from qpde_perception.learning.quantizers import set_active  # noqa: PLC0415

    network = build_network("ordinary_mobilenet_v2")
    set_active(network, active=False)
    example = torch.zeros(1, 3, 48, 48)
    torch.onnx.export(network.eval(), (example,), str(path), dynamo=False, opset_version=17)


def row(load: Load, node: str, edge_hz: float, calm: Figures, rate_hz: float) -> dict[str, Any]:
    latency = calm.latencies_ms
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {
        "cameras": load.cameras,
        "size": load.size,
        "transport": "compressed" if load.compressed else "raw",
        "node": node,
        "MEAN_FRAME_RATE": edge_hz,
        "PLAYBACK_FRAME_RATE": rate_hz,
        "NUM_FRAMES_SENT": calm.sent,
        "NUM_MISSED_FRAMES": calm.sent - calm.answered,
        "MEAN_LATENCY": float(latency.mean()),
        "MAX_LATENCY": float(latency.max()),
        **{
            f"LATENCY_{name}": float(np.quantile(latency, share, method="inverted_cdf"))
            for name, share in shares.items()
        },
        "CPU_MS_PER_FRAME": 1e3 * calm.cpu_s / max(calm.answered, 1),
        "PEAK_MEMORY_MIB": calm.memory_mib,
    }


def main() -> None:
    """Measure, print, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--nothing", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="1 and 4 cameras, 1080p.")
    parser.add_argument(
        "--transport", choices=("compressed", "raw"), help="Only these images. Default: both."
    )
    parser.add_argument("--network", type=Path, help="ONNX of the textbook's network.")
    parser.add_argument("--seconds", type=float, default=4.0, help="Length of one run.")
    parser.add_argument(
        "--profile", type=Path, help="Fast DDS profile for all, e.g. launch/config/fastdds.xml."
    )
    parser.add_argument("--json", type=Path, help="Where the figures are written.")
    given = parser.parse_args()
    if given.nothing:
        nothing(Load(**json.loads(given.nothing)))
        return
    os.environ.setdefault("ROS_DOMAIN_ID", str(100 + os.getpid() % 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if given.profile:
        os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(given.profile.resolve(strict=True))
    with tempfile.TemporaryDirectory() as folder:
        network = given.network or Path(folder) / "ordinary.onnx"
        if given.network is None:
            export(network)
        rclpy.init()
        rows = []
        counts, sizes = ((1, 4), ("1080p",)) if given.quick else ((1, 2, 4, 8), tuple(SIZES))
        loads = [
            Load(count, size, compressed)
            for compressed in (True, False)
            if given.transport in (None, "compressed" if compressed else "raw")
            for size in sizes
            for count in counts
        ]
        for load in loads:
            rows += compare(load, network, given.seconds)
            document = {"machine": platform.machine(), "processors": os.cpu_count(), "rows": rows}
            if given.json:
                given.json.write_text(json.dumps(document, indent=1))
            Console(width=140).print(table(rows[-len(NODES) :]))
        rclpy.shutdown()


def compare(load: Load, network: Path, seconds: float) -> list[dict[str, Any]]:
    """Measure the three nodes with one load: each one's edge, then all at the same calm rate."""
    edges = {}
    for node in NODES:
        print(f"{load}: {node}", file=sys.stderr, flush=True)
        with running(node, load, network) as (pid, answers):
            edges[node] = Runner(load, pid, answers).edge(seconds)
    rate_hz = CALM * min(edges.values())
    rows = []
    for node in NODES:
        with running(node, load, network) as (pid, answers):
            calm = Runner(load, pid, answers).measure(rate_hz, max(5 * seconds, 200 / rate_hz))
            rows.append(row(load, node, edges[node], calm, rate_hz))
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    columns = (
        "MEAN_FRAME_RATE",
        "LATENCY_p50",
        "LATENCY_p99",
        "LATENCY_p99.9",
        "CPU_MS_PER_FRAME",
        "PEAK_MEMORY_MIB",
    )
    shown = Table("cameras", "size", "transport", "node", *columns)
    for each in rows:
        names = (str(each[name]) for name in ("cameras", "size", "transport", "node"))
        shown.add_row(*names, *(f"{each[name]:.2f}" for name in columns))
    return shown


if __name__ == "__main__":
    main()
