"""One optimiser step over several jobs at once, each on one thread with its own gradients."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from nano_clusters import MOST_QUERIES, Probe
from nano_guide import Guide, targets
from nano_model import Biases, after_haystack, hidden_states, unseen_haystack, virtual_length
from nano_sequence import END, NO_ANSWER, PARTS, pack

if TYPE_CHECKING:
    from nano_curriculum import Job
    from nano_sequence import Sequence

LANGUAGE_SHARE = 0.08
"""Share of the tokens outside answers that enter the loss, and with weight 0.1."""
SUMMARY_WEIGHT = 0.4
RANGE_WEIGHT = 0.02
GUIDE_WEIGHT = 0.7
LONG = 2000
"""Tokens from which on the summaries weigh in full."""


@dataclass(frozen=True)
class Outcome:
    """Loss, share of answers right in every token, tokens used, loss of the cluster summaries,
    of the range of the scores and of the guided attention.
    """

    loss: float
    accuracy: float
    tokens: int
    summaries: float
    ranges: float
    guided: float


def _accuracy(right: torch.Tensor, answers_BT: torch.Tensor) -> float:
    """Share of the answers, told apart by row and number, whose tokens are all right."""
    rows, columns = (answers_BT != NO_ANSWER).nonzero(as_tuple=True)
    names = rows * (PARTS * 100_000) + answers_BT[rows, columns]
    keep = names % PARTS < END
    unique, inverse = names[keep].unique(return_inverse=True)
    wrong = torch.zeros(len(unique)).index_add_(0, inverse, (~right[keep]).float())
    return float((wrong == 0).float().mean())


def _probe(
    sequences: list[Sequence],
    haystack_BT: torch.Tensor,
    is_answer_BT: torch.Tensor,
    bias_BT: torch.Tensor,
    noise: torch.Generator,
) -> Probe:
    """Looks at up to MOST_QUERIES tokens a row that predict a token of an answer, where the model
    is: on the device of the bias.
    """
    asking, stops = [], []
    for row_T, answers_T in zip(haystack_BT, is_answer_BT, strict=True):
        last = int(row_T.nonzero().max()) if row_T.any() else 0
        places = answers_T.nonzero().flatten()
        places = places[places > last]
        places = places[torch.randperm(len(places), generator=noise)[:MOST_QUERIES]]
        asking.append(places.to(bias_BT.device))
        stops.append(last)
    return Probe(asking, stops, bias_BT, Guide(targets(sequences, bias_BT, noise), bias_BT))


def backward(
    model: Any, job: Job, sequences: list[Sequence], noise: torch.Generator, device: str
) -> Outcome:
    """Add the gradients of one job to `model`."""
    ids, answers, haystack = (torch.from_numpy(x) for x in pack(sequences, pad=0))
    target, answers = ids[:, 1:], answers[:, 1:]
    is_answer = answers != NO_ANSWER
    positions_BT = torch.arange(ids.shape[1]).repeat(len(ids), 1)
    every_BT = torch.zeros(ids.shape)
    if job.virtual > ids.shape[1]:
        positions_BT, every_BT = virtual_length(haystack, job.virtual, noise)
    layers = len(model.model.layers)
    unseen_NBT = unseen_haystack(haystack, layers, noise)
    biases = probe = None
    if job.task != "copy":
        on = (x.to(device) for x in (every_BT, after_haystack(haystack), unseen_NBT))
        biases = Biases(*on)
        probe = _probe(sequences, haystack, is_answer, biases.every_BT, noise)
    is_other = (torch.rand(target.shape, generator=noise) < LANGUAGE_SHARE) & ~is_answer
    chosen = (is_answer | (is_other & (target > 0))).to(device)
    with torch.autocast(device, torch.bfloat16):
        hidden = hidden_states(model, ids.to(device), positions_BT.to(device), biases, probe)
        logits = model.lm_head(hidden[:, :-1][chosen]).float()
    labels = target.to(device)[chosen]
    right = logits.argmax(-1) == labels
    losses = F.cross_entropy(logits, labels, reduction="none")
    here = is_answer.to(device)[chosen]
    # Most tokens of an answer only go on copying; the weight is on those that are still wrong.
    hard = 1.1 - (-losses[here].detach()).exp()
    loss = (hard * losses[here]).sum() / hard.sum() + 0.1 * losses[~here].mean()
    extra = probe.losses() if probe is not None else loss.new_zeros(3)
    summaries, ranges, guided = extra
    # Finding comes first, keys that can be summarised when lengths have grown.
    weight = SUMMARY_WEIGHT * min(1.0, max(job.length, job.virtual) / LONG)
    (loss + weight * summaries + RANGE_WEIGHT * ranges + GUIDE_WEIGHT * guided).backward()
    return Outcome(
        float(loss.detach()),
        _accuracy(right[here].cpu(), answers),
        ids.numel(),
        *(float(each.detach()) for each in extra),
    )


class Stepper:
    """Model replicas that share weights and add up their gradients.

    On a CPU one thread a replica wastes less than many threads a matrix product: threads then wait
    for one another once a step instead of once an operation.
    """

    def __init__(self, model: Any, optimizer: Any, workers: int, device: str) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        self.replicas = [model]
        for _ in range(workers - 1):
            replica = copy.deepcopy(model)
            for mine, theirs in zip(replica.parameters(), model.parameters(), strict=True):
                mine.data = theirs.data
            self.replicas.append(replica)
        self.pool = ThreadPoolExecutor(workers)
        self.noise = [torch.Generator() for _ in self.replicas]

    def seed(self, seed: int) -> None:
        """Make the random choices of the next steps follow from `seed`."""
        for index, noise in enumerate(self.noise):
            noise.manual_seed(seed * 64 + index)

    def step(self, jobs: list[Job], rows: list[list[Sequence]], rate: float) -> list[Outcome]:
        """One update from the mean gradient of the jobs, one job a replica."""
        futures = [
            self.pool.submit(backward, replica, job, sequences, noise, self.device)
            for replica, job, sequences, noise in zip(
                self.replicas, jobs, rows, self.noise, strict=True
            )
        ]
        outcomes = [future.result() for future in futures]
        for parameters in zip(*(r.parameters() for r in self.replicas), strict=True):
            total = sum(p.grad for p in parameters) / len(parameters)
            for parameter in parameters:
                parameter.grad = None
            parameters[0].grad = total
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return outcomes
