"""Damaged drives: what is whole is read, what is lost is told, and nothing else happens."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qpde_perception.bags import BagError, open_drive
from qpde_perception.bags.salvage import unpack_prefix

KINDS = (
    "rosbag1-none",
    "rosbag1-bz2",
    "rosbag1-lz4",
    "sqlite3",
    "sqlite3-file",
    "mcap",
    "mcap-zstd",
    "mcapfolder-file",
)
# Kinds whose messages lie in the file as they were sent, and the block that must be whole.
PLAIN = {"rosbag1-none": 1, "sqlite3": 4096, "mcap": 1}
RELAXED = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, record, some_messages):
    """Return the file of a kind, recorded once."""

    @lru_cache
    def make(kind: str) -> Path:
        path = record(tmp_path_factory.mktemp("drives") / "drive", kind, some_messages)
        return next(path.glob("drive.*")) if path.is_dir() else path

    return make


def _read(path: Path):
    """Return messages and losses, or None where there is nothing to open."""
    try:
        drive = open_drive(path)
    except BagError:
        return None
    with drive:
        topics = [each.name for each in drive.topics if each.type.endswith("CompressedImage")]
        found = [
            (each.log_time_ns, each.topic, bytes(each.message.data))
            for each in drive.messages(topics)
        ]
        return found, drive.losses


@pytest.fixture(scope="module")
def expected(some_messages):
    """Return a function, so that hypothesis does not print the bytes of the messages."""
    return lambda: _rows(some_messages)


def _rows(messages):
    return sorted((each.log_time_ns, each.topic, each.data) for each in messages)


@pytest.mark.parametrize("kind", KINDS)
@RELAXED
@given(share=st.floats(0, 1))
@example(share=0.984375)  # within the last page of the database, which SQLite fills with zeros
def test_cut_anywhere_gives_whole_messages_and_tells_of_the_loss(kind, share, recorded, expected):
    data = recorded(kind).read_bytes()
    cut = int(share * len(data))
    with TemporaryDirectory() as folder:
        path = Path(folder, recorded(kind).name)
        path.write_bytes(data[:cut])
        result = _read(path)
    found, losses = result or ([], ("not opened",))
    places = [expected().index(row) for row in found]
    assert places == sorted(set(places))
    assert losses or len(found) == len(expected())
    if kind in PLAIN:
        block = PLAIN[kind]
        for place, row in enumerate(expected()):
            end = data.index(row[2]) + len(row[2])
            assert place in places or -(-end // block) * block > cut


@pytest.mark.parametrize("kind", KINDS)
@RELAXED
@given(data=st.data())
def test_flipped_bytes_never_raise_more_than_a_bag_error(kind, data, recorded):
    content = bytearray(recorded(kind).read_bytes())
    places = st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)
    for place in data.draw(places):
        content[place] ^= data.draw(st.integers(1, 255))
    with TemporaryDirectory() as folder:
        path = Path(folder, recorded(kind).name)
        path.write_bytes(content)
        with suppress(BagError), open_drive(path) as drive:
            for topic in drive.topics:
                with suppress(BagError):
                    list(drive.messages([topic.name]))
            drive.check()


@pytest.mark.parametrize(
    ("kind", "chunk_bytes"),
    [("rosbag1-bz2", 2_000_000), ("rosbag1-lz4", 400_000), ("mcap-zstd", 900_000)],
)
def test_half_of_a_chunk_gives_its_first_messages(kind, chunk_bytes, tmp_path, record):
    random = np.random.default_rng(3)
    sent = [_sent(number, random.bytes(1000)) for number in range(chunk_bytes // 1000)]
    path = record(tmp_path / "drive", kind, sent)
    cut = tmp_path / f"cut{path.suffix}"
    cut.write_bytes(path.read_bytes()[: chunk_bytes // 2])
    found, losses = _read(cut)
    assert found == _rows(sent)[: len(found)]
    assert len(found) > 0.2 * len(sent)
    assert len(losses) == 1


def _sent(number, data):
    return type("Sent", (), {"topic": "/a", "log_time_ns": 10**18 + number, "data": data})


@pytest.mark.parametrize("compression", ["none", "bz2", "lz4"])
def test_rosbag1_of_a_killed_recorder_gives_its_open_chunk(
    compression, recorded, some_messages, tmp_path
):
    data = bytearray(recorded(f"rosbag1-{compression}").read_bytes())
    at = data.index(b"index_pos=") + 10
    (index_at,) = struct.unpack_from("<Q", data, at)
    data[at : at + 8] = bytes(8)
    # The last chunk: a recorder writes its sizes when it is closed, and the index after it.
    head = data.rindex(b"compression=", 0, index_at)
    size_at = data.index(b"size=", head) + 5
    data[size_at : size_at + 4] = bytes(4)
    length_at = _end_of_header(data, head)
    (chunk_size,) = struct.unpack_from("<I", data, length_at)
    data[length_at : length_at + 4] = bytes(4)
    path = tmp_path / "drive.bag.active"
    path.write_bytes(data[: length_at + 4 + chunk_size])
    found, losses = _read(path)
    assert found == _rows(some_messages)
    assert len(losses) == 1
    assert "was not closed or is cut off; 40 messages were saved" in losses[0]


def _end_of_header(data, inside):
    """Return where the header ends that has a field at `inside`."""
    for start in range(inside - 60, inside):
        (length,) = struct.unpack_from("<I", data, start)
        if length < 100 and start + 4 <= inside < start + 4 + length:
            position, end = start + 4, start + 4 + length
            while position < end:
                (size,) = struct.unpack_from("<I", data, position)
                position += 4 + size
            if position == end:
                return end
    raise AssertionError


def test_damaged_chunk_in_the_middle_costs_only_itself(tmp_path, record):
    random = np.random.default_rng(5)
    sent = [_sent(number, random.bytes(300_000)) for number in range(20)]
    path = record(tmp_path / "drive", "mcap", sent)
    data = bytearray(path.read_bytes())
    data[data.index(sent[10].data) + 1000] ^= 1
    path.write_bytes(data)
    found, losses = _read(path)
    lost = [each for each in sent if (each.log_time_ns, "/a", each.data) not in found]
    assert sent[10] in lost
    assert len(lost) == 4
    assert len(found) == 16
    assert len(losses) == 1
    assert "is damaged and was left out" in losses[0]


@pytest.mark.parametrize("size", [300, 100_000])
def test_messages_in_the_log_of_a_killed_sqlite_recorder_are_read(size, tmp_path, record):
    random = np.random.default_rng(6)
    sent = [_sent(number, random.bytes(size)) for number in range(30)]
    folder = record(tmp_path / "drive", "sqlite3", sent)
    killed = tmp_path / "killed"
    killed.mkdir()
    database = sqlite3.connect(folder / "drive.db3", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    rows = database.execute("SELECT topic_id, timestamp, data FROM messages").fetchall()
    database.execute("BEGIN")
    database.executemany(
        "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
        [(topic, stamp + 1000, data) for topic, stamp, data in rows],
    )
    database.execute("COMMIT")
    for name in ("drive.db3", "drive.db3-wal"):
        shutil.copy(folder / name, killed / name)
    database.close()
    found, losses = _read(killed)
    assert [each[0] for each in found[30:]] == [each.log_time_ns + 1000 for each in sent]
    assert [each[2] for each in found] == [each.data for each in sent] * 2
    assert losses == ()
    assert sorted(each.name for each in killed.iterdir()) == ["drive.db3", "drive.db3-wal"]


def test_large_sqlite_messages_are_saved_up_to_the_cut(tmp_path, record):
    random = np.random.default_rng(8)
    sent = [_sent(number, random.bytes(50_000)) for number in range(40)]
    path = record(tmp_path / "drive", "sqlite3", sent) / "drive.db3"
    data = path.read_bytes()
    cut = tmp_path / "cut.db3"
    cut.write_bytes(data[: len(data) // 2])
    found, losses = _read(cut)
    assert 17 <= len(found) <= 20
    assert found == [(each.log_time_ns, "/a", each.data) for each in sent[: len(found)]]
    assert "cut.db3: is cut off" in losses[0]


@given(st.binary(max_size=5000), st.sampled_from(["zstd", "lz4", "bz2", "odd"]))
def test_unpacking_noise_gives_bytes_and_no_error(data, compression):
    assert isinstance(unpack_prefix(compression, data, 1 << 20), bytes)
