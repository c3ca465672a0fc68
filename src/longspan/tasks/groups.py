"""Groups of data sets that lie in a file each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from longspan.tasks.rows import ROW_FILES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longspan.tasks.rows import Placed


def check_file_of_group(path: str | None, names: Sequence[str]) -> None:
    """ValueError where `path` is one file of rows and several data sets are asked for: each would
    be read from it.
    """
    if path is None or len(names) == 1 or Path(path).suffix.lower() not in ROW_FILES:
        return
    if not Path(path).expanduser().is_dir():
        raise ValueError(
            f"task.path={path}: one file for {len(names)} data sets ({', '.join(names)}); give the "
            "folder of their files, or task.dataset= the one that it holds"
        )


def check_data_set(rows: Sequence[Placed], name: str) -> None:
    """ValueError where a row says that it is of another data set than `name`."""
    for where, row in rows:
        said = row.get("dataset")
        if said not in (None, name, f"{name}_e"):
            raise ValueError(f"{where}: field dataset is {said!r:.60}, but {name} is asked for")
