"""Every yaml of conf/model composes and builds; none is loaded from the hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tests.models.dense import Dense
from tests.tiny_models import save_tiny

from longspan.build import part
from longspan.models.huggingface import HuggingFace

CONF = Path(__file__).parents[2] / "conf" / "model"


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_builds_and_takes_another_path(path: Path, tmp_path: Path) -> None:
    header = path.read_text().splitlines()
    assert header[0].startswith("# ")
    assert any(line.startswith("#   python run.py") for line in header)
    config = OmegaConf.load(path)
    config.path = str(save_tiny("qwen3", tmp_path))
    settings = part(OmegaConf.to_container(config, resolve=True), "model")
    assert isinstance(settings, HuggingFace)
    model = settings.load()
    assert model.session(Dense()).prefill([[5, 6, 7]]).shape == (1, 320)
    assert model.name == tmp_path.name


def test_only_hf_leaves_the_path_open() -> None:
    open_paths = [p.stem for p in CONF.glob("*.yaml") if "path: ???" in p.read_text()]
    assert open_paths == ["hf"]
