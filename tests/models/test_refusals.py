"""What cannot be carried ends with one line that names the model and the reason."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.dense import Dense, Load
from tests.tiny_models import MIXED, save_tiny, tiny, tiny_tokenizer

from longspan.models import checks
from longspan.models.attention import longspan_mask
from longspan.models.huggingface import HuggingFace
from longspan.types import Example

if TYPE_CHECKING:
    from pathlib import Path

REASONS = {
    "mistral_sliding": "every layer is a sliding window of 12 tokens",
    "llama4": "it attends in chunks",
    "deepseek_v3": "it compresses keys and values",
    "qwen3_next": "layer 0 is of kind 'linear_attention'",
    "mamba": "layer 0 is of kind 'linear_attention'",
    "falcon": "its code does not call the attention interface",
    "bloom": "its code does not call the attention interface",
    "diffllama": "its code does not fit the adapter",
}


def refusal(**options: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        HuggingFace(**{"dtype": "float32", "device": "cpu", **options}).load()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("family", REASONS)
def test_architectures(tmp_path: Path, family: str) -> None:
    path = str(save_tiny(family, tmp_path))
    message = refusal(path=path)
    assert message.startswith(f"model.path = {path!r}: ")
    assert REASONS[family] in message


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no such folder" in refusal(path=str(tmp_path / "nowhere"))
    assert "there is no such folder" in refusal(path="./nowhere")
    assert "the folder has no config.json" in refusal(path=str(tmp_path))


def test_what_is_given_beside_the_path(tmp_path: Path) -> None:
    path = str(save_tiny("llama", tmp_path))
    message = refusal(path=path, config={"rope_parameters": {"rope_type": "yarn"}})
    assert "'factor'" in message
    assert "model.config = {'rope_parameters': " in message
    for folder in (path, "nano"):
        assert refusal(path=folder, revision="v1").startswith("model.revision = 'v1': a folder")


def test_a_hub_id_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    message = refusal(path="nobody/no-such-model")
    assert message.startswith("model.path = 'nobody/no-such-model': its configuration cannot be")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope_theta": 500}, "model.config.rope_theta: a llama configuration has no such entry"),
        ({"num_hidden_layer": 1}, "model.config.num_hidden_layer: a llama configuration has no"),
        ({"rope_scaling": {"rope_type": "linear"}}, "model.config.rope_scaling: right would be"),
    ],
)
def test_entries_that_a_configuration_does_not_have(config: dict[str, Any], message: str) -> None:
    assert refusal(path="nano", config=config).startswith(message)


def test_weights_in_another_format(tmp_path: Path) -> None:
    model = tiny("llama")
    model.config.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    message = refusal(path=str(tmp_path))
    assert "its weights cannot be read" in message
    assert "safetensors" in message


def test_weights_that_lack_a_layer(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    message = refusal(path=changed(tmp_path, num_hidden_layers=4))
    assert "its weights lack 9 tensors (model.layers.3." in message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_hidden_layers": 1}, "its weights hold 18 tensors that its config has no place for"),
        ({"num_hidden_layers": 0}, "it has no layers"),
        ({"hidden_size": 32}, "they have other shapes than its config says"),
    ],
)
def test_a_config_of_other_weights(tmp_path: Path, change: dict[str, int], reason: str) -> None:
    save_tiny("llama", tmp_path)
    assert reason in refusal(path=changed(tmp_path, **change))


def changed(folder: Path, **entries: Any) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))
    return str(folder)


@pytest.mark.parametrize("part", ["whole", "base"])
def test_other_names_of_layers(tmp_path: Path, part: str) -> None:
    """GPT-2's own weights are those of its base model, whose names have no prefix."""
    save_tiny("gpt2", tmp_path)
    if part == "base":
        tiny("gpt2").transformer.save_pretrained(tmp_path)
    assert "its weights hold 22 tensors that" in refusal(path=changed(tmp_path, n_layer=1))


@pytest.mark.parametrize(
    ("name", "fatal"),
    [
        ("model.layers.1.self_attn.k_scale", False),
        ("model.layers.3.eh_proj.weight", False),
        ("mtp.layers.0.self_attn.q_proj.weight", False),
        ("model.layers.1.self_attn.o_proj.bias", True),
        ("model.layers.3.self_attn.q_proj.weight", True),
    ],
)
def test_weights_that_have_no_place(tmp_path: Path, name: str, fatal: bool) -> None:
    path = str(save_tiny("llama", tmp_path))
    weights = load_file(tmp_path / "model.safetensors") | {name: torch.ones(8)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    if fatal:
        assert f"1 tensors that its config has no place for ({name}, ...)" in refusal(path=path)
    else:
        HuggingFace(path=path, dtype="float32", device="cpu").load()


def test_a_window_that_the_code_does_not_have(tmp_path: Path) -> None:
    """Llama's knows no window: one of some layers is refused, one of the model is nothing."""
    save_tiny("llama", tmp_path)
    path = changed(tmp_path, sliding_window=12)
    assert HuggingFace(path=path, dtype="float32").load()._decoder.windows == [None] * 3
    changed(tmp_path, layer_types=MIXED)
    assert "layer 0 does not slide over the 12 tokens of its config" in refusal(path=path)


def test_what_could_be_recurrent_and_is_not(tmp_path: Path) -> None:
    """Granite 4 without Mamba layers."""
    path = str(save_tiny("granite_dense", tmp_path))
    assert HuggingFace(path=path, dtype="float32").load().layers == 3


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("error", [IndexError, KeyError, RuntimeError])
def test_code_that_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool, error: type[Exception]
) -> None:
    from transformers import LlamaModel

    right = LlamaModel.forward

    def wrong(self: Any, *given: Any, **named: Any) -> Any:
        if own == (named.get("past_key_values") is None):
            raise error("boom\nand more")
        return right(self, *given, **named)

    path = str(save_tiny("llama", tmp_path))
    monkeypatch.setattr(LlamaModel, "forward", wrong)
    reason = "its own attention does not read 12 tokens" if own else "its code does not fit the"
    message = refusal(path=path)
    assert reason in message
    assert error.__name__ in message


def test_code_that_gives_no_single_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    right = LlamaForCausalLM.forward

    def old(self: Any, input_ids: Any, position_ids: Any = None, past_key_values: Any = None,
            use_cache: bool = False) -> Any:  # fmt: skip
        options = {"past_key_values": past_key_values, "use_cache": use_cache}
        return right(self, input_ids=input_ids, position_ids=position_ids, **options)

    path = str(save_tiny("llama", tmp_path))
    monkeypatch.setattr(LlamaForCausalLM, "forward", old)
    assert "unexpected keyword argument 'logits_to_keep'" in refusal(path=path)


def test_masks_that_are_made_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(save_tiny("llama", tmp_path))
    made = "transformers.models.llama.modeling_llama.create_causal_mask"
    monkeypatch.setattr(made, lambda **_: torch.zeros(1, 1, 12, 12))
    assert "its code makes masks of its own" in refusal(path=path)


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    model = HuggingFace(path=str(tmp_path), dtype="float32", device="cpu").load()
    model.module.set_input_embeddings(torch.nn.Embedding(5, 64))
    example = Example("0", "The sky", " is blue", ("x",), 4)
    with pytest.raises(ValueError, match=r"its tokenizer gives token \d+, but it has 5 embeddings"):
        model.encode(example)


def test_weights_that_are_cut_off(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "its weights cannot be read" in refusal(path=str(tmp_path))


def test_no_tokenizer(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    assert "its tokenizer cannot be read" in refusal(path=str(tmp_path))


def test_not_a_causal_model(tmp_path: Path) -> None:
    from transformers import T5Config

    T5Config().save_pretrained(tmp_path)
    assert "'t5' is not a causal language model" in refusal(path=str(tmp_path))


def test_an_encoder_is_found_by_the_self_test(tmp_path: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=320, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_labels=2
    )
    BertLMHeadModel(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert refusal(path=str(tmp_path)).startswith(f"model.path = {str(tmp_path)!r}: ")


def test_remote_code_is_off(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "mine"
    config["auto_map"] = {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.MineForCausalLM"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text("raise SystemExit('remote code ran')\n")
    assert "model.trust_remote_code=true would run it" in refusal(path=str(tmp_path))


def test_a_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = refusal(path=str(save_tiny("llama", tmp_path)), device="cuda")
    assert message == "model.device = 'cuda': there is no CUDA device; use model.device=cpu"


def test_a_template_that_is_not_there(tmp_path: Path) -> None:
    message = refusal(path=str(save_tiny("llama", tmp_path)), chat_template="chatml")
    assert message == "model.chat_template = 'chatml': it should be auto, none or a file"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ messages[0]['content'] ", "cannot be rendered"),
        ("{{ raise_exception('no system message') }}", "cannot be rendered: no system message"),
        ("Hello", "drops the user's message"),
    ],
)
def test_a_template_that_does_not_work(tmp_path: Path, text: str, reason: str) -> None:
    save_tiny("llama", tmp_path)
    (tmp_path / "mine.jinja").write_text(text)
    message = refusal(path=str(tmp_path), chat_template=str(tmp_path / "mine.jinja"))
    assert message.startswith(f"model.chat_template {reason}")


def test_rounded_rotary_frequencies() -> None:
    with pytest.raises(ValueError, match="rounded rotary frequencies ruin long contexts"):
        checks.check_module(tiny("llama").to(torch.bfloat16))


def test_a_broken_bridge_fails_the_self_test(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    from longspan.models import window

    right = window.WindowState._attend

    def wrong(self: Any, q_HQD: Any, k_GTD: Any, v_GTD: Any, offset: int) -> Any:
        return right(self, q_HQD * 1.1, k_GTD, v_GTD, offset)

    load("llama")
    monkeypatch.setattr(window.WindowState, "_attend", wrong)
    with pytest.raises(ValueError, match=r"self-test: logits differ by .* \(tolerance 0.002\)"):
        load("llama")


def test_another_mask_than_causal() -> None:
    with pytest.raises(ValueError, match="only causal and sliding-window masks"):
        longspan_mask(use_vmap=True)
    with pytest.raises(ValueError, match="only causal and sliding-window masks"):
        longspan_mask(attention_mask=torch.ones(1, 4))


def test_the_model_without_a_session(load: Load) -> None:
    module = load("llama").module
    with pytest.raises(TypeError, match="works in a session only"):
        module(input_ids=torch.tensor([[5, 6, 7]]))


def test_no_rows(load: Load) -> None:
    with pytest.raises(ValueError, match="rows is 0"):
        load("llama").session(Dense(), rows=0)
