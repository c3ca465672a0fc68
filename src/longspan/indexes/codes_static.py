"""The codes of several indexes in buffers of fixed shape, scanned together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from longspan.types import StepBytes
from longspan_kernels.key_scan import KeyCodes, columns
from longspan_kernels.key_scan.steps import Candidates, SlotCodes, best_slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from longspan.indexes.base import Budget
    from longspan.indexes.key_codes import CodeOptions, KeyCodesIndex
    from longspan.types import LayerGeometry


def stretches(held: Sequence[int], limits: Sequence[int], stretch: int) -> int:
    """About how many a row has when it holds what it may: one of the prompt, others of so many
    generated tokens.
    """
    return (max(limits) - min(held)) // stretch + 2


class StaticCodes:
    """Room for the codes that each row's index has when it holds `tokens` tokens, in order, and for
    the steps of its stretches. A row whose index is empty has no tokens, and gets its coordinates
    with the first stretch.

    Codes are kept token by token, without gaps between stretches, however short these are; a table
    says of each token which stretch it is of.
    """

    run_tokens = 1

    def __init__(
        self,
        indexes: Sequence[KeyCodesIndex],
        most: Budget,
        tokens: int,
        stretch: int,
        geometry: LayerGeometry,
    ) -> None:
        """`most`: the budget of a search over all `tokens`. `stretch`: tokens that an index takes
        in at a time.
        """
        self.indexes, self.options, self.geometry = indexes, indexes[0].options, geometry
        held = [(len(index.coded), (tokens - index.tokens) // stretch) for index in indexes]
        rows, groups, size, room = len(indexes), geometry.kv_heads, geometry.head_size, tokens
        stretches, width = max(map(sum, held)) + 1, columns(self.options.kept(size))
        self.most = max(1, min(most.retrieve_tokens, room))
        """Tokens that a query head reads at once."""
        device, whole = geometry.device, torch.int32
        self.code_BGTW = torch.zeros(rows, groups, room, width, dtype=torch.int8, device=device)
        self.step_BGSW = torch.ones(rows, groups, stretches, width, device=device)
        self.to_queries_BGDW = torch.zeros(rows, groups, size, width, device=device)
        self.stretch_BT = torch.zeros(rows, room, dtype=whole, device=device)
        self.first_B, self.tokens_B, self.ordered_B = torch.zeros(
            3, rows, dtype=whole, device=device
        )
        self.count_BH = torch.zeros(rows, geometry.query_heads, dtype=whole, device=device)
        self.keys_NCD: Tensor | None = None
        """The key of every slot; with them, the best candidates are ordered by the keys."""
        self._ordered = [0] * rows
        self._held = [(0, 0)] * rows

    @staticmethod
    def bytes_of(
        options: CodeOptions, rows: int, tokens: int, stretches: int, geometry: LayerGeometry
    ) -> StepBytes:
        """Of so many rows, of `stretches` each; a search orders all tokens for every query head."""
        size, heads, groups = geometry.head_size, geometry.query_heads, geometry.kv_heads
        width = columns(options.kept(size))
        kept = groups * (tokens * width + 4 * width * (stretches + size)) + 4 * tokens
        passing = heads * (8 * tokens + 4 * stretches * width)
        return StepBytes(rows * kept, rows * passing)

    def refresh(self, row: int, budget: Budget) -> None:
        """Take over what the row's index holds; its codes then lie in these buffers."""
        index, wanted = self.indexes[row], budget.retrieve_tokens
        assert index.where is not None
        number, stop = self._held[row]
        lying = list(index.coded[:number])
        for coded in index.coded[number:]:
            here = slice(stop, stop + coded.code_GTW.shape[1])
            mine = KeyCodes(self.code_BGTW[row, :, here], self.step_BGSW[row, :, len(lying)])
            for buffer, tensor in zip(mine, coded, strict=True):
                buffer.copy_(tensor)
            self.stretch_BT[row, here] = len(lying)
            lying.append(mine)
            stop = here.stop
        index.lie_in(lying)
        self.to_queries_BGDW[row] = index.where.to_queries_GDW
        self._held[row], self._ordered[row] = (len(lying), stop), self.options.ordered(wanted, stop)
        self.first_B[row], self.tokens_B[row] = index.first_slot, stop
        self.ordered_B[row], self.count_BH[row] = self._ordered[row], wanted

    def search(self, q_XD: Tensor, scale: float) -> tuple[Tensor, ...]:
        """What the query heads of all rows read: slots [X, K], of which the first count_X hold.
        Waits for nothing; `scale` does not change the order.
        """
        codes = SlotCodes(
            self.code_BGTW.flatten(0, 1),
            self.step_BGSW.flatten(0, 1),
            self.to_queries_BGDW.flatten(0, 1),
            self.stretch_BT,
            self.first_B,
            self.tokens_B,
        )
        candidates, ordered = None, self.options.ordered(self.most, self.code_BGTW.shape[2])
        if ordered and self.keys_NCD is not None:
            candidates = Candidates(self.keys_NCD, ordered, self.ordered_B)
        return best_slots(q_XD, codes, self.most, candidates), self.count_BH.flatten()

    def cost(self, row: int) -> tuple[float, float]:
        """Distances that a search of a row takes, and bytes of its index that it reads."""
        ordered = 0 if self.keys_NCD is None else self._ordered[row]
        return self.indexes[row].cost(self.geometry.query_heads, ordered)
