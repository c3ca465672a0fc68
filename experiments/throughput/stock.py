"""Full attention as others have it: one contiguous cache of the whole batch, one fused call."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from longspan.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.types import LayerGeometry


def kernels(device: str) -> list[str]:
    """Those that run here."""
    found = ["sdpa", "matmul"]
    if device == "cuda" and importlib.util.find_spec("flash_attn"):
        found.append("flash_attn")
    return found


class StockState:
    """A row of a layer in a buffer [B, 2, G, C, D] that the first row of the layer owns."""

    def __init__(self, buffer_2GCD: Tensor, whole_B2GCD: Tensor) -> None:
        self.buffer_2GCD, self.whole_B2GCD = buffer_2GCD, whole_B2GCD
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

    def seal(self) -> None:
        """Nothing to build."""

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
        k_BGTD, v_BGTD = whole[:, 0, :, :used], whole[:, 1, :, :used]
        out_BHD = getattr(self, f"_{self.kernel}")(q_BHD, k_BGTD, v_BGTD)
        return Partial(out_BHD, out_BHD[..., 0])

    def _sdpa(self, q_BHD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
        q_BH1D = q_BHD[:, :, None]
        return F.scaled_dot_product_attention(q_BH1D, k_BGTD, v_BGTD, enable_gqa=True)[:, :, 0]

    def _matmul(self, q_BHD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
        q_BGRD = q_BHD.reshape(*k_BGTD.shape[:2], -1, q_BHD.shape[-1])
        score = (q_BGRD @ k_BGTD.mT).float() * q_BHD.shape[-1] ** -0.5
        return (score.softmax(-1).to(q_BHD.dtype) @ v_BGTD).reshape(q_BHD.shape)

    def _flash_attn(self, q_BHD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor) -> Tensor:
        from flash_attn import flash_attn_with_kvcache

        cache = (k_BGTD.transpose(1, 2), v_BGTD.transpose(1, 2))
        found: Tensor = flash_attn_with_kvcache(q_BHD[:, None], *cache)[:, 0]
        return found
