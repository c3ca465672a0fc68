"""What is taken out of an answer: boxes, numbers, letters, thoughts."""

from __future__ import annotations

import threading

import pytest

from longspan.tasks.answers import (
    after_thoughts,
    last_box,
    letter,
    number,
    same_number,
    thought_is_open,
)

AIME = [
    # (answer, gold, right)
    ("033", "33", True),
    (r"It is \boxed{33}.", "033", True),
    (r"\boxed{1,024}", "1024", True),
    (r"\boxed{408/2}", "204", True),
    (r"\boxed{\frac{408}{2}}", "204", True),
    (r"$m+n=204$", "204", True),
    ("so m + n = 204.", "204", True),
    ("204.0", "204", True),
    ("The answer is 204.", "204", True),
    ("**Answer: 204**", "204", True),
    (r"\boxed{5}, no: \boxed{204}", "204", True),
    (r"\boxed{204}, no: \boxed{5}", "204", False),
    (r"Thus \boxed{204}. Check: 12 + 5 = 17.", "204", True),
    (r"<think>\boxed{5}</think>It is \boxed{204}", "204", True),
    (r"<think>\boxed{204}</think>It is 7.", "204", False),
    (r"a</think>\boxed{204}</think>I see, 7", "7", True),
    (r"\boxed{204^\circ}", "204", True),
    (r"\boxed{\text{204}}", "204", True),
    (r"\boxed{203}", "204", False),
    (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", True),
    (r"\boxed{(3, \frac{\pi}{2})}", r"\left( 3, \frac{\pi}{2} \right)", True),
    (r"\boxed{\{1, 2\}}", r"\{2, 1\}", True),
    (r"\boxed{\text{Ada}}", r"\text{Ada}", True),
    (r"\boxed{9^{9^{9^9}}}", "1", False),  # runaway arithmetic is stopped, not waited for
]


@pytest.mark.parametrize(("text", "gold", "right"), AIME)
def test_numbers(text: str, gold: str, right: bool) -> None:
    answer = number(text)
    assert answer is not None
    assert same_number(answer, gold) is right


@pytest.mark.parametrize(
    "text", ["", "I do not know.", r"\boxed{}", r"\boxed{204", "<think>5</think>"]
)
def test_no_number(text: str) -> None:
    assert number(text) is None


def test_a_box_may_be_required() -> None:
    assert number("The answer is 204.", boxed_only=True) is None
    assert number(r"The answer is \boxed{204}.", boxed_only=True) == "204"


def test_a_long_answer_costs_no_more_than_its_end() -> None:
    # Without the cut, math-verify's patterns take longer than its own five seconds on this.
    assert number("12 " * 30_000 + "so the answer is 7.") == "7"


def test_other_threads_may_score() -> None:
    found: list[object] = []
    thread = threading.Thread(
        target=lambda: found.extend([number(r"\boxed{77/7}"), same_number("77/7", "11")])
    )
    thread.start()
    thread.join()
    assert found == ["77/7", True]


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{a}", "a"),
        (r"\boxed {a{b}c} d", "a{b}c"),
        (r"\fboxed{1} \boxed{2", "1"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        (r"\boxed{\{1}", r"\{1"),
        ("none", None),
    ],
)
def test_last_box(text: str, box: str | None) -> None:
    assert last_box(text) == box


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("The answer is (C).", "C"),
        (r"\boxed{C}", "C"),
        (r"\boxed{\text{C}}", "C"),
        (r"\boxed{\text{(C)}}", "C"),
        (r"The final answer is $\boxed{B}$", "B"),
        (r"The answer is: \textbf{(B)}", "B"),
        (r"$\mathbf{D}$ it is. Answer: $\mathbf{D}$", "D"),
        ("**Answer:** C", "C"),
        ("answer is **C**", "C"),
        ("ANSWER: D", "D"),
        ("the correct option is A", "A"),
        ("Answer: A? No. Answer: B", "B"),
        (r"answer A, but \boxed{B}", "B"),
        ("(A) is wrong, so (B)", "B"),
        ("<think>The answer is A</think>(D)", "D"),
        ("C", "C"),
        ("C) jars", "C"),
        ("C. jars", "C"),
        ("A good idea, nothing more", None),
        ("The answer is a tricky one", None),
        ("The answer is Clear", None),
        ("The answer is E", None),
        (r"\boxed{Carbon}", None),
        ("", None),
    ],
)
def test_letters(text: str, chosen: str | None) -> None:
    assert letter(text) == chosen


def test_thoughts() -> None:
    assert after_thoughts("a</think>b</think>c") == "c"
    assert after_thoughts("abc") == "abc"
    assert thought_is_open("<think>abc", "", None)
    assert thought_is_open("abc", "<think>\n", None)
    assert not thought_is_open("abc", "", None)
    assert thought_is_open("abc", "", True)
    assert not thought_is_open("abc</think>d", "<think>\n", True)
    assert not thought_is_open("<think>abc", "", False)
