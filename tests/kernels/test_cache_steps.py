"""Caches updated beside steps: native against the reference, in order, and never a hang."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan_kernels.block_cache import CacheSteps, StepCaches, packed

if TYPE_CHECKING:
    from longspan_kernels.block_cache import Policy

BACKENDS = ("reference", "native")
GROUPS, WIDTH, PAGE, SIZE = 2, 7, 4, 11


def made(backend: str, pages: tuple[int, ...], most: int, policy: Policy = "lfu") -> CacheSteps:
    return steps_of(backend, pages, most, policy)[0]


def steps_of(
    backend: str, pages: tuple[int, ...], most: int, policy: Policy, layers: int = 1
) -> list[CacheSteps]:
    """Of layers that share the caches."""
    caches = StepCaches(
        pages, page=PAGE, groups=GROUPS, layers=layers, policy=policy,
        backend=backend,  # type: ignore[arg-type]
    )  # fmt: skip
    return [CacheSteps(caches, layer, width=WIDTH, most=most) for layer in range(layers)]


def read(rng: torch.Generator, rows: int, blocks: int) -> torch.Tensor:
    """A step's list: blocks of uneven sizes, named by their first slot, some of size 0."""
    ids = torch.stack([torch.randperm(blocks, generator=rng)[:WIDTH] for _ in range(rows)])
    size_NK = ids * 7 % SIZE
    count_N = torch.randint(0, WIDTH + 1, (rows,), generator=rng)
    return packed(ids * SIZE, size_NK, count_N)


def test_no_caches_are_refused() -> None:
    with pytest.raises(ValueError, match="a cache at least"):
        made("native", (), 1)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_ends_a_wait() -> None:
    steps = made("native", (3,), 1)
    steps.begin()  # whose flag is never raised
    timer = threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        steps.wait(20)
    timer.join()
    assert time.monotonic() - start < 10


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    policy=st.sampled_from(("lru", "tinylfu", "lfu")),
    pages=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    most=st.integers(1, 20),
    layers=st.integers(1, 3),
)
def test_it_is_the_reference_step_after_step(
    seed: int, policy: Policy, pages: list[int], most: int, layers: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    made_by = [steps_of(backend, tuple(pages), most, policy, layers) for backend in BACKENDS]
    for both in list(zip(*made_by, strict=True)) * (12 // layers):
        said = read(rng, len(pages) * GROUPS, 12)
        counts = []
        for steps in both:
            steps.begin()
            steps.say(said)
            counts.append(steps.wait())
        assert counts[0] == counts[1]
        assert torch.equal(both[0].count_B, both[1].count_B)
        for row, count in enumerate(both[0].count_B.tolist()):
            assert count <= most
            mine, other = (steps.admitted_BA4[row, :count] for steps in both)
            assert torch.equal(mine, other)
            head, _, size, at = mine.unbind(1)
            assert ((head >= row * GROUPS) & (head < (row + 1) * GROUPS)).all()
            assert ((size > 0) & (size <= PAGE)).all()
            first = sum(pages[:row]) * PAGE
            assert ((at >= first) & (at < first + pages[row] * PAGE)).all()
            assert len(set(at.tolist())) == count


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_says_nothing_is_an_error_and_no_hang(backend: str) -> None:
    steps = made(backend, (5,), 9)
    assert steps.wait() == []
    steps.begin()
    with pytest.raises(RuntimeError, match="never said what it read"):
        steps.wait(0.2)
    steps.begin()  # the next one is not disturbed
    steps.say(read(torch.Generator(), GROUPS, 12))
    assert len(steps.wait()) == 1


def test_steps_that_were_given_up_hold_nobody_up() -> None:
    """Neither those begun before another one nor those let go of."""
    idle = [made("native", (5,), 9) for _ in range(30)]
    for steps in idle:
        steps.begin()
    mine = made("native", (5,), 9)
    mine.begin()
    mine.flag.fill_(1)
    start = time.perf_counter()
    assert len(mine.wait(30)) == 1
    for steps in idle:
        steps.begin()
    del idle, steps
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    ("value", "message"), [(WIDTH + 1, "more runs than it has"), (-1, "more runs than it has")]
)
def test_a_broken_list_is_an_error(value: int, message: str) -> None:
    steps = made("native", (5,), 9)
    steps.begin()
    steps.read.fill_(value)
    steps.flag.fill_(1)
    with pytest.raises(ValueError, match=message):
        steps.wait()


def test_a_run_before_the_first_slot_is_an_error() -> None:
    steps = made("native", (5,), 9)
    steps.begin()
    start_NK = torch.full((GROUPS, WIDTH), -3)
    steps.say(packed(start_NK, torch.ones_like(start_NK), torch.full((GROUPS,), 1)))
    with pytest.raises(ValueError, match="begins before slot 0"):
        steps.wait()


def test_layers_that_raise_their_flags_at_once_keep_one_cache_whole() -> None:
    """Whatever the order in which the workers come to them."""
    rng, layers, pages = torch.Generator().manual_seed(0), 6, (9, 30)
    made_ = steps_of("native", pages, 9, "lfu", layers)
    for _ in range(20):
        lists = [read(rng, len(pages) * GROUPS, 12) for _ in made_]
        for steps in made_:
            steps.begin()
        for steps, said in zip(made_, lists, strict=True):
            steps.say(said)
        for steps, said in zip(made_, lists, strict=True):
            ends = len(pages) * GROUPS * WIDTH
            size_NK = said[ends : 2 * ends].view(-1, WIDTH)
            live_NK = torch.arange(WIDTH) < said[2 * ends :, None]
            asked = (size_NK * live_NK).view(len(pages), -1).sum(1)
            for row, count in enumerate(steps.wait()):
                assert count.hit_entries + count.miss_entries == int(asked[row])
                at = steps.admitted_BA4[row, : steps.count_B[row], 3]
                first = sum(pages[:row]) * PAGE
                assert ((at >= first) & (at < first + pages[row] * PAGE) & (at % PAGE == 0)).all()
                assert len(set(at.tolist())) == len(at)
