"""InfLLM's representatives: the block vectors and the one choice, found the slow way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from longspan.indexes.base import Budget, Segment
from longspan.indexes.representatives import RepresentativeIndex

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

BLOCK, BEST = 16, 3


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


KEYS, GIVEN, QUERY = numbers(2, 320, 24), numbers(2, 320, seed=1).exp(), numbers(6, 24, seed=2)


def built(*stops: int, dtype: torch.dtype = torch.float32) -> RepresentativeIndex:
    index, first = RepresentativeIndex(BLOCK, BEST), 0
    for stop in stops:
        keys_GTD = KEYS[:, first:stop].to(dtype)
        index.build(Segment(keys_GTD, keys_GTD, 5 + first, received_GT=GIVEN[:, first:stop]))
        first = stop
    return index


def slow_choice(blocks: int, wanted: int) -> list[int]:
    """Numbers of blocks, best first."""
    scores = []
    for block in range(blocks):
        score = 0.0
        for head in range(6):
            group, tokens = head // 3, range(block * BLOCK, (block + 1) * BLOCK)
            best = sorted(tokens, key=lambda t: -float(GIVEN[group, t]))[:BEST]
            mean_D = sum(KEYS[group, t].double() for t in best) / BEST
            score += float(QUERY[head].double() @ mean_D)
        scores.append(score)
    return sorted(range(blocks), key=lambda block: -scores[block])[:wanted]


def test_the_best_blocks_are_the_same_for_every_head() -> None:
    found = built(320).search(QUERY, Budget(70), 0.3)
    runs = found.retrieved
    right = [5 + BLOCK * block for block in slow_choice(20, 5)]
    assert runs.start_NK.tolist() == [right, right]
    assert runs.size_NK is not None
    assert (runs.size_NK == BLOCK).all()
    assert runs.count_N.tolist() == [5, 5]
    assert (found.distances, found.bytes) == (20, 2 * 20 * 24 * 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_blocks_are_known_in_the_dtype_of_the_keys(dtype: torch.dtype) -> None:
    index = built(320, dtype=dtype)
    assert index.nbytes == 2 * 20 * 24 * 2
    score_HP = index.scores(QUERY.to(dtype), 1.0)
    torch.testing.assert_close(score_HP, built(320).scores(QUERY, 1.0), atol=0.1, rtol=0.05)


def test_stretches_are_one_index_and_a_fork_grows_alone() -> None:
    whole, grown = built(320), built(160)
    twin = grown.fork()
    for first in range(160, 320, BLOCK):
        stretch = slice(first, first + BLOCK)
        keys_GTD = KEYS[:, stretch]
        twin.append(Segment(keys_GTD, keys_GTD, 5 + first, received_GT=GIVEN[:, stretch]))
    assert (grown.tokens, twin.tokens) == (160, 320)
    found, right = (each.search(QUERY, Budget(64), 1.0).retrieved for each in (twin, whole))
    assert torch.equal(found.start_NK, right.start_NK)


def test_it_survives_a_file(tmp_path: Path) -> None:
    index = built(160, 320)
    index.save(tmp_path)
    loaded = RepresentativeIndex.load(tmp_path)
    found, right = (each.search(QUERY, Budget(40), 1.0) for each in (loaded, index))
    assert torch.equal(found.retrieved.start_NK, right.retrieved.start_NK)
    assert loaded.representatives == BEST
    keys_GTD = KEYS[:, :BLOCK]
    loaded.append(Segment(keys_GTD, keys_GTD, 325, received_GT=GIVEN[:, :BLOCK]))
    assert loaded.tokens == 336


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="representatives is 17 with page_tokens=16; it should be"):
        RepresentativeIndex(BLOCK, 17)
    with pytest.raises(ValueError, match="received is None"):
        RepresentativeIndex(BLOCK, BEST).build(Segment(KEYS, KEYS, 0))
    with pytest.raises(ValueError, match="keys has 20 tokens"):
        built(20)
