"""Writes the files of longbench/: the real schema, filled with texts of our own.

No item of a benchmark is in them. Running it writes the same bytes again.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOWNS = ("Veldrun", "Oskarby", "Marlholt", "Tinnefoss", "Quillane")
TRADES = ("glassblower", "ferryman", "clockmaker", "beekeeper", "printer")
THINGS = ("a copper bell", "a blue ledger", "a pear tree", "a sun dial", "a paper kite")
ZH_TOWNS = ("青石镇", "白沙村", "云溪县", "松岭", "海门港")
ZH_TRADES = ("木匠", "渔夫", "钟表匠", "养蜂人", "印刷工")
LABELS = ("Place", "Person", "Number", "Reason")
ZH_LABELS = ("体育", "财经", "天气", "教育")
E_SETS = (
    *("qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec"),
    *("triviaqa", "samsum", "passage_count", "passage_retrieval_en", "lcc", "repobench-p"),
)
ENGLISH = {
    **dict.fromkeys(("narrativeqa", "qasper", "multifieldqa_en"), "qa"),
    **dict.fromkeys(("hotpotqa", "2wikimqa", "musique"), "qa"),
    **dict.fromkeys(("gov_report", "qmsum", "multi_news"), "summary"),
    **{"trec": "label", "triviaqa": "trivia", "samsum": "dialogue"},
    **{"passage_count": "count", "passage_retrieval_en": "retrieve"},
    **dict.fromkeys(("lcc", "repobench-p"), "code"),
}
CHINESE = {
    **dict.fromkeys(("multifieldqa_zh", "dureader"), "qa"),
    **{"vcsum": "summary", "lsht": "label", "passage_retrieval_zh": "retrieve"},
}


def sentences(rng: random.Random, count: int) -> list[str]:
    return [
        f"In {rng.choice(TOWNS)} the {rng.choice(TRADES)} kept {rng.choice(THINGS)} for "
        f"{rng.randint(2, 40)} years."
        for _ in range(count)
    ]


def zh_sentences(rng: random.Random, count: int) -> list[str]:
    return [
        f"{rng.choice(ZH_TOWNS)}的{rng.choice(ZH_TRADES)}工作了{rng.randint(2, 40)}年。"
        for _ in range(count)
    ]


def english(kind: str, rng: random.Random) -> tuple[str, str, list[str], list[str] | None]:
    """(context, input, answers, classes)."""
    town, trade, text = rng.choice(TOWNS), rng.choice(TRADES), sentences(rng, 12)
    if kind == "qa":
        text.insert(rng.randint(0, 12), f"The mayor of {town} was once a {trade}.")
        question = f"What was the mayor of {town} before?"
        return " ".join(text), question, [f"a {trade}", f"The {trade}"], None
    if kind == "summary":
        return "\n".join(text), f"Summarize what is said about {town}.", [text[0]], None
    if kind == "label":
        shots = [f"Question: Where is {t}?\nType: {LABELS[0]}" for t in TOWNS[:3]]
        return "\n".join(shots), f"Question: Who is the {trade}?\nType:", [LABELS[1]], [*LABELS]
    if kind == "trivia":
        shots = [f"Passage:\n{text[0]}\nQuestion:\nWhere?\nAnswer:\n{TOWNS[0]}"]
        asked = f"Passage:\nThe {trade} lives in {town}.\nQuestion:\nWhere?\nAnswer:"
        return "\n".join(shots), asked, [town, town.upper()], None
    if kind == "dialogue":
        shots = ["Dialogue: Ada: Tea? Bo: Yes.\nSummary: Bo takes tea."]
        asked = f"Dialogue: Cy: Off to {town}? Di: Tomorrow.\nSummary:"
        return "\n".join(shots), asked, [f"Di goes to {town} tomorrow."], None
    if kind == "count":
        unique = text[:4]
        pages = [*unique, rng.choice(unique), rng.choice(unique)]
        listed = [f"Paragraph {i}: {page}" for i, page in enumerate(pages, 1)]
        return "\n\n".join(listed), "", ["4"], None
    if kind == "retrieve":
        listed = [f"Paragraph {i}: {page}" for i, page in enumerate(text, 1)]
        right = rng.randint(1, len(text))
        return "\n\n".join(listed), f"Of {text[right - 1]}", [f"Paragraph {right}"], None
    body = [f"def {trade}_{i}(years: int) -> int:\n    return years + {i}" for i in range(6)]
    return "\n\n".join(body) + "\n\ntotal = ", f"# {town}\ntotal = ", [f"{trade}_3(4)"], None


def chinese(kind: str, rng: random.Random) -> tuple[str, str, list[str], list[str] | None]:
    town, trade, text = rng.choice(ZH_TOWNS), rng.choice(ZH_TRADES), zh_sentences(rng, 12)
    if kind == "qa":
        text.insert(rng.randint(0, 12), f"{town}的镇长以前是{trade}。")
        return "".join(text), f"{town}的镇长以前做什么？", [trade, f"是{trade}"], None
    if kind == "summary":
        return "\n".join(text), "", [text[0]], None
    if kind == "label":
        shots = [f"新闻内容：{line}\n类别：{ZH_LABELS[3]}" for line in text[:3]]
        return "\n".join(shots), f"新闻内容：{town}下雨。\n类别：", [ZH_LABELS[2]], [*ZH_LABELS]
    listed = [f"段落{i}：{page}" for i, page in enumerate(text, 1)]
    right = rng.randint(1, len(text))
    return "\n\n".join(listed), text[right - 1], [f"段落{right}"], None


def longbench_rows(name: str, edition: str) -> list[dict[str, Any]]:
    rows = []
    for i, length in enumerate((1200, 5200, 9100)):
        rng = random.Random(f"{name}{edition}{i}")
        kinds = ENGLISH if name in ENGLISH else CHINESE
        make = english if name in ENGLISH else chinese
        context, question, answers, classes = make(kinds[name], rng)
        # gov_report, multi_news, vcsum, passage_count and lcc come without a question.
        if name in ("gov_report", "multi_news", "lcc"):
            question = ""
        row = {"input": question, "context": context, "answers": answers, "length": length}
        row |= {"dataset": name, "language": "en" if name in ENGLISH else "zh"}
        row |= {"all_classes": classes, "_id": f"{rng.getrandbits(96):024x}"}
        rows.append(row)
    return rows


def write_lines(name: str, rows: list[dict[str, Any]]) -> None:
    path = HERE / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def main() -> None:
    for name in (*ENGLISH, *CHINESE):
        write_lines(f"longbench/{name}.jsonl", longbench_rows(name, ""))
    for name in E_SETS:
        write_lines(f"longbench/{name}_e.jsonl", longbench_rows(name, "e"))


if __name__ == "__main__":
    main()
