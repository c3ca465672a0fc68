"""Answering: greedy and sampled decoding of a session's rows, token by token."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from longspan.models.base import NOT_FINITE
from longspan.models.sampling import probabilities
from longspan.options import Fraction, Share, Tokens, settings
from longspan.types import Generation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal

    from torch import Tensor

    from longspan.models.base import Session
    from longspan.tasks.base import Tokenizer


@settings
class Sampling:
    """How the next token is chosen from the logits. Filters apply in the order of the fields."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 takes the likeliest token."""
    top_k: Tokens = 0
    """0 keeps all."""
    top_p: Fraction = 1.0
    min_p: Share = 0.0
    """Keeps tokens at least this likely in relation to the likeliest."""
    ignore_eos: bool = False
    """Answer to the full length, as latency runs and the RetroInfer paper do."""


@dataclass(kw_only=True)
class Stream:
    """The answer of one row as it grows."""

    prompt_tokens: int
    max_new_tokens: int
    key: str = ""
    """Example and sample; with the run's seed it fixes the random numbers, whatever else is in the
    batch.
    """
    stop: tuple[str, ...] = ()
    """Texts that end the answer; one of blanks only does not before the answer has begun."""
    tokens: list[int] = field(default_factory=list)
    finish: Literal["eos", "stop", "length"] | None = None
    """None while it grows."""

    def heed(self, drawn: int, logits_V: Tensor) -> int:
        """The token that the answer goes on with, `drawn` from these logits."""
        return drawn

    def take(self, token: int, eos_ids: frozenset[int], tokenizer: Tokenizer) -> None:
        """Add a token and see whether the answer ends with it."""
        self.tokens.append(token)
        if token in eos_ids:
            self.finish = "eos"
        elif self.stop and self._stops(tokenizer):
            self.finish = "stop"
        elif len(self.tokens) >= self.max_new_tokens:
            self.finish = "length"

    def text(self, tokenizer: Tokenizer) -> str:
        """The answer so far, without special tokens and from the stop string on cut off."""
        words = self.tokens[:-1] if self.finish == "eos" else self.tokens
        text = tokenizer.decode(words, skip_special_tokens=True)
        return text[: _first(text, self.stop)]

    def generation(self, tokenizer: Tokenizer) -> Generation:
        """The finished answer. RuntimeError while it grows."""
        if self.finish is None:
            raise RuntimeError("the answer is not finished")
        return Generation(self.text(tokenizer), tuple(self.tokens), self.prompt_tokens, self.finish)

    def _stops(self, tokenizer: Tokenizer) -> bool:
        """Decode only a tail that holds any stop string, even where every byte is a token."""
        tail = 4 * max(map(len, self.stop)) + 8
        recent = tokenizer.decode(self.tokens[-tail:], skip_special_tokens=True)
        if not any(stop in recent for stop in self.stop):
            return False
        return (
            _first(tokenizer.decode(self.tokens, skip_special_tokens=True), self.stop) is not None
        )


@dataclass(kw_only=True)
class Taught(Stream):
    """A text that the model is fed in place of its own words; ends where the text does."""

    lesson: Sequence[int]
    nats: list[float] = field(default_factory=list)
    """By token: what the model would have taken it for, -log p."""
    likeliest: list[int] = field(default_factory=list)
    """What the model would have said in its place."""

    def heed(self, drawn: int, logits_V: Tensor) -> int:
        """See Stream: the lesson's next token, whatever was drawn."""
        token = self.lesson[len(self.tokens)]
        self.nats.append(-float(logits_V.log_softmax(-1)[token]))
        self.likeliest.append(int(logits_V.argmax()))
        return token

    def take(self, token: int, eos_ids: frozenset[int], tokenizer: Tokenizer) -> None:
        """See Stream. A token that ends answers is one like others here."""
        super().take(token, frozenset(), tokenizer)


def generate(
    session: Session,
    logits_BV: Tensor,
    streams: Sequence[Stream],
    *,
    tokenizer: Tokenizer,
    eos_ids: frozenset[int],
    sampling: Sampling,
    seed: int = 0,
) -> Iterator[list[Stream]]:
    """Continue every row of a prefilled session until all have ended; yields, step by step, the
    streams that grew.

    `logits_BV` is what the prefill (or the last decode) returned. The same key and seed give the
    same answer whatever the batch, up to rounding. The last token of an answer is not read by the
    model.
    """
    ends = frozenset() if sampling.ignore_eos else eos_ids
    growing = list(streams)
    dice = {id(s): row_generator(seed, s.key, len(s.tokens)) for s in growing}
    while growing:
        tokens = choose(logits_BV, sampling, [dice[id(stream)] for stream in growing])
        told = zip(growing, tokens, logits_BV, strict=True)
        tokens = [stream.heed(token, logits_V) for stream, token, logits_V in told]
        for stream, token in zip(growing, tokens, strict=True):
            stream.take(token, ends, tokenizer)
        yield growing
        rows = [row for row, stream in enumerate(growing) if stream.finish is None]
        if not rows:
            return
        if len(rows) < len(growing):
            session = session.select(rows)
            growing = [growing[row] for row in rows]
            tokens = [tokens[row] for row in rows]
        logits_BV = session.decode(tokens)


def row_generator(seed: int, key: str, drawn: int = 0) -> torch.Generator:
    """The random numbers of one answer that has `drawn` tokens; on the CPU, the same everywhere."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    dice = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    for _ in range(drawn):
        _draw(dice)
    return dice


def _draw(dice: torch.Generator) -> Tensor:
    return torch.rand((), generator=dice, dtype=torch.float64)


@torch.inference_mode()
def choose(logits_BV: Tensor, sampling: Sampling, dice: Sequence[torch.Generator]) -> list[int]:
    """The next token of every row: the likeliest, or drawn by inverting the cumulative distribution
    at one number.
    """
    best = logits_BV.max(-1)
    if not all(map(math.isfinite, best.values.tolist())):
        raise FloatingPointError(NOT_FINITE)
    if sampling.temperature == 0:
        tokens: list[int] = best.indices.tolist()
        return tokens
    p_BV = probabilities(
        logits_BV, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p
    )
    below_BV = p_BV.double().cumsum(-1)
    # never on or above the total, so the last token with weight is the farthest
    at_B1 = torch.stack([_draw(one) for one in dice]).to(p_BV.device)[:, None] * below_BV[:, -1:]
    drawn: list[int] = torch.searchsorted(below_BV, at_B1, right=True)[:, 0].tolist()
    return drawn


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of the stop strings begins. Blank ones count from the first word on, as
    LongBench forbids the line break that ends its dialogues as a first token.
    """
    begun = len(text) - len(text.lstrip())
    found = [text.find(stop, 0 if stop.strip() else begun) for stop in stops]
    return min((at for at in found if at >= 0), default=None)
