"""Writing ROS 2 messages into one MCAP file."""

from __future__ import annotations

import signal
import struct
import threading
from typing import TYPE_CHECKING, Any

from mcap.writer import CompressionType, Writer
from rosbags.serde import SerdeError

from qpde_perception.bags.definitions import typestore
from qpde_perception.bags.errors import BagError

if TYPE_CHECKING:
    import sys
    from collections.abc import Iterable
    from pathlib import Path
    from types import FrameType, TracebackType

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self


# What the generated serializers raise for a field that is missing, too large or of another kind.
_MISFITS = (SerdeError, struct.error, AttributeError, TypeError, ValueError, AssertionError)


class McapWriter:
    """One MCAP file of profile `ros2`: CDR messages with their definitions.

    Use it as a context manager: however the block ends, Ctrl-C included, the file is finished and
    readable. The same messages give the same bytes.

    Args:
        path: The file; one that is there is replaced.
        compress: Whether chunks are compressed (zstd); of no use where the images are JPEG.
    """

    def __init__(self, path: Path, *, compress: bool = True) -> None:
        self._path = path
        self._channels: dict[tuple[str, str], int] = {}
        self._schemas: dict[str, int] = {}
        self._sequences: dict[int, int] = {}
        try:
            self._stream = path.open("wb")
        except OSError as error:
            msg = f"{path} cannot be written: {error.strerror}; choose another place"
            raise BagError(msg) from None
        compression = CompressionType.ZSTD if compress else CompressionType.NONE
        self._writer = Writer(self._stream, compression=compression)
        self._writer.start(profile="ros2", library="qpde_perception")

    def write(self, topic: str, message: Any, log_time_ns: int) -> None:
        """Append a message.

        Args:
            topic: The topic; one of its own for each message type.
            message: A message of `typestore()`, or one with at least the same fields.
            log_time_ns: When it was received, nanoseconds.

        Raises:
            BagError: If its type is unknown, a field does not fit, or the disk is full.
        """
        self.write_all(((topic, message),), log_time_ns)

    def write_all(self, messages: Iterable[tuple[str, Any]], log_time_ns: int) -> None:
        """Append messages of one time, as `write` does: all of them, or those before a misfit.

        Args:
            messages: Topic and message of each.
            log_time_ns: When they were received, nanoseconds.

        Raises:
            BagError: As `write`.
        """
        with _Uninterrupted():
            for topic, message in messages:
                data = _serialized(topic, message)
                try:
                    channel = self._channel(topic, message.__msgtype__)
                    sequence = self._sequences.get(channel, 0)
                    self._sequences[channel] = sequence + 1
                    self._writer.add_message(channel, log_time_ns, data, log_time_ns, sequence)
                except OSError as error:
                    raise self._failure(error) from None

    def close(self) -> None:
        """Finish the file.

        Raises:
            BagError: If the disk is full.
        """
        if self._stream.closed:
            return
        with _Uninterrupted():
            try:
                try:
                    self._writer.finish()
                finally:
                    self._stream.close()
            except OSError as error:
                raise self._failure(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except BagError:
            if error is None:
                raise

    def _channel(self, topic: str, name: str) -> int:
        if (topic, name) not in self._channels:
            if name not in self._schemas:
                text, _ = typestore().generate_msgdef(name, ros_version=2)
                schema = name, "ros2msg", text.encode()
                self._schemas[name] = self._writer.register_schema(*schema)
            self._channels[topic, name] = self._writer.register_channel(
                topic, "cdr", self._schemas[name]
            )
        return self._channels[topic, name]

    def _failure(self, error: OSError) -> BagError:
        return BagError(
            f"{self._path} cannot be written: {error.strerror}; choose another place or make room "
            "(what was written before can still be read)"
        )


def _serialized(topic: str, message: Any) -> bytes:
    name = message.__msgtype__
    try:
        return bytes(typestore().serialize_cdr(message, name))
    except KeyError:
        msg = f"{topic}: {name} has no definition here and cannot be written"
        raise BagError(msg) from None
    except _MISFITS as error:
        msg = f"{topic}: a message does not fit {name}: {error}"
        raise BagError(msg) from None


class _Uninterrupted:
    """A block that Ctrl-C does not cut: it is delivered at the end, when the file is whole."""

    def __init__(self) -> None:
        self._pending: tuple[int, FrameType | None] | None = None
        self._previous: Any = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending = number, frame

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *_: object) -> None:
        if self._previous is None:
            return
        signal.signal(signal.SIGINT, self._previous)
        if self._pending is not None and callable(self._previous):
            self._previous(*self._pending)
