"""Loading a model bundle: everything is verified, or nothing is used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from qpde_perception.bundles.errors import BundleError
from qpde_perception.bundles.manifest import FORMAT_VERSION, Manifest

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    The bytes of every file are held from the moment they were hashed, so what is used is what was
    verified even if the folder changes afterwards.

    Attributes:
        path: The folder it was read from.
        manifest: What the bundle says of itself.
        contents: Bytes of every other file, by name.
    """

    path: Path
    manifest: Manifest
    contents: dict[str, bytes]

    def read(self, name: str) -> bytes:
        """Return one file's bytes.

        Raises:
            BundleError: If the bundle has no such file.
        """
        try:
            return self.contents[name]
        except KeyError:
            msg = f"{self.path}: the bundle has no {name}; compile the model again"
            raise BundleError(msg) from None


def load_bundle(path: Path) -> Bundle:
    """Read a bundle and verify the hash of every file.

    Args:
        path: The bundle's folder.

    Raises:
        BundleError: If the folder is no bundle, its format is newer than this package, or a file is
            missing, changed or not listed.
    """
    manifest = _read_manifest(path / MANIFEST)
    contents: dict[str, bytes] = {}
    for name, expected in manifest.files.items():
        if Path(name).name != name or "\0" in name:
            msg = f"{path / MANIFEST}: lists {name!r}, which is not a plain file name"
            raise BundleError(msg)
        try:
            content = (path / name).read_bytes()
        except OSError as error:
            msg = f"{path / name}: listed in the manifest but cannot be read: {error.strerror}"
            raise BundleError(msg) from None
        if hashlib.sha256(content).hexdigest() != expected:
            msg = f"{path / name}: changed since the bundle was made (SHA-256 differs); refused"
            raise BundleError(msg)
        contents[name] = content
    unlisted = sorted({file.name for file in path.iterdir()} - {MANIFEST, *manifest.files})
    if unlisted:
        msg = f"{path / unlisted[0]}: not listed in the manifest; remove it or compile again"
        raise BundleError(msg)
    return Bundle(path=path, manifest=manifest, contents=contents)


def _read_manifest(path: Path) -> Manifest:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}; a model is a folder with a manifest.json"
        raise BundleError(msg) from None
    except (ValueError, RecursionError):
        msg = f"{path}: is not JSON; the bundle is damaged"
        raise BundleError(msg) from None
    version = document.get("format_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        msg = (
            f"{path}: has bundle format {version}, this package reads up to {FORMAT_VERSION}; "
            "update qpde_perception"
        )
        raise BundleError(msg)
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        msg = f"{path}: {where}: {first['msg']}"
        raise BundleError(msg) from None
