"""A loaded Hugging Face decoder as a longspan model."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longspan.models import checks
from longspan.models.base import Model
from longspan.models.decoder import Decoder, Row
from longspan.models.encoding import Encoder
from longspan.models.identity import sha, tokenizer_fingerprint, weights_fingerprint
from longspan.models.rope import RotaryPin, positions, stretches
from longspan.models.session import StoreSession

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from longspan.methods.base import Method
    from longspan.models.compiled import CompiledLayers
    from longspan.models.huggingface import HuggingFace
    from longspan.models.prompts import Prompts
    from longspan.prefill.base import Prefill
    from longspan.types import Example, LayerGeometry

TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>", "<turn|>")
"""Tokens that end an answer where the chat template writes them; some checkpoints forget to list
theirs.
"""


class HuggingFaceModel(Model):
    """A loaded Hugging Face decoder whose attention runs through the method's states."""

    def __init__(
        self,
        options: HuggingFace,
        source: str,
        module: Any,
        tokenizer: Any,
        windows: list[int | None],
        layers: list[tuple[LayerGeometry, Any]],
    ) -> None:
        """`layers`: what each is like, and its attention module."""
        geometries = [geometry for geometry, _ in layers]
        text = module.config.get_text_config(decoder=True)
        self.options = options
        self.name = options.name or Path(options.path).expanduser().resolve().name
        self.module = module
        self.tokenizer = tokenizer
        self.max_positions = positions(text)
        self.stretches = stretches(module.config)
        self.dtype = module.dtype
        self.device = geometries[0].device
        self.layers = len(windows)
        self.chunk_tokens = options.prefill_chunk_tokens
        self.geometries = tuple(
            g for g, window in zip(geometries, windows, strict=True) if window is None
        )
        _set_template(tokenizer, options)
        self.eos_ids = _eos_ids(module, tokenizer)
        self._encoder = Encoder(tokenizer, self.eos_ids)
        self._encoder.check()
        self._source = source
        self._decoder = Decoder(
            module=module,
            windows=windows,
            geometries=geometries,
            attentions=[attention for _, attention in layers],
            rotary=RotaryPin(module),
            device=checks.input_device(module),
            chunk_tokens=options.prefill_chunk_tokens,
            overlap_index=options.overlap_index,
            max_positions=self.max_positions,
            learned_positions=not getattr(text, "rope_parameters", None),
            graphs=options.graphs,
            compiled=_compiled(module, self.layers) if options.compile else None,
        )

    def session(
        self,
        method: Method,
        rows: int = 1,
        max_tokens: int | None = None,
        prefill: Prefill | None = None,
        context_tokens: int | None = None,
        prompts: Prompts | None = None,
    ) -> StoreSession:
        """See Model.session."""
        if rows < 1:
            raise ValueError(f"rows is {rows}; it should be at least 1")
        if self._decoder.rotary.needed and context_tokens is None and self.max_positions is None:
            raise ValueError(
                f"{self.name} chooses its rotary frequencies by the length of the context; give "
                "context_tokens"
            )
        empty = [Row(self._decoder.states(method, prefill)) for _ in range(rows)]
        return StoreSession(self._decoder, method, empty, max_tokens, context_tokens, prompts)

    def encode(self, example: Example) -> tuple[list[int], list[int]]:
        """See Model.encode. ValueError where the tokenizer knows tokens that the model does not."""
        context, question = self._encoder(example)
        self._check_known([*context, *question])
        return context, question

    def encode_answer(self, example: Example) -> list[int]:
        """See Model.encode_answer. ValueError as in `encode`."""
        ids = self._encoder.answer(example)
        self._check_known(ids)
        return ids

    def _check_known(self, ids: Sequence[int]) -> None:
        rows = self.module.get_input_embeddings().num_embeddings
        if (largest := max(ids, default=0)) >= rows:
            raise ValueError(
                f"model.path = {self.options.path!r}: its tokenizer gives token {largest}, but it "
                f"has {rows} embeddings; right would be the tokenizer it was trained with"
            )

    def identity(self) -> Mapping[str, Any]:
        """See Model.identity. A hub model is known by its commit, a folder by a digest of its
        files.
        """
        folder, template = Path(self._source), self._encoder.tokenizer.chat_template
        code = self.options.trust_remote_code
        weights = weights_fingerprint(folder, code=code) if folder.is_dir() else None
        return {
            "path": self.options.path if weights is None else self.name,
            "revision": getattr(self.module.config, "_commit_hash", None) or self.options.revision,
            "weights": weights,
            "config": self.options.config,
            "dtype": str(self.dtype).removeprefix("torch."),
            "tokenizer": tokenizer_fingerprint(self.tokenizer),
            "chat_template": None if template is None else sha(template),
            "thinking": self.options.thinking,
            "eos_ids": sorted(self.eos_ids),
            "transformers": importlib.metadata.version("transformers"),
            "tokenizers": importlib.metadata.version("tokenizers"),
        }


def _compiled(module: Any, layers: int) -> CompiledLayers:
    from longspan.models.compiled import CompiledLayers  # brings torch's compiler

    return CompiledLayers(module, layers)


def _set_template(tokenizer: Any, options: HuggingFace) -> None:
    """Let the tokenizer carry the template that is used, so that tasks measure what is read."""
    tokenizer.chat_template = _template(options.chat_template, tokenizer)
    thinking = options.thinking
    tokenizer.template_options = {} if thinking is None else {"enable_thinking": thinking}


def _template(choice: str, tokenizer: Any) -> str | None:
    if choice == "none":
        return None
    if choice == "auto":
        own = tokenizer.chat_template
        return own.get("default") if isinstance(own, dict) else own
    path = Path(choice).expanduser()
    if not path.is_file():
        raise ValueError(f"model.chat_template = {choice!r}: it should be auto, none or a file")
    return path.read_text(encoding="utf-8")


def _eos_ids(module: Any, tokenizer: Any) -> frozenset[int]:
    configs = (module.generation_config, module.config.get_text_config(decoder=True))
    named = [getattr(config, "eos_token_id", None) for config in configs if config is not None]
    ids: set[int] = set()
    for value in [*named, tokenizer.eos_token_id]:
        ids.update([] if value is None else [value] if isinstance(value, int) else value)
    # a checkpoint that lists several knows its ends: in gpt-oss <|end|> closes a thought
    template = tokenizer.chat_template
    if template and not any(isinstance(value, list) for value in named):
        added = tokenizer.get_added_vocab()
        ids.update(added[end] for end in TURN_ENDS if end in added and end in template)
    return frozenset(ids)
