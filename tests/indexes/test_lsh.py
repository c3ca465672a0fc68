"""Hash tables against a comparison of every key with every query, bit by bit."""

from __future__ import annotations

from math import acos, comb, pi

import pytest
import torch

from longspan.indexes.lsh import HashIndex, hyperplanes
from longspan_kernels.hash_tables import codes
from longspan_kernels.sampled_decode.reference import probability


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def common_tables(a_D: torch.Tensor, b_D: torch.Tensor, planes_LDK: torch.Tensor) -> int:
    """In how many tables both lie on one side of every plane."""
    count = 0
    for planes_DK in planes_LDK:
        sides = [(vector @ planes_DK > 0).tolist() for vector in (a_D, b_D)]
        count += sides[0] == sides[1]
    return count


@pytest.mark.parametrize("block", [2**24, 500])
@pytest.mark.parametrize(("groups", "heads"), [(1, 3), (2, 2), (3, 1)])
def test_candidates_are_those_of_a_full_comparison(
    groups: int, heads: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longspan_kernels.hash_tables.reference.BLOCK", block)
    key_GTD, q_HD = vectors(groups, 70, 8) + 1, vectors(groups * heads, 8, seed=1)
    planes_LDK = hyperplanes(12, 3, 8, seed=5)
    tables = HashIndex(key_GTD, planes_LDK, first_slot=4)
    hits = tables.search(q_HD)
    entries = 0
    for h in range(groups * heads):
        centred_TD = key_GTD[h // heads] - key_GTD[h // heads].mean(0)
        times = [common_tables(q_HD[h], key_D, planes_LDK) for key_D in centred_TD]
        row = hits.found.start_NK[h, : hits.found.count_N[h]].tolist()
        assert row == [t + 4 for t in range(70) if times[t] >= 2]
        assert 0 < len(row) < 70
        entries += sum(times)
    assert hits.bytes == 4 * (entries + 2 * 12 * groups * heads) + planes_LDK.nbytes
    whole = tables.look_up(codes(q_HD, planes_LDK).T, whole=True)
    assert whole.found.start_NK.shape == (groups * heads, 70)
    assert torch.equal(whole.found.count_N, hits.found.count_N)
    assert float(whole.bytes) == hits.bytes
    kept = 4 * groups * 12 * (70 + 2**3 + 1) + 4 * groups * (8 + 70)
    assert tables.nbytes == kept + planes_LDK.nbytes


def test_codes_have_a_bit_a_plane() -> None:
    planes_LDK = torch.eye(3)[None]
    code_LN = codes(torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]]), planes_LDK)
    assert code_LN.tolist() == [[1, 6]]
    assert torch.equal(hyperplanes(3, 4, 5, seed=1), hyperplanes(3, 4, 5, seed=1))
    assert not torch.equal(hyperplanes(3, 4, 5, seed=1), hyperplanes(3, 4, 5, seed=2))


@pytest.mark.parametrize(("bits", "tables"), [(2, 2), (10, 150), (11, 300)])
def test_the_probability_is_that_of_two_tables_or_more(bits: int, tables: int) -> None:
    for cosine in (-1.0, -0.3, 0.0, 0.5, 0.9, 1.0):
        same = (1 - acos(cosine) / pi) ** bits
        right = sum(
            comb(tables, n) * same**n * (1 - same) ** (tables - n) for n in range(2, tables + 1)
        )
        found = float(probability(torch.tensor(cosine), bits, tables))
        assert found == pytest.approx(right, abs=1e-5)


def test_collisions_are_as_frequent_as_the_probability_says() -> None:
    key_1TD, q_HD, draws = vectors(1, 40, 16), 2 * vectors(2, 16, seed=1), 400
    key_1TD -= key_1TD.mean(1, keepdim=True)
    seen_HT = torch.zeros(2, 40)
    for seed in range(draws):
        hits = HashIndex(key_1TD, hyperplanes(8, 3, 16, seed), 0).search(q_HD)
        for head, count in enumerate(hits.found.count_N.tolist()):
            seen_HT[head, hits.found.start_NK[head, :count].long()] += 1
    cosine_HT = torch.nn.functional.cosine_similarity(q_HD[:, None], key_1TD, dim=-1)
    claimed_HT = probability(cosine_HT, 3, 8)
    deviation_HT = (claimed_HT * (1 - claimed_HT) / draws).sqrt()
    gap_HT = (seen_HT / draws - claimed_HT) / deviation_HT
    assert gap_HT.abs().max() < 4.5
    assert gap_HT.square().mean() < 1.6
    assert claimed_HT.min() < 0.1
    assert claimed_HT.max() > 0.5


def test_no_key_collides() -> None:
    key_1TD, planes_LDK = torch.zeros(1, 3, 8), torch.eye(8)[:2, :, None]
    key_1TD[0, :, :2] = torch.tensor([[1.0, 1.0], [1.0, 1.0], [4.0, 4.0]])  # two down, one up
    up, down = torch.ones(8), torch.tensor([1.0, -1, 0, 0, 0, 0, 0, 0])
    tables = HashIndex(key_1TD, planes_LDK, 3)
    hits = tables.search(torch.stack([down, up]))
    assert hits.found.count_N.tolist() == [0, 1]
    assert hits.found.start_NK[1].tolist() == [5]
    alone = tables.search(down[None])
    assert alone.found.count_N.tolist() == [0]
    with pytest.raises(ValueError, match="keys holds NaN or infinity"):
        HashIndex(key_1TD / 0, planes_LDK, 0)
