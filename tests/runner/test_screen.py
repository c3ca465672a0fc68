"""Bars where someone looks, lines where nobody does."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from longspan.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runner.conftest import Cli


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_terminal_shows_what_is_done_and_what_is_left() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=120, color_system=None)
    with (
        Screen(console) as screen,
        screen.stage("samples [x]", 10) as done,
        screen.stage("loading"),
    ):
        done(4)
        screen.note("a line [y]")
        screen._bars.refresh()
    text = written.getvalue()
    assert "samples [x]" in text
    assert "4/10  0:00:00 gone, " in text
    assert "a line [y]" in text
    assert "loading" in text


def test_a_file_gets_the_lines_only() -> None:
    written = io.StringIO()
    with Screen(Console(file=written)) as screen, screen.stage("samples", 10) as done:
        done(4)
        screen.note("resumed")
    assert written.getvalue().strip() == "resumed"


def test_a_file_gets_a_line_now_and_then() -> None:
    written = io.StringIO()
    with Screen(Console(file=written), first_s=0.05) as screen:
        with screen.stage("samples [x]", 10) as done, screen.stage("reading", 512) as read:
            done(4)
            read(100)
            wait_for(lambda: "\n" in written.getvalue())
        screen.note("next")
    first, *_, end, after = written.getvalue().splitlines()
    assert first.startswith("samples [x]: 4/10  0:00:0")
    assert first.endswith("; reading: 100/512")
    assert end.startswith("samples [x]: done in 0:00:")
    assert after == "next"
    assert "reading: done" not in written.getvalue()


def test_less_than_before_begins_a_stage_anew() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=120)
    with Screen(console) as screen, screen.stage("reading", 512) as read:
        read(500)
        (task,) = screen._bars.tasks
        begun = task.start_time
        assert begun is not None
        read(510)
        assert task.start_time == begun
        time.sleep(0.01)
        read(64)
        assert task.completed == 64
        assert task.start_time > begun


def test_what_goes_on_within_a_stage_is_told_one_after_another() -> None:
    written = io.StringIO()
    with Screen(Console(file=written), first_s=0.05) as screen:
        with screen.stage("samples", 10), screen.within() as tell:
            wait_for(lambda: written.getvalue().count("gone") > 0)
            tell("reading", 512, 512)
            tell("decoding", 7, 64)
            wait_for(lambda: written.getvalue().count("gone") > 1)
            tell("decoding", 3, 64)
            (_, task) = screen._bars.tasks
            assert (task.completed, task.total) == (3, 64)
            tell("reading", 100, None)
            assert (task.completed, task.total) == (100, None), "64 are none of it"
            begun = task.start_time
            tell("reading", 200, None)
            assert task.start_time == begun
        assert not screen._bars.tasks
    first, second, *_ = written.getvalue().splitlines()
    assert first.endswith("left")
    assert second.endswith("left; decoding: 7/64")


def test_lines_come_further_and_further_apart_and_end_with_the_work() -> None:
    written = io.StringIO()
    with Screen(Console(file=written), first_s=0.02) as screen, screen.stage("loading"):
        time.sleep(0.7)
    said = written.getvalue().count("gone")
    assert 1 <= said <= 5  # after 0.02, 0.06, 0.14, 0.3, 0.62 seconds
    before = written.getvalue()
    time.sleep(0.1)
    assert written.getvalue() == before


def test_a_stage_that_breaks_is_not_said_to_be_done() -> None:
    written = io.StringIO()

    def broken() -> None:
        with Screen(Console(file=written), first_s=0.05) as screen, screen.stage("loading"):
            wait_for(lambda: "loading" in written.getvalue())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert "done" not in written.getvalue()


def timers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if isinstance(each, threading.Timer)]


@pytest.mark.parametrize("soon", [True, False])
def test_what_may_take_long_is_told_soon(monkeypatch: pytest.MonkeyPatch, soon: bool) -> None:
    monkeypatch.setattr("longspan.screen.SOON_S", 0.0)
    written = io.StringIO()
    with Screen(Console(file=written)) as screen, screen.stage("looking", soon=soon):
        wait_for(lambda: not timers())
    assert written.getvalue() == ("looking ...\n" if soon else "")


def test_what_is_done_in_time_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longspan.screen.SOON_S", 60.0)
    written = io.StringIO()
    with Screen(Console(file=written)) as screen, screen.stage("looking", soon=True):
        pass
    wait_for(lambda: not timers())
    assert written.getvalue() == ""


def test_a_look_at_the_hub_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> str:
        wait_for(lambda: not timers())
        return "no route"

    monkeypatch.setattr("longspan.screen.SOON_S", 0.0)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("longspan.network.unreachable", unreachable)
    done = cli("model.path=nobody/no-such-model")
    told, error = done.err.splitlines()
    assert done.code == 2
    assert told == "looking for nobody/no-such-model on the hub, and loading it ..."
    assert error.startswith("error: model.path = 'nobody/no-such-model': there is no such folder, ")
