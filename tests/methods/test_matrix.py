"""Every yaml of conf/method, whoever wrote it, on every shape of layer."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.methods.cases import Layer, assert_close, layer

from longspan.build import part
from longspan.methods.base import Method

CONF = Path(__file__).parents[2] / "conf" / "method"
YAMLS = sorted(CONF.glob("*.yaml"))
OPTIONAL = {"faiss": "the faiss extra is not installed"}
SHAPES = {
    "one KV head": {"groups": 1, "heads": 2},
    "groups of one": {"groups": 3, "heads": 1},
    "groups of four": {"groups": 2, "heads": 4, "size": 16},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
}
PROMPTS = (1, 3, 67, 1301)


def config(path: Path) -> dict[str, Any]:
    found = dict(yaml.safe_load(path.read_text()))
    parents = [name for name in found.pop("defaults", []) if name != "_self_"]
    for name in parents:
        found = {**config(path.with_name(f"{name}.yaml")), **found}
    return found


def method(path: Path) -> Method:
    for package, reason in OPTIONAL.items():
        if package in path.stem:
            pytest.importorskip(package, reason=f"{path.name}: {reason}")
    built = part(config(path), "method")
    assert isinstance(built, Method)
    return built


def sparse(path: Path) -> Method:
    """The method, without layers attended in full."""
    built: Any = method(path)
    return replace(built, dense_layers=()) if hasattr(built, "dense_layers") else built


def test_the_methods_of_the_main_job_are_there() -> None:
    names = {path.stem for path in YAMLS}
    assert names >= {
        "full", "retroinfer", "streaming_llm", "oracle_topk", "oracle_topp", "random_k",
    }  # fmt: skip


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
class TestEveryMethod:
    def test_its_yaml_shows_every_setting_with_its_default(self, path: Path) -> None:
        shown = config(path)
        built = method(path)
        assert dataclasses.is_dataclass(built)
        assert shown.keys() - {"_target_"} == {f.name for f in dataclasses.fields(built)}
        if all(
            f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
            for f in dataclasses.fields(built)
        ) and type(built).name == path.stem:  # fmt: skip
            assert built == type(built)()
        assert len(path.read_text().splitlines()) <= 25

    def test_an_unknown_setting_is_refused(self, path: Path) -> None:
        method(path)
        with pytest.raises(ValueError, match="no_such_setting"):
            part({**config(path), "no_such_setting": 1}, "method")

    @pytest.mark.parametrize("prompt", PROMPTS)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_it_reads_every_shape_of_layer(self, path: Path, shape: str, prompt: int) -> None:
        built = sparse(path)
        given: Layer = layer(prompt + 9, **SHAPES[shape])
        tolerance = 1e-5 if given.geometry.dtype == torch.float32 else 3e-2
        state = built.layer(given.geometry)
        bounds = sorted({0, prompt // 3, prompt})
        outs = given.prefill(state, *bounds)
        last = outs[-1]
        assert last.out.dtype == last.lse.dtype == torch.float32
        right = given.oracle(prompt - 1)
        torch.testing.assert_close(last.out[:, -1], right.out, atol=tolerance, rtol=tolerance)
        state.seal()
        for position in range(prompt, prompt + 9):
            found = given.step(state, position)
            assert found.out.shape == given.q_HTD[:, 0].shape
            assert found.out.dtype == found.lse.dtype == torch.float32
            assert found.out.isfinite().all()
            assert found.lse.isfinite().all()
            assert len(state.store) == position + 1
        work, memory = state.work(), state.memory()
        assert 0 < work.exact_tokens <= prompt + 9
        assert work.estimated_tokens + work.exact_tokens <= prompt + 9
        assert work.kv_bytes > 0
        assert memory["kv_bytes"] >= state.store.parts[0].keys_GTD.nbytes
        for start, stop in state.selection.steady:
            assert 0 <= start < stop <= prompt + 9

    def test_a_batch_is_its_rows(self, path: Path) -> None:
        built = sparse(path)
        rows = [layer(tokens, seed=tokens) for tokens in (40, 1300)]
        states, alone = [], []
        for row in rows:
            state = built.layer(row.geometry)
            row.prefill(state, 0, row.k_GTD.shape[1])
            state.seal()
            states.append(state)
            alone.append(state.fork().decode(row.q_HTD[:, -1]))
        together = built.decode(states, torch.stack([row.q_HTD[:, -1] for row in rows]))
        for row, right in enumerate(alone):
            torch.testing.assert_close(together.out[row], right.out)
            torch.testing.assert_close(together.lse[row], right.lse)

    def test_forks_go_their_own_way(self, path: Path) -> None:
        built = sparse(path)
        given, other = layer(1400), layer(1400, seed=1)
        state = built.layer(given.geometry)
        given.prefill(state, 0, 1390)
        state.seal()
        twin, kept = state.fork(), state.fork()
        for position in range(1390, 1395):
            other.step(twin, position)
        assert len(twin.store) == 1395
        assert len(state.store) == len(kept.store) == 1390
        for position in range(1390, 1395):
            assert_close(given.step(state, position), given.step(kept, position), 1e-6)

    def test_a_second_turn_is_read_exactly(self, path: Path) -> None:
        given = layer(1500)
        state = sparse(path).layer(given.geometry)
        given.prefill(state, 0, 1300)
        state.seal()
        for position in range(1300, 1305):
            given.step(state, position)
        (turn,) = given.prefill(state, 1305, 1490)
        torch.testing.assert_close(turn.out[:, -1], given.oracle(1489).out, atol=1e-5, rtol=1e-5)
        state.seal()
        state.seal()
        assert given.step(state, 1490).out.isfinite().all()
        assert len(state.store) == 1491

    def test_before_a_decode_there_is_no_selection(self, path: Path) -> None:
        given = layer(5)
        state = sparse(path).layer(given.geometry)
        given.prefill(state, 0, 5)
        with pytest.raises(RuntimeError):
            _ = state.selection
        with pytest.raises(ValueError, match="q has shape"):
            state.decode(given.q_HTD[:1, 0])
