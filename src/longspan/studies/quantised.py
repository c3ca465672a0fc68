"""Keys and values rounded to fewer bits, and back: what is lost, without a kernel for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from longspan.methods.base import Method
from longspan.methods.frame import StoredState

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.types import LayerGeometry

Along = Literal["token", "channel"]
"""What shares a scale: numbers of one token, or of one channel of neighbouring tokens."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """Integers with a scale, and where `offset`, a zero point, to every `group` numbers; or, where
    `dtype` is given, floats.
    """

    name: str
    width: int
    """Bits of an integer or float."""
    dtype: torch.dtype | None = None
    group: int | None = None
    """None: all numbers of a token."""
    offset: bool = False
    keys: Along = "token"

    def bits(self, head_size: int) -> float:
        """Of a number, with its share of float16 scales and zero points."""
        if self.dtype is not None:
            return float(self.width)
        return self.width + 16 * (1 + self.offset) / (self.group or head_size)

    def rounded(self, x_GTD: Tensor, what: Literal["keys", "values"]) -> Tensor:
        """What remains of `x_GTD`, in its own dtype."""
        if self.dtype is not None:
            return x_GTD.to(self.dtype).to(x_GTD)
        by_channel = what == "keys" and self.keys == "channel"
        moved = x_GTD.float().mT if by_channel else x_GTD.float()
        group = self.group or moved.shape[-1]
        padding = -moved.shape[-1] % group
        # a last group of fewer is filled up with its own last number, which moves no bound
        wide = torch.cat([moved, moved[..., -1:].expand(*moved.shape[:-1], padding)], dim=-1)
        back = self._grid(wide.reshape(*wide.shape[:-1], -1, group)).flatten(-2)[
            ..., : moved.shape[-1]
        ]
        return (back.mT if by_channel else back).to(x_GTD.dtype)

    def _grid(self, x: Tensor) -> Tensor:
        if self.offset:
            most = float(2**self.width - 1)
            low = x.amin(-1, keepdim=True).half().float()
            step = (x.amax(-1, keepdim=True) - low) / most
        else:
            most = float(2**self.width - 2)
            low = -x.abs().amax(-1, keepdim=True)
            step = -2 * low / most
        step = step.half().float().clamp(min=1e-7)
        low = low if self.offset else -step * (most / 2)
        return torch.addcmul(low, ((x - low) / step).round().clamp(0, most), step)


FORMATS = (
    Format(name="bfloat16", width=16, dtype=torch.bfloat16),
    Format(name="float16", width=16, dtype=torch.float16),
    Format(name="int8", width=8),
    Format(name="int8 by channel", width=8, group=64, keys="channel"),
    Format(name="int4", width=4, group=32, offset=True),
    Format(name="int4 by channel", width=4, group=32, offset=True, keys="channel"),
)
"""`by channel`: keys share their scales along tokens, as in KIVI (arXiv 2402.02750), section 3."""

WHICH = {"keys": (True, False), "values": (False, True), "both": (True, True)}
"""What is rounded."""


@dataclass(frozen=True)
class Quantised(Method):
    """Full attention over a prompt whose keys or values were rounded; new tokens are not."""

    name: ClassVar[str] = "quantised"

    form: Format
    which: str

    def layer(self, geometry: LayerGeometry) -> StoredState:
        """See Method."""
        return QuantisedState(geometry, self)


class QuantisedState(StoredState):
    """One layer of one sequence."""

    def __init__(self, geometry: LayerGeometry, method: Quantised) -> None:
        super().__init__(geometry, "gpu")
        self.method = method

    def adopt(self, k_GTD: Tensor, v_GTD: Tensor, q_HSD: Tensor | None = None) -> None:
        """See StoredState."""
        keys, values = WHICH[self.method.which]
        form = self.method.form
        rounded_k, rounded_v = form.rounded(k_GTD, "keys"), form.rounded(v_GTD, "values")
        super().adopt(rounded_k if keys else k_GTD, rounded_v if values else v_GTD)
