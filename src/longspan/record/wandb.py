"""Weights & Biases as a mirror: it may be offline, unreachable or broken, and the run goes on."""

from __future__ import annotations

import socket
import threading
import warnings
from dataclasses import field
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from longspan.options import Seconds, settings
from longspan.record import wandb_media
from longspan.record.base import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from longspan.types import Record

Mode = Literal["online", "offline"]


class Live:
    """What a recorder has in hand while a run goes on."""

    def __init__(self) -> None:
        self.run: Any = None
        self.folder: Path | None = None
        self.records: list[Record] = []
        self.scores: list[float] = []
        """Of all samples of the run; `records` are those since `open`."""


@settings
class WandbRecorder(Recorder):
    """Mirrors a run: each sample's score as history, the summary under task/, recall/, latency/."""

    mode: Mode = "offline"
    """`offline` runs are sent later with `wandb sync`."""
    project: str = "longspan"
    entity: str | None = None
    group: str | None = None
    """The name that the runs of a sweep share; None: task and context."""
    patience: Seconds = 20.0
    """How long the server may keep a run waiting, at its start and at its end."""

    live: Live = field(default_factory=Live, init=False, repr=False, compare=False)

    def open(
        self,
        folder: Path,
        config: Mapping[str, Any],
        fingerprint: str,
        recorded: Sequence[Record] = (),
    ) -> None:
        """Begin a run of the same identity as the folder; falls back to offline, then to none."""
        self.live.records.clear()
        self.live.scores = [each.score for each in recorded]
        self.live.folder = folder
        modes: tuple[Mode, ...] = ("online", "offline") if self.mode == "online" else ("offline",)
        for mode in modes:
            begin = partial(self._begin, folder, config, fingerprint, mode)
            self.live.run = self._guard(begin, mode)
            if self.live.run is not None:
                return

    def _begin(self, folder: Path, config: Mapping[str, Any], fingerprint: str, mode: Mode) -> Any:
        import wandb

        wandb_media.stage_in(folder / "wandb")
        if mode == "online":
            reach(server())
            if not wandb.login(timeout=int(self.patience), relogin=False):
                raise RuntimeError("no login; run `wandb login` or use recorder=wandb_offline")
        return wandb.init(
            mode=mode,
            project=self.project,
            entity=self.entity,
            group=self.group or "-".join(folder.parts[-4:-2]),
            name=folder.name,
            id=fingerprint[:16],
            resume="allow",
            dir=str(folder),
            config={**config, "fingerprint": fingerprint},
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                init_timeout=self.patience,
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                x_disable_meta=True,
                x_save_requirements=False,
            ),
        )

    def sample(self, record: Record) -> None:
        """Log the score and the mean of all the run's so far."""
        self.live.records.append(record)
        self.live.scores.append(record.score)
        row = {
            "sample/score": record.score,
            "sample/mean": fmean(self.live.scores),
            "sample/prompt_tokens": record.prompt_tokens,
            "sample/new_tokens": record.new_tokens,
        }
        if self.live.run is not None:
            self._guard(lambda: self.live.run.log(row), "log")

    def summary(self, summary: Mapping[str, Any]) -> None:
        """Set every number of the summary under its stable name; then the samples that were
        answered now as a table, charts, and the summary as an artifact.
        """
        run, folder = self.live.run, self.live.folder
        if run is None or folder is None:
            return
        values = dict(metrics(summary))
        self._guard(lambda: run.summary.update(values), "summary")
        if self.live.records:
            table = partial(wandb_media.samples, self.live.records)
            self._guard(lambda: run.log({"samples": table()}), "table")
        self._guard(lambda: self._draw(run, summary, folder), "charts")
        self._guard(lambda: run.log_artifact(wandb_media.artifact(folder)), "artifact")

    def _draw(self, run: Any, summary: Mapping[str, Any], folder: Path) -> None:
        if found := wandb_media.charts(summary, folder):
            run.log(found)

    def curve(self, name: str, points: Sequence[Mapping[str, float | None]]) -> None:
        """Log the points as history with an axis of their own."""
        if (run := self.live.run) is None:
            return

        def log() -> None:
            run.define_metric(f"{name}/*", step_metric=f"{name}/stop")
            for point in points:
                known = {key: value for key, value in point.items() if value is not None}
                run.log({f"{name}/{key}": value for key, value in known.items()})

        self._guard(log, "curve")

    def close(self) -> None:
        """Finish; gives up waiting for the server after `patience`, what is local stays.

        An offline file is complete a moment later: a process of wandb's own writes it.
        """
        if self.live.run is not None:
            run = self.live.run
            self.live.run = None
            thread = threading.Thread(target=self._guard, args=(run.finish, "finish"), daemon=True)
            thread.start()
            thread.join(self.patience)

    def _guard(self, act: Callable[[], Any], what: str) -> Any:
        """The mirror never breaks the run: what goes wrong is said once and forgotten."""
        try:
            return act()
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            warnings.warn(f"wandb ({what}): {reason}; the results folder is whole", stacklevel=3)
            return None


def server() -> str:
    """Where runs are sent, as wandb's own settings and environment say."""
    import wandb

    return str(wandb.setup().settings.base_url)


def reach(url: str, seconds: float = 3.0) -> None:
    """Raises OSError where no server answers: wandb itself would try for a minute and more."""
    place = urlsplit(url)
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((place.hostname or "", port), timeout=seconds).close()
    except OSError as error:
        raise OSError(f"{place.hostname}:{port} cannot be reached ({error})") from error


def metrics(summary: Mapping[str, Any]) -> Iterator[tuple[str, float | str]]:
    """The summary's numbers by the names they have in W&B: task/score/mean, recall/at_100, ..."""
    for key, value in summary.items():
        if isinstance(value, dict):
            top = key if key in ("recall", "latency", "work", "memory") else f"task/{key}"
            yield from _leaves(top, value)
        elif isinstance(value, int | float | str):
            yield f"task/{key}", value


def _leaves(path: str, value: Any) -> Iterator[tuple[str, float | str]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(f"{path}/{key}", each)
    elif isinstance(value, int | float | str):
        yield path, value
