"""Where a step stores its token and what it reads: against a loop over heads."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import torch

from longspan_kernels.step_slots import append_token, zone_runs
from longspan_kernels.types import Chosen

if TYPE_CHECKING:
    from longspan_kernels.dispatch import Backend

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKENDS = [
    "reference",
    pytest.param(
        "triton",
        marks=pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed"),
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_token_goes_to_its_slot_and_nothing_else_changes(
    backend: Backend, skips: bool, dtype: torch.dtype
) -> None:
    rows, groups, width, room = 3, 2, 24, 9
    buffers = [
        torch.randn(rows * groups, room, 2 * width, device=DEVICE).to(dtype)[..., :width]
        for _ in "kv"
    ]
    before = [buffer.clone() for buffer in buffers]
    # as a model hands them out: a view of [B, T, G, D]
    shape = rows, 1, groups, width
    new = [torch.randn(shape, device=DEVICE).transpose(1, 2)[:, :, 0] for _ in "kv"]
    at_B = torch.tensor([8, 0, 5], device=DEVICE)
    skipped_B = torch.tensor([3, 0, 5], device=DEVICE) if skips else None
    append_token(*buffers, *new, at_B, skipped_B=skipped_B, backend=backend)
    for buffer, old, tokens in zip(buffers, before, new, strict=True):
        for b, slot in enumerate([5, 0, 0] if skips else [8, 0, 5]):
            old[b * groups : (b + 1) * groups, slot] = tokens[b].to(dtype)
        assert torch.equal(buffer, old)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wide", [1, 5, 300])
@pytest.mark.parametrize("single", [False, True])
def test_zones_and_clusters(backend: Backend, wide: int, single: bool) -> None:
    """`single`: slots are chosen, not clusters."""
    groups, clusters = 2, 400
    indexed_2B = torch.tensor([[4, 0, 7], [900, 0, 7]])
    at_B = torch.tensor([1000, 12, 7])
    start_NC = torch.randint(0, 900, (6, clusters)).int()
    size_NC = torch.randint(0, 40, (6, clusters)).int()
    id_NK = torch.stack([torch.randperm(clusters)[:wide] for _ in range(6)]).int()
    count_N = torch.tensor([wide, 0, 0, 0, wide // 2, 1]).int()
    beyond = torch.arange(wide) >= count_N[:, None]
    poisoned_NK = torch.where(beyond, 10**9, id_NK).int()
    if single:
        start_NC, size_NC = torch.arange(clusters).int().repeat(6, 1), torch.ones_like(size_NC)
    given = indexed_2B, poisoned_NK, count_N, start_NC, size_NC
    there = Chosen(*(x.to(DEVICE) for x in given[: 3 if single else 5]))
    found = zone_runs(at_B.to(DEVICE), 6, there, backend=backend)
    alone = zone_runs(at_B.to(DEVICE), 6, there, zones=False, backend=backend)
    assert found.size_NK is not None
    assert alone.size_NK is not None
    assert torch.equal(alone.count_N + 2, found.count_N)
    for n in range(6):
        first, stop = indexed_2B[:, n // groups].tolist()
        right = [(0, first), (stop, int(at_B[n // groups]) + 1 - stop)]
        for c in id_NK[n, : int(count_N[n])].tolist():
            right.append((int(start_NC[n, c]), int(size_NC[n, c])))
        assert int(found.count_N[n]) == len(right)
        lists = zip(found.start_NK[n].tolist(), found.size_NK[n].tolist(), strict=True)
        assert list(lists)[: len(right)] == right
        lists = zip(alone.start_NK[n].tolist(), alone.size_NK[n].tolist(), strict=True)
        assert list(lists)[: len(right) - 2] == right[2:]


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_an_index_all_is_one_zone(backend: Backend) -> None:
    found = zone_runs(torch.tensor([0, 41], device=DEVICE), 4, backend=backend)
    assert found.size_NK is not None
    assert found.start_NK.tolist() == [[0, 0]] * 4
    assert found.size_NK.tolist() == [[0, 1]] * 2 + [[0, 42]] * 2
    assert found.count_N.tolist() == [2] * 4


def test_bad_calls_name_the_argument() -> None:
    buffer, k_BGD, at_B = torch.zeros(4, 9, 8), torch.zeros(2, 2, 8), torch.zeros(2).long()
    for call, message in (
        (lambda: append_token(buffer[:3], buffer, k_BGD, k_BGD, at_B), r"should be \[4, C, 8\]"),
        (lambda: append_token(buffer, buffer, k_BGD, k_BGD[:1], at_B), "v has shape"),
        (lambda: append_token(buffer, buffer, k_BGD, k_BGD, at_B.int()), "at has shape"),
        (lambda: zone_runs(at_B, 2, zones=False), "neither zones nor clusters"),
        (lambda: zone_runs(at_B, 3), "heads is 3; it should be a multiple of the 2 rows"),
        (
            lambda: zone_runs(
                at_B, 2, Chosen(torch.zeros(2, 2).long(), *(torch.zeros(2, 3).int(),) * 4)
            ),
            r"count has shape \[2, 3\]",
        ),
        (
            lambda: zone_runs(
                at_B,
                2,
                Chosen(
                    torch.zeros(2, 2).long(),
                    torch.zeros(2, 3).int(),
                    torch.zeros(2).int(),
                    torch.zeros(2, 3).int(),
                ),
            ),
            "right is both of them or neither",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
