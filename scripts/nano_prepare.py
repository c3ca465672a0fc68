"""What a training run needs before its model: the tokenizer, and the material in its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nano_sequence import Material
from nano_templates import load_templates
from nano_tokenizer import build_tokenizer, save_tokenizer, tokenizer_corpus

from longspan.tasks.haystack import synthetic_words

if TYPE_CHECKING:
    from pathlib import Path

PROSE_WORDS = 400_000
POSITIONS = 262_144


def prepare(out: Path, seed: int) -> tuple[Material, Any]:
    """The data generator and the tokenizer; the tokenizer is built once for each `out`."""
    from transformers import AutoTokenizer
    from wonderwords import RandomWord

    templates = load_templates()
    prose = synthetic_words(-1, PROSE_WORDS)
    folder = out / "export"
    if not (folder / "tokenizer.json").exists():
        corpus = tokenizer_corpus(prose, templates.sentences())
        save_tokenizer(build_tokenizer(corpus), folder, POSITIONS)
    fast = AutoTokenizer.from_pretrained(folder)
    backend = fast.backend_tokenizer
    source = RandomWord()
    adjectives, nouns = (
        sorted(source.filter(include_categories=[category])) for category in ("adjective", "noun")
    )

    def encode(text: str) -> list[int]:
        return list(backend.encode(text, add_special_tokens=False).ids)

    return Material(encode, templates, prose, (adjectives, nouns), fast.eos_token_id, seed), fast
