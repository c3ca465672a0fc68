"""Every yaml of conf/prefill on every shape of layer, beside any method, and in a batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.methods.cases import assert_close, layer
from tests.tiny_models import save_tiny

from longspan.build import part
from longspan.methods.full import Full
from longspan.methods.retroinfer import RetroInfer
from longspan.models.huggingface import HuggingFace
from longspan.prefill.base import Prefill
from longspan.prefill.full import FullPrefill
from longspan.prefill.minference import MInference
from longspan.prefill.xattention import XAttention
from longspan_kernels.dense_prefill import dense_prefill

CONF = Path(__file__).parents[2] / "conf" / "prefill"
YAMLS = sorted(CONF.glob("*.yaml"))
SMALL: dict[str, Prefill] = {
    "full": FullPrefill(),
    **{
        pattern: MInference(
            vertical_tokens=40, slash_tokens=100, init_tokens=10, local_tokens=90, blocks=2,
            pattern=pattern,
        )
        for pattern in ("online", "vertical_slash", "a_shape", "block_sparse")
    },
    "xattention": XAttention(threshold=0.7, block=64),
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "one group": {"groups": 1, "heads": 4},
    "softcap": {"softcap": 2.0},
    "bfloat16": {"groups": 2, "heads": 2, "size": 16, "dtype": torch.bfloat16},
}
BOUNDS = (0, 130, 131, 390, 700)
"""Chunks of ragged lengths, one of a single token."""


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_a_yaml_shows_every_setting_with_its_default(path: Path) -> None:
    shown = yaml.safe_load(path.read_text())
    built = part(shown, "prefill")
    assert isinstance(built, Prefill)
    assert dataclasses.is_dataclass(built)
    assert shown.keys() - {"_target_"} == {f.name for f in dataclasses.fields(built)}
    assert built == type(built)()
    assert built.name == path.stem
    with pytest.raises(ValueError, match="no_such_setting"):
        part({**shown, "no_such_setting": 1}, "prefill")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SMALL)
def test_a_chunk_reads_part_of_what_is_before_it(name: str, shape: str) -> None:
    given = layer(700, **SHAPES[shape])
    tolerance = 1e-5 if given.geometry.dtype == torch.float32 else 3e-2
    dense, sparse = (Full().layer(given.geometry) for _ in "ds")
    sparse.prefill_by = SMALL[name]
    right, found = given.prefill(dense, *BOUNDS), given.prefill(sparse, *BOUNDS)
    assert len(sparse.store) == 700
    for one, other in zip(right, found, strict=True):
        assert other.out.shape == one.out.shape
        assert other.out.isfinite().all()
        mass_HQ = (other.lse - one.lse).exp()
        assert 0 < mass_HQ.min() <= mass_HQ.max() < 1 + 2 * tolerance
    assert_close(found[1], right[1], tolerance)  # a chunk shorter than a block
    last = (found[-1].lse - right[-1].lse).exp().mean()
    assert (last > 0.999) == (name == "full")


def test_all_blocks_are_full_attention() -> None:
    given = layer(500)
    dense, sparse = (Full().layer(given.geometry) for _ in "ds")
    sparse.prefill_by = XAttention(threshold=1.0, block=64)
    pairs = zip(given.prefill(dense, 0, 210, 500), given.prefill(sparse, 0, 210, 500), strict=True)
    for right, found in pairs:
        assert_close(found, right)


def test_short_prompts_are_read_in_full() -> None:
    given = layer(300)
    dense, sparse = (Full().layer(given.geometry) for _ in "ds")
    sparse.prefill_by = MInference()
    (right,), (found,) = given.prefill(dense, 0, 300), given.prefill(sparse, 0, 300)
    assert torch.equal(found.out, right.out)


@pytest.mark.parametrize("name", ["online", "xattention"])
def test_what_an_index_has_reordered_is_read_in_full(name: str) -> None:
    given = layer(1900)
    state = RetroInfer(kmeans_rounds=2).layer(given.geometry)
    state.prefill_by = SMALL[name]
    state.adopt(given.k_GTD[:, :1500], given.v_GTD[:, :1500])
    state.seal()
    moved = [part for part in state.store.parts if part.positions_GT is not None]
    assert moved
    settings: dict[str, Any] = {"scale": given.geometry.scale, "causal": False}
    least = [
        dense_prefill(given.q_HTD[:, 1500:], part.keys_GTD, part.values_GTD, **settings).lse
        for part in moved
    ]
    (found,) = given.prefill(state, 1500, 1900)
    assert (found.lse > torch.stack(least).logsumexp(0)).all()


def rows_of(*lengths: int) -> list[list[int]]:
    return [[5 + (7 * i + 11 * row) % 200 for i in range(n)] for row, n in enumerate(lengths)]


@pytest.mark.parametrize("name", ["online", "vertical_slash", "xattention"])
@pytest.mark.parametrize("chunk", [100, 8192])
def test_rows_of_a_batch_are_read_as_if_alone(tmp_path: Path, chunk: int, name: str) -> None:
    """The context, and a question on it as a further turn. Chunks are a row's own: with borders
    that a longer neighbour shifts, each would choose by other queries.
    """
    path = str(save_tiny("llama", tmp_path))
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "prefill_chunk_tokens": chunk}
    model, prefill = HuggingFace(path=path, **options).load(), SMALL[name]
    turns = [rows_of(330, 297, 140), rows_of(0, 260, 170)]
    session = model.session(Full(), rows=3, prefill=prefill)
    found = [session.prefill(turns[0]), (session := session.fork(1)).prefill(turns[1])]
    assert session.states[0][0].prefill_by is prefill
    for row in range(3):
        alone = model.session(Full(), prefill=prefill)
        for turn, found_BV in zip(turns, found, strict=True):
            alone_BV = alone.prefill([turn[row]])
            torch.testing.assert_close(found_BV[row], alone_BV[0], atol=1e-4, rtol=1e-4)
    full_BV = model.session(Full(), rows=3).prefill(turns[0])
    assert not torch.allclose(found[0][0], full_BV[0], atol=1e-4)


@pytest.mark.parametrize("name", ["online", "xattention"])
def test_a_turn_after_decoding_on_buffers_reads_the_same_blocks(tmp_path: Path, name: str) -> None:
    """What was read in two turns lies in two parts, in order, there as in the states."""
    path, said = str(save_tiny("llama", tmp_path, max_position_embeddings=4096)), []
    for graphs in ("off", "eager"):
        options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "graphs": graphs}
        session = HuggingFace(path=path, **options).load().session(Full(), prefill=SMALL[name])
        session.prefill(rows_of(1100))
        session.prefill(rows_of(1030))
        logits = [session.decode([token]) for token in range(5, 12)]
        parts = [(part.first, part.positions_GT) for part in session.states[0][0].store.parts]
        assert parts == [(0, None), (1100, None), (2130, None)]
        said.append(torch.cat([*logits, session.prefill(rows_of(250))]))
    torch.testing.assert_close(*said, atol=1e-4, rtol=1e-4)
