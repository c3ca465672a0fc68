"""Models that are named as on the Hugging Face hub."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from longspan.network import cached_only_without_network

if TYPE_CHECKING:
    from collections.abc import Iterator

EMBEDDED = "nano"


def on_hub(path: str) -> bool:
    """Whether a `model.path` can only be a name on the hub: nothing of that name is here, and it is
    not written like a folder.
    """
    here = path == EMBEDDED or Path(path).expanduser().exists()
    return not here and not path.startswith((".", "/", "~")) and path.count("/") <= 1


@contextmanager
def fetching(path: str) -> Iterator[None]:
    """Within, a model is read that may have to be fetched; where it would have to be and there is
    no network, the ValueError says so, and soon.
    """
    if not on_hub(path):
        yield
        return
    with cached_only_without_network() as away:
        try:
            yield
        except ValueError as error:
            if away is None or not isinstance(error.__cause__, OSError):
                raise
            raise ValueError(
                f"model.path = {path!r}: there is no such folder, the hub's cache lacks it or a "
                f"part of it, and the hub cannot be reached ({away}); right would be a local "
                "folder, or a network"
            ) from error
