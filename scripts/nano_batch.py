"""Batches as a step takes them, written in processes of their own while the model computes."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, fields, is_dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import torch
from nano_attention import after_haystack, unseen_haystack, virtual_length
from nano_guide import Targets, targets
from nano_sequence import NO_ANSWER, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from nano_curriculum import Job
    from nano_sequence import Material
    from torch import Tensor

LANGUAGE_SHARE = 0.08
"""Share of the tokens outside answers that enter the loss, and with weight 0.1."""
MOST_QUERIES = 64
MOST_ROWS = 8
"""Queries a row, and rows a batch, whose attention the losses of summaries and ranges look at."""


@dataclass(frozen=True)
class Asking:
    """Tokens of one row that predict a token of an answer."""

    row: int
    place_Q: Tensor
    """int64."""
    first: int
    """The first of these places."""
    stop: int
    """Where the haystack ends."""


@dataclass(frozen=True)
class Batch:
    """B rows of T tokens, on one device."""

    job: Job
    ids_BT: Tensor
    answers_BT: Tensor
    """Numbers of the answers; see Sequence."""
    positions_BT: Tensor
    every_BT: Tensor
    """Bias of a key for every query."""
    tail_BT: Tensor
    """1.0 in the questions and answers."""
    unseen_NBT: Tensor
    """1.0 where layer n hides a key from the tail."""
    other_BT: Tensor
    """Tokens outside answers that the language loss looks at, bool."""
    asking: list[Asking]
    targets: list[Targets]

    def to(self, device: str) -> Batch:
        """The same on a device."""
        moved: Batch = _moved(self, device)
        return moved


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, list):
        return [_moved(each, device) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        named = {each.name: getattr(value, each.name) for each in fields(value)}
        return type(value)(**{name: _moved(each, device) for name, each in named.items()})
    return value


def make_batch(
    material: Material, job: Job, vocabulary: int, layers: int, noise: torch.Generator
) -> Batch:
    """Write the rows of a job and draw all that is random about its step."""
    sequences = [job.write(material, vocabulary) for _ in range(job.rows)]
    ids, answers, haystack = (torch.from_numpy(x) for x in pack(sequences, pad=0))
    positions_BT = torch.arange(ids.shape[1]).repeat(len(ids), 1)
    every_BT = torch.zeros(ids.shape)
    if job.virtual > ids.shape[1]:
        positions_BT, every_BT = virtual_length(haystack, job.virtual, noise)
    looked = job.task != "copy"
    drawn_BT = torch.rand(ids.shape, generator=noise) < LANGUAGE_SHARE
    return Batch(
        job=job,
        ids_BT=ids,
        answers_BT=answers,
        positions_BT=positions_BT,
        every_BT=every_BT,
        tail_BT=after_haystack(haystack),
        unseen_NBT=unseen_haystack(haystack, layers, noise),
        other_BT=drawn_BT & (answers == NO_ANSWER) & (ids > 0),
        asking=_asking(haystack, answers, noise) if looked else [],
        targets=targets(sequences, ids.shape[1], noise) if looked else [],
    )


def _asking(haystack_BT: Tensor, answers_BT: Tensor, noise: torch.Generator) -> list[Asking]:
    found = []
    for row in torch.randperm(len(haystack_BT), generator=noise)[:MOST_ROWS].tolist():
        stop = int(haystack_BT[row].nonzero().max()) if haystack_BT[row].any() else 0
        places = (answers_BT[row, 1:] != NO_ANSWER).nonzero().flatten()
        places = places[places > stop]
        places = places[torch.randperm(len(places), generator=noise)[:MOST_QUERIES]]
        if len(places):
            found.append(Asking(row, places, int(places.min()), stop))
    return found


_WRITE: Callable[[Job, str], Batch] | None = None
"""What the processes inherit: material is made once, and they are forks."""


def _written(job: Job, seed: str) -> Batch:
    assert _WRITE is not None
    return _WRITE(job, seed)


class Writers:
    """Gives batches in the order in which jobs were chosen, whatever the number of processes."""

    def __init__(self, material: Material, vocabulary: int, layers: int, processes: int) -> None:
        """`processes` 0: batches are written when they are asked for. To be made before anything
        is on a GPU, which forks do not survive.
        """
        global _WRITE

        def write(job: Job, seed: str) -> Batch:
            material.rng.seed(seed)
            noise = torch.Generator().manual_seed(material.rng.getrandbits(60))
            return make_batch(material, job, vocabulary, layers, noise)

        _WRITE = write
        self.pool: ProcessPoolExecutor | None = None
        if processes:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
            torch.set_num_threads(1)  # a fork of a pool of threads waits for them for ever
            self.pool = ProcessPoolExecutor(
                processes, mp_context=get_context("fork"), initializer=torch.set_num_threads,
                initargs=(1,),
            )  # fmt: skip
            self.pool.submit(os.getpid).result()  # they are forked now
        self.ahead = 2 * processes
        self.waiting: deque[Future[Batch]] = deque()

    def take(self, choose: Callable[[], tuple[Job, str]]) -> Batch:
        """The next batch; `choose` says what to write, and from which seed."""
        if self.pool is None:
            return _written(*choose())
        while len(self.waiting) <= self.ahead:
            self.waiting.append(self.pool.submit(_written, *choose()))
        return self.waiting.popleft().result()

    def close(self) -> None:
        """End the processes."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
