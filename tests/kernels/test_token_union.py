"""The union of what heads found: every path against sets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longspan_kernels.token_union import token_union


def sizes(groups: int, tokens: int, clusters: int) -> torch.Tensor:
    """int32 [G, C]: every token in one of them, some empty."""
    which_GT = torch.randint(clusters, (groups, tokens))
    return torch.stack([torch.bincount(row, minlength=clusters) for row in which_GT]).int()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("groups", "a_group", "found", "tokens", "clusters"),
    [
        (1, 1, 1, 1, 1),
        (2, 4, 30, 64, 9),
        (3, 2, 100, 1000, 70),
        (2, 8, 40, 40, 60),
        (1, 3, 5, 65, 1),
    ],
)
def test_every_path_unites_as_sets_do(
    groups: int, a_group: int, found: int, tokens: int, clusters: int, threads: int, isa: Any
) -> None:
    heads = groups * a_group
    token_HK = torch.stack([torch.randperm(tokens)[:found] for _ in range(heads)]).int()
    count_H = torch.randint(found + 1, (heads,), dtype=torch.int32)
    count_H[0] = found
    place_GT = torch.stack([torch.randperm(tokens) for _ in range(groups)]).int()
    size_GC = sizes(groups, tokens, clusters)
    for backend in (isa, "reference"):
        united = token_union(token_HK, count_H, place_GT, size_GC, backend=backend, threads=threads)
        for g in range(groups):
            right = {
                int(place_GT[g, token])
                for h in range(g * a_group, (g + 1) * a_group)
                for token in token_HK[h, : count_H[h]].tolist()
            }
            count = int(united.count_G[g])
            assert united.place_GK[g, :count].tolist() == sorted(right)
            assert (united.place_GK[g, count:] > tokens).all()
            ends = size_GC[g].cumsum(0).tolist()
            for c, (end, size) in enumerate(zip(ends, size_GC[g].tolist(), strict=True)):
                read = sum(end - size <= place < end for place in right)
                assert int(united.left_GC[g, c]) == size - read


def test_what_is_not_there_is_refused(isa: Any) -> None:
    token_HK, count_H = torch.zeros(2, 3, dtype=torch.int32), torch.full((2,), 3, dtype=torch.int32)
    place_GT, size_GC = torch.arange(4, dtype=torch.int32)[None], torch.tensor([[4]]).int()
    token_union(token_HK, count_H, place_GT, size_GC, backend=isa)
    for given in (
        (token_HK + 4, count_H, place_GT, size_GC),
        (token_HK - 1, count_H, place_GT, size_GC),
        (token_HK, count_H, place_GT + 4, size_GC),
        (token_HK + 3, count_H, place_GT, size_GC - 1),
        (token_HK, count_H + 1, place_GT, size_GC),
    ):
        with pytest.raises(ValueError, match=r"is not there|more than there are"):
            token_union(*given, backend=isa)
