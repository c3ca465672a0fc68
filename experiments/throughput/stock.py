"""Full attention as torch has it: one contiguous cache of the whole batch, one call.

The query heads of a group are given as positions of one head: without a mask that is the same, and
each key is read once.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from longspan.methods.base import StaticLayer
from longspan.types import Partial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.types import LayerGeometry


def kernels(device: str) -> list[str]:
    """Those that run here."""
    found = ["sdpa", "matmul"]
    if device == "cuda":
        found += ["flex", *["flash_attn"] * bool(importlib.util.find_spec("flash_attn"))]
    return found


class StockState:
    """A row of a layer in a buffer [B, 2, G, C, D] that the first row of the layer owns."""

    expects = False
    """See LayerState."""

    def __init__(self, buffer_2GCD: Tensor, whole_B2GCD: Tensor) -> None:
        self.buffer_2GCD = self.store = buffer_2GCD
        self.whole_B2GCD = whole_B2GCD
        self.used = 0

    def adopt(self, k_GTD: Tensor, v_GTD: Tensor, q_HSD: Tensor | None = None) -> None:
        """Store a prompt."""
        stop = self.used + k_GTD.shape[1]
        self.buffer_2GCD[0, :, self.used : stop] = k_GTD
        self.buffer_2GCD[1, :, self.used : stop] = v_GTD
        self.used = stop

    def append(self, k_GD: Tensor, v_GD: Tensor) -> None:
        """Store a token."""
        self.adopt(k_GD[:, None], v_GD[:, None])

    def join(self, below: StockState) -> None:
        """Nothing to share."""
        del below

    def seal(self) -> None:
        """Nothing to build."""

    def prefetch(self) -> None:
        """Nothing to bring."""

    def memory(self) -> dict[str, int]:
        """Bytes of the row."""
        return {"kv_bytes": self.buffer_2GCD.nbytes, "index_bytes": 0}


class Stock:
    """A method of one kernel; rows of a layer must have one length."""

    def __init__(self, kernel: str, rows: int, capacity: int) -> None:
        self.kernel, self.rows, self.capacity = kernel, rows, capacity
        self._layers: dict[int, tuple[Tensor, int]] = {}

    def layer(self, geometry: LayerGeometry) -> StockState:
        """The next row of a layer."""
        shape = (self.rows, 2, geometry.kv_heads, self.capacity, geometry.head_size)
        if geometry.layer not in self._layers:
            whole = torch.empty(shape, dtype=geometry.dtype, device=geometry.device)
            self._layers[geometry.layer] = (whole, 0)
        whole, row = self._layers[geometry.layer]
        self._layers[geometry.layer] = (whole, row + 1)
        return StockState(whole[row], whole)

    def decode(self, states: Any, q_BHD: Tensor) -> Partial:
        """All rows at once."""
        whole, used = states[0].whole_B2GCD, states[0].used
        return self.attend(q_BHD, whole[:, :, :, :used])

    def attend(self, q_BHD: Tensor, whole_B2GTD: Tensor) -> Partial:
        """Of no lse: nothing is merged with it."""
        k_BGTD, v_BGTD = whole_B2GTD.unbind(1)
        q_BGRD = q_BHD.reshape(*k_BGTD.shape[:2], -1, q_BHD.shape[-1])
        out_BGRD = getattr(self, f"_{self.kernel}")(q_BGRD, k_BGTD, v_BGTD)
        out_BHD = out_BGRD.reshape(q_BHD.shape)
        return Partial(out_BHD, out_BHD[..., 0])

    def static_obstacle(self, geometry: LayerGeometry) -> str | None:
        """See Method: none."""
        return None

    def static_layer(self, states: Any, limits: Sequence[int]) -> StockLayer:
        """See Method."""
        return StockLayer(self, states[0].whole_B2GCD, states[0].used)

    def _sdpa(self, q_BGRD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q_BGRD, k_BGTD, v_BGTD)

    def _matmul(self, q_BGRD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
        score = (q_BGRD @ k_BGTD.mT).float() * q_BGRD.shape[-1] ** -0.5
        return score.softmax(-1).to(q_BGRD.dtype) @ v_BGTD

    def _flex(self, q_BGRD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
        q_BH1D = q_BGRD.flatten(1, 2)[:, :, None]
        found: Tensor = flex()(q_BH1D, k_BGTD, v_BGTD, enable_gqa=True)
        return found

    def _flash_attn(self, q_BGRD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
        from flash_attn import flash_attn_with_kvcache

        cache = (k_BGTD.transpose(1, 2), v_BGTD.transpose(1, 2))
        found: Tensor = flash_attn_with_kvcache(q_BGRD.flatten(1, 2)[:, None], *cache)[:, 0]
        return found


@cache
def flex() -> Any:
    """Torch's flex attention, compiled; it cuts long caches as flash-decoding does."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


class StockLayer(StaticLayer):
    """A step of fixed shapes: the token is stored, and the prompt attended, without those after it,
    which would be 0.1% more.
    """

    def __init__(self, method: Stock, whole_B2GCD: Tensor, used: int) -> None:
        self.method, self.whole_B2GCD, self.used = method, whole_B2GCD, used
        self.row_B = torch.arange(len(whole_B2GCD), device=whole_B2GCD.device)

    def step(self, q_BHD: Tensor, k_BGD: Tensor, v_BGD: Tensor, at_B: Tensor) -> Partial:
        """See StaticLayer."""
        for number, new_BGD in enumerate((k_BGD, v_BGD)):
            self.whole_B2GCD[:, number].transpose(1, 2)[self.row_B, at_B] = new_BGD
        return self.method.attend(q_BHD, self.whole_B2GCD[:, :, :, : self.used])

    def update(self, lengths: Sequence[int], decoding: Sequence[int]) -> None:
        """See StaticLayer: nothing."""

    def abandon(self) -> None:
        """See StaticLayer: nothing."""

    def settle(self, lengths: Sequence[int]) -> None:
        """See StaticLayer: nothing."""

    def release(self) -> None:
        """See StaticLayer: nothing."""
