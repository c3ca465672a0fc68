"""The page in a real browser: no word on the console, every run there, sorting, tips, filter."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import TYPE_CHECKING

import pytest
from tests.report.browser import needed, opened

from longspan.report.gather import gather
from longspan.report.page import page

if TYPE_CHECKING:
    from pathlib import Path

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
    return needed()


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
