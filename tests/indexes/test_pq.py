"""Product quantisation against loops that share no code with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from longspan.indexes.base import Budget, Segment
from longspan.indexes.pq import CODES, PQIndex
from longspan_kernels.product_codes import encode, train
from longspan_kernels.product_codes.reference import decode, look_up
from longspan_kernels.types import Coded

if TYPE_CHECKING:
    from pathlib import Path

    from longspan_kernels.dispatch import Backend


def keys(tokens: int, size: int = 8, groups: int = 2, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    spots = torch.randn(groups, 12, size, generator=rng) * 3
    which = torch.randint(12, (tokens,), generator=rng)
    return spots[:, which] + torch.randn(groups, tokens, size, generator=rng) + 5


def segment(keys_GTD: torch.Tensor, first: int) -> Segment:
    return Segment(keys_GTD, keys_GTD, first)


def lloyd(points: list[list[float]], clusters: int, rounds: int) -> list[list[float]]:
    """k-means on one part of one head, number by number."""
    centres = [points[c * len(points) // clusters] for c in range(clusters)]
    for _ in range(rounds):
        members: list[list[list[float]]] = [[] for _ in centres]
        for point in points:
            far = [sum((a - b) ** 2 for a, b in zip(point, c, strict=True)) for c in centres]
            members[far.index(min(far))].append(point)
        centres = [
            [sum(column) / len(own) for column in zip(*own, strict=True)] if own else centre
            for own, centre in zip(members, centres, strict=True)
        ]
    return centres


@pytest.mark.parametrize(
    ("backend", "block"), [("auto", 2**24), ("reference", 2**24), ("reference", 100)]
)
def test_training_is_k_means_by_euclidean_distance(
    backend: Backend, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longspan_kernels.product_codes.reference.BLOCK", block)
    given_GTD = keys(150)
    centroids_GPCE = train(given_GTD, 2, 8, 4, backend=backend)
    code_GPT = encode(given_GTD, centroids_GPCE, backend=backend)
    assert centroids_GPCE.shape == (2, 2, 8, 4)
    for group in range(2):
        for part in range(2):
            points = given_GTD[group, :, 4 * part : 4 * part + 4]
            right = torch.tensor(lloyd(points.double().tolist(), 8, 4))
            torch.testing.assert_close(centroids_GPCE[group, part], right, atol=1e-5, rtol=1e-5)
            far = (points[:, None] - right).square().sum(-1)
            assert torch.equal(code_GPT[group, part].long(), far.argmin(1))


@pytest.mark.parametrize("tokens", [1, 5, 64])
def test_keys_with_a_centroid_each_are_kept_exactly(tokens: int) -> None:
    given_GTD = keys(tokens, size=24, groups=3)
    centroids_GPCE = train(given_GTD, 3, 64, 5)
    code_GPT = encode(given_GTD, centroids_GPCE)
    torch.testing.assert_close(decode(code_GPT, centroids_GPCE), given_GTD)
    q_HD = torch.randn(6, 24)
    right = torch.stack([given_GTD[h // 2] @ q_HD[h] for h in range(6)])
    found = look_up(q_HD, Coded(centroids_GPCE, code_GPT)).flatten(0, 1)
    torch.testing.assert_close(found, right, atol=1e-4, rtol=1e-4)


def test_training_looks_at_an_even_sample_of_many_keys() -> None:
    many_GTD = keys(3 * 512)
    assert torch.equal(train(many_GTD, 2, 2, 3), train(many_GTD[:, ::3], 2, 2, 3))


def test_more_bits_and_parts_keep_more_of_the_keys() -> None:
    given_GTD = torch.randn(1, 600, 8, generator=torch.Generator().manual_seed(1))
    error = {}
    for parts, bits in ((1, 4), (2, 4), (2, 6), (4, 6)):
        centroids_GPCE = train(given_GTD, parts, 2**bits, 8)
        again = decode(encode(given_GTD, centroids_GPCE), centroids_GPCE)
        error[parts, bits] = float((again - given_GTD).norm() / given_GTD.norm())
    assert error[1, 4] > error[2, 4] > error[2, 6] > error[4, 6]
    assert error[4, 6] < 0.2


@pytest.mark.parametrize("share", ["kv_head", "query_head"])
def test_search_is_the_best_of_the_weights_of_what_is_stored(share: str) -> None:
    given_GTD, q_HD = keys(300), torch.randn(6, 8, generator=torch.Generator().manual_seed(2))
    index = PQIndex(parts=2, bits=4, rounds=3, share=share)  # type: ignore[arg-type]
    index.build(segment(given_GTD[:, :200], 7))
    index.append(segment(given_GTD[:, 200:], 207))
    centroids_GPCE = train(given_GTD[:, :200], 2, 16, 3)
    stored_GTD = decode(encode(given_GTD, centroids_GPCE), centroids_GPCE).double()
    weights = [(stored_GTD[h // 3] @ q_HD[h].double() * 0.4).softmax(0) for h in range(6)]
    if share == "kv_head":
        weights = [weights[0] + weights[1] + weights[2], weights[3] + weights[4] + weights[5]]
    found = index.search(q_HD, Budget(retrieve_tokens=10), 0.4)
    assert found.retrieved.count_N.tolist() == [10] * len(weights)
    for row, weight_T in zip(found.retrieved.start_NK, weights, strict=True):
        # tokens of one code weigh the same, so weights are compared rather than tokens
        right = weight_T.topk(10).values
        best = weight_T[row.long() - 7].sort(descending=True).values
        torch.testing.assert_close(best, right, atol=1e-9, rtol=1e-4)
        assert len(set(row.tolist())) == 10
    assert found.distances == 16
    assert found.bytes == index.nbytes == 2 * 2 * 300 + centroids_GPCE.nbytes


def test_weights_too_small_for_float32_are_still_ranked() -> None:
    given_GTD = torch.linspace(0, 60, 60)[None, :, None].expand(1, -1, 8) / 4
    index = PQIndex()
    index.build(segment(given_GTD, 0))
    found = index.search(torch.full((2, 8), 10.0), Budget(retrieve_tokens=40), 1.0)
    assert sorted(found.retrieved.start_NK[0].tolist()) == list(range(20, 60))


def test_a_longer_stretch_of_the_prompt_gets_a_codebook_of_its_own() -> None:
    short, long, q_HD = keys(20), keys(60, seed=3), torch.ones(2, 8)
    index = PQIndex(bits=6)
    index.append(segment(short, 0))
    index.build(segment(short, 20))  # no longer than what is there: each key has its centroid
    twin = index.fork()
    assert index.search(q_HD, Budget(5), 1.0).distances == 20
    index.build(segment(long, 40))
    assert index.search(q_HD, Budget(5), 1.0).distances == 20 + 60
    assert (index.tokens, twin.tokens) == (100, 40)
    found = index.search(q_HD, Budget(9), 1.0).retrieved.start_NK
    every_GTD = torch.cat([short, short, long], dim=1)
    for group in range(2):
        right = every_GTD[group].sum(1).topk(9).values
        best = every_GTD[group, found[group].long()].sum(1).sort(descending=True).values
        torch.testing.assert_close(best, right)


def test_it_refuses_what_is_wrong() -> None:
    index, given_GTD = PQIndex(), keys(30)
    index.build(segment(given_GTD, 4))
    with pytest.raises(ValueError, match="should begin at 34"):
        index.append(segment(given_GTD, 30))
    for wrong in (0, 31):
        with pytest.raises(ValueError, match=f"retrieve_tokens is {wrong}; it should be 1 to 30"):
            index.search(torch.ones(2, 8), Budget(retrieve_tokens=wrong), 1.0)
    with pytest.raises(ValueError, match=r"method\.parts is 3; it should divide the head size, 8"):
        PQIndex(parts=3).build(segment(given_GTD, 0))
    with pytest.raises(ValueError, match=r"method\.bits is 9"):
        PQIndex(bits=9)
    for poison in (float("nan"), float("inf")):
        bad_GTD = given_GTD.clone()
        bad_GTD[1, 3, 2] = poison
        with pytest.raises(ValueError, match="keys holds NaN or infinity"):
            index.append(segment(bad_GTD, 34))
    assert index.tokens == 30


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing is indexed"):
        PQIndex().save(tmp_path)
    index = PQIndex(parts=4, bits=3, share="query_head")
    index.build(segment(keys(50), 9))
    index.build(segment(keys(90, seed=1), 59))
    index.save(tmp_path)
    again = PQIndex.load(tmp_path)
    q_HD = torch.randn(4, 8)
    found, right = (each.search(q_HD, Budget(12), 0.3) for each in (again, index))
    assert torch.equal(found.retrieved.start_NK, right.retrieved.start_NK)
    assert (again.tokens, again.nbytes, found.distances) == (140, index.nbytes, right.distances)
    again.append(segment(keys(3), 149))
    (tmp_path / CODES).unlink()
    with pytest.raises(ValueError, match=CODES):
        PQIndex.load(tmp_path)
