"""The scan of codes: against torch's product with the keys themselves and its top-k."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from bench_dense_decode import GROUPS, HEADS, WIDTH
from tables import Table, time_together

from longspan_kernels.key_scan import best_keys, coordinates, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables import Settings
    from torch import Tensor


def exact(q_HD: Tensor, keys_GTD: Tensor, wanted: int) -> Tensor:
    """What every query head wants, by the keys."""
    q_GRD = q_HD.to(keys_GTD.dtype).view(GROUPS, -1, WIDTH)
    return (q_GRD @ keys_GTD.mT).topk(wanted).indices


def search(settings: Settings) -> list[Table]:
    """A step: one row a width of codes and what is wanted."""
    head = ("columns", "tokens a head", "ordered by", "best_keys", "torch, bfloat16", "faster")
    table = Table(f"key_scan: {settings.tokens:,} keys, {HEADS} heads in {GROUPS} groups", head)
    keys_GTD, q_HD = (
        torch.randn(GROUPS, settings.tokens, WIDTH).bfloat16(),
        torch.randn(HEADS, WIDTH),
    )
    sample_GSD = torch.randn(GROUPS, 512, WIDTH)
    for rank in (WIDTH // 4, WIDTH // 2, WIDTH):
        where = coordinates(keys_GTD, sample_GSD, rank, "queries")
        coded = [encode(keys_GTD, where)]
        for wanted in (100, round(0.018 * settings.tokens)):
            opponent = partial(exact, q_HD, keys_GTD, wanted)
            for order, given, share in (("codes", (), 1.0), ("keys", (keys_GTD,), 1.25)):
                call = partial(
                    best_keys, q_HD, coded, where, wanted,
                    keys_GTDs=given, candidates=round(share * wanted),
                )  # fmt: skip
                seconds = time_together({"ours": call, "torch": opponent}, settings)
                ratio = f"{seconds['torch'] / seconds['ours']:.1f}x"
                times = (f"{seconds[name] * 1e3:.2f} ms" for name in ("ours", "torch"))
                table.rows.append((f"{rank}", f"{wanted:,}", order, *times, ratio))
    return [table]


def cases(settings: Settings) -> dict[str, Callable[[], list[Table]]]:
    """See run.py."""
    return {"search": partial(search, settings)}
