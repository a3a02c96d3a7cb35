"""Loading bundles: everything is verified, or the file is named that is at fault."""

from __future__ import annotations

import io
import json
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpde_perception.bundles import BundleError, golden_of, load_bundle

FILES = (
    "cpu.onnx",
    "golden.npz",
    "reference_fp32.onnx",
    "reference_unrounded.onnx",
    "specification.json",
    "tensorrt.onnx",
    "weights.safetensors",
)


@pytest.fixture(scope="module")
def folder(tiny_bundle, tmp_path_factory):
    """A copy of a bundle; whoever changes it uses `changed`."""
    return shutil.copytree(tiny_bundle.path, tmp_path_factory.mktemp("bundle") / "tiny")


@contextmanager
def changed(path, content):
    """Let a file have other content, or not be there, for a while."""
    kept = path.read_bytes() if path.is_file() else None
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if kept is not None:
            path.write_bytes(kept)


@contextmanager
def manifest_with(folder, **changes):
    path = folder / "manifest.json"
    document = {**json.loads(path.read_bytes()), **changes}
    with changed(path, json.dumps(document).encode()):
        yield


def test_a_bundle_is_loaded_with_every_file(folder, tiny_bundle):
    bundle = load_bundle(folder)
    assert set(bundle.contents) == set(FILES)
    assert bundle.contents == tiny_bundle.contents
    assert bundle.read("cpu.onnx") == (folder / "cpu.onnx").read_bytes()


@given(st.sampled_from(FILES), st.data())
def test_every_changed_bit_is_refused_with_the_name_of_the_file(folder, name, data):
    content = bytearray((folder / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with changed(folder / name, bytes(content)), pytest.raises(BundleError, match=re.escape(name)):
        load_bundle(folder)


@given(st.data())
def test_a_changed_byte_of_the_manifest_is_refused_by_name_or_changes_words_only(folder, data):
    content = bytearray((folder / "manifest.json").read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] = data.draw(st.integers(0, 255))
    with changed(folder / "manifest.json", bytes(content)):
        try:
            contents = load_bundle(folder).contents
        except BundleError as error:
            assert str(folder) in str(error)  # noqa: PT017  (both outcomes are right)
        else:
            assert set(contents) == set(FILES)


@given(st.binary(max_size=200))
def test_nothing_in_the_place_of_a_manifest_raises_anything_else(folder, content):
    with changed(folder / "manifest.json", content), suppress(BundleError):
        load_bundle(folder)


@pytest.mark.parametrize("name", FILES)
def test_cut_off_file_is_refused_by_name(folder, name):
    content = (folder / name).read_bytes()[:-1]
    with changed(folder / name, content), pytest.raises(BundleError, match=re.escape(name)):
        load_bundle(folder)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_missing_file_is_refused_by_name(folder, name):
    with changed(folder / name, None), pytest.raises(BundleError, match=re.escape(name)):
        load_bundle(folder)


def test_file_that_is_not_listed_is_refused_by_name(folder):
    with changed(folder / "notes.txt", b""), pytest.raises(BundleError, match=r"notes\.txt"):
        load_bundle(folder)


def test_folder_that_is_no_bundle_is_refused_by_name(tmp_path):
    with pytest.raises(BundleError, match=r"nowhere.*manifest\.json"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("version", [2, 99, "2", 2.0, 0, -1, True, None, "one"])
def test_another_format_is_refused(folder, version):
    with manifest_with(folder, format_version=version), pytest.raises(BundleError, match="format"):
        load_bundle(folder)


def test_newer_format_names_the_remedy_even_when_its_fields_are_unknown(folder):
    with (
        manifest_with(folder, format_version=2, surprise=1),
        pytest.raises(BundleError, match="update qpde_perception"),
    ):
        load_bundle(folder)


@pytest.mark.parametrize(
    "name", ["../outside", "a/b", "/etc/hostname", "..", ".", "", "a\0b", "tiny/../../outside"]
)
def test_names_that_leave_the_folder_are_refused(folder, name):
    (folder.parent / "outside").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    files = {**json.loads((folder / "manifest.json").read_bytes())["files"], name: empty}
    with manifest_with(folder, files=files), pytest.raises(BundleError, match=str(folder)):
        load_bundle(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"3", b"[" * 100_000, b'{"files": {}}']
)
def test_manifest_of_another_kind_is_refused_by_name(folder, content):
    with (
        changed(folder / "manifest.json", content),
        pytest.raises(BundleError, match=r"manifest\.json"),
    ):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("parameters", 0),
        ("labels", []),
        ("engines", []),
        ("input", {"height": 0, "width": 16}),
        ("surprise", 1),
    ],
)
def test_field_outside_its_range_is_refused_by_name(folder, field, value):
    with manifest_with(folder, **{field: value}), pytest.raises(BundleError, match=field):
        load_bundle(folder)


def test_what_was_verified_is_used_even_if_the_folder_changes_afterwards(folder, tiny_bundle):
    bundle = load_bundle(folder)
    with changed(folder / "cpu.onnx", b"changed"):
        assert bundle.read("cpu.onnx") == tiny_bundle.read("cpu.onnx")


def test_a_file_that_the_bundle_lacks_is_refused_with_the_remedy(tiny_bundle):
    with pytest.raises(BundleError, match=r"other\.onnx.*compile"):
        tiny_bundle.read("other.onnx")


@given(st.data())
def test_damaged_golden_frames_raise_nothing_else(tiny_bundle, data):
    content = tiny_bundle.read("golden.npz")
    content = content[: data.draw(st.integers(0, len(content) - 1))]
    bundle = replace(tiny_bundle, contents={**tiny_bundle.contents, "golden.npz": content})
    with pytest.raises(BundleError, match=r"golden\.npz"):
        golden_of(bundle)


def test_golden_frames_from_before_the_taps_are_read_and_have_none(tiny_bundle):
    golden = golden_of(tiny_bundle)
    assert golden.taps
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pixels=golden.pixels, logits=golden.logits, noise=golden.noise)
    contents = {**tiny_bundle.contents, "golden.npz": buffer.getvalue()}
    older = golden_of(replace(tiny_bundle, contents=contents))
    assert (older.taps, older.saturation.shape) == ((), (len(golden.pixels), 0))
    assert np.array_equal(older.logits, golden.logits)


def test_golden_frames_measure_the_distance_in_units_of_the_noise(tiny_bundle):
    golden = golden_of(tiny_bundle)
    rms, largest = golden.distance(golden.logits + golden.noise)
    assert rms == pytest.approx(1, rel=1e-3)
    assert largest == pytest.approx(1, rel=1e-3)


def test_the_shipped_model_is_whole(shipped_bundle):
    assert shipped_bundle.manifest.name == "traffic_signs"
    assert len(shipped_bundle.manifest.labels) == 43
