"""One optimiser step over several jobs at once, each on one thread with its own gradients."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from nano_attention import Biases, hidden_states
from nano_clusters import Probe
from nano_guide import Guide
from nano_sequence import END, NO_ANSWER, PARTS

if TYPE_CHECKING:
    from nano_batch import Batch

HAS_BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
"""Without its instructions a CPU computes in bfloat16 ten times slower than in float32."""
SUMMARY_WEIGHT = 0.8
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


def backward(model: Any, batch: Batch, device: str) -> Outcome:
    """Add the gradients of one batch to `model`."""
    here = batch.to(device)
    biases = probe = None
    if batch.job.task != "copy":
        biases = Biases(here.every_BT, here.tail_BT, here.unseen_NBT)
        guide = Guide(here.targets, here.every_BT)
        probe = Probe(here.asking, here.every_BT, guide, sparse=not batch.job.virtual)
    answers_BT = batch.answers_BT[:, 1:]
    is_answer_BT = here.answers_BT[:, 1:] != NO_ANSWER
    chosen_BT = is_answer_BT | here.other_BT[:, 1:]
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda" or HAS_BFLOAT16):
        hidden = hidden_states(model, here.ids_BT, here.positions_BT, biases, probe)
        logits = model.lm_head(hidden[:, :-1][chosen_BT]).float()
    labels, asked = here.ids_BT[:, 1:][chosen_BT], is_answer_BT[chosen_BT]
    right = logits.argmax(-1) == labels
    losses = F.cross_entropy(logits, labels, reduction="none")
    # Most tokens of an answer only go on copying; the weight is on those that are still wrong.
    hard = 1.1 - (-losses[asked].detach()).exp()
    loss = (hard * losses[asked]).sum() / hard.sum() + 0.1 * losses[~asked].mean()
    extra = probe.losses() if probe is not None else loss.new_zeros(3)
    summaries, ranges, guided = extra
    # Finding comes first, keys that can be summarised when lengths have grown.
    weight = SUMMARY_WEIGHT * min(1.0, max(batch.job.length, batch.job.virtual) / LONG)
    (loss + weight * summaries + RANGE_WEIGHT * ranges + GUIDE_WEIGHT * guided).backward()
    return Outcome(
        float(loss.detach()),
        _accuracy(right[asked].cpu(), answers_BT),
        batch.ids_BT.numel(),
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

    def step(self, batches: list[Batch], rate: float) -> list[Outcome]:
        """One update from the mean gradient of the batches, one a replica."""
        futures = [
            self.pool.submit(backward, replica, batch, self.device)
            for replica, batch in zip(self.replicas, batches, strict=True)
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
