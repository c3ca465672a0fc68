"""The scan of codes: every path against the reference, the reference against exact products."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longspan_kernels.key_scan import KeyCodes, best_keys, coordinates, encode, scores

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one key": {"lengths": (1,)},
    "short and ragged": {"lengths": (65, 3, 1, 64)},
    "more than a piece": {"lengths": (9001, 4097), "groups": 1, "heads": 2},
    "R=1": {"groups": 5, "heads": 1},
    "R=71": {"groups": 1, "heads": 71},
    "D=80, rank 20": {"size": 80, "rank": 20},
    "D=20": {"size": 20, "rank": 20},
    "D=256": {"size": 256, "rank": 256},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16, "size": 96, "rank": 64},
}


def inputs(
    groups: int = 2, heads: int = 4, lengths: tuple[int, ...] = (600, 64), size: int = 64,
    rank: int = 32, dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, list[torch.Tensor], list[KeyCodes], Any]:  # fmt: skip
    """Queries, keys off the origin in stretches of ever larger range, their codes, coordinates."""
    spread_D = torch.linspace(0.2, 3, size)
    keys = [
        ((1 + i) * torch.randn(groups, length, size) * spread_D + 5).to(dtype)
        for i, length in enumerate(lengths)
    ]
    queries_GSD = torch.randn(groups, 50, size) / spread_D
    where = coordinates(keys[0], queries_GSD, rank, "queries")
    q_HD = (torch.randn(groups * heads, size) / spread_D).to(dtype)
    return q_HD, keys, [encode(each, where) for each in keys], where


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_every_path_finds_the_same(case: str, threads: int, isa: Any) -> None:
    q_HD, keys, coded, where = inputs(**CASES[case])
    tokens = sum(each.shape[1] for each in keys)
    for k in {1, min(tokens, 7), (tokens + 1) // 2, tokens}:
        found = best_keys(q_HD, coded, where, k, backend=isa, threads=threads)
        assert torch.equal(found, best_keys(q_HD, coded, where, k, backend="reference"))
        more = min(tokens, 2 * k)
        exact, right = (
            best_keys(
                q_HD,
                coded,
                where,
                k,
                keys_GTDs=keys,
                candidates=more,
                backend=path,
                threads=threads,
            )
            for path in (isa, "reference")
        )
        products = [exact_products(q_HD, keys).gather(1, ids.long()) for ids in (exact, right)]
        torch.testing.assert_close(*products, atol=1e-3, rtol=1e-4)


def exact_products(q_HD: torch.Tensor, keys: list[torch.Tensor]) -> torch.Tensor:
    """float32 [H, T]."""
    keys_GTD = torch.cat(keys, 1).float()
    q_GRD = q_HD.float().unflatten(0, (len(keys_GTD), -1))
    return (q_GRD @ keys_GTD.mT).flatten(0, 1)


def test_a_sample_that_promises_too_much_is_not_believed(isa: Any) -> None:
    q_HD, keys, _, where = inputs(lengths=(9_000,), groups=1, heads=2)
    # every sixteenth block of 64 codes is what a scan looks at first
    beside_T = torch.arange(9_000) // 64 % 16 != 0
    keys[0][:, beside_T] -= 3 * q_HD[0].float() / q_HD[0].float().norm()
    coded = [encode(keys[0], where)]
    found = best_keys(q_HD, coded, where, 700, backend=isa)
    assert torch.equal(found, best_keys(q_HD, coded, where, 700, backend="reference"))


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e12])
def test_tiny_and_huge_numbers(size: float, isa: Any) -> None:
    q_HD, keys, _, where = inputs()
    keys = [size * each for each in keys]
    where = coordinates(keys[0], None, 64, "keys")
    coded = [encode(each, where) for each in keys]
    for factor in (size, 1.0, 0.0):
        found, right = (
            best_keys(factor * q_HD, coded, where, 20, backend=path) for path in (isa, "reference")
        )
        assert torch.equal(found, right)
    with pytest.raises(ValueError, match="q times"):
        best_keys(1e37 * q_HD, [encode(1e12 * keys[0] / size, where)], where, 20, backend=isa)


def test_keys_far_from_the_first_ones_are_found(isa: Any) -> None:
    # the first stretch says nothing of what is to come
    first_GTD = torch.full((1, 1, 32), 7.0)
    where = coordinates(first_GTD, None, 32, "queries")
    later_GTD = 500 * torch.randn(1, 300, 32)
    coded = [encode(first_GTD, where), encode(later_GTD, where)]
    q_HD = torch.randn(4, 32)
    right = exact_products(q_HD, [first_GTD, later_GTD]).topk(5).indices
    found = best_keys(
        q_HD, coded, where, 5, keys_GTDs=[first_GTD, later_GTD], candidates=20, backend=isa
    )
    assert torch.equal(found, right.int())


def test_equal_scores_come_by_falling_number(isa: Any) -> None:
    q_HD, keys, _, where = inputs(lengths=(10_000,), groups=1, heads=3)
    same_GTD = keys[0][:, :1].expand(-1, 10_000, -1).contiguous()
    coded = [encode(same_GTD, where)]
    for threads in (1, 4):
        found = best_keys(q_HD, coded, where, 300, backend=isa, threads=threads)
        assert (found == torch.arange(9_999, 9_699, -1)).all()


def test_whole_codes_find_what_products_do() -> None:
    q_HD, keys, coded, where = inputs(lengths=(4000, 500), size=64, rank=64)
    right = exact_products(q_HD, keys).topk(100).indices
    for wanted, least in (({}, 0.97), ({"keys_GTDs": keys, "candidates": 125}, 1.0)):
        found = best_keys(q_HD, coded, where, 100, **wanted)  # type: ignore[arg-type]
        shared = [len(set(a) & set(b)) for a, b in zip(found.tolist(), right.tolist(), strict=True)]
        assert sum(shared) / (100 * len(shared)) >= least


def test_few_columns_keep_the_scores_of_such_queries_better_than_axes_of_keys() -> None:
    # keys spread most where no query looks
    spread_D = torch.linspace(4, 0.5, 128)
    keys_GTD = torch.randn(1, 3000, 128) * spread_D
    queries_GSD = torch.randn(1, 500, 128) / spread_D.square()
    q_HD = torch.randn(8, 128) / spread_D.square()
    right = exact_products(q_HD, [keys_GTD]).topk(100).indices
    shared = {}
    for metric in ("queries", "keys"):
        where = coordinates(keys_GTD, queries_GSD, 32, metric)  # type: ignore[arg-type]
        found = best_keys(q_HD, [encode(keys_GTD, where)], where, 100)
        shared[metric] = sum(
            len(set(a) & set(b)) for a, b in zip(found.tolist(), right.tolist(), strict=True)
        )
    assert shared["queries"] > 2 * shared["keys"]


def test_bad_input_is_named() -> None:
    q_HD, keys, coded, where = inputs()
    with pytest.raises(ValueError, match="k is 0 and candidates 0; right is 1 <= k"):
        best_keys(q_HD, coded, where, 0)
    with pytest.raises(ValueError, match="k is 5 and candidates 4"):
        best_keys(q_HD, coded, where, 5, candidates=4)
    with pytest.raises(ValueError, match="<= 664, the keys in codes"):
        best_keys(q_HD, coded, where, 665)
    with pytest.raises(ValueError, match="keys has 600 tokens; it should have 664"):
        best_keys(q_HD, coded, where, 5, keys_GTDs=keys[:1])
    with pytest.raises(ValueError, match=r"q times the codes. steps holds NaN"):
        best_keys(torch.full_like(q_HD, torch.nan), coded, where, 5)
    with pytest.raises(ValueError, match="keys holds NaN"):
        encode(torch.full_like(keys[0], torch.inf), where)
    with pytest.raises(ValueError, match="queries holds NaN"):
        coordinates(keys[0], torch.full((2, 3, 64), torch.inf), 32, "queries")
    with pytest.raises(ValueError, match="metric is 'nonsense'"):
        coordinates(keys[0], None, 32, "nonsense")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"q has shape \[8, 32\]"):
        best_keys(q_HD[:, :32], coded, where, 5)
    with pytest.raises(ValueError, match=r"keys have shape \[1, 664, 64\]"):
        best_keys(q_HD, coded, where, 5, keys_GTDs=[torch.cat(keys, 1)[:1]])
    with pytest.raises(ValueError, match=r"keys have shape \[1, 600, 64\]"):
        encode(keys[0][:1], where)
    with pytest.raises(ValueError, match="rank is 65; it should be 1 to 64"):
        coordinates(keys[0], None, 65, "keys")


def test_skewed_columns_are_those_that_weigh_most_in_queries_and_keys() -> None:
    keys_GTD = torch.randn(2, 300, 40) @ torch.randn(40, 40) + 3
    queries_GSD = torch.randn(2, 90, 40) @ torch.randn(40, 40)
    where = coordinates(keys_GTD, queries_GSD, 12, "skewed")
    assert where.to_codes_GDW.shape == (2, 40, 32)
    for group in range(2):
        turn_DD = torch.linalg.svd(queries_GSD[group].double()).Vh.T
        weight_D = (queries_GSD[group].double() @ turn_DD).abs().mean(0)
        weight_D += (keys_GTD[group].double() @ turn_DD).abs().mean(0)
        kept_DW = turn_DD[:, weight_D.topk(12).indices].float()
        found_DD = where.to_queries_GDW[group] @ where.to_codes_GDW[group].T
        torch.testing.assert_close(found_DD, kept_DW @ kept_DW.T, atol=1e-4, rtol=1e-4)
    for nothing in (None, queries_GSD[:, :0], queries_GSD * 0):
        alone = coordinates(keys_GTD, nothing, 40, "skewed")
        found_DD = alone.to_queries_GDW[0] @ alone.to_codes_GDW[0].T
        torch.testing.assert_close(found_DD, torch.eye(40))


def test_skewed_columns_of_few_queries_are_not_left_to_rounding() -> None:
    keys_GTD = torch.randn(1, 300, 40) @ torch.randn(40, 40)
    queries_GSD = torch.randn(1, 3, 40)
    found = []
    for factor in (1.0, 1.0 + 3e-7):
        where = coordinates(keys_GTD * factor, queries_GSD * factor, 20, "skewed")
        found.append(where.to_queries_GDW[0] @ where.to_codes_GDW[0].T)
    torch.testing.assert_close(*found, atol=1e-3, rtol=0)


@pytest.mark.parametrize("case", ["short and ragged", "bfloat16"])
def test_scores_are_what_ranks_and_near_the_products(case: str) -> None:
    q_HD, keys, coded, where = inputs(**{"rank": 64, **CASES[case]})
    score_HT = scores(q_HD, coded, where)
    found_HK = best_keys(q_HD, coded, where, 9).long()
    assert torch.equal(score_HT.gather(1, found_HK), score_HT.topk(9).values)
    exact = [
        q_HD.float().view(2, 4, -1) @ (each.float() - where.mean_GD[:, None]).mT for each in keys
    ]
    exact_HT = torch.cat(exact, 2).flatten(0, 1)
    assert float((score_HT - exact_HT).abs().max() / exact_HT.abs().max()) < 0.02
