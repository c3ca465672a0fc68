"""Writes the small files beside it, longbench/ excepted: real schemas, texts of our own.

No item of a benchmark is in them. Running it writes the same bytes again.
"""

from __future__ import annotations

import csv
import json
import random
from typing import Any

from make_longbench import HERE, TOWNS, TRADES, sentences, write_lines


def longbench_v2_rows() -> list[dict[str, Any]]:
    rows = []
    for i, (length, difficulty) in enumerate(
        [("short", "easy"), ("short", "hard"), ("medium", "easy"), ("long", "hard")]
    ):
        rng = random.Random(f"v2{i}")
        text, right = sentences(rng, 20), rng.randrange(4)
        trades = rng.sample(TRADES, 4)
        text.insert(5, f"The mayor of {TOWNS[i]} was once a {trades[right]}.")
        row = {"_id": f"{rng.getrandbits(96):024x}", "domain": "Single-Document QA"}
        row |= {"sub_domain": "Tales", "difficulty": difficulty, "length": length}
        row |= {"question": f"What was the mayor of {TOWNS[i]} before?"}
        row |= {f"choice_{letter}": f"a {trades[j]}" for j, letter in enumerate("ABCD")}
        rows.append({**row, "answer": "ABCD"[right], "context": " ".join(text)})
    return rows


def sums(count: int) -> list[tuple[str, int]]:
    problems = []
    for i in range(count):
        rng = random.Random(f"sum{i}")
        a, b = rng.randint(10, 400), rng.randint(10, 400)
        town = rng.choice(TOWNS)
        problems.append(
            (f"{town} has ${a}$ red boats and ${b}$ blue ones. How many are there?", a + b)
        )
    return problems


def gpqa_rows() -> list[dict[str, Any]]:
    rows = []
    for i in range(5):
        rng = random.Random(f"gpqa{i}")
        right, *wrong = rng.sample(range(10, 99), 4)
        rows.append(
            {
                "Record ID": f"rec{rng.getrandbits(64):016x}",
                "Question": f'The {rng.choice(TRADES)} of {TOWNS[i]} owns {right} jars,\nas "all" '
                "know. How many?",
                "Correct Answer": f"{right} jars",
                **{f"Incorrect Answer {k}": f"{n} jars\n" for k, n in enumerate(wrong, 1)},
                "Explanation": "It is said in the question.",
                "High-level domain": "Counting",
                "Subdomain": "Jars",
            }
        )
    return rows


def multi_question_rows() -> list[dict[str, Any]]:
    rows = []
    for i in range(3):
        rng = random.Random(f"multi{i}")
        towns, text = rng.sample(TOWNS, 3), sentences(rng, 15)
        questions = []
        for town in towns:
            trade = rng.choice(TRADES)
            text.insert(rng.randint(0, len(text)), f"The mayor of {town} was once a {trade}.")
            questions.append({"question": f"What was the mayor of {town}?", "outputs": [trade]})
        rows.append({"context": " ".join(text), "questions": questions})
    return rows


def infinitebench_rows() -> dict[str, list[dict[str, Any]]]:
    """One row a data set; options and answers as the hub has them."""
    rng = random.Random("infinite")
    text = " ".join(sentences(rng, 12))
    code = "def func_1(x):\n    return x + 7\n\ndef func_2(x):\n    return func_1(x) + 1"
    names = ["func_1", "func_2", "func_3", "func_4"]
    trades = [f"a {trade}" for trade in TRADES[:4]]
    asked = {
        "passkey": (f"{text} The key is 71432. {text}", "What is the key?", ["71432"], []),
        "kv_retrieval": ('{"a1": "b2", "c3": "d4"}', 'Key: "c3"\nValue:', "d4", []),
        "number_string": (f"{text} The run of digits is 55512.", "Which digits?", ["55512"], []),
        "code_run": (code, "Please run func_2(3) now.", [11], []),
        "code_debug": (code, "", ["func_2"], names),
        "math_find": ("[3, 9, 4]", "The largest number of the list is:", [9], []),
        "longdialogue_qa_eng": ("ADA: Tea?\n$$MASK$$: Yes.", "", ["BO"], []),
        "longbook_qa_eng": (text, "Who kept it?", ["a printer", "The printer"], []),
        "longbook_sum_eng": (text, "", ["The towns keep things."], []),
        "longbook_choice_eng": (text, "Who is it?", [trades[2]], trades),
        "longbook_qa_chn": ("青石镇的木匠工作了三年。", "谁工作了三年？", ["木匠"], []),
    }
    return {
        name: [
            {"id": 0, "context": context, "input": question, "answer": answer, "options": options}
        ]
        for name, (context, question, answer, options) in asked.items()
    }


def main() -> None:
    for name, rows in infinitebench_rows().items():
        write_lines(f"infinitebench/{name}.jsonl", rows)
    (HERE / "longbench_v2.json").write_text(json.dumps(longbench_v2_rows(), indent=1) + "\n")
    problems = sums(6)
    write_lines(
        "aime24.jsonl",
        [
            {"id": 60 + i, "problem": text, "solution": "Add them.", "answer": f"{total:03d}"}
            for i, (text, total) in enumerate(problems[:4])
        ],
    )
    write_lines("aime25.jsonl", [{"question": text, "answer": n} for text, n in problems[4:]])
    write_lines(
        "math500.jsonl",
        [
            {
                **{
                    "problem": text,
                    "solution": "Add them.",
                    "answer": rf"\frac{{{2 * total}}}{{2}}",
                },
                **{"subject": "Prealgebra", "level": 1 + i % 2, "unique_id": f"test/own/{i}.json"},
            }
            for i, (text, total) in enumerate(problems)
        ],
    )
    rows = gpqa_rows()
    with (HERE / "gpqa.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (HERE / "multi_question.json").write_text(json.dumps(multi_question_rows(), indent=1) + "\n")


if __name__ == "__main__":
    main()
