"""Language modelling: how likely a method makes the true continuation of a long text.

PG-19 is Rae et al., "Compressive Transformers for Long-Range Sequence Modelling", arXiv 1911.05507.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Final

from longspan.options import Count, settings
from longspan.tasks.averages import macro_average
from longspan.tasks.base import Task
from longspan.tasks.files import file_sha256, read_text
from longspan.tasks.lengths import count_tokens, leading, overhead_tokens
from longspan.tasks.rows import ROW_FILES, hub_rows, read_rows, text_field
from longspan.types import Example

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from longspan.tasks.base import Tokenizer
    from longspan.types import Record

_HUB: Final = "emozilla/pg19-test"
_HOW: Final = (
    "Get it with `python scripts/get_data.py pg19 --to DIR` where there is a network, or set "
    "task.path to a text, a folder of .txt files, or a .jsonl, .json, .csv or .parquet file of "
    "rows with a text."
)
_SEAM_TOKENS: Final = 4
"""What joining context and continuation may add."""
_SPARE_TOKENS: Final = 32
"""By which a continuation is longer than what is scored of it."""
_CHARS_A_TOKEN: Final = 4
MOST_NATS: Final = 700.0
_GAP: Final = re.compile(r"\s")


@dataclass(frozen=True, slots=True)
class Book:
    """A text that windows are cut from."""

    name: str
    text: str


@settings
class Perplexity(Task):
    """Windows of long texts: all but the last tokens are the context, and the last are fed one by
    one and weighed by the probability that the model gives to each.

    The score of a window is 100 / perplexity: the geometric mean of those probabilities in percent.
    """

    version: ClassVar[int] = 1

    path: str | None = None
    """A text, a folder of .txt files, or a file of rows; None: the test set of PG-19 on the hub."""
    text_field: str = "text"
    """Where a row has its text."""
    scored_tokens: Count = 256
    """At the end of each window."""

    @property
    def label(self) -> str:
        """perplexity[pg19], or the name of the file or folder."""
        return f"perplexity[{Path(self.path).stem if self.path else 'pg19'}]"

    @property
    def default_context_tokens(self) -> int | None:
        """Long texts have room for any."""
        return 4096

    def examples(
        self, tokenizer: Tokenizer, context_tokens: int | None, count: int | None, seed: int
    ) -> Sequence[Example]:
        """See `Task.examples`: windows that do not overlap, of each text in turn; fewer than
        `count` where the texts have no more, and all of them for None. `seed` shuffles the texts
        and moves the windows.
        """
        if context_tokens is None:
            raise ValueError("ctx=None: perplexity needs one, such as 16k")
        room = context_tokens - overhead_tokens(tokenizer, chat=False)
        room -= self.scored_tokens + _SEAM_TOKENS
        if room < 1:
            raise ValueError(
                f"task.scored_tokens={self.scored_tokens}: leaves no context of "
                f"ctx={context_tokens}"
            )
        books, rng = self._books(), Random(f"{seed}:perplexity")
        rng.shuffle(books)
        open_books = [_windows(tokenizer, book, room, self.scored_tokens, rng) for book in books]
        examples = list(islice(_in_turn(open_books), count))
        if not examples:
            longest = max(books, key=lambda book: len(book.text))
            raise ValueError(
                f"task.path={self.path or _HUB}: no text has {context_tokens} tokens (the longest, "
                f"{longest.name}, has {len(longest.text)} characters); right would be a smaller ctx"
            )
        return examples

    def score(self, example: Example, text: str) -> float:
        """TypeError: nothing is answered."""
        raise TypeError("perplexity has no answers to score: its examples are forced")

    def aggregate(self, records: Sequence[Record]) -> Mapping[str, float]:
        """Perplexity over all scored tokens with its interval, bits for each byte of text, and
        how often the likeliest token is the right one, in percent.
        """
        each = [record.meta["nats"] / record.new_tokens for record in records]
        half = macro_average([[each]]).half
        tokens = sum(record.new_tokens for record in records)
        nats = math.fsum(record.meta["nats"] for record in records)
        right = math.fsum(record.meta["right_tokens"] for record in records)
        size = sum(record.meta["scored_bytes"] for record in records)
        spread = {} if half is None else {"low": -half, "high": half}
        return {
            "perplexity": _perplexity(nats / tokens),
            **{f"perplexity_{end}": _perplexity(nats / tokens + by) for end, by in spread.items()},
            "bits_per_byte": nats / math.log(2) / size,
            "accuracy": 100 * right / tokens,
        }

    def identity(self) -> Mapping[str, Any]:
        """Digests of the files."""
        if self.path is None:
            return {"hub": _HUB}
        return {"sha256": [file_sha256(file) for file in _files(self.path)]}

    def _books(self) -> list[Book]:
        if self.path is None:
            return [
                Book(str(number), text_field(row, [self.text_field], place))
                for number, (place, row) in enumerate(hub_rows(_HUB, None, "test", _HOW))
            ]
        files = _files(self.path)
        if files[0].suffix.lower() not in ROW_FILES:
            return [Book(file.stem, read_text(file, "task.path")) for file in files]
        return [
            Book(str(number), text_field(row, [self.text_field], place))
            for number, (place, row) in enumerate(read_rows(self.path))
        ]


def _perplexity(nats: float) -> float:
    """Of a mean over tokens; beyond MOST_NATS it is no number."""
    return math.exp(min(nats, MOST_NATS))


def _files(path: str) -> list[Path]:
    """The .txt files of a folder, in order, or the file itself."""
    at = Path(path).expanduser()
    if not at.is_dir():
        return [at]
    if found := sorted(at.glob("*.txt")):
        return found
    raise ValueError(f"task.path={path}: the folder holds no .txt file")


def _in_turn(books: Sequence[Iterator[Example]]) -> Iterator[Example]:
    """A window of each text, then the next of each."""
    while books:
        drawn = [(book, next(book, None)) for book in books]
        books = [book for book, example in drawn if example is not None]
        yield from (example for _, example in drawn if example is not None)


def _windows(
    tokenizer: Tokenizer, book: Book, room: int, scored: int, rng: Random
) -> Iterator[Example]:
    """The windows of a text from a random beginning on that, where the text is not much longer than
    one, is its own.
    """
    chars = _CHARS_A_TOKEN * (room + scored)
    at = rng.randint(0, max(0, min(chars, len(book.text) - 2 * chars)))
    if at and (gap := _GAP.search(book.text, at)) is not None:
        at = gap.start()
    while True:
        rest = book.text[at:].lstrip()
        at = len(book.text) - len(rest)
        context = leading(tokenizer, rest, room)
        further = leading(tokenizer, rest[len(context) :], scored + scored // 8 + _SPARE_TOKENS)
        if count_tokens(tokenizer, further) < scored:
            return
        yield Example(
            id=f"{book.name}@{at}",
            context=context,
            question="",
            references=(further,),
            max_new_tokens=scored,
            chat=False,
            meta={"text": book.name, "first_character": at},
            forced=True,
        )
        at += len(context) + len(further)
