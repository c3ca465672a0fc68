"""What the options of a study may be, and the line that says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from longspan.studies.sizes import resized
from longspan.studies.study import begin

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Sizes:
    ctx: int = 4096
    lengths: tuple[int, ...] = (1, 2)
    warm_up: int = field(default=3, metadata={"least": 0})
    threads: int = field(default=1, metadata={"least": 2, "most": 8})
    layer: int = field(default=-1, metadata={"least": -10})
    share: float = field(default=0.5, metadata={"most": 1})
    memory_gb: float = field(default=0.0, metadata={"least": 0})
    rate: float = 2.0
    tasks: tuple[str, ...] = ("a",)
    join: str = ""
    device: str = field(default="auto", metadata={"among": ("auto", "cpu", "cuda")})

    def __post_init__(self) -> None:
        if self.ctx == 13:
            raise ValueError("--ctx = 13: right would be another one")


RIGHT = {
    "ctx": ("8k", 8192), "lengths": ("5,2k", (5, 2048)), "warm_up": ("0", 0), "threads": ("8", 8),
    "layer": ("-2", -2), "share": ("1", 1.0), "memory_gb": ("0", 0.0), "rate": ("1e3", 1000.0),
    "tasks": ("b,c", ("b", "c")), "join": ("", ""), "device": ("cpu", "cpu"),
}  # fmt: skip
WRONG = [
    ("ctx", "0", "--ctx = 0: right would be a whole number, 40 or 8k, 1 or more"),
    ("ctx", "8 kilo", "--ctx = '8 kilo': right"),
    ("ctx", "1.5", "--ctx = '1.5': right"),
    ("ctx", "", "--ctx = '': right"),
    ("ctx", "13", "--ctx = 13: right would be another one"),
    ("lengths", "5,0", "--lengths = 0: right"),
    ("lengths", "5,", "--lengths = '': right"),
    ("warm_up", "-1", "--warm-up = -1: right would be a whole number, 40 or 8k, 0 or more"),
    ("threads", "1", "2 or more, 8 at most"),
    ("threads", "9", "--threads = 9: right"),
    ("layer", "-11", "--layer = -11: right"),
    ("share", "0", "--share = 0.0: right would be a number, above 0, 1 at most"),
    ("share", "1.1", "--share = 1.1: right"),
    ("memory_gb", "nan", "--memory-gb = 'nan': right would be a number, 0 or more"),
    ("memory_gb", "inf", "--memory-gb = 'inf': right"),
    ("memory_gb", "-1", "--memory-gb = -1.0: right"),
    ("rate", "fast", "--rate = 'fast': right would be a number, above 0"),
    ("tasks", "a,,b", "--tasks = '': right would be a name"),
    ("device", "tpu", "--device = 'tpu': right would be auto, cpu or cuda"),
]


@pytest.mark.parametrize("name", RIGHT)
def test_an_option_is_what_its_field_may_be(name: str) -> None:
    text, value = RIGHT[name]
    assert resized(Sizes(), {name: text, "out": "elsewhere"}) == Sizes(**{name: value})  # type: ignore[arg-type]


def test_a_default_stays() -> None:
    assert resized(Sizes(ctx=7), {"ctx": None}) == Sizes(ctx=7)


@pytest.mark.parametrize(("name", "text", "said"), WRONG)
def test_another_one_is_refused_in_a_line_before_anything_begins(
    name: str, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        begin(__file__, "", Sizes(), [f"--{name.replace('_', '-')}={text}"])
    assert left.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("place", ["out", "results"])
def test_a_folder_that_cannot_be_is_refused(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as left:
        begin(__file__, "", Sizes(), [f"--{place}", str(tmp_path / "file" / "sub")])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert f"--{place} = '{tmp_path / 'file' / 'sub'}': {tmp_path / 'file'} is a file" in said
