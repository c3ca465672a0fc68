"""One step against full attention: by hand, by brute force, in blocks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from longspan.measures import exact
from longspan.measures.exact import compare
from longspan.placement.store import KVStore
from longspan.types import Estimate, LayerGeometry, Partial, Runs, Selection


def geometry(
    heads: int = 4,
    groups: int = 2,
    dtype: torch.dtype = torch.float32,
    softcap: float | None = None,
) -> LayerGeometry:
    return LayerGeometry(
        layer=0, query_heads=heads, kv_heads=groups, head_size=8, scale=0.3, dtype=dtype,
        device=torch.device("cpu"), softcap=softcap,
    )  # fmt: skip


def store(shape: LayerGeometry, tokens: int, freeze: int = 0) -> KVStore:
    torch.manual_seed(0)
    kept = KVStore(shape.kv_heads, shape.head_size, shape.dtype, shape.device)
    kept.append(*torch.randn(2, shape.kv_heads, tokens, shape.head_size).to(shape.dtype))
    kept.freeze(freeze)
    return kept


def dense(shape: LayerGeometry, kept: KVStore, q_HD: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Softmax weights [H, T] and output [H, D], one head at a time."""
    keys_GTD = torch.cat([part.keys_GTD for part in kept.parts], 1).float()
    values_GTD = torch.cat([part.values_GTD for part in kept.parts], 1).float()
    weights, outs = [], []
    for head in range(shape.query_heads):
        group = head * shape.kv_heads // shape.query_heads
        score_T = keys_GTD[group] @ q_HD[head] * shape.scale
        if shape.softcap is not None:
            score_T = shape.softcap * torch.tanh(score_T / shape.softcap)
        weights.append(score_T.softmax(0))
        outs.append(weights[-1] @ values_GTD[group])
    return torch.stack(weights), torch.stack(outs)


def state(kept: KVStore, selection: Selection) -> Any:
    return SimpleNamespace(store=kept, selection=selection)


def runs(*rows: list[tuple[int, int]]) -> Runs:
    width = max(map(len, rows))
    padded = [[*row, *[(0, 10**6)] * (width - len(row))] for row in rows]  # never to be read
    start_NK = torch.tensor([[start for start, _ in row] for row in padded], dtype=torch.int32)
    size_NK = torch.tensor([[size for _, size in row] for row in padded], dtype=torch.int32)
    return Runs(start_NK, size_NK, torch.tensor([len(row) for row in rows], dtype=torch.int32))


@pytest.mark.parametrize("heads", [2, 4, 6])
@pytest.mark.parametrize("block", [5, 1000])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masses_and_recall_are_those_of_dense_attention(
    monkeypatch: pytest.MonkeyPatch,
    heads: int,
    block: int,
    softcap: float | None,
    dtype: torch.dtype,
) -> None:
    monkeypatch.setattr(exact, "BLOCK", block)
    shape = geometry(heads=heads, dtype=dtype, softcap=softcap)
    kept = store(shape, 37, freeze=20)
    q_HD = torch.randn(heads, 8)
    weight_HT, out_HD = dense(shape, kept, q_HD)
    chosen = Selection(((0, 3), (30, 37)), runs([(3, 2), (17, 4)], [(10, 5)]))
    found = compare(shape, state(kept, chosen), q_HD, Partial(out_HD * 1.1, torch.zeros(heads)), 6)
    for head in range(heads):
        slots = [3, 4, 17, 18, 19, 20] if head < heads // 2 else [10, 11, 12, 13, 14]
        middle_T = weight_HT[head].clone()
        middle_T[:3] = middle_T[30:] = -1
        best = set(middle_T.topk(6).indices.tolist())
        assert found["recall"][head] == pytest.approx(len(best & set(slots)) / 6)
        mass = float(weight_HT[head, slots].sum())
        steady = float(weight_HT[head, :3].sum() + weight_HT[head, 30:].sum())
        assert found["recovered_mass"][head] == pytest.approx(mass + steady, abs=1e-5)
        assert found["retrieved_mass"][head] == pytest.approx(mass / (1 - steady), abs=1e-5)
    torch.testing.assert_close(found["output_error"], torch.full((heads,), 0.1), atol=1e-4, rtol=0)
    assert not found["estimated_mass"].any()


def test_a_row_may_serve_one_query_head() -> None:
    shape = geometry()
    kept, q_HD = store(shape, 20), torch.randn(4, 8)
    weight_HT, out_HD = dense(shape, kept, q_HD)
    chosen = Selection((), runs([(0, 5)], [(5, 5)], [(10, 5)], [(15, 5)]))
    found = compare(shape, state(kept, chosen), q_HD, Partial(out_HD, torch.zeros(4)), 100)
    expected = torch.stack([weight_HT[h, 5 * h : 5 * h + 5].sum() for h in range(4)])
    torch.testing.assert_close(found["recovered_mass"], expected)
    torch.testing.assert_close(found["recall"], torch.full((4,), 0.25))  # all 20 are the best 100


def test_full_attention_has_everything_and_nothing_to_retrieve() -> None:
    shape = geometry()
    kept, q_HD = store(shape, 11), torch.randn(4, 8)
    out_HD = dense(shape, kept, q_HD)[1]
    found = compare(
        shape, state(kept, Selection(((0, 11),))), q_HD, Partial(out_HD, torch.zeros(4)), 100
    )
    torch.testing.assert_close(found["recovered_mass"], torch.ones(4))
    assert found["recall"].isnan().all()
    assert found["retrieved_mass"].isnan().all()
    assert found["output_error"].max() < 1e-5


def test_summaries_that_are_exact_claim_the_mass_they_stand_for() -> None:
    shape = geometry(heads=2)
    kept, q_HD = store(shape, 12), torch.randn(2, 8)
    weight_HT, out_HD = dense(shape, kept, q_HD)
    keys_GCD = kept.parts[0].keys_GTD  # every token its own cluster
    summary = Estimate(
        keys_GCD=keys_GCD,
        values_GCD=keys_GCD,
        bias_GC=torch.zeros(2, 12),
        ids=runs([(4, 3)], [(9, 2)]),
        tokens_GC=torch.ones(2, 12),
    )
    chosen = Selection(((0, 2),), None, summary)
    found = compare(shape, state(kept, chosen), q_HD, Partial(out_HD, torch.zeros(2)), 5)
    expected = torch.stack([weight_HT[0, 4:7].sum(), weight_HT[1, 9:11].sum()])
    torch.testing.assert_close(found["estimated_mass"], expected)
    assert not found["recall"].any()
