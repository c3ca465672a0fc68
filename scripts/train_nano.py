"""Train the embedded model `nano` to retrieve from long contexts, on two CPU cores or a GPU.

    OMP_NUM_THREADS=1 nice -n 19 python scripts/train_nano.py --minutes 120
    OMP_NUM_THREADS=1 nice -n 19 python scripts/train_nano.py --minutes 180 --resume
    ... --start src/longspan/models/nano --begin 20000    # the embedded weights go on, elsewhere
    python scripts/train_nano.py --minutes 5 --workers 1 --writers 14 --tokens 32768    # on a GPU

Cost: the embedded weights took 81 million tokens, 7 hours on shared CPU cores. `--minutes`
counts from the start of the first run; the learning rate falls at the end. The state goes to
results/nano/state.pt every `--save-every` seconds, one JSON line every 10 steps to log.jsonl, and
the model in Hugging Face form to results/nano/export.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nano_batch import Writers
from nano_curriculum import SHARED, SHARES, Curriculum
from nano_model import build_model, load_weights, look_back_init
from nano_prepare import POSITIONS, prepare
from nano_step import Outcome, Stepper
from nano_tokenizer import copy_tokenizer

if TYPE_CHECKING:
    from nano_curriculum import Job


def arguments() -> argparse.Namespace:
    """The command line; the model's card says where its training differed from the defaults."""
    parser = argparse.ArgumentParser(description="Train the embedded model nano.")
    parser.add_argument("--out", type=Path, default=Path("results/nano"))
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--start", type=Path, help="begin with the weights of an exported folder")
    parser.add_argument("--seed", type=int, default=-1, help="negative: training seeds are")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens a worker and step")
    parser.add_argument("--workers", type=int, default=2, help="threads; 1 on a GPU")
    parser.add_argument("--writers", type=int, default=0, help="processes that write batches ahead")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.15, help="share of the time")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--mlp", type=int, default=384)
    parser.add_argument("--theta", type=float, default=1e8)
    parser.add_argument("--real", type=int, default=1024, help="longer than this becomes virtual")
    parser.add_argument("--longest", type=int, default=150_000)
    parser.add_argument("--shares", type=shares, default=SHARES, help=f"of {', '.join(SHARED)}")
    parser.add_argument(
        "--truly-long", type=float, default=0.0, help="share of long jobs not virtual"
    )
    parser.add_argument("--longest-real", type=int, default=4500, help="longer ones always are")
    parser.add_argument(
        "--begin", type=int, default=0, help="tokens that tasks are known to master"
    )
    parser.add_argument("--save-every", type=float, default=120, help="seconds")
    return parser.parse_args()


def shares(text: str) -> tuple[float, ...]:
    """Weights of the tasks, as many as there are tasks."""
    weights = tuple(float(each) for each in text.split(","))
    if len(weights) != len(SHARED) or min(weights) < 0 or not sum(weights) > 0:
        raise argparse.ArgumentTypeError(
            f"{text}: {len(SHARED)} numbers with commas, none below 0, not all 0"
        )
    return weights


class Trainer:
    """The loop and what survives it: model, optimiser, curriculum, counters."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if options.start is not None:
            copy_tokenizer(options.start, options.out / "export")
        self.data, fast = prepare(options.out, options.seed)
        self.vocabulary = len(fast)
        sizes = {"layers": options.layers, "width": options.width, "mlp": options.mlp}
        self.model = build_model(
            (self.vocabulary, fast.eos_token_id, fast.pad_token_id),
            **sizes,
            theta=options.theta,
            positions=POSITIONS,
        )
        look_back_init(self.model, options.theta)
        if options.start is not None:
            load_weights(self.model, options.start)
        self.writers = Writers(self.data, self.vocabulary, options.layers, options.writers)
        self.model.to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), options.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        lengths = options.tokens, options.real, options.longest, options.longest_real
        self.curriculum = Curriculum(*lengths, copying=options.start is None, shares=options.shares)
        self.curriculum.begin(options.begin)
        self.counts = {"step": 0, "tokens": 0}
        self.spent = 0.0
        if options.resume:
            self._load()
        self.stepper = Stepper(self.model, self.optimizer, options.workers, self.device)
        # A resumed run draws fresh sequences.
        self.name = f"{options.seed}:{self.counts['step']}"
        self.chooser, self.chosen = random.Random(f"{self.name}:jobs"), 0

    def choose(self) -> tuple[Job, str]:
        """The next job and the seed of its batch."""
        self.chosen += 1
        job = self.curriculum.choose(self.chooser, self.options.truly_long)
        return job, f"{self.name}:{self.chosen}"

    def _load(self) -> None:
        path = self.options.out / "state.pt"
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.curriculum.load(state["curriculum"])
        self.counts, self.spent = state["counts"], state["spent"]

    def save(self, elapsed: float) -> None:
        """State and export; the state is replaced whole, never left half written."""
        out = self.options.out
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "curriculum": self.curriculum.state(),
            "counts": self.counts,
            "spent": elapsed,
        }
        torch.save(state, out / "state.tmp")
        os.replace(out / "state.tmp", out / "state.pt")
        export = type(self.model)(self.model.config)
        export.load_state_dict(self.model.state_dict())
        export.to(torch.bfloat16).save_pretrained(out / "export")

    def rate(self, elapsed: float) -> float:
        """Warm-up over 100 steps, then constant; down to 3% over the last share `decay`."""
        warm = min(1.0, (self.counts["step"] + 1) / 100)
        left = (1 - elapsed / (self.options.minutes * 60)) / self.options.decay
        return float(self.options.rate * warm * min(1.0, max(0.03, left)))

    def step(self, elapsed: float) -> dict[str, list[Outcome]]:
        """One update; outcomes by task."""
        batches = [self.writers.take(self.choose) for _ in self.stepper.replicas]
        outcomes = self.stepper.step(batches, self.rate(elapsed))
        by_task: dict[str, list[Outcome]] = {}
        for batch, outcome in zip(batches, outcomes, strict=True):
            self.curriculum.note(batch.job, outcome.accuracy)
            by_task.setdefault(batch.job.task, []).append(outcome)
            self.counts["tokens"] += outcome.tokens
        self.counts["step"] += 1
        return by_task

    def log(self, elapsed: float, speed: float, losses: dict[str, list[float]]) -> None:
        """Append one line to log.jsonl."""
        line: dict[str, Any] = {**self.counts, "minutes": round(elapsed / 60, 2)}
        line |= {"per_second": round(speed)}
        line |= {f"{task}_loss": round(sum(v) / len(v), 3) for task, v in losses.items() if v}
        line |= self.curriculum.report()
        with (self.options.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def run(self) -> None:
        """Train until the minutes are over, or until interrupted: either way the state is saved."""
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        begun = last_save = last_log = time.monotonic()
        window, elapsed = self.counts["tokens"], self.spent
        losses: dict[str, list[float]] = {}
        while elapsed < self.options.minutes * 60 and not stop.is_set():
            for task, outcomes in self.step(elapsed).items():
                losses.setdefault(task, []).extend(outcome.loss for outcome in outcomes)
                losses.setdefault("summary", []).extend(o.summaries for o in outcomes)
                losses.setdefault("guide", []).extend(o.guided for o in outcomes if o.guided)
                losses.setdefault("range", []).extend(o.ranges for o in outcomes)
            now = time.monotonic()
            elapsed = self.spent + now - begun
            if self.counts["step"] % 10 == 0:
                self.log(elapsed, (self.counts["tokens"] - window) / (now - last_log), losses)
                window, last_log, losses = self.counts["tokens"], now, {}
            if now - last_save > self.options.save_every:
                self.save(elapsed)
                last_save = now
        self.save(elapsed)
        self.writers.close()


def main() -> None:
    """Build and run."""
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(-options.seed)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    Trainer(options).run()


if __name__ == "__main__":
    main()
