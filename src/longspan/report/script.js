"use strict";
// The page is whole without this file: it sorts, filters, shows tips and changes the light.
const all = (what, where = document) => [...where.querySelectorAll(what)];
const tip = document.getElementById("tip");
const say = document.getElementById("say");

function sort(button) {
  const head = button.closest("th");
  const table = head.closest("table");
  const column = [...head.parentNode.children].indexOf(head);
  const rising = head.getAttribute("aria-sort") === "descending";
  const rows = [...table.tBodies[0].rows].map((row) => [row.cells[column].dataset.sort ?? "", row]);
  const numbers = rows.every(([value]) => value === "" || !Number.isNaN(Number(value)));
  const compare = numbers ? (a, b) => a - b : (a, b) => a < b ? -1 : Number(a > b);
  rows.sort(([a], [b]) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what is missing comes last
    return rising ? compare(a, b) : compare(b, a);
  });
  all("th[aria-sort]", table).forEach((each) => each.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  table.tBodies[0].append(...rows.map(([, row]) => row));
  say.textContent = `sorted by ${button.textContent}, ${rising ? "rising" : "falling"}`;
}

function showTip(words, x, y) {
  tip.textContent = words;
  tip.hidden = false;
  const left = Math.min(x + 12, window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(left, window.scrollX + 4)}px`;
  tip.style.top = `${y + 16}px`;
}

function hideTip() {
  tip.hidden = true;
}

function tipOf(element) {
  const box = element.getBoundingClientRect();
  showTip(element.dataset.tip, box.left + window.scrollX, box.bottom + window.scrollY - 8);
}

// Heat maps of cells: the pointer or the arrow keys choose one, its value is written beside it.
function cells(map) {
  const rows = map.dataset.rows.split(";").map((row) => row.split(","));
  const layers = map.dataset.layers.split(",");
  const [left, top, wide, high] = map.dataset.box.split(",").map(Number);
  const cursor = map.querySelector(".cursor");
  let at = [0, 0];
  function choose(row, column) {
    if (rows[row]?.[column] === undefined) return false;
    at = [row, column];
    const place = { x: left + column * wide, y: top + row * high, width: wide, height: high };
    Object.entries(place).forEach(([name, value]) => cursor.setAttribute(name, value));
    const value = rows[row][column];
    const words = `layer ${layers[row]}, head ${column}: ${value === "" ? "not measured" : `${(100 * value).toFixed(2)}%`}`;
    const box = cursor.getBoundingClientRect();
    showTip(words, box.right + window.scrollX, box.bottom + window.scrollY);
    return words;
  }
  map.addEventListener("pointermove", (event) => {
    const box = map.getBoundingClientRect();
    const view = map.viewBox.baseVal;
    const x = ((event.clientX - box.left) / box.width) * view.width;
    const y = ((event.clientY - box.top) / box.height) * view.height;
    if (!choose(Math.floor((y - top) / high), Math.floor((x - left) / wide))) hideTip();
  });
  map.addEventListener("pointerleave", hideTip);
  map.addEventListener("blur", hideTip);
  map.addEventListener("focus", () => { say.textContent = choose(...at); });
  map.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    say.textContent = choose(at[0] + step[0], at[1] + step[1]) || say.textContent;
  });
}

function alone(button) {
  const pressed = button.getAttribute("aria-pressed") !== "true";
  all(".key button").forEach((each) => each.setAttribute("aria-pressed", "false"));
  button.setAttribute("aria-pressed", String(pressed));
  const kind = `m${button.dataset.method}`;
  all(".chart .mark, .chart .bar, .chart .line:not(.front)").forEach((each) => {
    each.classList.toggle("faded", pressed && !each.classList.contains(kind));
  });
}

function dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
}

all("table.sortable thead button").forEach((button) => button.addEventListener("click", () => sort(button)));
all("svg[data-rows]").forEach(cells);
all(".key button").forEach((button) => button.addEventListener("click", () => alone(button)));
document.getElementById("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
});
document.getElementById("filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  all("article").forEach((each) => {
    each.hidden = !words.every((word) => each.dataset.filter.includes(word));
  });
});
all("[data-tip]").forEach((each) => {
  each.addEventListener("pointerenter", () => tipOf(each));
  each.addEventListener("focus", () => tipOf(each));
  each.addEventListener("pointerleave", hideTip);
  each.addEventListener("blur", hideTip);
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
