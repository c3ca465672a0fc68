"""Every yaml of conf/model composes and builds; none is loaded from the hub."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests.models.dense import Dense
from tests.tiny_models import save_tiny

from longspan.build import part
from longspan.models.huggingface import HuggingFace

CONF = Path(__file__).parents[2] / "conf"
YAMLS = sorted((CONF / "model").glob("*.yaml"))


def composed(name: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(f"model/{name}", overrides=list(overrides))
    return dict(OmegaConf.to_container(config.model))


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_yaml_builds_and_takes_another_path(path: Path, tmp_path: Path) -> None:
    header = path.read_text().splitlines()
    assert header[0].startswith("# ")
    assert any(line.startswith("#   python run.py") for line in header)
    folder = save_tiny("qwen3", tmp_path)
    changes = [f"model.path={folder}", "model.device=cpu"]
    settings = part(composed(path.stem, *changes), "model")
    assert isinstance(settings, HuggingFace)
    model = settings.load()
    assert model.session(Dense()).prefill([[5, 6, 7]]).shape == (1, 320)
    assert model.name == tmp_path.name


@pytest.mark.parametrize("name", ["qwen25_7b_128k", "qwen25_72b_128k"])
def test_a_stretched_model(name: str, tmp_path: Path) -> None:
    folder = save_tiny(
        "qwen2", tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 1e6}
    )
    changes = [f"model.path={folder}", "model.device=cpu", "model.dtype=float32"]
    model = part(composed(name, *changes), "model").load()
    assert model.max_positions == 131072
    rotary = model.module.model.rotary_emb
    assert (rotary.rope_type, rotary.attention_scaling) == ("yarn", pytest.approx(1.1386, abs=1e-3))
    assert model.identity()["config"]["rope_parameters"]["factor"] == 4.0
    ids = [(7 * i) % 300 + 5 for i in range(40)]
    logits_BV = model.session(Dense()).prefill([ids])
    model.module.set_attn_implementation("eager")
    with torch.no_grad():
        right_QV = model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    assert torch.allclose(logits_BV[0], right_QV[-1], atol=1e-5)


def test_every_setting_can_be_overridden() -> None:
    assert {field.name for field in fields(HuggingFace)} == set(composed("hf")) - {"_target_"}


def test_only_hf_leaves_the_path_open() -> None:
    paths = {path.stem: composed(path.stem)["path"] for path in YAMLS}
    assert [name for name, path in paths.items() if path == "???"] == ["hf"]
    assert paths["nano"] == "nano"


def test_defaults_are_those_of_the_settings() -> None:
    config = composed("llama31_8b")
    for field in fields(HuggingFace):
        if field.name != "path":
            assert config[field.name] == field.default
