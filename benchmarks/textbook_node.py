"""The node that a user would write otherwise: everything in the callback, in the usual way.

A typed subscription, the whole image converted, resized and normalised in floating point, and ONNX
Runtime in fp32: complete, and what tutorials show. `node_latency.py` measures it beside ours.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
import onnxruntime
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Classification, ObjectHypothesis

SIZE = 48
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


class TextbookNode(Node):
    def __init__(self, network: str, cameras: list[str], *, compressed: bool) -> None:
        super().__init__("textbook")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            network, options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name
        kind = CompressedImage if compressed else Image
        convert = self.from_jpeg if compressed else self.from_raw
        for camera in cameras:
            publisher = self.create_publisher(Classification, f"{camera}/classification", 1)

            def callback(message: Any, publisher: Any = publisher) -> None:
                self.classify(message.header, convert(message), publisher)

            topic = f"{camera}/image/compressed" if compressed else f"{camera}/image"
            self.create_subscription(kind, topic, callback, 10)

    def from_raw(self, message: Image) -> np.ndarray:
        pixels = np.frombuffer(message.data, np.uint8)
        pixels = pixels.reshape(message.height, message.width, 3)
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    def from_jpeg(self, message: CompressedImage) -> np.ndarray:
        pixels = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    def classify(self, header: Any, pixels: np.ndarray, publisher: Any) -> None:
        small = cv2.resize(pixels, (SIZE, SIZE)).astype(np.float32) / 255.0
        batch = ((small - MEAN) / DEVIATION).transpose(2, 0, 1)[None]
        (logits,) = self.session.run(None, {self.input: batch})
        scores = np.exp(logits[0] - logits[0].max())
        scores /= scores.sum()
        results = [
            ObjectHypothesis(class_id=str(index), score=float(scores[index]))
            for index in np.argsort(-scores)[:5].tolist()
        ]
        publisher.publish(Classification(header=header, results=results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", required=True, help="ONNX, float32 (n, 3, 48, 48) in.")
    parser.add_argument("--cameras", nargs="+", required=True)
    parser.add_argument("--compressed", action="store_true")
    given = parser.parse_args()
    rclpy.init()
    with suppress(KeyboardInterrupt):
        rclpy.spin(TextbookNode(given.network, given.cameras, compressed=given.compressed))


if __name__ == "__main__":
    main()
