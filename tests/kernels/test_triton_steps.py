"""Steps of PQCache and MagicPIG on the Triton kernels, as a GPU runs them, beside the CPU's."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.methods.cases import Layer, assert_close, layer

from longspan.methods.magicpig import MagicPIG
from longspan.methods.pqcache import PQCache

if TYPE_CHECKING:
    from longspan.methods.base import Method
    from longspan.types import Partial, Work

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
SMALL: dict[str, Any] = {"sink_tokens": 3, "local_tokens": 8, "dense_layers": ()}
METHODS: dict[str, Method] = {
    "magicpig": MagicPIG(**SMALL, bits=3, tables=12),
    "nothing sampled": MagicPIG(**SMALL, bits=16, tables=2),
    "pqcache": PQCache(**SMALL, update_tokens=4, bits=8, retrieval_budget=0.1),
    "a set a query head": PQCache(**SMALL, update_tokens=4, share="query_head", bits=8),
}


def walked(method: Method, given: Layer) -> tuple[list[Partial], Work, list[set[int]]]:
    """Steps, the work of the last one, and what it retrieved."""
    state = method.layer(given.geometry)
    given.prefill(state, 0, 60, 150)
    state.seal()
    found = [given.step(state, position) for position in range(150, 157)]
    runs = state.selection.retrieved
    assert runs is not None
    named = zip(runs.start_NK.tolist(), runs.count_N.tolist(), strict=True)
    return found, state.work(), [set(slots[:count]) for slots, count in named]


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_what_it_is_on_a_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("tests/methods/test_gpu.py runs the methods there")
    given = layer(157, groups=2, heads=3, size=16)
    right, right_work, right_slots = walked(METHODS[name], given)
    for operation in ("hash_tables", "product_codes", "sampled_decode"):
        monkeypatch.setattr(f"longspan_kernels.{operation}.triton_serves", lambda *_: True)
    found, work, slots = walked(METHODS[name], given)
    for mine, theirs in zip(found, right, strict=True):
        assert_close(mine, theirs, 1e-4)
    assert work == right_work
    assert slots == right_slots
