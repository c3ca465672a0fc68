"""The attention that stored tokens have received: sums over the columns of the softmax matrix."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.placement.store import KVStore
    from longspan.types import LayerGeometry

KEYS, QUERIES = 4096, 256
"""H x KEYS x QUERIES weights are held at once."""


class Received:
    """Of every slot, the weights that queries gave to its key: float32 sums, a mean over the query
    heads of a KV head. Slots are in the order of arrival, which nothing may change.

    Counted are all queries from the token's own on (H2O), or, with a `window`, only the next
    `window` behind it (InfLLM). Weights are worked out in a second pass over the scores, in plain
    torch, from the log-sum-exp of what each query attended. A sparse prefill's is that of fewer
    keys, beside which a key that it left out could weigh more than 1: no weight counts for more. A
    model's own sink logit (gpt-oss) is not in it.
    """

    def __init__(
        self, geometry: LayerGeometry, device: torch.device, window: int | None = None
    ) -> None:
        """`device`: where the sums are kept."""
        self.geometry, self.window = geometry, window
        self._sum_GC = torch.zeros(geometry.kv_heads, 0, device=device)

    def add(self, q_HQD: Tensor, lse_HQ: Tensor, store: KVStore, start: int = 0) -> None:
        """The last Q tokens of the store have attended it causally from slot `start` on, with
        `lse_HQ`. Keys are brought to the queries, a few at a time.
        """
        tokens = len(store)
        first = tokens - q_HQD.shape[1]
        if self.window is not None:
            start = max(start, first - self.window)
        self._grow(tokens)
        for low in range(start, tokens, KEYS):
            for part in store.slices(low, min(low + KEYS, tokens)):
                keys_GTD = part.keys_GTD.to(q_HQD.device)
                paid_GT = self._paid(q_HQD, lse_HQ, keys_GTD, first - part.first)
                self._sum_GC[:, part.first : part.stop] += paid_GT.to(self._sum_GC.device)

    def add_to(self, slot_GK: Tensor, q_HD: Tensor, lse_H: Tensor, store: KVStore) -> None:
        """One query has attended, among others, these slots (int64) of each KV head."""
        self._grow(len(store))
        keys_GKD = keys_at(store, slot_GK)
        weight_GRK = weights(self.geometry, q_HD[:, None], lse_H[:, None], keys_GKD)[:, :, 0]
        self._sum_GC.scatter_add_(1, slot_GK, weight_GRK.mean(1))

    def of(self, start: int, stop: int) -> Tensor:
        """float32 [G, T]: the sums of the slots [start, stop)."""
        self._grow(stop)
        return self._sum_GC[:, start:stop]

    def put(self, sum_GT: Tensor) -> None:
        """These are the sums now; the tensor is kept."""
        self._sum_GC = sum_GT

    def fork(self) -> Received:
        """Sums that go on from here on their own."""
        twin = copy(self)
        twin._sum_GC = self._sum_GC.clone()
        return twin

    @property
    def nbytes(self) -> int:
        """Memory of the sums."""
        return self._sum_GC.nbytes

    def _paid(self, q_HQD: Tensor, lse_HQ: Tensor, keys_GTD: Tensor, ahead: int) -> Tensor:
        """float32 [G, T]: what all queries, the first of them `ahead` of the first key, gave."""
        least, most = (0, None) if self.window is None else (1, self.window)
        queries, keys = q_HQD.shape[1], keys_GTD.shape[1]
        paid_GT = q_HQD.new_zeros(len(keys_GTD), keys, dtype=torch.float32)
        for row in range(0, queries, QUERIES):
            rows = slice(row, min(row + QUERIES, queries))
            first, last = ahead + rows.start, ahead + rows.stop - 1  # as slots count here
            seen = slice(0 if most is None else max(0, first - most), min(keys, last - least + 1))
            if seen.start >= seen.stop:
                continue
            asked = q_HQD[:, rows], lse_HQ[:, rows]
            weight_GRQT = weights(self.geometry, *asked, keys_GTD[:, seen])
            at_Q1 = torch.arange(first, last + 1, device=q_HQD.device)[:, None]
            behind_QT = at_Q1 - torch.arange(seen.start, seen.stop, device=q_HQD.device)
            if first - seen.stop + 1 < least:
                weight_GRQT.masked_fill_(behind_QT < least, 0.0)
            if most is not None:
                weight_GRQT.masked_fill_(behind_QT > most, 0.0)
            paid_GT[:, seen] += weight_GRQT.sum(2).mean(1)
        return paid_GT

    def _grow(self, tokens: int) -> None:
        """Room for so many slots; the new ones have received nothing."""
        held = self._sum_GC.shape[1]
        if tokens > held:
            more = max(tokens, held * 3 // 2) - held
            new_GC = self._sum_GC.new_zeros(len(self._sum_GC), more)
            self._sum_GC = torch.cat([self._sum_GC, new_GC], dim=1)


def weights(geometry: LayerGeometry, q_HQD: Tensor, lse_HQ: Tensor, keys_GTD: Tensor) -> Tensor:
    """float32 [G, R, Q, T]: what queries that attended with `lse_HQ` give to keys, at most 1,
    whatever is ahead of what.
    """
    heads, queries, width = q_HQD.shape
    q_GND = q_HQD.float().reshape(len(keys_GTD), -1, width)
    z_GNT = (q_GND @ keys_GTD.float().mT).mul_(geometry.scale)
    if (cap := geometry.softcap) is not None:
        z_GNT = z_GNT.div_(cap).tanh_().mul_(cap)
    z_GNT -= lse_HQ.reshape(len(keys_GTD), -1, 1)
    return z_GNT.clamp_(max=0).exp_().view(len(keys_GTD), heads // len(keys_GTD), queries, -1)


def keys_at(store: KVStore, slot_GK: Tensor) -> Tensor:
    """[G, K, D]: the keys of slots of each KV head, where the slots are."""
    groups, count = slot_GK.shape
    keys_GKD = store.empty_GCD.new_zeros(groups, count, store.empty_GCD.shape[2])
    keys_GKD = keys_GKD.to(slot_GK.device)
    for part in store.parts:
        within_GK = (slot_GK >= part.first) & (slot_GK < part.stop)
        local_GK = (slot_GK - part.first).clamp(0, part.stop - part.first - 1)
        local_GKD = local_GK[..., None].expand_as(keys_GKD).to(part.keys_GTD.device)
        found_GKD = part.keys_GTD.gather(1, local_GKD).to(slot_GK.device)
        keys_GKD = torch.where(within_GK[..., None], found_GKD, keys_GKD)
    return keys_GKD


def check_whole(name: str, q_HSD: Tensor | None, tokens: int) -> Tensor:
    """The queries of a prompt of so many tokens that was read elsewhere, if all of them are there:
    what tokens received from those left out cannot be made up for. Raises ValueError else.
    """
    known = 0 if q_HSD is None else q_HSD.shape[1]
    if q_HSD is None or known != tokens:
        raise ValueError(
            f"method = {name}: it sums the attention of all queries of a prompt, and of {tokens} "
            f"read elsewhere {known} are known; right would be a shorter prompt, or another method"
        )
    return q_HSD
