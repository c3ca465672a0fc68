"""Bars where someone looks, lines where nobody does."""

from __future__ import annotations

import io

from rich.console import Console

from longspan.screen import Screen


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
