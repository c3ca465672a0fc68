"""The block cache: native against the reference, and what must hold of both."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan_kernels.block_cache import BlockCache, optimum, simulate
from longspan_kernels.page_gather import page_admit, page_gather
from longspan_kernels.types import Pages, Runs

BACKENDS = ("reference", "native")
POLICIES = ("lru", "tinylfu", "lfu")


def runs(*rows: list[tuple[int, int]]) -> Runs:
    """Rows of (start, size)."""
    width = max(map(len, rows))
    full = [row + [(-7, -7)] * (width - len(row)) for row in rows]
    start_NK, size_NK = torch.tensor(full, dtype=torch.int32).reshape(len(rows), width, 2).unbind(2)
    return Runs(start_NK, size_NK, torch.tensor([len(row) for row in rows], dtype=torch.int32))


class Store:
    """Slots in blocks of uneven sizes, and a cache of it whose rows are really copied. The layers
    have the same blocks, of other keys.
    """

    def __init__(
        self, seed: int, groups: int, pages: int, page: int, policy: str, layers: int = 1
    ) -> None:
        self.rng = torch.Generator().manual_seed(seed)
        sizes = self.number(0, 20, 30)
        starts = sizes.cumsum(0) - sizes
        self.blocks = list(zip(starts.tolist(), sizes.tolist(), strict=True))
        self.keys_LGTD = torch.randn(layers, groups, int(sizes.sum()), 8, generator=self.rng)
        self.pool = torch.full((pages * page, 8), float("nan"))
        self.caches = [
            BlockCache(
                pages, page=page, groups=groups, layers=layers, policy=policy, backend=backend
            )  # type: ignore[call-overload]
            for backend in BACKENDS
        ]

    def number(self, low: int, high: int, count: int) -> torch.Tensor:
        return torch.randint(low, high, (count,), generator=self.rng)

    def wanted(self, rows: int, most: int, skew: int) -> Runs:
        """Some blocks a row, the first of the list more often than the last."""
        lists = []
        for _ in range(rows):
            ids = (self.number(0, 10**6, most) / 10**6) ** skew * len(self.blocks)
            kept = list(dict.fromkeys(ids.int().tolist()))[: int(self.number(0, most + 1, 1))]
            lists.append([self.blocks[number] for number in kept])
        return runs(*lists)

    def step(self, wanted: Runs, layer: int = 0) -> tuple[int, int]:
        """Look up, gather, update and admit on both; what is gathered is what the store holds."""
        found = [cache.look_up(wanted, layer) for cache in self.caches]
        assert_same_pages(*(one.pages() for one in found))
        keys_GTD = self.keys_LGTD[layer]
        rows, groups = len(wanted.count_N), len(keys_GTD)
        buffer = torch.full((rows, found[1].length, 8), float("nan"))
        pages = found[1].pages()
        page_gather(keys_GTD, keys_GTD, self.pool, self.pool, pages, buffer, buffer)
        for one in found:
            place = one.buffered()
            for n, count in enumerate(wanted.count_N.tolist()):
                lists = (wanted.start_NK, wanted.size_NK, place.start_NK)
                columns = [list_NK[n, :count].tolist() for list_NK in lists]  # type: ignore[index]
                for start, size, at in zip(*columns, strict=True):
                    right_TD = keys_GTD[n * groups // rows, start : start + size]
                    assert torch.equal(buffer[n, at : at + size], right_TD)
        for cache, one in zip(self.caches, found, strict=True):
            cache.update(one)
        admitted = [cache.wait() for cache in self.caches]
        assert_same_pages(*admitted)
        page_admit(buffer, buffer, admitted[1], self.pool, self.pool)
        return found[1].hit_entries, found[1].miss_entries


def assert_same_pages(mine: Pages, theirs: Pages) -> None:
    assert torch.equal(mine.count_N, theirs.count_N)
    for n, count in enumerate(mine.count_N.tolist()):
        for name in ("source_NP", "target_NP", "size_NP"):
            assert torch.equal(getattr(mine, name)[n, :count], getattr(theirs, name)[n, :count])


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    policy=st.sampled_from(POLICIES),
    page=st.sampled_from((1, 3, 8)),
    pages=st.integers(0, 60),
    groups=st.integers(1, 3),
    heads=st.integers(1, 2),
    skew=st.integers(1, 4),
    layers=st.sampled_from((1, 1, 2, 3)),
)
def test_a_cache_hands_out_what_the_store_holds(
    seed: int, policy: str, page: int, pages: int, groups: int, heads: int, skew: int, layers: int
) -> None:
    store = Store(seed, groups, pages, page, policy, layers)
    for step in range(7 + layers):
        store.step(store.wanted(groups * heads, 6, skew), step % layers)
        if step == 4:
            for cache in store.caches:
                cache.grow(pages + 5)
            more = torch.full((5 * page, 8), float("nan"))
            store.pool = torch.cat([store.pool, more])
        free, blocks = ({getattr(c, n) for c in store.caches} for n in ("free_pages", "blocks"))
        assert len(free) == len(blocks) == 1
        assert 0 <= free.pop() <= store.caches[0].pages
        assert blocks.pop() <= store.caches[0].pages


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), policy=st.sampled_from(POLICIES), pages=st.integers(1, 40))
def test_no_page_belongs_to_two_blocks(seed: int, policy: str, pages: int) -> None:
    store = Store(seed, 2, pages, 4, policy)
    cache = store.caches[1]
    everything = runs(store.blocks, store.blocks)
    for _ in range(8):
        found = cache.look_up(store.wanted(2, 6, 2))
        cache.update(found)
        cache.wait()
        held = cache.look_up(everything).pages()
        rows = zip(held.source_NP, held.count_N.tolist(), strict=True)
        cached = [at for row_P, count in rows for at in row_P[:count].tolist() if at >= 0]
        assert len(set(cached)) == len(cached)
        assert all(source % 4 == 0 and source < 4 * pages for source in cached)
        assert len(cached) + cache.free_pages == pages


@pytest.mark.parametrize("backend", BACKENDS)
class TestPolicies:
    def held(self, cache: BlockCache, starts: str) -> str:
        """Which of the blocks a, b, c, ... of 8 slots are cached."""
        asked = runs([(8 * (ord(name) - 97), 8) for name in starts])
        source_P = cache.look_up(asked).pages().source_NP[0]
        return "".join(name for name, at in zip(starts, source_P, strict=True) if at >= 0)

    def read(self, cache: BlockCache, *steps: str) -> None:
        for step in steps:
            cache.update(cache.look_up(runs([(8 * (ord(name) - 97), 8) for name in step])))
            cache.wait()

    def test_lru_lets_the_one_go_that_was_not_read_for_longest(self, backend: str) -> None:
        cache = BlockCache(3, policy="lru", backend=backend)  # type: ignore[arg-type]
        self.read(cache, "abc", "a", "d")
        # of one step, the worst in rank goes first
        assert self.held(cache, "abcd") == "abd"

    def test_tinylfu_lets_nothing_in_that_is_read_once(self, backend: str) -> None:
        cache = BlockCache(2, policy="tinylfu", backend=backend)  # type: ignore[arg-type]
        self.read(cache, "ab", "ab", "c", "d", "e")
        assert self.held(cache, "abcde") == "ab"
        self.read(cache, "c", "c")
        assert self.held(cache, "abcde") == "ac"

    def test_lfu_lets_the_one_go_that_is_read_least_often(self, backend: str) -> None:
        cache = BlockCache(3, policy="lfu", backend=backend)  # type: ignore[arg-type]
        self.read(cache, "ab", "ab", "c", "d", "e")
        assert self.held(cache, "abcde") == "abe"

    def test_what_was_read_long_ago_goes_in_the_end(self, backend: str) -> None:
        for policy in POLICIES:
            cache = BlockCache(2, policy=policy, backend=backend)  # type: ignore[arg-type]
            self.read(cache, *["ab"] * 20, *["c", "d"] * 40)
            assert set(self.held(cache, "abcd")) == {"c", "d"}, policy

    def test_a_step_throws_out_nothing_that_it_reads(self, backend: str) -> None:
        for policy in POLICIES:
            cache = BlockCache(3, policy=policy, backend=backend)  # type: ignore[arg-type]
            self.read(cache, "abc", "cdefg")
            assert set(self.held(cache, "abcdefg")) >= {"c"}, policy
            assert len(self.held(cache, "abcdefg")) == 3

    def test_a_block_larger_than_the_cache_never_gets_in(self, backend: str) -> None:
        cache = BlockCache(2, policy="lru", backend=backend)  # type: ignore[arg-type]
        self.read(cache, "a")
        cache.update(cache.look_up(runs([(80, 17)])))
        assert not cache.wait().count_N.any()
        assert self.held(cache, "a") == "a"

    def test_a_block_of_two_sizes_in_a_step_stays_what_it_was_first(self, backend: str) -> None:
        for policy in POLICIES:
            cache = BlockCache(9, policy=policy, backend=backend)  # type: ignore[arg-type]
            for sizes in ((10, 20), (20, 10), (10, 10)):
                both = Runs(
                    torch.zeros(2, 1, dtype=torch.int32),
                    torch.tensor(sizes, dtype=torch.int32)[:, None],
                    torch.ones(2, dtype=torch.int32),
                )
                cache.update(cache.look_up(both))
                cache.wait()
                assert cache.blocks == 1, policy
            self.read(cache, "cd", "ef")
            assert cache.free_pages >= 0

    def test_a_block_of_another_size_is_another_block(self, backend: str) -> None:
        cache = BlockCache(9, policy="lru", backend=backend)  # type: ignore[arg-type]
        self.read(cache, "a")
        longer = cache.look_up(runs([(0, 20)]))
        assert (longer.hit_entries, longer.miss_entries) == (0, 20)
        cache.update(longer)
        cache.wait()
        assert cache.look_up(runs([(0, 20)])).hit_entries == 20
        assert cache.free_pages == 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_simulation_counts_what_it_read(backend: str) -> None:
    trace = [runs([(0, 8), (8, 4)], [(0, 8)]), runs([(0, 8)], [(0, 8), (16, 3)])]
    done = simulate(trace, 80, "lru", groups=2, entry_bytes=10, backend=backend)  # type: ignore[arg-type]
    assert (done.steps, done.hit_entries, done.miss_entries) == (2, 16, 23)
    assert done.hit_ratio == pytest.approx(16 / 39)
    assert done.bus_bytes == 230
    assert done.admitted_entries == 23
    assert simulate([], 80, "lru", backend=backend).hit_ratio == 0  # type: ignore[arg-type]


def test_the_optimum_keeps_what_is_read_again_soonest() -> None:
    orders = [[1, 2], [3], [2], [1], [3]]
    trace = [runs([(8 * number, 8) for number in order]) for order in orders]
    # With room for two blocks, 1 and 2 stay and the first 3 is not let in.
    best = optimum(trace, 16)
    assert (best.steps, best.hit_entries, best.miss_entries) == (5, 16, 32)
    assert optimum(trace, 1000).hit_entries == 24
    assert optimum(trace, 0).hit_entries == 0
    assert optimum([], 8).hit_ratio == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_layers_share_the_pages(backend: str, policy: str) -> None:
    """One reads four blocks at every step, the other one block: together they fit, where half of
    the pages each would not do. Blocks of one name are different ones in different layers.
    """
    much, little = runs([(0, 8), (8, 8), (16, 8), (24, 8)]), runs([(0, 8)])
    done = simulate([much, little] * 5, 40, policy, layers=2, backend=backend)  # type: ignore[arg-type]
    assert (done.steps, done.miss_entries, done.hit_entries) == (5, 40, 160)
    assert optimum([much, little] * 5, 40, layers=2).hit_entries == 160
    alone = simulate([much] * 5, 20, policy, backend=backend)  # type: ignore[arg-type]
    assert alone.miss_entries > 64


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_no_layer_throws_out_what_another_read_in_the_same_step(backend: str, policy: str) -> None:
    cache = BlockCache(2, layers=3, policy=policy, backend=backend)  # type: ignore[arg-type]

    def read(layer: int, start: int) -> None:
        cache.update(cache.look_up(runs([(start, 8)]), layer))
        cache.wait()

    for layer in range(3):
        read(layer, 0)
    held = [cache.look_up(runs([(0, 8)]), layer).hit_entries for layer in range(3)]
    assert held == [8, 8, 0]
    for _ in range(3):  # a new step each
        read(0, 80)
    assert cache.look_up(runs([(80, 8)]), 0).hit_entries == 8
    with pytest.raises(ValueError, match="layer is 3; the cache has 3, counted from 0"):
        read(3, 0)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("heads", "layers"), [(1, 1), (3, 1), (1, 4)])
def test_no_policy_beats_the_optimum(policy: str, heads: int, layers: int) -> None:
    """Also where query heads of a KV head read: what two of them do counts twice."""
    noise = torch.Generator().manual_seed(3)
    trace = []
    for _ in range(60):
        drawn_NK = torch.rand(2 * heads, 5, generator=noise).square().mul(30).int()
        rows = [[(8 * n, n % 8 + 1) for n in dict.fromkeys(row)] for row in drawn_NK.tolist()]
        trace.append(runs(*rows))
    done = simulate(trace, 160 * layers, policy, groups=2, layers=layers)  # type: ignore[arg-type]
    best = optimum(trace, 160 * layers, groups=2, layers=layers)
    assert done.hit_entries + done.miss_entries == best.hit_entries + best.miss_entries
    assert 0 < done.hit_entries < best.hit_entries


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_that_fill_the_cache_are_not_counted(backend: str) -> None:
    """A block in each of two layers, which the first step reads and another one later."""
    first, later = runs([(0, 8)]), runs([(0, 8), (8, 8)])
    trace = [first] * 2 + [later] * 4
    done = simulate(trace, 24, "lfu", layers=2, warmup=1, backend=backend)  # type: ignore[arg-type]
    assert (done.steps, done.hit_entries, done.miss_entries) == (2, 40, 24)
    assert done.admitted_entries == 8
    best = optimum(trace, 32, layers=2, warmup=1)
    assert (best.steps, best.hit_entries, best.miss_entries) == (2, 48, 16)
    assert optimum(trace, 32, layers=2).miss_entries == 32


def test_the_optimum_keeps_nothing_for_hits_that_are_not_counted() -> None:
    """Two reads of another block before the first counted one."""
    trace = [runs([(start, 8)]) for start in (0, 0, 8, 8, 0)]
    for warmup in range(6):
        done = simulate(trace, 8, "tinylfu", warmup=warmup)
        best = optimum(trace, 8, warmup=warmup)
        assert done.steps == best.steps == 5 - warmup
        assert best.hit_entries >= done.hit_entries
    assert optimum(trace, 8, warmup=4).hit_entries == 8
    assert optimum([], 8, warmup=1) == simulate([], 8, "lru", warmup=1)


def test_tokens_are_blocks_of_one(isa: str) -> None:
    cache = BlockCache(50, page=1, groups=2, policy="lru")
    start_NK = torch.tensor([[5, 3], [5, 9], [1, 2], [1, 2]], dtype=torch.int32)
    tokens = Runs(start_NK, None, torch.tensor([2, 2, 1, 2], dtype=torch.int32))
    cache.update(cache.look_up(tokens))
    assert int(cache.wait().count_N.sum()) == 5
    again = cache.look_up(tokens)
    assert (again.hit_entries, again.miss_entries) == (7, 0)
    assert again.buffered().size_NK is None
    assert again.buffered().start_NK[0].tolist() == [0, 1]


def test_errors_name_what_is_wrong() -> None:
    for given_, message in (
        ({"pages": -1}, "pages is -1"),
        ({"pages": 1, "page": 0}, "page is 0"),
        ({"pages": 1, "groups": 0}, "groups is 0"),
        ({"pages": 1, "layers": 0}, "layers is 0"),
        ({"pages": 1, "policy": "fifo"}, "policy is 'fifo'; right is one of lru, tinylfu, lfu"),
    ):
        with pytest.raises(ValueError, match=message):
            BlockCache(**given_)  # type: ignore[arg-type]
    cache = BlockCache(4, backend="native")
    found = cache.look_up(runs([(0, 8)]))
    with pytest.raises(ValueError, match="before slot 0"):
        cache.look_up(runs([(-1, 8)]))
    with pytest.raises(ValueError, match="update before waiting"):
        cache.wait()
    cache.update(found)
    for early in (lambda: cache.look_up(found.runs), lambda: cache.update(found)):
        with pytest.raises(ValueError, match="an update is under way"):
            early()
    cache.wait()
