"""What else sessions do on a GPU: captures that fail, states, threads, tapes, prompts of others."""

from __future__ import annotations

import gc
import runpy
import weakref
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
import torch
from tests.emulated.sessions import LENGTHS, METHODS, life, model, prompts, same, steps
from tests.placement import test_gpu_wave_buffer as on_gpu

from longspan.methods.prompt import LayerPrompt
from longspan.models.prompts import Prompts
from longspan.models.static import StaticStep
from longspan.prefill.minference import MInference
from longspan.prefill.xattention import XAttention


def a_capture_that_fails() -> None:
    """With model.graphs=auto the states go on, on the stream that was there before. The memory of
    the step goes at once: what looks for cycles does not know that a GPU is full.
    """
    loaded, step, steps = model("cuda", "auto"), StaticStep.step, []

    def waiting(self: StaticStep) -> torch.Tensor:
        steps.append(weakref.ref(self))
        logits_BV = step(self)
        if torch.cuda.is_current_stream_capturing():
            logits_BV.sum().item()
        return logits_BV

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StaticStep, "step", waiting)
        gc.disable()
        found, session = life("full", loaded)
        left = [each() for each in steps]
        gc.enable()
    assert set(left) == {None}
    assert session.steps_by == "states"
    assert torch.cuda.current_stream() is torch.cuda.default_stream()
    same(found, life("full", model("cpu", "off"))[0])


def an_interrupted_warm_up() -> None:
    """It leaves out what states do between graphs; no later step may."""
    right = model("cpu", "off").session(METHODS["oracle_topk"])
    session = model("cuda", "on").session(METHODS["oracle_topk"])
    said = [each.prefill(prompts(7, LENGTHS[:1])).cpu() for each in (session, right)]

    def interrupted(self: StaticStep) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StaticStep, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.decode([5])
    same(said[:1] + steps(session, 2, 1), said[1:] + steps(right, 2, 1))
    assert session.steps_by == "2 graphs"


def states_of_a_wave_buffer() -> None:
    both = []
    for device in ("cuda", "cpu"):
        session = model(device, "off").session(METHODS["quest, wave_buffer"], len(LENGTHS))
        both.append([session.prefill(prompts(7, LENGTHS)).cpu(), *steps(session, 3, 1)])
        assert session.states[0][0].placement.traffic.hit_entries > 0
    same(*both)


def turns(name: str, device: str, graphs: str) -> list[torch.Tensor]:
    """A prompt that another method has read, views, and what a tape brings to another session."""
    asked: dict[str, Any] = {"overlap_index": True, "prefill_chunk_tokens": 16}
    loaded, known = model(device, graphs, **asked), Prompts(1 << 30, LayerPrompt)
    loaded.session(METHODS["full"], len(LENGTHS), prompts=known).prefill(prompts(7, LENGTHS))
    both = [loaded.session(METHODS[name], len(LENGTHS), prompts=known) for _ in range(2)]
    said = [session.prefill(prompts(7, LENGTHS)).cpu() for session in both]
    assert known.given == 2 * len(LENGTHS)
    both[0].record()
    said += steps(both[0], 2, 1)
    said += steps(both[0].select([1]), 1, 2)
    for row, tokens in enumerate((2, 3)):
        both[1].replay(row, tokens, both[0].recorded(row))
    return said + steps(both[1], 1, 3)


def views_tapes_and_threads() -> None:
    name = "shadowkv, wave_buffer"
    same(turns(name, "cuda", "on"), turns(name, "cpu", "off"))


def sparse_prefills() -> None:
    """Blocks are chosen and attended where the model is; the second chunk leaves some out."""
    few: dict[str, Any] = {"vertical_tokens": 31, "slash_tokens": 101, "blocks": 1}
    few |= {"init_tokens": 5, "local_tokens": 40}
    ways = XAttention(block=64, stride=32, threshold=0.4), MInference(enough=0.9, **few)
    for way in ways:
        said = []
        for device in ("cuda", "cpu"):
            loaded = model(device, "off", prefill_chunk_tokens=128)
            session = loaded.session(METHODS["full"], prefill=way)
            said.append([session.prefill(prompts(7, (200,))).cpu()])
        same(*said)
        dense = model("cpu", "off").session(METHODS["full"]).prefill(prompts(7, (200,)))
        assert (dense - said[1][0]).abs().max() > 1e-3


def a_prompt_in_host_memory() -> None:
    with pytest.MonkeyPatch.context() as patch:
        on_gpu.test_a_prompt_goes_to_host_memory_where_the_gpu_is_full(patch)


def a_study_of_steps() -> None:
    """experiments/fixed_steps replays graphs; times are 0 here."""
    file = Path(__file__).parents[2] / "experiments/fixed_steps/study.py"
    line = "--tokens 60 --heads 2 --kv-heads 2 --head-size 16 --prompts 2 --steps 1 --warmup 1"
    line += " --device cuda --methods quest:wave_buffer"
    with TemporaryDirectory() as folder:
        places = ["--out", folder, "--results", f"{folder}/rows"]
        runpy.run_path(str(file))["main"]([*line.split(), *places])
        table = pd.read_csv(f"{folder}/table.csv")
    assert table["graph"].tolist() == [True, True], table["note"].tolist()
    assert table["exact tokens a head"][0] == 62


LIVES = {
    "a capture that fails": a_capture_that_fails,
    "an interrupted warm-up": an_interrupted_warm_up,
    "states of a wave buffer": states_of_a_wave_buffer,
    "views, tapes and threads": views_tapes_and_threads,
    "sparse prefills": sparse_prefills,
    "a prompt in host memory": a_prompt_in_host_memory,
    **({"a study of steps": a_study_of_steps} if find_spec("matplotlib") else {}),
    "locked memory": on_gpu.test_memory_is_locked_as_long_as_it_is_held_and_no_longer,
    "locked memory of forks": on_gpu.test_forks_keep_the_host_memory_of_one_another_locked,
}
