"""A study's command line, its rows, which survive a kill, and the files that it leaves."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from longspan.composition import check_folder
from longspan.errors import exit_code, wants_debug
from longspan.export import to_csv, to_markdown
from longspan.record.environment import environment
from longspan.screen import Screen
from longspan.studies.rows import Row, Rows
from longspan.studies.sizes import option, resized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

    from longspan.models.base import Model
    from longspan.runner import Run
    from longspan.workbench import Workbench

T = TypeVar("T")


@dataclass
class Study:
    """Where a study keeps its rows and leaves its files."""

    name: str
    file: Path
    out: Path
    results: Path
    overrides: Sequence[str]
    """Arguments that are run.py's."""
    sizes: Any
    wall_s: float = 0.0
    cpu_s: float = 0.0
    """What its units took, those that earlier runs have measured included."""

    def run(self, **values: object) -> Run:
        """The parts of run.py, with these values behind `overrides`. Raises ValueError."""
        from hydra import compose, initialize_config_dir
        from omegaconf import OmegaConf

        from longspan.runner import prepare

        given = [f"{name}={value}" for name, value in values.items()]
        with initialize_config_dir(str(self.file.parents[2] / "conf"), version_base="1.3"):
            config = compose("config", [*given, *self.overrides, "recorder=local"])
        plain: Any = OmegaConf.to_container(config, resolve=True)
        parts = {k: v for k, v in plain.items() if k != "hydra"}
        with Screen() as screen:
            return prepare(parts, self._workbench, screen)

    def rows(
        self, units: Iterable[T], measure: Callable[[T], Sequence[Row]], *, model: Model | None
    ) -> pd.DataFrame:
        """What `measure` says of every unit, which must be what JSON can write; a unit that was
        measured before, with the same sizes, code, machine and `model`, is not measured again.
        """
        import pandas as pd

        units = list(units)
        kept = Rows(self._place(model))
        rows: list[Row] = []
        with Screen() as screen, screen.stage(self.name, len(units)) as done:
            for count, unit in enumerate(units):
                rows += kept.take(unit, measure)
                done(count + 1)
        self.wall_s += kept.wall_s
        self.cpu_s += kept.cpu_s
        return pd.DataFrame(rows)

    def save(self, **figures: Figure) -> None:
        """Write figures as SVG, the same bytes for the same numbers."""
        import matplotlib as mpl

        self.out.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            with mpl.rc_context({"svg.hashsalt": "longspan", "svg.fonttype": "none"}):
                figure.savefig(
                    self.out / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight"
                )

    def table(self, frame: pd.DataFrame, about: str, shown: Mapping[str, pd.DataFrame]) -> None:
        """Write every row as table.csv, and table.md: what ran where, and the tables `shown`."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "table.csv").write_text(to_csv(frame))
        spent = f"{self.wall_s:.0f} s, {self.cpu_s:.0f} s of processor time"
        text = f"{about}\n\n{machine()}; {spent}.\n"
        for title, each in shown.items():
            text += f"\n**{title}**\n\n{to_markdown(each)}"
        (self.out / "table.md").write_text(text)
        print(f"{text}\n{self.out}: table.csv, table.md and the figures")

    @cached_property
    def _workbench(self) -> Workbench:
        from longspan.workbench import Workbench

        return Workbench()

    def _place(self, model: Model | None) -> Path:
        facts = {
            "sizes": asdict(self.sizes),
            "overrides": list(self.overrides),
            "code": [environment()["source"]["digest"], _digest(self.file.read_bytes())],
            "machine": environment()["hardware"],
            "model": None if model is None else dict(model.identity()),
        }
        digest = _digest(json.dumps(facts, sort_keys=True, default=str).encode())
        return self.results / f"{self.name}-{digest}.jsonl"


def begin(file: str, doc: str | None, sizes: T, arguments: Sequence[str]) -> tuple[Study, T]:
    """The study and its sizes, as the command line wants them; `sizes` are the defaults, see
    `resized`. What it does not know is run.py's.
    """
    path = Path(file).resolve()
    root, name = path.parents[2], path.parent.name
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for each in fields(sizes):  # type: ignore[arg-type]
        value = getattr(sizes, each.name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        parser.add_argument(option(each.name), help=f"default {shown}")
    places = root / "results" / "studies"
    parser.add_argument("--out", type=Path, help="where figures and tables go")
    parser.add_argument("--results", type=Path, default=places, help="where rows are kept")
    given, overrides = parser.parse_known_args(arguments)
    for override in overrides:
        if override.startswith("-") or "=" not in override:
            parser.error(f"{override!r}: no option of the study, and no name=value of run.py")
    out = given.out or given.results / name
    try:
        sizes = resized(sizes, vars(given))
        for place, folder in (("--results", given.results), ("--out", out)):
            check_folder(place, str(folder))
    except ValueError as error:
        parser.error(str(error))
    return Study(name, path, out, given.results, overrides, sizes), sizes


def launch(main: Callable[[list[str]], None]) -> int:
    """Run a study with this command line; the exit code, as run.py's: 2 the request was wrong,
    130 interrupted. One line says what went wrong.
    """
    arguments = sys.argv[1:]

    def work() -> int:
        main(arguments)
        return 0

    return exit_code(work, debug=wants_debug(arguments))


def machine() -> str:
    """The hardware in words."""
    facts = environment()["hardware"]
    gpus = [gpu["name"] for gpu in environment()["gpus"]]
    return ", ".join([f"{facts['cpu']}, {facts['cores']} cores", *gpus])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:10]
