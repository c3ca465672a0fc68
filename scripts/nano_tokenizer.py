"""Build the tokenizer of the embedded model: a byte-level BPE made for copying.

Strings that long-context tasks ask back (numbers, random capitals, hexadecimal ids) fall into short
fixed groups, so equal strings always give equal tokens, wherever they stand. Every byte has a
token: any text survives encoding and decoding.
"""

from __future__ import annotations

import json
import random
import shutil
import string
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

EOS: Final = "<eos>"
PAD: Final = "<pad>"

_HEX_RUN: Final = r"(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])"
_PATTERN: Final = "|".join(
    (
        _HEX_RUN + r"[0-9a-f]{2}",
        r" ?VAR(?!\p{Lu})",
        r"\p{Lu}{2}(?!\p{Ll})",
        r"\p{Lu}(?!\p{Ll})",
        rf" ?(?!{_HEX_RUN})\p{{Lu}}?[\p{{Ll}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]+",
        r" ?\p{N}{1,3}",
        r" ?[^\s\p{L}\p{M}\p{N}]+",
        r"\s",
        r".",
    )
)


def _grouped_merges() -> list[tuple[str, str]]:
    """Merges of the fixed groups: digit pairs and triples, capital pairs, hexadecimal pairs."""
    digits, capitals, hexadecimal = string.digits, string.ascii_uppercase, "0123456789abcdef"
    blank = "\u0120"  # How the byte-level alphabet writes a blank.
    merges = [(a, b) for a in digits for b in digits]
    merges += [(a + b, c) for a in digits for b in digits for c in digits]
    merges += [(a, b + c) for a in digits for b in digits for c in digits]
    merges += [(blank, a) for a in digits]
    merges += [(blank, a + b) for a in digits for b in digits]
    merges += [(blank, a + b + c) for a in digits for b in digits for c in digits]
    merges += [(a, b) for a in capitals for b in capitals]
    merges += [(a, b) for a in hexadecimal for b in hexadecimal if not (a + b).isdigit()]
    return merges


def tokenizer_corpus(prose: Sequence[str], templates: Sequence[str]) -> Iterator[str]:
    """Text the word merges are learned from; `templates` are repeated to become whole words."""
    from wonderwords import RandomWord

    source = RandomWord()
    rng = random.Random(-1)
    nouns = sorted(source.filter(include_categories=["noun"]))
    adjectives = sorted(source.filter(include_categories=["adjective"]))
    verbs = sorted(source.filter(include_categories=["verb"]))
    for _ in range(400):
        yield from templates
        yield " VAR = VAR ... ..."
    yield " ".join(prose)
    for _ in range(60_000):
        yield f" {rng.choice(adjectives)}-{rng.choice(nouns)}"
    for word in nouns + adjectives + verbs:
        yield f" {word}"


def build_tokenizer(corpus: Iterator[str], word_merges: int = 5000) -> Tokenizer:
    """Learn `word_merges` merges from `corpus` and put them behind those of the fixed groups."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = splitter
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + word_merges, initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(corpus, trainer)
    learned = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]

    # Learned merges first: a hexadecimal pair must not cut into ordinary words.
    merges = list(dict.fromkeys([*learned, *_grouped_merges()]))
    tokens = [EOS, PAD, *alphabet, *(a + b for a, b in merges)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([EOS, PAD])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Write tokenizer.json and tokenizer_config.json; no token is added to a text by itself."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Use the tokenizer of an exported folder, which its weights were trained on."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, target / name)
