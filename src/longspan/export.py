"""Tables for other programs: CSV, Markdown, LaTeX."""

from __future__ import annotations

from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip
_MARKDOWN = {"|": r"\|", "<": "&lt;", "&": "&amp;"}


def to_csv(frame: pd.DataFrame) -> str:
    """Comma-separated, every digit kept."""
    return str(frame.to_csv(index=False))


def to_markdown(frame: pd.DataFrame, digits: int = 2) -> str:
    """A Markdown table; numbers to `digits` places, what is missing as a dash."""
    head, body = _cells(frame, digits, lambda text: "".join(_MARKDOWN.get(c, c) for c in text))
    rule = [":--" if _is_text(frame[name]) else "--:" for name in frame.columns]
    lines = [head, rule, *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(frame: pd.DataFrame, digits: int = 2) -> str:
    """A booktabs tabular."""
    head, body = _cells(frame, digits, _escape)
    columns = "".join("l" if _is_text(frame[name]) else "r" for name in frame.columns)
    rows = [" & ".join(line) + r" \\" for line in body]
    middle = [" & ".join(head) + r" \\", r"\midrule", *rows]
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", *middle, r"\bottomrule", end]) + "\n"


def save(frame: pd.DataFrame, path: str | Path, digits: int = 2) -> None:
    """Write a table in the format of the file's ending: .csv, .md or .tex. Raises ValueError."""
    file = Path(path)
    if file.suffix == ".csv":
        text = to_csv(frame)
    elif file.suffix in (".md", ".tex"):
        text = (to_markdown if file.suffix == ".md" else to_latex)(frame, digits)
    else:
        raise ValueError(f"table = {str(path)!r}: right would be a name in .csv, .md or .tex")
    file.write_text(text, encoding="utf-8")


def _cells(
    frame: pd.DataFrame, digits: int, clean: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    head = [clean(str(name)) for name in frame.columns]
    body = [
        [clean(_text(value, digits)) for value in row]
        for row in frame.itertuples(index=False, name=None)
    ]
    return head, body


def _text(value: Any, digits: int) -> str:
    import pandas as pd

    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if not isinstance(value, Real) or isinstance(value, Integral):
        return " ".join(str(value).splitlines())
    number = float(value)
    small = 0 < abs(number) < 0.5 * 10.0**-digits
    return f"{number:.1e}" if small else f"{number:.{digits}f}"


def _escape(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _is_text(column: pd.Series[Any]) -> bool:
    import pandas as pd

    return not pd.api.types.is_numeric_dtype(column)
