"""Codes of all keys as an index: its stretches, its files, what it counts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from longspan.indexes.base import Budget, Segment
from longspan.indexes.key_codes import CODES, CodeOptions, KeyCodesIndex

if TYPE_CHECKING:
    from pathlib import Path


def segment(tokens: int, first: int) -> Segment:
    rng = torch.Generator().manual_seed(first)
    keys_GTD, queries_HSD = (torch.randn(2, n, 64, generator=rng) for n in (tokens, 40))
    return Segment(keys_GTD, keys_GTD, first, queries_HSD.repeat(2, 1, 1))


def built(**options: float) -> KeyCodesIndex:
    index = KeyCodesIndex(CodeOptions(**options))  # type: ignore[arg-type]
    index.build(segment(300, 4))
    index.append(segment(50, 304))
    return index


def test_saved_indexes_answer_alike(tmp_path: Path) -> None:
    keys_GTD = torch.cat([segment(300, 4).keys_GTD, segment(50, 304).keys_GTD], 1)
    for options in ({}, {"rank": 0.5, "candidates": 1.5}):
        index, q_HD, budget = built(**options), torch.randn(4, 64), Budget(12)
        index.save(tmp_path)
        again = KeyCodesIndex.load(tmp_path, keys_GTD)
        right, found = (one.search(q_HD, budget, 0.25) for one in (index, again))
        assert torch.equal(found.retrieved.start_NK, right.retrieved.start_NK)
        width, reread = (64, 0) if not options else (32, 4 * 18 * 64 * 4)
        assert found.bytes == right.bytes == 2 * 350 * width + reread
        assert found.distances == right.distances == 350 + (18 if options else 0)
        again.append(segment(20, 354))
        assert (again.tokens, index.tokens) == (370, 350)


def test_forks_grow_apart() -> None:
    index = built()
    twin = index.fork()
    twin.append(segment(64, 354))
    assert (index.tokens, twin.tokens) == (350, 414)
    # codes of a byte a column beside a step a column and stretch
    assert twin.nbytes - index.nbytes == 2 * (64 * 64 + 64 * 4)


def test_late_keys_of_another_range_are_found() -> None:
    index = built()
    late = segment(30, 354)
    late.keys_GTD[0, 7] *= 50
    index.append(late)
    q_HD = late.keys_GTD[:, 7].repeat_interleave(2, 0)
    found = index.search(q_HD, Budget(1), 0.25).retrieved.start_NK
    assert found[:2].tolist() == [[361], [361]]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    index = built()
    with pytest.raises(ValueError, match="segment begins at slot 355; it should begin at 354"):
        index.append(segment(5, 355))
    with pytest.raises(ValueError, match="retrieve_tokens is 351; it should be 1 to 350"):
        index.search(torch.randn(4, 64), Budget(351), 0.25)
    with pytest.raises(ValueError, match="nothing is indexed"):
        KeyCodesIndex(CodeOptions()).save(tmp_path)
    index.save(tmp_path)
    with pytest.raises(
        ValueError, match=r"keys has shape \[2, 7, 64\]; it should be \[2, 350, 64\]"
    ):
        KeyCodesIndex.load(tmp_path, torch.randn(2, 7, 64))
    (tmp_path / CODES).write_bytes(b"")
    with pytest.raises(ValueError, match=r"codes\.safetensors holds no mean_GD"):
        KeyCodesIndex.load(tmp_path)


def test_an_index_without_its_keys_goes_on_by_codes(tmp_path: Path) -> None:
    built(candidates=1.5).save(tmp_path)
    index = KeyCodesIndex.load(tmp_path)
    index.append(segment(20, 354))
    assert index.search(torch.randn(4, 64), Budget(12), 0.25).distances == 370


def test_a_stretch_that_is_refused_leaves_nothing_behind() -> None:
    index = KeyCodesIndex(CodeOptions())
    broken = segment(300, 4)
    broken.keys_GTD[0, 5, 5] = torch.nan
    with pytest.raises(ValueError, match="keys holds NaN"):
        index.build(broken)
    index.build(segment(300, 9))
    assert index.search(torch.randn(4, 64), Budget(1), 0.25).retrieved.start_NK.min() >= 9


def test_queries_say_which_columns_count() -> None:
    one, other = (KeyCodesIndex(CodeOptions(rank=0.5)) for _ in range(2))
    given = segment(300, 4)
    one.build(given)
    assert given.queries_HSD is not None
    other.build(replace(given, queries_HSD=given.queries_HSD * torch.linspace(0.1, 5, 64)))
    q_HD = torch.randn(4, 64)
    found = [each.search(q_HD, Budget(30), 0.25).retrieved.start_NK for each in (one, other)]
    assert not torch.equal(*found)
