"""NVIDIA's TensorRT as a library: found, asked its version, listened to.

Written for the versions 10.3 to 11.4, whose Python interfaces differ little where this project
stands on them; every place where they do is in this file.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from qpde_perception.engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "tensorrt"
OLDEST = (10, 3)
REMEDY = "pip install tensorrt; on a Jetson: apt install python3-libnvinfer"
PIXELS = "pixels"
LOGITS = "logits"
SATURATION = "saturation"

_MESSAGES_KEPT = 32

_log = logging.getLogger(__name__)


def tensorrt_library() -> Any:
    """Return the module of TensorRT's bindings.

    Raises:
        EngineError: If it cannot be loaded or is too old.
    """
    try:
        library = import_module(NAME)
    except (ImportError, OSError) as error:
        msg = f"{NAME} cannot be loaded ({error}); {REMEDY}"
        raise EngineError(msg) from None
    version = str(getattr(library, "__version__", "0"))
    if _numbers(version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        msg = f"{NAME} {version} is too old; it takes {oldest} or newer: {REMEDY}"
        raise EngineError(msg)
    return library


def tensorrt_version() -> str:
    """Return the version of TensorRT, for example `10.3.0`.

    Raises:
        EngineError: If it cannot be loaded or is too old.
    """
    return str(tensorrt_library().__version__)


def _numbers(version: str) -> tuple[int, ...]:
    parts = (part for part in version.split(".")[:2])
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


class Listener:
    """Hears what the library says and keeps its errors.

    Attributes:
        logger: What the library takes as its logger.
    """

    def __init__(self, library: Any) -> None:
        self.logger, self._errors = _logger(library)

    def made(self, make: Callable[..., Any], *arguments: Any) -> Any:
        """Make an object of the library.

        Raises:
            EngineError: If the library makes none: it returns None, or its bindings raise.
        """
        self.forget()
        try:
            found = make(*arguments)
        except (TypeError, RuntimeError) as error:
            msg = f"{NAME}: {self.reason(str(error))}"
            raise EngineError(msg) from None
        if found is None:
            msg = f"{NAME}: {self.reason('no reason given')}"
            raise EngineError(msg)
        return found

    def forget(self) -> None:
        """Forget what was said until now."""
        self._errors.clear()

    def reason(self, otherwise: str) -> str:
        """Return the first error heard, which is the cause of the others, in one line."""
        return " ".join((self._errors[0] if self._errors else otherwise).split())


@cache
def _logger(library: Any) -> tuple[Any, deque[str]]:
    """Return the one logger of the process and what it has heard.

    The library stays with the logger it saw first, and does not keep it alive.
    """
    severity = library.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.DEBUG,
        severity.VERBOSE: logging.DEBUG,
    }
    errors: deque[str] = deque(maxlen=_MESSAGES_KEPT)

    class Logger(library.ILogger):  # type: ignore[misc]
        """Keeps errors, which an exception will tell, and hands the rest to the log."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if levels[severity] == logging.ERROR:
                errors.append(message)
            else:
                _log.log(levels[severity], "%s", message)

    return Logger(), errors


def typed_network(library: Any, builder: Any) -> Any:
    """Return an empty network in which every tensor has the type that the graph gives it."""
    # From 11.0 on there is no other kind and the flag is kept for old callers alone.
    flag = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return builder.create_network(0 if flag is None else 1 << int(flag))


def accelerators(owner: Any) -> int:
    """Return how many DLA cores a builder or a runtime finds: none on most devices.

    10.8 to 11.3 serve none at all.
    """
    return int(getattr(owner, "num_DLA_cores", 0))
