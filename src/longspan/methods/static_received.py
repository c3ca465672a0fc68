"""What tokens receive (see Received), in buffers of fixed shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.methods.received import weights
from longspan.tensors import spread
from longspan.types import StepBytes

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.methods.received import Received
    from longspan.types import LayerGeometry


def received_bytes(geometry: LayerGeometry, rows: int, slots: int, width: int) -> StepBytes:
    """Of StaticReceived, and the keys that it looks at."""
    heads, keys = rows * geometry.kv_heads, width * geometry.head_size * geometry.dtype.itemsize
    return StepBytes(heads * (4 * slots + 12 * width), heads * keys)


class StaticReceived:
    """The sums of several rows. What a step gives counts when the next step of its row begins, so
    that a step that is done again, or by a row that rests, changes nothing.

    N: the KV heads of all rows. Only `give` waits for the device.
    """

    def __init__(self, geometry: LayerGeometry, rows: int, slots: int, width: int) -> None:
        """Room for `slots` sums a KV head, `width` of which a step adds to."""
        self.geometry, device = geometry, geometry.device
        heads = rows * geometry.kv_heads
        self.sum_NC = torch.zeros(heads, slots, device=device)
        self._slot_NM = torch.zeros(heads, width, dtype=torch.int64, device=device)
        self._given_NM = torch.zeros(heads, width, device=device)
        self._at_B = torch.full((rows,), -1, dtype=torch.int64, device=device)
        """The slot of the token whose step gave that; -1: it is in the sums."""

    def begin(self, at_B: Tensor) -> Tensor:
        """Steps begin, of tokens in the slots at_B. Returns bool [N, 1]: what the last step did
        counts from now on.
        """
        before_B = (self._at_B >= 0) & (self._at_B + 1 == at_B)
        before_N1 = spread(before_B, self.geometry.kv_heads)[:, None]
        self.sum_NC.scatter_add_(1, self._slot_NM, self._given_NM * before_N1)
        self._at_B.masked_fill_(before_B, -1)
        return before_N1

    def note(
        self, q_XD: Tensor, lse_X: Tensor, keys_NMD: Tensor, slot_NM: Tensor, live_NM: Tensor
    ) -> None:
        """Queries have attended with `lse_X`, among others these keys, of slots (int64) that a KV
        head has once each; those that are not live receive nothing. `end` follows.
        """
        weight_NRM = weights(self.geometry, q_XD[:, None], lse_X[:, None], keys_NMD)[:, :, 0]
        self._given_NM.copy_(torch.where(live_NM, weight_NRM.mean(1), 0.0))
        self._slot_NM.copy_(torch.where(live_NM, slot_NM, 0))

    def end(self, at_B: Tensor) -> None:
        """The steps that `begin` began have said what they give."""
        self._at_B.copy_(at_B)

    def take(self, row: int, received: Received, tokens: int) -> None:
        """The sums of a row that holds so many tokens."""
        self.sum_NC[self._heads(row), :tokens] = received.of(0, tokens)

    def give(self, row: int, received: Received, tokens: int) -> bool:
        """Those that it has now. Returns whether its last step, which is among them, does not
        count yet here.
        """
        heads = self._heads(row)
        sum_GC = self.sum_NC[heads].clone()
        if pending := int(self._at_B[row]) == tokens - 1:
            sum_GC.scatter_add_(1, self._slot_NM[heads], self._given_NM[heads])
        received.put(sum_GC[:, :tokens])
        return pending

    def _heads(self, row: int) -> slice:
        return slice(row * self.geometry.kv_heads, (row + 1) * self.geometry.kv_heads)


def keys_in(keys_NCD: Tensor, slot_NM: Tensor) -> Tensor:
    """[N, M, D]: the keys in places (int64) of buffers, any key for what is outside of them."""
    place_NM1 = slot_NM.clamp(0, keys_NCD.shape[1] - 1)[..., None]
    return keys_NCD.gather(1, place_NM1.expand(-1, -1, keys_NCD.shape[2]))
