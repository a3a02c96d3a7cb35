"""What engines were built before, kept by content: nothing stale and nothing changed is served."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qpde_perception.engines.cache_entry import (
    EngineKey,
    PoisonedError,
    changes_between,
    read_entry,
    read_key,
    write_entry,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VARIABLE = "QPDE_CACHE_DIR"
LIMIT_BYTES = 1 << 30
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

__all__ = ["LIMIT_BYTES", "VARIABLE", "CachedEngine", "EngineCache", "EngineKey", "default_folder"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedEngine:
    """A built engine and where it comes from.

    Attributes:
        data: The engine, as its builder made it.
        hit: Whether it was built before.
        reason: Why it could be used, or why it had to be built.
    """

    data: bytes
    hit: bool
    reason: str


class EngineCache:
    """A folder of built engines.

    An entry is one file: a line of JSON (the key, the length and the SHA-256 of the data), then the
    data. It appears whole or not at all, and is read back only when all of that holds. Processes
    that want the same engine wait for each other; a killed one leaves no lock behind. A folder that
    cannot be used costs a warning and the time of building, never the engine.
    """

    def __init__(self, folder: Path | None = None, *, limit_bytes: int = LIMIT_BYTES) -> None:
        """Use a folder, which is made when the first engine is kept.

        Args:
            folder: Where the engines lie; None for `default_folder()`.
            limit_bytes: Above this, the entries that were not used for longest go.
        """
        self.folder = folder or default_folder()
        self._limit_bytes = limit_bytes
        self._warned = False

    def get_or_build(
        self, key: EngineKey, build: Callable[[], bytes], *, stale: str = ""
    ) -> CachedEngine:
        """Return the engine of a key, built now if need be.

        Args:
            key: What the engine depends on.
            build: Builds it; what it raises is passed on, and what was kept stays as it was.
            stale: Why one that is kept must be built again; empty where it may be used.
        """
        with self._locked(key) as hindrance:
            data, reason = (None, stale) if stale else self._kept(key)
            if data is not None:
                _log.info("%s for %s: cache hit: %s", key.engine, key.model, reason)
                return CachedEngine(data, hit=True, reason=reason)
            _log.info("%s for %s: cache miss: %s", key.engine, key.model, reason)
            data = build()
            self._keep(key, data, hindrance)
            return CachedEngine(data, hit=False, reason=reason)

    def _kept(self, key: EngineKey) -> tuple[bytes | None, str]:
        """Return the data of an entry that can be used, else None, and why."""
        path = self._path(key)
        try:
            data = read_entry(path, key)
        except (FileNotFoundError, NotADirectoryError):
            return None, self.why(key)
        except (OSError, PoisonedError) as error:
            reason = f"the cached engine was dropped: {error}"
            _log.warning("%s for %s: %s; built again", key.engine, key.model, reason)
            with contextlib.suppress(OSError):
                path.unlink()
            return None, reason
        with contextlib.suppress(OSError):  # a folder that is only read
            os.utime(path)
        return data, "the same graph, engine, device and options"

    def _path(self, key: EngineKey) -> Path:
        return self.folder / f"{key.digest}.engine"

    @contextlib.contextmanager
    def _locked(self, key: EngineKey) -> Iterator[OSError | None]:
        """Hold the key's lock; gives the error where the folder cannot be written."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / f"{key.digest}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            yield error
            return
        try:
            hindrance = _lock(descriptor, key)
            if hindrance is None:
                self._sweep(key.digest)
            yield hindrance
        finally:
            os.close(descriptor)

    def _keep(self, key: EngineKey, data: bytes, hindrance: OSError | None) -> None:
        if hindrance is None:
            try:
                write_entry(self._path(key), key, data)
                self._make_room(self._path(key))
            except OSError as error:
                hindrance = error
        if hindrance is not None:
            self._warn(hindrance)

    def _make_room(self, fresh: Path) -> None:
        found = []
        for path in self.folder.glob("*.engine"):
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                status = path.stat()
                found.append((path == fresh, status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, _, size, _ in found)
        for is_fresh, _, size, path in sorted(found):
            if total <= self._limit_bytes or is_fresh:
                return
            path.unlink(missing_ok=True)
            total -= size
            _log.info("%s: the cache is above %d bytes; removed", path, self._limit_bytes)

    def _sweep(self, own: str) -> None:
        """Remove what killed processes left half written: whose lock is free, nobody writes."""
        for path in self.folder.glob("*.part"):
            digest = path.name.split(".")[0]
            with contextlib.suppress(OSError):
                if digest == own:
                    path.unlink()
                    continue
                descriptor = os.open(self.folder / f"{digest}.lock", os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    if _try_lock(descriptor):
                        path.unlink()
                finally:
                    os.close(descriptor)

    def why(self, key: EngineKey) -> str:
        """Say what differs from the nearest engine that was built for the same model."""
        nearest: list[str] | None = None
        with contextlib.suppress(OSError):
            for path in sorted(self.folder.glob("*.engine"), key=_age):
                with contextlib.suppress(OSError, PoisonedError), path.open("rb") as file:
                    other = read_key(file)
                    if (other["model"], other["engine"]) != (key.model, key.engine):
                        continue
                    changes = changes_between(other, key)
                    if nearest is None or len(changes) < len(nearest):
                        nearest = changes
        if nearest is None:
            return f"no {key.engine} engine was kept for {key.model}"
        return ", ".join(nearest) or "its file was named otherwise"

    def _warn(self, error: OSError) -> None:
        if self._warned:
            return
        self._warned = True
        remedy = (
            "free some space" if error.errno in _DISK_FULL else "make it a folder you may write"
        )
        _log.warning(
            "%s: engines cannot be kept (%s), so each start builds them again; %s, or name another "
            "folder with %s",
            self.folder,
            error.strerror or error,
            remedy,
            VARIABLE,
        )


def default_folder() -> Path:
    """Return the folder that `QPDE_CACHE_DIR` names, or the one in the user's cache folder."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    caches = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path counts as none.
    if Path(caches).is_absolute():
        base = Path(caches)
    else:
        try:
            base = Path.home() / ".cache"
        except RuntimeError:  # a container's user without a name
            base = Path("/nonexistent")
    return base / "qpde_perception" / "engines"


def _lock(descriptor: int, key: EngineKey) -> OSError | None:
    """Wait for a lock; gives the error of a file system without locks."""
    try:
        if not _try_lock(descriptor):
            _log.warning("%s for %s: another process builds it; waiting", key.engine, key.model)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        return error
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _age(path: Path) -> int:
    """Order entries, the one used last first."""
    try:
        return -path.stat().st_mtime_ns
    except OSError:
        return 0
