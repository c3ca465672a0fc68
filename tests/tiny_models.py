"""Tiny random models of every supported family, and a tokenizer trained on a few sentences; nothing
is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

COMMON: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.12,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXED = ["sliding_attention", "full_attention", "full_attention"]
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 64,
}
EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama3_rope": ("LlamaConfig", {"rope_parameters": LLAMA3_ROPE}),
    "mistral": ("MistralConfig", {"sliding_window": None, "head_dim": 32}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2_sliding": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 32}),
    "phi3": ("Phi3Config", {}),
    "gemma": ("GemmaConfig", {"head_dim": 32, "num_key_value_heads": 1}),
    "gemma2": (
        "Gemma2Config",
        {
            "head_dim": 32,
            "sliding_window": 12,
            "attn_logit_softcapping": 2.0,
            "query_pre_attn_scalar": 48,
        },
    ),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 32, "sliding_window": 12, "layer_types": MIXED}),
    "gpt_oss": (
        "GptOssConfig",
        {
            "head_dim": 32,
            "sliding_window": 12,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": MIXED,
        },
    ),
    "gpt_neox": ("GPTNeoXConfig", {"num_key_value_heads": None}),
    "gpt2": ("GPT2Config", {"n_embd": 64, "n_layer": 3, "n_head": 4}),
}
"""Families that must equal eager attention."""
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "phi3_longrope": (
        "Phi3Config",
        {"original_max_position_embeddings": 64, "rope_parameters": LONGROPE},
    ),
    "phi3_wide_window": ("Phi3Config", {"sliding_window": 2048}),
    "llama_dynamic": (
        "LlamaConfig",
        {
            "max_position_embeddings": 64,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
        },
    ),
    "granite_dense": (
        "GraniteMoeHybridConfig",
        {
            "layer_types": ["attention"] * 3,
            "shared_intermediate_size": 96,
            "mamba_n_heads": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
    "mistral_sliding": ("MistralConfig", {"sliding_window": 12}),
    "llama4": (
        "Llama4TextConfig",
        {
            "head_dim": 16,
            "num_local_experts": 2,
            "attention_chunk_size": 32,
            "intermediate_size_mlp": 64,
        },
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        {
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
            "q_lora_rank": None,
            "kv_lora_rank": 32,
            "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "moe_intermediate_size": 32,
        },
    ),
    "qwen3_next": (
        "Qwen3NextConfig",
        {
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        },
    ),
    "falcon": ("FalconConfig", {}),
    "bloom": ("BloomConfig", {}),
    "mamba": ("MambaConfig", {}),
    "diffllama": ("DiffLlamaConfig", {}),
}
"""Families that are pinned, or refused."""

CORPUS = [
    "One of the special magic numbers for quiet-river is: 4821957.",
    "What is the special magic number for quiet-river mentioned in the provided text?",
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.",
    "VAR X1 = 12345 VAR X2 = VAR X1; find all variables that are assigned the value 12345.",
]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|user|>{{ message['content'] | trim }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny(name: str, **over: Any) -> Any:
    """A random model of a family in EXACT or OTHERS, float32, eager attention; `over` changes its
    configuration.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    kind, special = {**EXACT, **OTHERS}[name]
    config = getattr(transformers, kind)(**{**COMMON, **special, **over})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.float().eval()


def tiny_tokenizer(*, bos: bool = True, chat: bool = False) -> Any:
    """A byte-level BPE tokenizer of 320 tokens; `bos` puts <s> in front, `chat` gives it a
    template.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE if chat else None
    return tokenizer


def save_tiny(name: str, folder: Path, *, chat: bool = False, **over: Any) -> Path:
    """Write a tiny model and its tokenizer where `model.path=<folder>` can load them; returns the
    folder.
    """
    tiny(name, **over).save_pretrained(folder)
    tiny_tokenizer(chat=chat).save_pretrained(folder)
    return Path(folder)
