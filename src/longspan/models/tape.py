"""What decoding stores, as bytes, so that an answer can go on without being read or written again.

A block holds the same tokens of every layer: layer by layer keys and values [tokens, 2, G, D], and
[tokens, H, D] queries where the layer's index learns from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.models.cache import RowState
    from longspan.types import LayerGeometry


class Tape:
    """The steps of one row since the last `cut`, by layer."""

    def __init__(self, layers: int) -> None:
        self._steps: list[list[tuple[Tensor, ...]]] = [[] for _ in range(layers)]

    def write(self, layer: int, k_GD: Tensor, v_GD: Tensor, q_HD: Tensor | None) -> None:
        """Keep one token of a layer; copies, as the model may use its tensors again."""
        both_2GD = torch.stack((k_GD, v_GD))
        self._steps[layer].append((both_2GD,) if q_HD is None else (both_2GD, q_HD.clone()))

    def cut(self) -> bytes:
        """The block of the tokens kept so far, which are forgotten."""
        pieces = [
            _bytes(torch.stack(kind)) for steps in self._steps for kind in zip(*steps, strict=True)
        ]
        self._steps = [[] for _ in self._steps]
        return b"".join(pieces)


def play(
    states: Sequence[RowState], geometries: Sequence[LayerGeometry], tokens: int, block: bytes
) -> None:
    """Give the states the tokens of a block, in the order in which decoding did.

    ValueError for a block of another size.
    """
    sizes = [_shapes(state, geometry) for state, geometry in zip(states, geometries, strict=True)]
    wanted = tokens * sum(
        shape.numel() * geometry.dtype.itemsize
        for shapes, geometry in zip(sizes, geometries, strict=True)
        for shape in shapes
    )
    if len(block) != wanted:
        raise ValueError(f"a block of {tokens} tokens has {len(block)} bytes; right is {wanted}")
    data = torch.frombuffer(bytearray(block), dtype=torch.uint8)
    for state, geometry, shapes in zip(states, geometries, sizes, strict=True):
        kinds = []
        for shape in shapes:
            length = tokens * shape.numel() * geometry.dtype.itemsize
            kind = data[:length].view(geometry.dtype).view(tokens, *shape)
            kinds.append(kind.to(geometry.device))
            data = data[length:]
        for both_2GD, *queries in zip(*kinds, strict=True):
            state.append(both_2GD[0], both_2GD[1])
            for q_HD in queries:
                state.remember(q_HD)


def _shapes(state: RowState, geometry: LayerGeometry) -> list[torch.Size]:
    """Of what a token leaves in a layer."""
    both = torch.Size((2, geometry.kv_heads, geometry.head_size))
    query = torch.Size((geometry.query_heads, geometry.head_size))
    return [both, query] if state.remembers else [both]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes()
