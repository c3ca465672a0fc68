from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from longspan.indexes.attention_graph import AttentionGraphIndex, WalkOptions
from longspan.indexes.base import Budget, Segment
from longspan.indexes.hybrid import FINDERS, HybridIndex
from longspan.indexes.key_codes import CodeOptions, KeyCodesIndex
from longspan.indexes.wave import WaveIndex
from longspan.indexes.wave_options import WaveOptions
from longspan_kernels.attention_graph import GraphOptions

if TYPE_CHECKING:
    from pathlib import Path


def segment(tokens: int, first: int) -> Segment:
    keys_GTD = torch.randn(2, tokens, 16, generator=torch.Generator().manual_seed(first))
    return Segment(keys_GTD, keys_GTD, first)


def built(name: str) -> HybridIndex:
    finder: AttentionGraphIndex | KeyCodesIndex = KeyCodesIndex(CodeOptions())
    if name == "graph":
        finder = AttentionGraphIndex(GraphOptions(degree=12), WalkOptions(seeds=0, exact=False))
    index = HybridIndex(finder, WaveIndex(WaveOptions(segment_tokens=128)))
    index.build(segment(300, 4))
    index.append(segment(50, 304))
    return index


@pytest.mark.parametrize("name", FINDERS)
def test_saved_indexes_answer_alike(name: str, tmp_path: Path) -> None:
    index, q_HD, budget = built(name), torch.randn(4, 16), Budget(12, 350)
    index.save(tmp_path)
    again = HybridIndex.load(tmp_path)
    right, found = (one.search(q_HD, budget, 0.25) for one in (index, again))
    assert torch.equal(found.retrieved.start_NK, right.retrieved.start_NK)
    assert found.estimated is not None
    assert right.estimated is not None
    assert torch.equal(found.estimated.bias_GC, right.estimated.bias_GC)
    assert torch.equal(found.estimated.ids.start_NK, right.estimated.ids.start_NK)
    again.append(segment(20, 354))
    assert again.tokens == 370


def test_other_files_are_refused(tmp_path: Path) -> None:
    index = built("scan")
    with pytest.raises(ValueError, match=r"index\.json is no index"):
        HybridIndex.load(tmp_path)
    index.save(tmp_path)
    index.append(segment(20, 354))
    index.wave.save(tmp_path / "clusters")
    with pytest.raises(ValueError, match="350 tokens in its scan, 370 in clusters"):
        HybridIndex.load(tmp_path)
    index.save(tmp_path)
    whole = (tmp_path / "places.safetensors").read_bytes()
    for damage in (whole[: len(whole) // 2], b""):
        (tmp_path / "places.safetensors").write_bytes(damage)
        with pytest.raises(ValueError, match=r"places\.safetensors holds no place_GT"):
            HybridIndex.load(tmp_path)
    facts = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(facts.replace("longspan.hybrid", "longspan.flat"))
    with pytest.raises(ValueError, match=r"format 'longspan\.flat'"):
        HybridIndex.load(tmp_path)
    with pytest.raises(ValueError, match="nothing is indexed"):
        HybridIndex(index.finder.fork(), index.wave.fork()).save(tmp_path)
