"""Exact attention over the last tokens: layers that the model itself limits to a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from longspan.models.rope import positions
from longspan_kernels.types import Partial

if TYPE_CHECKING:
    from torch import Tensor

    from longspan.types import LayerGeometry

QUERY_BLOCK = 512


def slides(window: int | None, config: Any) -> bool:
    """Whether a window hides anything: one as long as the positions is none (Phi-3-128k)."""
    if window is None:
        return False
    most = positions(config)
    return most is None or window < most


def slots(tokens: int, window: int | None) -> int:
    """Of the buffers of a state that has read so many tokens: what later queries can see, and room
    for as much again.
    """
    kept = tokens if window is None else min(tokens, window)
    return kept + max(kept, 64)


class WindowState:
    """One sliding-window layer of one sequence. A query sees itself and the `window` - 1 tokens
    before it.

    Keeps no token that no later query can see. With `window` None it sees everything, which is how
    the self-test at load attends.
    """

    def __init__(self, geometry: LayerGeometry, window: int | None) -> None:
        self.geometry = geometry
        self.window = window
        self._k_GTD: Tensor | None = None
        self._v_GTD: Tensor | None = None
        self._kept = 0

    def prefill(self, q_HQD: Tensor, k_GQD: Tensor, v_GQD: Tensor) -> Partial:
        """Store the chunk and attend it causally within the window: out [H, Q, D], lse [H, Q]."""
        past = self._kept
        k_GTD, v_GTD = self._with_past(k_GQD, v_GQD)
        parts = []
        for first in range(0, q_HQD.shape[1], QUERY_BLOCK):
            q_HqD = q_HQD[:, first : first + QUERY_BLOCK]
            stop = past + first + q_HqD.shape[1]
            start = 0 if self.window is None else max(0, past + first - self.window + 1)
            parts.append(
                self._attend(
                    q_HqD, k_GTD[:, start:stop], v_GTD[:, start:stop], past + first - start
                )
            )
        self._keep(k_GTD, v_GTD)
        return Partial(torch.cat([p.out for p in parts], 1), torch.cat([p.lse for p in parts], 1))

    def read_in_full(self) -> None:
        """See RowState: a window is read so in any case."""

    @property
    def remembers(self) -> bool:
        """See RowState: queries leave no trace."""
        return False

    def remember(self, q_HD: Tensor) -> None:
        """See RowState."""

    def append(self, k_GD: Tensor, v_GD: Tensor) -> None:
        """Store one generated token."""
        if self._k_GTD is None or self._v_GTD is None or self._kept == self._k_GTD.shape[1]:
            k_GTD, v_GTD = self._with_past(k_GD[:, None], v_GD[:, None])
            self._keep(k_GTD, v_GTD)
            return
        self._k_GTD[:, self._kept] = k_GD
        self._v_GTD[:, self._kept] = v_GD
        self._kept += 1

    def decode(self, q_HD: Tensor) -> Partial:
        """Attend the window that ends with the last stored token: out [H, D], lse [H]."""
        assert self._k_GTD is not None
        assert self._v_GTD is not None
        start = 0 if self.window is None else max(0, self._kept - self.window)
        k_GTD, v_GTD = self._k_GTD[:, start : self._kept], self._v_GTD[:, start : self._kept]
        out_HQD, lse_HQ = self._attend(q_HD[:, None], k_GTD, v_GTD, k_GTD.shape[1] - 1)
        return Partial(out_HQD[:, 0], lse_HQ[:, 0])

    def last(self, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values [G, T, D] of the last tokens that are kept, at most `count`; views."""
        assert self._k_GTD is not None
        assert self._v_GTD is not None
        kept = slice(max(0, self._kept - count), self._kept)
        return self._k_GTD[:, kept], self._v_GTD[:, kept]

    def hold(self, k_GTD: Tensor, v_GTD: Tensor) -> None:
        """Go on from these last tokens; copies."""
        self._keep(k_GTD, v_GTD)

    def seal(self) -> None:
        """Nothing to index."""

    def fork(self, device: torch.device | None = None) -> WindowState:
        """A second state that goes on from here; the window is copied, to another device where one
        is named: a state that is kept there has to be forked back before it goes on.
        """
        twin = WindowState(self.geometry, self.window)
        if self._k_GTD is not None and self._v_GTD is not None:
            twin._k_GTD = self._k_GTD.to(device or self._k_GTD.device, copy=True)
            twin._v_GTD = self._v_GTD.to(twin._k_GTD.device, copy=True)
            twin._kept = self._kept
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes held, room for further tokens included."""
        return sum(0 if each is None else each.nbytes for each in (self._k_GTD, self._v_GTD))

    def _with_past(self, k_GQD: Tensor, v_GQD: Tensor) -> tuple[Tensor, Tensor]:
        if self._k_GTD is None or self._v_GTD is None:
            return k_GQD, v_GQD
        past_k_GTD, past_v_GTD = self._k_GTD[:, : self._kept], self._v_GTD[:, : self._kept]
        return torch.cat([past_k_GTD, k_GQD], 1), torch.cat([past_v_GTD, v_GQD], 1)

    def _keep(self, k_GTD: Tensor, v_GTD: Tensor) -> None:
        """Copy what later queries can see into a buffer with room for as much again."""
        total = k_GTD.shape[1]
        kept = total if self.window is None else min(total, self.window)
        groups, _, size = k_GTD.shape
        self._k_GTD = k_GTD.new_empty(groups, slots(total, self.window), size)
        self._v_GTD = torch.empty_like(self._k_GTD)
        self._k_GTD[:, :kept] = k_GTD[:, total - kept :]
        self._v_GTD[:, :kept] = v_GTD[:, total - kept :]
        self._kept = kept

    def _attend(self, q_HQD: Tensor, k_GTD: Tensor, v_GTD: Tensor, offset: int) -> Partial:
        """Query i stands at key `offset` + i. Scores in float32, block by block, so softcap is
        exact too.
        """
        heads, queries, size = q_HQD.shape
        groups, tokens, _ = k_GTD.shape
        q_GrD = q_HQD.float().reshape(groups, heads // groups * queries, size)
        score_GrT = torch.bmm(q_GrD, k_GTD.float().transpose(1, 2)) * self.geometry.scale
        if self.geometry.softcap is not None:
            score_GrT = self.geometry.softcap * torch.tanh(score_GrT / self.geometry.softcap)
        score_GRQT = score_GrT.view(groups, heads // groups, queries, tokens)
        if queries > 1:
            at_Q1 = torch.arange(offset, offset + queries, device=q_HQD.device)[:, None]
            key_T = torch.arange(tokens, device=q_HQD.device)
            hidden_QT = key_T > at_Q1
            if self.window is not None:
                hidden_QT |= key_T <= at_Q1 - self.window
            score_GRQT = score_GRQT.masked_fill(hidden_QT, float("-inf"))
        lse_GRQ = torch.logsumexp(score_GRQT, -1)
        weight_GrT = torch.exp(score_GRQT - lse_GRQ[..., None]).view(groups, -1, tokens)
        out_GrD = torch.bmm(weight_GrT, v_GTD.float())
        return Partial(out_GrD.view(heads, queries, size), lse_GRQ.view(heads, queries))
