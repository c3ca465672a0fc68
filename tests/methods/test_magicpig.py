"""MagicPIG's sampling against the probabilities that it claims, and against full attention."""

from __future__ import annotations

from dataclasses import replace
from math import acos, pi
from typing import Any

import pytest
import torch
from tests.methods.cases import Layer, assert_close, layer

from longspan.methods.frame import StoredState
from longspan.methods.magicpig import MagicPIG
from longspan.types import Partial, Work
from longspan_kernels.merge import merge

SMALL: dict[str, Any] = {"sink_tokens": 3, "local_tokens": 8, "dense_layers": ()}
SHAPES: dict[str, dict[str, Any]] = {
    "": {},
    "one KV head": {"groups": 1, "heads": 3},
    "R=1": {"groups": 3, "heads": 1},
    "soft cap": {"softcap": 3.0},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16, "groups": 1, "heads": 4, "size": 16},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_is_the_weighted_attention_over_what_collided(shape: str) -> None:
    given = layer(120, **SHAPES[shape])
    method = MagicPIG(**SMALL, bits=2, tables=6, seed=3)
    state = method.layer(given.geometry)
    given.prefill(state, 0, 40, 100)
    state.seal()
    twin = state.fork()
    for position in range(100, 120):
        found = given.step(state, position)
        runs = state.selection.retrieved
        assert runs is not None
        assert state.selection.steady == ((0, 3), (92, position + 1))
        heads = given.q_HTD.shape[0] // given.k_GTD.shape[0]
        score_HT = given.scores(position, position + 1)
        for head, count in enumerate(runs.count_N.tolist()):
            key_TD = given.k_GTD[head // heads, 3:92].double()
            q_D = given.q_HTD[head, position].double()
            weight_T = torch.zeros(position + 1, dtype=torch.float64)
            weight_T[:3] = weight_T[92:] = 1.0
            for slot in runs.start_NK[head, :count].tolist():
                centred_D = key_TD[slot - 3] - key_TD.mean(0)
                cosine = float(centred_D @ q_D / centred_D.norm() / q_D.norm())
                same = (1 - acos(cosine) / pi) ** 2
                chance = 1 - (1 - same) ** 6 - 6 * same * (1 - same) ** 5
                weight_T[slot] = 1 / (chance + 1e-4)
            lse = (score_HT[head] + weight_T.log()).logsumexp(0)
            share_T = (score_HT[head] + weight_T.log() - lse).exp()
            out_D = share_T @ given.v_GTD[head // heads, : position + 1].double()
            one = Partial(found.out[head : head + 1], found.lse[head : head + 1])
            assert_close(one, Partial(out_D[None].float(), lse[None].float()))
        work = state.work()
        sampled = float(runs.count_N.float().mean())
        assert work.exact_tokens == pytest.approx(3 + position - 91 + sampled)
        assert work.distances == 12
        assert 0 < work.index_bytes <= state.memory()["index_bytes"] * heads
    assert_close(given.step(twin, 100), given.step(twin.fork(), 100), 1.0)


def test_over_many_seeds_the_sample_stands_for_everything() -> None:
    given, position = layer(150, seed=2), 149
    total_H, total_HD, steps = torch.zeros(4), torch.zeros(4, 8), 300
    outs, right = [], given.oracle(position)
    for seed in range(steps):
        state = MagicPIG(**SMALL, bits=3, tables=20, seed=seed).layer(given.geometry)
        given.prefill(state, 0, 149)
        state.seal()
        found = given.step(state, position)
        mass_H = (found.lse - right.lse).exp()  # of all, by this sample
        total_H += mass_H / steps
        total_HD += mass_H[:, None] * found.out / steps
        outs.append(found.out)
    # the sums of the weights and of the weighted values are right in the mean, before division
    torch.testing.assert_close(total_H, torch.ones(4), atol=0.05, rtol=0)
    gap_H = (total_HD - right.out).norm(dim=1) / right.out.norm(dim=1)
    assert gap_H.max() < 0.1
    once = torch.stack([(out - right.out).norm(dim=1) / right.out.norm(dim=1) for out in outs])
    assert (gap_H < once.mean(0) / 2).all()


def test_more_tables_come_closer_to_full_attention() -> None:
    given = layer(700, size=16, seed=1)
    error = []
    for tables in (5, 40, 320):
        state = MagicPIG(**SMALL, bits=4, tables=tables).layer(given.geometry)
        given.prefill(state, 0, 650)
        state.seal()
        pairs = [(given.step(state, at).out, given.oracle(at).out) for at in range(650, 700)]
        gaps = [(found - right).norm() / right.norm() for found, right in pairs]
        error.append(float(torch.stack(gaps).mean()))
    assert error[0] > 2 * error[1] > 4 * error[2]
    assert error[2] < 0.05


def test_a_head_without_candidates_attends_the_static_tokens() -> None:
    given = layer(90)
    state = MagicPIG(**SMALL, bits=16, tables=2).layer(given.geometry)
    given.prefill(state, 0, 89)
    state.seal()
    found = given.step(state, 89)
    runs = state.selection.retrieved
    assert runs is not None
    assert not runs.count_N.any()
    parts = []
    for first, stop in ((0, 3), (81, 90)):
        z_HT = given.scores(89, 90)[:, first:stop]
        v_HTD = given.v_GTD[:, first:stop].double().repeat_interleave(2, 0)
        out_HD = (z_HT.softmax(-1)[:, None] @ v_HTD)[:, 0]
        parts.append(Partial(out_HD.float(), z_HT.logsumexp(-1).float()))
    assert_close(found, merge(parts))
    assert state.work().exact_tokens == 12


def test_dense_layers_and_what_came_after_the_prompt_are_attended_in_full() -> None:
    given = layer(400)
    dense = MagicPIG(sink_tokens=2, local_tokens=4).layer(given.geometry)
    assert type(dense) is StoredState
    given.prefill(dense, 0, 300)
    dense.seal()
    assert_close(given.step(dense, 300), given.oracle(300))
    state = MagicPIG(**SMALL).layer(given.geometry)
    given.prefill(state, 0, 9)
    state.seal()  # too short for tables
    assert_close(given.step(state, 9), given.oracle(9))
    given.prefill(state, 10, 200)
    state.seal()
    given.prefill(state, 200, 399)
    state.seal()
    given.step(state, 399)
    assert state.selection.steady == ((0, 3), (192, 400))


@pytest.mark.parametrize(("kernels", "steps"), [("a CPU's", 4), ("a GPU's", 1)])
def test_buffers_of_fixed_shape_read_what_the_states_read(
    kernels: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of different lengths, of which the last has no tables."""
    method, prompts = MagicPIG(**SMALL, bits=3, tables=10, placement="gpu"), (150, 60, 9)
    rows = [layer(n + steps, size=16, seed=n) for n in prompts]
    states, right = [], []
    for given, prompt in zip(rows, prompts, strict=True):
        state = method.layer(given.geometry)
        given.prefill(state, 0, prompt)
        state.seal()
        states.append(state)
        twin = state.fork()
        right.append([(given.step(twin, prompt + n), *said(twin)) for n in range(steps)])
    if kernels == "a GPU's":
        pytest.importorskip("triton")
        if torch.cuda.is_available():
            pytest.skip("tests/models/test_on_gpu.py runs the steps there")
        for name in ("hash_tables", "sampled_decode", "sparse_decode", "merge", "step_slots"):
            monkeypatch.setattr(f"longspan_kernels.{name}.triton_serves", lambda *_, **__: True)
    step = method.static_layer(states, [prompt + steps for prompt in prompts])
    for n in range(steps):
        at_B = torch.tensor(prompts) + n
        step.update(at_B.tolist(), range(3))
        found = step.step(*(torch.stack(each) for each in tokens(rows, at_B.tolist())), at_B)
        step.settle((at_B + 1).tolist())
        for row, (state, expected) in enumerate(zip(states, right, strict=True)):
            partial, *others = expected[n]
            assert_close(Partial(found.out[row], found.lse[row]), partial, 1e-4)
            assert [*said(state)] == others
    slots = [said(state)[2] for state in states]
    assert [len(each) for each in slots] == [4, 4, 0]
    assert all(any(each) for each in slots[:2])


def tokens(rows: list[Layer], at: list[int]) -> list[list[torch.Tensor]]:
    """Queries, keys and values of a position a row."""
    names = ("q_HTD", "k_GTD", "v_GTD")
    return [[getattr(row, name)[:, n] for row, n in zip(rows, at, strict=True)] for name in names]


def said(state: StoredState) -> tuple[Work, Any, list[list[int]]]:
    """What a step cost, its static slots, and those that each query head sampled."""
    steady, runs = state.selection.steady, state.selection.retrieved
    if runs is None:
        return state.work(), steady, []
    named = zip(runs.start_NK.tolist(), runs.count_N.tolist(), strict=True)
    return state.work(), steady, [slots[:count] for slots, count in named]


def test_rows_without_tables_are_attended_in_full() -> None:
    given = layer(12)
    method = MagicPIG(**SMALL, placement="gpu")
    state = method.layer(given.geometry)
    given.prefill(state, 0, 11)
    state.seal()
    step = method.static_layer([state], [12])
    step.update([11], [0])
    new = (x[None, :, 11] for x in (given.q_HTD, given.k_GTD, given.v_GTD))
    found = step.step(*new, torch.tensor([11]))
    assert_close(Partial(found.out[0], found.lse[0]), given.oracle(11))
    step.settle([12])
    assert state.selection.steady == ((0, 12),)
    near = replace(given.geometry, device=torch.device("cuda"))
    assert "placement = 'cpu'" in str(MagicPIG().static_obstacle(near))
    for where in (near, given.geometry):
        assert method.static_obstacle(where) is None


def test_settings_outside_their_range_are_refused() -> None:
    wrong = {"bits": 17, "tables": 1, "local_tokens": 0, "dense_layers": [-1], "placement": "moon"}
    for field, value in wrong.items():
        with pytest.raises(ValueError, match=field):
            MagicPIG(**{field: value})  # type: ignore[arg-type]
