"""The one protocol that every engine speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Engine(Protocol):
    """A compiled network: pixels in, logits out.

    Attributes:
        name: The engine's name as users type it, for example `openvino`.
        version: Version of the library that executes it.
    """

    name: str
    version: str

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the network; calls from several threads wait for each other.

        Args:
            batch: Pixels, uint8, shape (n, height, width, 3), C-contiguous, n >= 1.

        Returns:
            Logits, float32, shape (n, classes).

        Raises:
            EngineError: If the batch has another shape or the engine fails.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds; it cannot be used afterwards."""
        ...
