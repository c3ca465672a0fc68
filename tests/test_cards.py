"""The reproduction cards: their schema, and that their commands compose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hydra import compose, initialize_config_dir
from pydantic import BaseModel, ConfigDict, Field

from longspan.request import parse_tokens

ROOT = Path(__file__).parents[1]
CARDS = sorted((ROOT / "experiments/cards").glob("*.yaml"))
PRESETS = sorted({path.stem for path in (ROOT / "conf/preset").glob("*.yaml")} - {"none"})
REASON = r"needs an? \d+B model on (a GPU|several GPUs)"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Paper(Strict):
    title: str
    arxiv: Annotated[str, Field(pattern=r"^\d{4}\.\d{5}$")]
    table: str


class Row(Strict):
    command: str
    metric: Annotated[str, Field(pattern=r"^(score\.mean|metrics\.[\w@/]+)$")]
    kind: Literal["score", "below_full"]
    published: Annotated[float, Field(ge=0, le=100)]
    tolerance: Annotated[float, Field(gt=0, le=20)]
    ours: float | Annotated[str, Field(pattern=f"^{REASON}$")]


class Card(Strict):
    paper: Paper
    preset: str
    setting: str
    assumptions: list[str]
    rows: Annotated[list[Row], Field(min_length=1)]


def card(path: Path) -> Card:
    return Card.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def composed(command: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", command.replace("glob(ruler_*)", "ruler_vt").split())


def test_every_preset_has_a_card() -> None:
    assert {card(path).preset for path in CARDS} == set(PRESETS)


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_has_the_schema(path: Path) -> None:
    found = card(path)
    assert found.preset in PRESETS
    for row in found.rows:
        assert f"preset={found.preset}" in row.command.split()


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_its_commands_compose(path: Path) -> None:
    for row in card(path).rows:
        config = composed(row.command)
        assert config.method._target_
        assert config.task._target_
        if config.model.path.startswith("Qwen/Qwen2.5"):
            stretched = (config.model.config or {}).get("max_position_embeddings", 32_768)
            assert (parse_tokens("ctx", config.ctx) or 0) <= stretched, row.command


@pytest.mark.parametrize("preset", PRESETS)
def test_the_command_line_wins_over_a_preset(preset: str) -> None:
    config = composed(f"preset={preset} method=full protocol=question_sparse samples=3")
    assert config.method._target_.endswith(".Full")
    assert config.protocol == "question_sparse"
    assert config.samples == 3


def test_a_preset_changes_what_it_says() -> None:
    plain, preset = composed("task=ruler_vt"), composed("task=ruler_vt preset=retroinfer_paper")
    assert (plain.task.prompt_style, plain.generation.ignore_eos) == ("auto", False)
    assert (preset.task.prompt_style, preset.generation.ignore_eos) == ("inst", True)
    assert preset.samples == 200
    reasoning = composed("preset=retroinfer_paper_reasoning")
    assert reasoning.task.n_sampling == 8
    assert (reasoning.generation.temperature, reasoning.generation.top_k) == (0.6, 20)
    longbench = composed("preset=retroinfer_paper_longbench task=longbench_mqa")
    assert longbench.task.prompt_style == "raw"
