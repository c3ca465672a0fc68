"""What enters the fingerprint: it changes with weights, tokenizer and template, and with nothing
else.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from tests.tiny_models import save_tiny, tiny_tokenizer

from longspan.models import identity
from longspan.models.huggingface import HuggingFace

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from tests.models.dense import Load

CUTS = ("truncation", "padding")


def test_identity_is_json_and_stays(load: Load, tmp_path: Path) -> None:
    model = load("llama")
    known = dict(model.identity())
    assert json.loads(json.dumps(known)) == known
    assert known["eos_ids"] == [2]
    assert known["dtype"] == "float32"
    assert model.max_positions == 1024
    copy = tmp_path / model.name
    shutil.copytree(model.options.path, copy)
    again = HuggingFace(path=str(copy), dtype="float32", device="cpu").load()
    assert again.identity() == known
    chat = load("llama", chat=True).identity()
    assert chat["chat_template"] is not None
    assert {k: v for k, v in chat.items() if k not in ("chat_template", "path")} == {
        k: v for k, v in known.items() if k not in ("chat_template", "path")
    }


def test_weights_and_configuration_count(tmp_path: Path) -> None:
    first = save_tiny("llama", tmp_path / "a")
    scaled = save_tiny("llama", tmp_path / "b", rms_norm_eps=1e-3)
    larger = save_tiny("llama", tmp_path / "c", initializer_range=0.2)
    prints = {identity.weights_fingerprint(folder) for folder in (first, scaled, larger)}
    assert len(prints) == 3


def test_large_files_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "WHOLE_BYTES", 2**20)
    weights = torch.zeros(2**21)
    prints = set()
    for value in (0.0, 1.0):
        weights[-5] = value
        save_file({"w": weights}, tmp_path / "model.safetensors")
        prints.add(identity.weights_fingerprint(tmp_path))
    save_file({"v": weights}, tmp_path / "model.safetensors")
    prints.add(identity.weights_fingerprint(tmp_path))
    assert len(prints) == 3


def test_tokenizers_differ_by_what_they_do() -> None:
    one, same = tiny_tokenizer(), tiny_tokenizer(chat=True)
    assert identity.tokenizer_fingerprint(one) == identity.tokenizer_fingerprint(same)
    other = tiny_tokenizer(bos=False)
    assert identity.tokenizer_fingerprint(one) != identity.tokenizer_fingerprint(other)


def test_what_a_text_takes_from_the_tokenizer_identifies_nothing(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=64)
    tokenizer.save_pretrained(tmp_path)
    assert all(json.loads((tmp_path / "tokenizer.json").read_text())[k] for k in CUTS)
    model = HuggingFace(path=str(tmp_path), dtype="float32", device="cpu").load()
    assert model.identity()["tokenizer"] == identity.tokenizer_fingerprint(tiny_tokenizer())


def test_code_counts_where_it_runs(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    prints = []
    for text in ("x = 1", "x = 2"):
        (tmp_path / "modeling_mine.py").write_text(text)
        for trust in (False, True):
            model = HuggingFace(path=str(tmp_path), dtype="float32", trust_remote_code=trust).load()
            prints.append(model.identity()["weights"])
    assert prints[0] == prints[2]
    assert len(set(prints)) == 3


def test_ends_of_a_turn_are_read_from_the_template(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot_id|>", "<|im_end|>"]})
    tokenizer.chat_template = "{{ messages[0]['content'] }}<|eot_id|>"
    tokenizer.save_pretrained(tmp_path)
    model = HuggingFace(path=str(tmp_path), dtype="float32", device="cpu").load()
    assert model.eos_ids == {2, tokenizer.convert_tokens_to_ids("<|eot_id|>")}
    generation = tmp_path / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": [2, 7]}))
    assert HuggingFace(path=str(tmp_path), dtype="float32").load().eos_ids == {2, 7}


def test_the_name_of_a_folder(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "mine")
    monkeypatch.chdir(folder)
    for path in (".", "../mine", f"{folder}/"):
        assert HuggingFace(path=path, dtype="float32").load().name == "mine"
    assert HuggingFace(path=".", name="other", dtype="float32").load().name == "other"
