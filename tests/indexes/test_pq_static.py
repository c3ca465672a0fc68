"""Product-quantised indexes in buffers of fixed shape: what each finds by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from longspan.indexes.base import Budget, Segment
from longspan.indexes.pq import PQIndex
from longspan.indexes.pq_static import StaticProducts
from longspan.types import LayerGeometry

if TYPE_CHECKING:
    from longspan_kernels.types import Sharing

GROUPS, A_GROUP, SIZE, SINK, ROOM = 2, 3, 24, 5, 300
BUILT: tuple[tuple[int, ...], ...] = ((70,), (40, 90), (3, 10, 40), ())
"""Stretches of the prompt of each row, each longer than all before it."""


def grown(index: PQIndex, tokens: int, *, generated: bool = True) -> None:
    keys_GTD = torch.randn(GROUPS, tokens, SIZE)
    stretch = Segment(keys_GTD, keys_GTD, SINK + index.tokens)
    (index.append if generated else index.build)(stretch)


def made(**options: Any) -> tuple[list[PQIndex], LayerGeometry]:
    torch.manual_seed(0)
    indexes = [PQIndex(parts=4, rounds=2, **options) for _ in BUILT]
    for index, stretches in zip(indexes, BUILT, strict=True):
        for tokens in stretches:
            grown(index, tokens, generated=False)
    geometry = LayerGeometry(
        0, GROUPS * A_GROUP, GROUPS, SIZE, 0.4, torch.float32, torch.device("cpu")
    )
    return indexes, geometry


def budget(tokens: int) -> Budget:
    return Budget(-(-tokens // 7))


@pytest.mark.parametrize("share", ["kv_head", "query_head"])
def test_rows_find_what_their_indexes_find(share: Sharing) -> None:
    """Before and after they grow; a row without an index gets one on the way."""
    indexes, geometry = made(bits=5, share=share)
    alone = [index.fork() for index in indexes]  # which never lie in the buffers
    products = StaticProducts(indexes, budget(ROOM), ROOM, geometry)
    for round_ in range(3):
        for row, index in enumerate(indexes):
            if round_:
                torch.manual_seed(99 * round_ + row)
                grown(index, 20)
                torch.manual_seed(99 * round_ + row)
                grown(alone[row], 20)
            if index.tokens:
                products.refresh(row, budget(index.tokens))
        q_BHD = torch.randn(len(BUILT), GROUPS * A_GROUP, SIZE)
        slot_NK, count_N = products.search(q_BHD.flatten(0, 1), geometry.scale)
        assert slot_NK.dtype == count_N.dtype == torch.int32
        for row, (index, other) in enumerate(zip(indexes, alone, strict=True)):
            mine = products.rows_of(row)
            if not index.tokens:
                assert not count_N[mine].any()
                continue
            right = other.search(q_BHD[row], budget(other.tokens), geometry.scale)
            assert torch.equal(count_N[mine], right.retrieved.count_N)
            for slots, wanted, count in zip(
                slot_NK[mine], right.retrieved.start_NK, count_N[mine], strict=True
            ):
                assert set(slots[:count].tolist()) == set(wanted.tolist())
            assert products.cost(row) == (right.distances, right.bytes)
            # what lies in the buffers is what the index says by itself
            again = index.search(q_BHD[row], budget(index.tokens), geometry.scale)
            assert torch.equal(again.retrieved.start_NK, right.retrieved.start_NK)
            assert index.nbytes == other.nbytes


def test_an_index_lies_in_the_buffers_and_its_forks_go_on_beside_them() -> None:
    indexes, geometry = made(bits=4)
    products = StaticProducts(indexes, budget(ROOM), ROOM, geometry)
    for row, index in enumerate(indexes[:3]):
        products.refresh(row, budget(index.tokens))
        first = index.stretches[0]
        assert first.code_GPT.data_ptr() == products.code_BGPT[row].data_ptr()
        assert first.centroids_GPCE.data_ptr() == products.centroids_BGPSCE[row].data_ptr()
    twin, q_HD = indexes[1].fork(), torch.randn(GROUPS * A_GROUP, SIZE)
    before = twin.search(q_HD, budget(130), 0.4).retrieved.start_NK
    grown(indexes[1], 60)
    products.refresh(1, budget(190))
    assert torch.equal(twin.search(q_HD, budget(130), 0.4).retrieved.start_NK, before)
    held = products.code_BGPT.clone()
    grown(twin, 60)
    assert torch.equal(products.code_BGPT, held)
    assert (indexes[1].tokens, twin.tokens) == (190, 190)


def test_what_grows_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes that lie in the buffers are not copied again."""
    indexes, geometry = made(bits=4)
    products = StaticProducts(indexes, budget(ROOM), ROOM, geometry)
    products.refresh(1, budget(130))
    products.code_BGPT[1, :, :, :130] = 9
    products.centroids_BGPSCE[1] = 7.0
    grown(indexes[1], 3)
    products.refresh(1, budget(133))
    assert (products.code_BGPT[1, :, :, :130] == 9).all()
    assert (products.centroids_BGPSCE[1] == 7.0).all()
    assert products.stop_BS[1].tolist() == [40, 133, 133]
