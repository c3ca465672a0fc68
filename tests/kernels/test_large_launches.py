"""What 16 prompts of a million tokens and 64 KV heads ask of the Triton kernels: grids that a GPU
takes, and offsets of more than 32 bits.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from triton_cases import CUDA

from longspan_kernels.types import Chosen, CodedRows, Pages, Runs

if TYPE_CHECKING:
    from collections.abc import Iterator

REASON = None if find_spec("triton") else "Triton is not installed"
if REASON is None and CUDA:
    REASON = "there is a GPU, on which Triton does not interpret"
if REASON is None:
    from large_launches import last_programs, unwritten, why_not

    from longspan_kernels.block_sparse_prefill.triton import block_sparse_prefill
    from longspan_kernels.cached_decode import CachedStore, PagePool
    from longspan_kernels.cached_decode.store import _addresses
    from longspan_kernels.cached_decode.triton import admit_pages, cached_decode
    from longspan_kernels.cell_scores.triton import cell_scores
    from longspan_kernels.dense_decode.triton import decode
    from longspan_kernels.hash_tables.triton import hash_search, write_codes
    from longspan_kernels.key_scan import steps_triton
    from longspan_kernels.key_scan.steps import Candidates, SlotCodes
    from longspan_kernels.key_scan.triton import scan
    from longspan_kernels.page_gather.triton import page_gather
    from longspan_kernels.product_codes.tables_triton import encode, table_of
    from longspan_kernels.product_codes.triton import Stretch, write_scores, write_weights
    from longspan_kernels.segmented_kmeans.describe_triton import describe
    from longspan_kernels.segmented_kmeans.seeds_triton import list_least, meet, pick, space
    from longspan_kernels.segmented_kmeans.triton import assign, segmented_kmeans, update
    from longspan_kernels.step_slots.triton import append_token, zone_runs
    from longspan_kernels.types import HashTables
    from longspan_kernels.wave_decode.mass_triton import spread_bias
    from longspan_kernels.wave_decode.promote_triton import promoted
    from longspan_kernels.wave_search.triton import wave_search

    REASON = why_not()

pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
ROWS, GROUPS, TOKENS, WIDTH = 16, 64, 1 << 20, 128
HEADS, CLUSTERS = ROWS * GROUPS, TOKENS // 16
HALF, WHOLE = torch.float16, torch.int32


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    with last_programs(monkeypatch) as seen:
        yield seen


LAYOUTS = pytest.mark.parametrize("by_token", [False, True], ids=["by head", "by token"])
"""What lies together: the tokens of a head, or the heads of a token."""


def array(first: int, second: int, by_second: bool = False) -> torch.Tensor:
    """[first, second, WIDTH]."""
    if by_second:
        return unwritten(second, first, WIDTH, dtype=HALF).transpose(0, 1)
    return unwritten(first, second, WIDTH, dtype=HALF)


def buffers(by_token: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of all heads, whose last ones are 1 and 2."""
    keys_NCD, values_NCD = (array(HEADS, TOKENS, by_token) for _ in "kv")
    keys_NCD[-1, -1], values_NCD[-1, -1] = 1.0, 2.0
    return keys_NCD, values_NCD


def last_run(width: int, size: int | None = None) -> Runs:
    """Of the last head, the last token, among so many places."""
    start_NK, count_N = unwritten(HEADS, width, dtype=WHOLE), unwritten(HEADS, dtype=WHOLE)
    start_NK[-1, 0], count_N[-1] = TOKENS - 1, 1
    size_NK = None if size is None else unwritten(HEADS, width, dtype=WHOLE)
    if size_NK is not None:
        size_NK[-1, 0] = size or 1
    return Runs(start_NK, size_NK, count_N)


@LAYOUTS
def test_a_token_is_stored(grids: Any, by_token: bool) -> None:
    keys_NCD, values_NCD = buffers(by_token)
    k_BGD, at_B = torch.full((ROWS, GROUPS, WIDTH), 3.0), torch.full((ROWS,), TOKENS - 1)
    append_token(keys_NCD, values_NCD, k_BGD.to(HALF), k_BGD.to(HALF), at_B, None)
    assert keys_NCD[-1, -1].eq(3).all()
    assert values_NCD[-1, -1].eq(3).all()


def test_what_a_step_reads_is_listed(grids: Any) -> None:
    """All tokens, 16 query heads each of which choose for all."""
    wide = 16 * TOKENS
    at_B, id_NK = torch.full((ROWS,), TOKENS), unwritten(HEADS, wide, dtype=WHOLE)
    id_NK[-1, -1] = 7
    indexed_2B = torch.tensor([[4], [TOKENS]]).repeat(1, ROWS)
    count_N = torch.full((HEADS,), wide, dtype=WHOLE)
    runs = zone_runs(at_B, HEADS, Chosen(indexed_2B, id_NK, count_N), zones=True)
    assert runs.start_NK[-1, -1] == 7
    assert runs.size_NK is not None
    assert runs.size_NK[-1, -1] == 1
    assert grids[0][0] > 65_535  # or it would show nothing


@LAYOUTS
@pytest.mark.parametrize("size", [None, 1], ids=["tokens", "runs"])
def test_what_is_read_is_attended(grids: Any, size: int | None, by_token: bool) -> None:
    options: dict[str, Any] = dict.fromkeys(
        ("bias_GT", "key_scale_GT", "value_scale_GT", "softcap")
    )
    q_XD = torch.ones(HEADS, WIDTH, dtype=HALF)
    found = decode(
        q_XD, *buffers(by_token), runs=last_run(3000, size), expected=8, scale=0.1, **options
    )
    assert found.out[-1].eq(2).all()
    assert found.lse[-1] == pytest.approx(12.8)


def test_what_is_at_home_is_attended_and_admitted(grids: Any) -> None:
    home_GTD = unwritten(GROUPS, TOKENS, WIDTH, dtype=HALF)
    home_GTD[-1, -1] = 2.0
    near_NCD = unwritten(HEADS, TOKENS, WIDTH, dtype=HALF)
    owner_P = torch.full((1000,), -1, dtype=torch.int64)
    pages = unwritten(8000, WIDTH, dtype=HALF), unwritten(8000, WIDTH, dtype=HALF)
    store = CachedStore(
        near_NCD, near_NCD, torch.tensor([[0], [TOKENS]]).repeat(1, HEADS).int(), [],
        _addresses(home_GTD, 0).repeat(2, 1, ROWS), torch.zeros(1, HEADS, dtype=WHOLE),
        PagePool(*pages, owner_P, 8), unwritten(HEADS, TOKENS, dtype=WHOLE),
    )  # fmt: skip
    q_XD = torch.ones(HEADS, WIDTH, dtype=HALF)
    options: dict[str, Any] = {"scale": 0.1, "softcap": None, "expected": 8, "stacked": False}
    assert cached_decode(q_XD, store, last_run(30, 1), **options).out[-1].eq(2).all()
    listed_BA4 = torch.zeros(ROWS, 9, 4, dtype=WHOLE)
    listed_BA4[-1, -1] = torch.tensor([HEADS - 1, TOKENS - 1, 1, 7992])
    admit_pages(store, listed_BA4, torch.full((ROWS,), 9, dtype=WHOLE))
    assert pages[0][7992].eq(2).all()
    assert store.row_of_NT[-1, -1] == 7992
    assert owner_P[-1] == HEADS * TOKENS - 1
    home_GTD[-1, -1] = 3.0  # which nobody reads any more
    assert cached_decode(q_XD, store, last_run(30, 1), **options).out[-1].eq(2).all()


def test_pages_are_copied(grids: Any) -> None:
    store_GTD = unwritten(GROUPS, 1 << 22, WIDTH, dtype=HALF)
    store_GTD[-1, -1] = 2.0
    buffer_NED = unwritten(GROUPS, TOKENS, WIDTH, dtype=HALF)
    number_NP = torch.zeros(GROUPS, 5, dtype=WHOLE)
    source_NP, target_NP = number_NP - store_GTD.shape[1], number_NP + TOKENS - 1
    pages = Pages(source_NP, target_NP, number_NP + 1, number_NP[:, 0] + 5, 8)
    page_gather(store_GTD, store_GTD, None, None, pages, buffer_NED, buffer_NED, first=0)
    assert buffer_NED[-1, -1].eq(2).all()


@LAYOUTS
def test_clusters_are_ranked(grids: Any, by_token: bool) -> None:
    centroids_NCD = array(HEADS, CLUSTERS, by_token)
    size_NC = unwritten(HEADS, CLUSTERS, dtype=WHOLE)
    centroids_NCD[-1, -1], size_NC[-1, -1] = 1.0, 16
    hits = wave_search(
        torch.ones(HEADS, WIDTH, dtype=HALF), centroids_NCD, size_NC, retrieve=1, estimate=9,
        scale=0.1, softcap=None, vote="sum", bias_GC=unwritten(HEADS, CLUSTERS), weight_H=None,
        within=None, want_scores=True, most_2G=torch.ones(2, HEADS, dtype=WHOLE),
    )  # fmt: skip
    assert hits.score_HC is not None
    assert hits.score_HC[-1, -1] == pytest.approx(12.8)
    assert hits.retrieve_GK[-1, 0] == CLUSTERS - 1


def test_clusters_are_weighed_and_promoted(grids: Any) -> None:
    heads, last = 65_535, CLUSTERS - 1  # more heads, lest fewer numbers show nothing
    one_NC = unwritten(heads, CLUSTERS)
    one_NC[-1, -1] = 1.0
    bias_NC = spread_bias(one_NC, one_NC, torch.ones(heads, WIDTH), 1.0)
    assert bias_NC[-1, -1] > 1
    ids = torch.full((heads, 1), last, dtype=WHOLE)
    given = Runs(ids, None, torch.ones(heads, dtype=WHOLE))
    read, _ = promoted(given, given, one_NC, bias_NC, one_NC, None, 0.0)
    assert read.start_NK[-1].tolist() == [last, last]


def test_codes_are_scanned_in_steps(grids: Any) -> None:
    """Stretches of one token, as with method.update_tokens=1, and all of them ordered by keys."""
    room, columns = 2 * TOKENS, 64
    keys_NCD = unwritten(HEADS, room, WIDTH, dtype=HALF)
    keys_NCD[-1, -1] = 1.0
    codes = SlotCodes(
        unwritten(HEADS, room, columns, dtype=torch.int8), unwritten(HEADS, room, columns),
        torch.ones(HEADS, WIDTH, columns), unwritten(ROWS, room, dtype=WHOLE),
        torch.zeros(ROWS, dtype=WHOLE), torch.full((ROWS,), room, dtype=WHOLE),
    )  # fmt: skip
    codes.code_NTW[-1, -1], codes.step_NSW[-1, -1] = 1, 1.0
    codes.stretch_BT[-1, -128:] = room - 1  # of what a program looks at
    q_XD = torch.ones(2 * HEADS, WIDTH, dtype=HALF)
    order_XT = steps_triton.scan(q_XD, codes)
    assert order_XT[-1, -1] & 0xFFFFFFFF == room - 1
    candidates = Candidates(keys_NCD, room, torch.full((ROWS,), room, dtype=WHOLE))
    found_XC = unwritten(2 * HEADS, room, dtype=torch.int64)
    found_XC[-1, -1] = room - 1
    best_XC = steps_triton.exactly(q_XD, found_XC, candidates)
    assert best_XC[-1, -1] & 0xFFFFFFFF == room - 1
    assert best_XC[-1, -1] >> 32 == torch.tensor(128.0).view(WHOLE)
    assert {grid[0] > 65_535 for grid in grids[::2]} == {True}  # or it would show nothing


def test_codes_are_scanned(grids: Any) -> None:
    code_GTW = unwritten(GROUPS, TOKENS, 64, dtype=torch.int8)
    code_GTW[-1, -1] = 1
    order_HT = unwritten(GROUPS, TOKENS, dtype=torch.int64)
    scan(torch.ones(GROUPS, 64), code_GTW, order_HT, 0)
    assert order_HT[-1, -1] & 0xFFFFFFFF == TOKENS - 1


@pytest.mark.parametrize("parts", [2, 64])
def test_products_are_looked_up(grids: Any, parts: int) -> None:
    """65,536 parts of all heads, where a head has 64."""
    q_XD = torch.ones(2 * HEADS, WIDTH, dtype=HALF)
    table_NPRC = table_of(q_XD, torch.ones(HEADS, parts, 16, WIDTH // parts), 1.0)
    assert table_NPRC[-1, -1, -1, -1] == WIDTH // parts
    code_NPT = unwritten(HEADS, parts, TOKENS, dtype=torch.uint8)
    score_XT = unwritten(2 * HEADS, TOKENS)
    stop_BS = torch.full((ROWS, 1), TOKENS, dtype=WHOLE)
    table_NPRC.fill_(1.0)
    rows = CodedRows(q_XD, code_NPT, stop_BS)
    write_scores([Stretch(rows.code_NPT, table_NPRC, score_XT, stop_BS)])
    assert score_XT[-1, -1] == parts
    score_NT = unwritten(HEADS, TOKENS)
    write_weights([Stretch(rows.code_NPT, table_NPRC, score_NT, stop_BS)])
    assert score_NT[-1, -1].isfinite()
    assert (parts == 64) == (grids[0][0] > 65_535)


def test_keys_are_coded(grids: Any) -> None:
    keys_GTD = unwritten(GROUPS, TOKENS, WIDTH, dtype=HALF)
    keys_GTD[-1, -1] = 1.0
    centroids_GPCE = torch.zeros(GROUPS, 1, 16, WIDTH)
    centroids_GPCE[:, :, 5] = 1.0
    assert encode(keys_GTD, centroids_GPCE)[-1, -1, -1] == 5


def test_clusters_are_made(grids: Any) -> None:
    """More segments of all heads than a second dimension has programs."""
    keys_GTD = torch.rand(GROUPS, 2200, 16)
    options: dict[str, Any] = {"clusters": 1100, "segments": 1100, "iterations": 2}
    segmented_kmeans(keys_GTD, keys_GTD, **options, seeding="even", final="segment")
    assert {grid[0] for grid in grids[1:5]} == {GROUPS * 1100}


def test_clusters_of_a_million_keys(grids: Any) -> None:
    """What the launches of `segmented_kmeans` do to the last token and the last cluster."""
    keys_GTD = unwritten(GROUPS, TOKENS, WIDTH, dtype=HALF)
    keys_GTD[-1, -1] = 1.0
    mean_GD = torch.zeros(GROUPS, WIDTH)
    centroids_GCD = unwritten(GROUPS, TOKENS // 2, WIDTH, dtype=HALF)
    centroids_GCD[-1, -1] = 0.5
    label_GT = unwritten(GROUPS, TOKENS, dtype=torch.int64)
    segments = TOKENS // 16
    arrays = keys_GTD, centroids_GCD, label_GT, TOKENS, TOKENS // 2, WIDTH, segments
    rest = *keys_GTD.stride()[:2], keys_GTD, keys_GTD
    blocks: dict[str, Any] = {"BLOCK_T": 32, "BLOCK_C": 64, "BLOCK_D": WIDTH}
    grid = (GROUPS * segments,)
    assign[grid](*arrays, *rest, EVERYWHERE=False, LESS=False, **blocks)
    assert label_GT[-1, -1] == TOKENS // 2 - 1
    update[grid](*arrays, **blocks)
    assert centroids_GCD[-1, -1].tolist() == pytest.approx([WIDTH**-0.5] * WIDTH, abs=1e-3)
    start_GC, size_GC = (unwritten(GROUPS, TOKENS // 2, dtype=WHOLE) for _ in "ss")
    start_GC[-1, -1], size_GC[-1, -1] = TOKENS - 1, 1
    label_GT[-1, -1] = TOKENS - 1  # the order, in which the last one stays
    means = unwritten(GROUPS, TOKENS // 2, WIDTH), unwritten(GROUPS, TOKENS // 2, WIDTH)
    describe[(TOKENS // 2, GROUPS)](
        keys_GTD, keys_GTD, mean_GD, label_GT, start_GC, size_GC, *means,
        unwritten(GROUPS, TOKENS // 2), TOKENS, TOKENS // 2, WIDTH, *keys_GTD.stride()[:2],
        *keys_GTD.stride()[:2], BLOCK_T=16, BLOCK_D=WIDTH,
    )  # fmt: skip
    assert all(each[-1, -1].eq(1).all() for each in means)


def test_seeds_of_a_million_keys(grids: Any) -> None:
    """What the launches that find seeds do in the last of many short segments."""
    keys_GTD, segments = unwritten(GROUPS, TOKENS, WIDTH, dtype=HALF), TOKENS // 16
    keys_GTD[-1, -1], keys_GTD[-1, -10] = 0.5, 1.0
    short_GT, near_GT = unwritten(GROUPS, TOKENS), unwritten(GROUPS, TOKENS)
    short_GT[-1, -1], short_GT[-1, -10] = 2 * WIDTH**-0.5, WIDTH**-0.5
    seed_GC = unwritten(GROUPS, TOKENS // 2, dtype=torch.int64)
    pool_NP = unwritten(GROUPS * segments, 64, dtype=torch.int64)
    sizes, batch, grid = (TOKENS, TOKENS // 2), {"BATCH": 16}, (GROUPS * segments,)
    space[grid](seed_GC, near_GT, *sizes, segments, 0.5, **batch, BLOCK_C=16)
    assert seed_GC[-1, -8:-4].tolist() == [TOKENS - 16 + each for each in (2, 6, 10, 14)]
    arrays, more = (keys_GTD, short_GT), (*sizes, WIDTH, segments, 0.5)
    blocks = {"BLOCK_T": 16, "BLOCK_S": 16, "BLOCK_D": WIDTH}
    meet[grid](*arrays, seed_GC, near_GT, *more, -1, 1, **batch, **blocks)
    assert near_GT[-1, -1] == pytest.approx(1.0, abs=1e-3)
    list_least[grid](near_GT, pool_NP, *sizes, segments, POOL=64, READ=64)
    assert pool_NP[-1].tolist() == [*range(TOKENS - 16, TOKENS), *[-1] * 48]
    pick[grid](*arrays, near_GT, pool_NP, seed_GC, *more, 0, **batch, POOL=64, BLOCK_D=WIDTH)
    assert seed_GC[-1, -4:].tolist() == [TOKENS - 16 + each for each in (0, 1, 3, 4)]


def test_keys_are_hashed_and_found(grids: Any) -> None:
    tables, bits = 150, 10
    keys_GTD = unwritten(GROUPS, TOKENS, WIDTH, dtype=HALF)
    keys_GTD[-1, -1] = 1.0
    code_GLT = unwritten(GROUPS, tables, TOKENS, dtype=WHOLE)
    write_codes(keys_GTD, None, torch.ones(tables, WIDTH, bits), code_GLT)
    assert code_GLT[-1, -1, -1] == 2**bits - 1
    hashed = HashTables(
        unwritten(GROUPS, tables, TOKENS, dtype=WHOLE),
        unwritten(GROUPS, tables, 2**bits + 1, dtype=WHOLE),
    )
    hashed.token_GLT[-1, -1, -1], hashed.bound_GLC[-1, -1, -2:] = TOKENS - 1, TOKENS - 1
    hashed.bound_GLC[-1, -1, -1] = TOKENS
    _, size = hash_search(torch.full((GROUPS, tables), 2**bits - 1, dtype=WHOLE), hashed, 4)
    assert size == 1


@LAYOUTS
def test_cells_are_scored(grids: Any, by_token: bool) -> None:
    heads, block = 128, 1024
    q_HQD, (keys_GTD, _) = array(heads, TOKENS, by_token), buffers(by_token)
    q_HQD[-1, -1], keys_GTD[-1, -32] = 1.0, 1.0
    cut: dict[str, Any] = {"stride": 32, "block": block, "ahead": 0}
    found = cell_scores(q_HQD, keys_GTD[-GROUPS:], scale=0.5, softcap=None, **cut)
    assert found[-1, -1, -1] == pytest.approx(64.0)


@LAYOUTS
def test_blocks_are_attended(grids: Any, by_token: bool) -> None:
    heads, block = 128, 4096
    q_HQD, (keys_GTD, values_GTD) = array(heads, TOKENS, by_token), buffers(by_token)
    q_HQD[-1, -1] = 1.0
    blocks_HXY = unwritten(heads, TOKENS // block, TOKENS // block, dtype=torch.bool)
    blocks_HXY[-1, -1, -1] = True
    given = SimpleNamespace(columns_HT=None, block=block, scale=1.0, softcap=None, causal=True)
    found = block_sparse_prefill(
        q_HQD, keys_GTD[-GROUPS:], values_GTD[-GROUPS:], blocks_HXY, **vars(given)
    )
    assert found.lse[-1, -1] == pytest.approx(128.0)
    assert found.out[-1, -1].tolist() == pytest.approx([2.0] * WIDTH)
