"""The page in a real browser: no word on the console, every run there, sorting, tips, filter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from typing import TYPE_CHECKING

import pytest

from longspan.report.gather import gather
from longspan.report.page import page

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
DRIVER = """
<script>
const told = {};
const table = document.querySelector("article table.sortable");
const column = (n) => [...table.tBodies[0].rows].map((row) => row.cells[n].dataset.sort);
const press = (n) => table.tHead.rows[0].cells[n].querySelector("button").click();
press(2); told.falling = column(2); told.state = table.tHead.rows[0].cells[2].ariaSort;
press(2); told.rising = column(2);
press(0); told.names = column(0);
const map = document.querySelector("svg[data-rows]");
map.focus();
map.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
told.cell = document.getElementById("say").textContent;
const mark = document.querySelector(".mark"); mark.focus();
told.tip = document.getElementById("tip").textContent;
const filter = document.getElementById("filter"); filter.value = "needle 16k";
filter.dispatchEvent(new Event("input"));
told.shown = [...document.querySelectorAll("article")].filter((a) => !a.hidden).length;
document.querySelector(".key button").click();
told.faded = document.querySelectorAll(".faded").length;
const light = getComputedStyle(document.body).backgroundColor;
document.getElementById("theme").click();
told.changed = light !== getComputedStyle(document.body).backgroundColor;
told.wide = document.documentElement.scrollWidth <= document.documentElement.clientWidth;
const note = document.createElement("pre"); note.id = "told";
note.textContent = JSON.stringify(told); document.body.append(note);
</script></body>
"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    return found


def opened(browser: str, html: str, folder: Path, *flags: str) -> tuple[str, list[str]]:
    """The document after its scripts have run, and what was said on the console."""
    path = folder / "report.html"
    path.write_text(html)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [
        browser, "--headless=new", *sandbox, "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}", "--disable-extensions", *flags, "--dump-dom",
        path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_works_without_a_word_on_the_console(
    browser: str, swept: Path, tmp_path: Path
) -> None:
    html = page(gather(swept))
    dom, console = opened(browser, html.replace("</body>", DRIVER), tmp_path)
    assert console == []
    runs = {path.parent.name for path in swept.rglob("summary.json")}
    assert set(re.findall(r'data-run="([^"]+)"', dom)) == runs
    found = re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    assert found
    told = json.loads(unescape(found[1]))
    falling = list(map(float, told["falling"]))
    assert len(set(falling)) > 1
    assert falling == sorted(falling, reverse=True)
    assert list(map(float, told["rising"])) == sorted(falling)
    assert told["state"] == "descending"
    assert told["names"] == sorted(told["names"], reverse=True)
    assert re.fullmatch(r"layer 0, head 1: \d+\.\d\d%", told["cell"])
    assert told["tip"] == "full at 8k: 100.0"
    assert told["shown"] == 1
    assert told["faded"] > 0
    assert told["changed"]
    assert told["wide"], "the page scrolls sideways"


def test_the_console_is_listened_to(browser: str, tmp_path: Path) -> None:
    html = "<body><script>missing()</script></body>"
    _, console = opened(browser, html, tmp_path)
    assert any("missing is not defined" in line for line in console)
