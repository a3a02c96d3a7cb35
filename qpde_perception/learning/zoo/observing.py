"""Looking at the activations of a network, layer by layer, from outside."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qpde_perception.learning.zoo.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn


@contextmanager
def block_outputs(network: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """Fill a list with what one forward of a network of the zoo passes on.

    Yields:
        The list: name and output of every residual block in order, then `pooled`, the features that
        the head sees (of every node, in a graph network), and `logits`; with their gradients.
    """
    seen: list[tuple[str, Tensor]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            seen.append((name, output))

        return hook

    names = {"features": "pooled", "head": "logits"}
    handles = [
        part.register_forward_hook(note(names.get(name, name)))
        for name, part in network.named_modules()
        if isinstance(part, Block) or name in names
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
