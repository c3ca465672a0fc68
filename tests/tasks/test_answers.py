"""What is taken out of an answer: boxes, numbers, letters, thoughts."""

from __future__ import annotations

import threading

import pytest

from longspan.tasks.answers import (
    after_thoughts,
    last_box,
    letter,
    number,
    opens_thought,
    published_letter,
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
        ("B, because", "B"),
        ("A, B and C are wrong, so option D", "D"),
        ("The correct answer is (B). Option (A) is wrong, and option D is unsupported.", "B"),
        ("The answer is C, since option A violates conservation.", "C"),
        ("Answer: C\n\nExplanation: Option B says otherwise.", "C"),
        ("The answer is B. Choice D is a common distractor.", "B"),
        ("The answer is B, as answer A would be too long.", "B"),
        ("The answer is therefore (C), while (A) is wrong.", "C"),
        ("The answer, therefore, is option C; not (A).", "C"),
        ("The answer to the question is (D), not (A).", "D"),
        ("The best choice is B; option A is close.", "B"),
        ("The answer is A. No, wait: the answer is C. Option B?", "C"),
        ("The answer is not A but (B).", "B"),
        ("(B). Option A is wrong.", "B"),
        ("B. Option A is wrong.", "B"),
        ("Option A is too long; I take option C.", "C"),
        ("Final answer D, not (A)", "D"),
        ("**Answer**: C", "C"),
        ("The answer is" + "\n" * 100_000, None),
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


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("The correct answer is (B). The answer is C.", "B"),
        ("**The correct answer is B**, for option (A) is wrong.", "B"),
        ("The correct answer is A? The correct answer is (C).", "C"),
        ("The correct answer is (A)</think>The correct answer is (D).", "D"),
        ("the answer is A. No, wait: the answer is C", "C"),
        (r"\boxed{B}", "B"),
        ("Hm.", None),
    ],
)
def test_letters_as_longbench_v2_takes_them(text: str, chosen: str | None) -> None:
    assert published_letter(text) == chosen


def test_thoughts() -> None:
    assert after_thoughts("a</think>b</think>c") == "c"
    assert after_thoughts("abc") == "abc"
    assert thought_is_open("<think>abc", None)
    assert not thought_is_open("abc", None)
    assert thought_is_open("abc", True)
    assert not thought_is_open("abc</think>d", True)
    assert not thought_is_open("<think>abc", False)
    assert opens_thought("<think></think><as><think>\n")
    assert not opens_thought("<as><think>\n\n</think>\n\n")
    assert not opens_thought("<as>")
