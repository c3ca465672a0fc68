"""Inputs that are no numbers, too large or too few: NaN where the reference has it, or one line."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import assert_same

from longspan_kernels import dispatch
from longspan_kernels.attention_graph import GraphOptions, build
from longspan_kernels.dense_decode import dense_decode
from longspan_kernels.hash_tables import codes, hash_build, hash_search
from longspan_kernels.merge import merge
from longspan_kernels.product_codes import best_tokens, encode, train
from longspan_kernels.types import Coded, Partial
from longspan_kernels.wave_search import wave_search

EMPTY = float("-inf")


@pytest.mark.parametrize("other", [EMPTY, 1.0, torch.nan])
def test_a_part_that_is_nan_does_not_vanish(isa: str, other: float) -> None:
    parts = [
        Partial(torch.full((2, 16), fill), torch.full((2,), lse))
        for fill, lse in ((0.0, other), (torch.nan, torch.nan), (0.0, EMPTY))
    ]
    found = merge(parts, backend=isa)
    assert found.lse.isnan().all()
    assert found.out.isnan().all()


@pytest.mark.parametrize("entries", [100, 3000, 9000])
def test_nan_stays_nan_however_many_pieces_there_are(isa: str, entries: int) -> None:
    q_HD, k_GTD, v_GTD = (
        torch.randn(4, 32),
        torch.randn(2, entries, 32),
        torch.randn(2, entries, 32),
    )
    q_HD[1, 3] = torch.nan
    found = dense_decode(q_HD, k_GTD, v_GTD, scale=0.2, backend=isa)
    assert found.lse.isnan().tolist() == [False, True, False, False]
    assert found.out[1].isnan().all()
    right = dense_decode(q_HD, k_GTD, v_GTD, scale=0.2, backend="reference")
    assert_same(Partial(found.out[2:], found.lse[2:]), Partial(right.out[2:], right.lse[2:]))


def test_a_centroid_that_is_nan_hides_no_cluster(isa: str) -> None:
    c_GCD, size_GC = torch.randn(2, 300, 32), torch.ones(2, 300, dtype=torch.int32)
    c_GCD[0, 7, 1] = torch.nan
    q_HD = torch.randn(4, 32)
    found, right = (
        wave_search(q_HD, c_GCD, size_GC, retrieve=10, estimate=40, scale=0.2, backend=backend)
        for backend in (isa, "reference")
    )
    assert found.live_G.tolist() == right.live_G.tolist() == [50, 50]
    assert found.retrieve_GK[1].tolist() == right.retrieve_GK[1].tolist()
    for ids_G in torch.cat([found.retrieve_GK, found.estimate_GK], dim=1).tolist():
        assert len(set(ids_G)) == 50
        assert 0 <= min(ids_G) <= max(ids_G) < 300


def test_codes_of_a_key_that_is_nan_still_name_tokens(isa: str) -> None:
    keys_GTD = torch.randn(1, 300, 32)
    keys_GTD[0, 17, 3] = torch.nan
    centroids = train(keys_GTD, 2, 16, 1, backend=isa)
    coded = [Coded(centroids, encode(keys_GTD, centroids, backend=isa))]
    ids_NK = best_tokens(torch.randn(2, 32), coded, 20, scale=0.2, backend=isa)
    assert len(set(ids_NK[0].tolist())) == 20
    assert 0 <= int(ids_NK.min()) <= int(ids_NK.max()) < 300


def test_huge_keys_make_a_graph(isa: str) -> None:
    keys_TD = torch.randn(700, 32) * 1e37
    graph = build(keys_TD, torch.randn(50, 32), GraphOptions(degree=8, candidates=16), backend=isa)
    assert graph.tokens == 700


def test_tables_of_tokens_that_are_not_there_are_refused(isa: str) -> None:
    keys_GTD, planes_LDK = torch.randn(1, 90, 16), torch.randn(4, 16, 3)
    tables = hash_build(keys_GTD, keys_GTD.mean(1), planes_LDK, backend=isa)
    code_HL = codes(torch.randn(2, 16), planes_LDK).T
    behind = torch.full_like(tables.token_GLT, 90)
    beyond = torch.zeros_like(tables.bound_GLC)
    beyond[..., 1:] = 4000
    for broken in (tables._replace(token_GLT=behind), tables._replace(bound_GLC=beyond)):
        with pytest.raises(ValueError, match="a token that is not there"):
            hash_search(code_HL, broken, backend=isa)


def test_heads_of_no_size_are_no_matter_for_the_kernels(isa: str) -> None:
    empty = torch.zeros(2, 5, 0)
    with pytest.raises(ValueError, match="head size 0"):
        dense_decode(torch.zeros(2, 0), empty, empty, scale=1.0, backend=isa)


def test_the_bindings_want_at_least_one() -> None:
    rows, none = torch.zeros(4, 32), torch.zeros(4, 0, dtype=torch.int32)
    with pytest.raises(ValueError, match="k and threads at least 1"):
        dispatch.native.graph_nearest(rows, rows, none, 1, "portable")
    with pytest.raises(ValueError, match="threads must be at least 1"):
        dispatch.native.read(torch.zeros(8, dtype=torch.int64), -1, "portable")
