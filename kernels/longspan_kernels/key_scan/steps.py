"""The operation `best_slots`: the scan in a step of fixed shape, of several rows at once; see
README.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from longspan_kernels.checks import check_tensor
from longspan_kernels.key_scan import reference_steps
from longspan_kernels.on_gpu import triton_serves

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.dispatch import Backend

__all__ = ["Candidates", "SlotCodes", "best_slots"]


class SlotCodes(NamedTuple):
    """The keys of B rows in codes, token by token, in buffers with room for T tokens in S
    stretches. N: the KV heads of all rows, head n = b G + g.
    """

    code_NTW: Tensor
    """int8."""
    step_NSW: Tensor
    """float32: the steps of each stretch."""
    to_queries_NDW: Tensor
    """float32; see Coordinates."""
    stretch_BT: Tensor
    """int32: the stretch of each token, never falling; beyond the tokens any of the S."""
    first_B: Tensor
    """int32: the slot of a row's first token; the others follow it."""
    tokens_B: Tensor
    """int32: how many of the room hold one."""


class Candidates(NamedTuple):
    """What is ordered by the keys themselves."""

    keys_NCD: Tensor
    """The key of every slot."""
    most: int
    """So many of a row's best tokens at most, at least as many as are wanted."""
    count_B: Tensor
    """int32: so many of each row's, no more than `most` or than it has tokens."""


def best_slots(
    q_XD: Tensor,
    codes: SlotCodes,
    most: int,
    candidates: Candidates | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """int32 [X, most]: the slots of largest product with each query, best first and equal ones by
    falling number, as `best_keys` finds them; X: the query heads of all rows. Where a row has fewer
    (with candidates: fewer of these), what lies beyond is slot 0.

    Waits for nothing. Raises ValueError naming what does not fit; numbers are not looked at: q and
    its products with the codes' steps should be below 1e30.
    """
    heads, room, _ = codes.code_NTW.shape
    _check_codes(codes)
    size = codes.to_queries_NDW.shape[1]
    if q_XD.shape[1] != size or len(q_XD) % heads:
        raise ValueError(
            f"q has shape {list(q_XD.shape)}; it should be [a multiple of {heads}, {size}]"
        )
    scanned = most if candidates is None else candidates.most
    if not 1 <= most <= scanned <= room:
        raise ValueError(
            f"most is {most}, of {scanned} candidates; right is 1 <= most <= candidates <= {room},"
            " the room"
        )
    if candidates is not None:
        keys_NCD = candidates.keys_NCD
        check_tensor("keys", keys_NCD, (heads, keys_NCD.shape[1], size), keys_NCD.dtype)
        check_tensor("candidates' count", candidates.count_B, codes.tokens_B.shape, torch.int32)
    rows, numbers = [q_XD, codes.code_NTW], [*codes[1:]]
    if candidates is not None:
        rows.append(candidates.keys_NCD)
        numbers.append(candidates.count_B)
    if triton_serves(backend, rows, numbers):
        from longspan_kernels.key_scan import steps_triton

        return steps_triton.best_slots(q_XD, codes, most, candidates)
    return reference_steps.best_slots(q_XD, codes, most, candidates)


def _check_codes(codes: SlotCodes) -> None:
    (heads, room, columns), rows = codes.code_NTW.shape, len(codes.tokens_B)
    stretches, size = codes.step_NSW.shape[1], codes.to_queries_NDW.shape[1]
    if heads % rows:
        raise ValueError(f"codes have {heads} heads; it should be a multiple of the {rows} rows")
    check_tensor("codes", codes.code_NTW, (heads, room, columns), torch.int8)
    check_tensor("steps", codes.step_NSW, (heads, stretches, columns), torch.float32)
    check_tensor("to_queries", codes.to_queries_NDW, (heads, size, columns), torch.float32)
    check_tensor("stretch", codes.stretch_BT, (rows, room), torch.int32)
    check_tensor("first", codes.first_B, (rows,), torch.int32)
    check_tensor("tokens", codes.tokens_B, (rows,), torch.int32)
