"""Hash tables of random hyperplanes in plain torch, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from longspan_kernels.types import HashTables, Runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

LEAST = 2
"""Tables in which a key must share the query's code."""

BLOCK = 2**24
"""Products held at once."""


def codes(vector_ND: Tensor, planes_LDK: Tensor) -> Tensor:
    """int32 [L, N]: bit k says on which side of plane k of a table a vector lies."""
    weight_K = 2.0 ** torch.arange(planes_LDK.shape[2], device=vector_ND.device)
    side_LNK = (vector_ND.float() @ planes_LDK > 0).float()
    return (side_LNK @ weight_K).int()


def hash_build(keys_GTD: Tensor, mean_GD: Tensor, planes_LDK: Tensor) -> HashTables:
    """Codes, and a stable sort by them, of one KV head after the other."""
    sorted_Gs = [
        _sorted(keys_TD.float() - mean_D, planes_LDK)
        for keys_TD, mean_D in zip(keys_GTD, mean_GD, strict=True)
    ]
    token_GLs, bound_GLs = zip(*sorted_Gs, strict=True)
    return HashTables(torch.stack(token_GLs), torch.stack(bound_GLs))


def hash_search(code_HL: Tensor, tables: HashTables, first: int) -> tuple[Runs, int]:
    """Every token of the buckets, counted."""
    groups, _, tokens = tables.token_GLT.shape
    heads = code_HL.shape[0] // groups
    token_Hs, read = [], 0
    for head, code_L in enumerate(code_HL):
        token_N = _bucketed(tables, head // heads, code_L)
        read += len(token_N)
        times_T = torch.bincount(token_N, minlength=tokens)
        token_Hs.append((times_T >= LEAST).nonzero()[:, 0].int())
    found_HK = pad_sequence(token_Hs, batch_first=True)
    counts = [len(token_K) for token_K in token_Hs]
    if not any(counts):
        found_HK = found_HK.new_zeros(len(counts), 1)
    count_H = torch.tensor(counts, dtype=torch.int32, device=found_HK.device)
    return Runs(found_HK + first, None, count_H), read


def hash_search_whole(code_HL: Tensor, tables: HashTables, first: int) -> tuple[Runs, Tensor]:
    """The same from all entries of the tables, so that no shape depends on the codes: a row has as
    many places as there are tokens.
    """
    groups, _, tokens = tables.token_GLT.shape
    heads, device = code_HL.shape[0] // groups, code_HL.device
    place_T = torch.arange(tokens, device=device)
    missed_Hs, read_Hs = [], []
    for head, code_L in enumerate(code_HL):
        token_LT, bound_LC = (each[head // heads] for each in tables)
        begin_L1, end_L1 = (bound_LC.gather(1, code_L.long()[:, None] + n) for n in (0, 1))
        inside_LT = ((begin_L1 <= place_T) & (place_T < end_L1)).int()
        times_T = torch.zeros(tokens, dtype=torch.int32, device=device)
        times_T.index_add_(0, token_LT.flatten(), inside_LT.flatten())
        missed_Hs.append(times_T < LEAST)
        read_Hs.append((end_L1 - begin_L1).sum())
    missed_HT = torch.stack(missed_Hs)
    token_HT = missed_HT.int().argsort(dim=1, stable=True).int()  # those found come first
    count_H = (~missed_HT).sum(1, dtype=torch.int32)
    return Runs(token_HT + first, None, count_H), torch.stack(read_Hs).sum()


def _bucketed(tables: HashTables, group: int, code_L: Tensor) -> Tensor:
    """int32 [N]: the tokens of these codes, table after table."""
    table_L = torch.arange(len(code_L), device=code_L.device)
    begin_L, end_L = (tables.bound_GLC[group, table_L, code_L.long() + n].long() for n in (0, 1))
    size_L = end_L - begin_L
    # entry n of all lies as far behind its table's first as n behind the entries before them
    shift_L = table_L * tables.token_GLT.shape[2] + begin_L - (size_L.cumsum(0) - size_L)
    shift_N = shift_L.repeat_interleave(size_L)
    place_N = torch.arange(len(shift_N), device=code_L.device) + shift_N
    return tables.token_GLT[group].flatten()[place_N]


def _sorted(key_TD: Tensor, planes_LDK: Tensor) -> tuple[Tensor, Tensor]:
    """int32 [L, T] tokens by code and [L, C + 1] where each code begins, of one KV head."""
    pairs = list(_sorted_blocks(key_TD, planes_LDK))
    return torch.cat([token for token, _ in pairs]), torch.cat([bound for _, bound in pairs])


def _sorted_blocks(key_TD: Tensor, planes_LDK: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    _, _, bits = planes_LDK.shape
    for some_LDK in torch.split(planes_LDK, max(1, BLOCK // (len(key_TD) * bits))):
        yield sort_codes(codes(key_TD, some_LDK), bits)


def sort_codes(code_LT: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """int32 [L, T] tokens by code and [L, C + 1] where each code begins."""
    code_LT, token_LT = code_LT.sort(dim=1, stable=True)
    number_C = torch.arange(2**bits + 1, dtype=code_LT.dtype, device=code_LT.device)
    every_LC = number_C.expand(len(code_LT), -1).contiguous()
    return token_LT.int(), torch.searchsorted(code_LT, every_LC, out_int32=True)
