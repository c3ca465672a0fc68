"""The keys of RULER's needles: every adjective-noun pair in sorted order, without building the
list.

lm-eval's `prepare_niah` builds and sorts 6.2 million strings when imported (12 s, 1.1 GB). Its
generators only ask for the length and for single entries, which `SortedPairs` answers from the two
word lists; the tests compare the whole sequence.
"""

from __future__ import annotations

import io
import sys
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from itertools import accumulate
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType


class SortedPairs(Sequence[str]):
    """`sorted({f"{a}-{n}" for a in adjectives for n in nouns})`, entries made when asked for."""

    def __init__(self, adjectives: Iterable[str], nouns: Iterable[str]) -> None:
        self._nouns = sorted(set(nouns))
        self._blocks = [self._block(heads) for heads in _clusters(adjectives)]
        self._ends = list(accumulate(self._size(block) for block in self._blocks))

    def _block(self, heads: list[str]) -> str | list[str]:
        """One head stands for all its pairs; heads that continue one another interleave."""
        if len(heads) == 1:
            return heads[0]
        return sorted({head + noun for head in heads for noun in self._nouns})

    def _size(self, block: str | list[str]) -> int:
        return len(self._nouns) if isinstance(block, str) else len(block)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[str]:
        for block in self._blocks:
            if isinstance(block, str):
                yield from (block + noun for noun in self._nouns)
            else:
                yield from block

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"index={index}: there are {len(self)} pairs")
        index %= len(self)
        number = bisect_right(self._ends, index)
        block = self._blocks[number]
        offset = index - (self._ends[number - 1] if number else 0)
        return block + self._nouns[offset] if isinstance(block, str) else block[offset]


def _clusters(adjectives: Iterable[str]) -> Iterator[list[str]]:
    """Sorted heads "adjective-"; heads that begin with an earlier head ("blue-eyed-") share its
    list.
    """
    cluster: list[str] = []
    for head in sorted({f"{adjective}-" for adjective in adjectives}):
        if cluster and not head.startswith(cluster[0]):
            yield cluster
            cluster = []
        cluster.append(head)
    if cluster:
        yield cluster


@contextmanager
def replaced(module: Any, **values: Any) -> Iterator[None]:
    """Set attributes of `module` and put the old ones back on leaving."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


class _NoWords:
    """Stands in for wonderwords.RandomWord while `prepare_niah` is imported."""

    def __init__(self) -> None:
        self._categories: dict[str, list[str]] = {"nouns": [], "adjectives": [], "verbs": []}


def _no_download(*_arguments: Any, **_options: Any) -> bool:
    return False


def import_prepare_niah() -> ModuleType:
    """lm-eval's needle generators with `SortedPairs` as their keys and without a download
    attempt.
    """
    name = "lm_eval.tasks.ruler.prepare_niah"
    if name in sys.modules:
        return sys.modules[name]
    import nltk
    import wonderwords

    words = wonderwords.RandomWord()._categories
    quiet = redirect_stdout(io.StringIO())
    with replaced(wonderwords, RandomWord=_NoWords), replaced(nltk, download=_no_download), quiet:
        module = import_module(name)
    module.WORDS = SortedPairs(words["adjectives"], words["nouns"])  # type: ignore[attr-defined]
    return module
