"""The operation `dense_prefill`; see README.md for the maths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan_kernels.dense_prefill import blockwise, cpu, fused

if TYPE_CHECKING:
    from torch import Tensor

    from longspan_kernels.types import Partial

__all__ = ["dense_prefill"]


def dense_prefill(
    q_HQD: Tensor,
    keys_GTD: Tensor,
    values_GTD: Tensor,
    *,
    scale: float,
    softcap: float | None = None,
    causal: bool,
) -> Partial:
    """Attend Q positions to T entries: all of them, or, `causal`, position i to the entries up to
    i + T - Q; float32 out [H, Q, D] and lse [H, Q].

    Raises ValueError where `causal` leaves the first positions without an entry (T < Q).
    """
    if causal and keys_GTD.shape[1] < q_HQD.shape[1]:
        raise ValueError(
            f"causal prefill has {q_HQD.shape[1]} queries but {keys_GTD.shape[1]} keys; it should"
            " have at least as many keys as queries"
        )
    if cpu.serves(q_HQD, keys_GTD, values_GTD, softcap):
        return cpu.dense_prefill(
            q_HQD, keys_GTD, values_GTD, scale=scale, softcap=softcap, causal=causal
        )
    if softcap is None and fused.serves(q_HQD, keys_GTD):
        return fused.dense_prefill(q_HQD, keys_GTD, values_GTD, scale=scale, causal=causal)
    return blockwise.dense_prefill(
        q_HQD, keys_GTD, values_GTD, scale=scale, softcap=softcap, causal=causal
    )
