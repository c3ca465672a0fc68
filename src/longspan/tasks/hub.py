"""The Hugging Face hub, and what is said where it cannot be reached."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from longspan.network import cached_only_without_network

if TYPE_CHECKING:
    from collections.abc import Iterator


def hub_file(name: str, file: str, how: str) -> Path:
    """Where a file of the data set `name` lies, once it is fetched; ValueError as of `hub`."""
    with hub(name, how):
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(name, file, repo_type="dataset")
    return Path(path)


@contextmanager
def hub(name: str, how: str) -> Iterator[None]:
    """Reading the data set `name`. Where that fails (no network, gated), the ValueError ends with
    `how`: what to do instead.
    """
    try:
        import datasets

        with cached_only_without_network(datasets.config):
            yield
    except Exception as error:  # the hub's clients raise a zoo: offline, gated, missing, renamed
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
        raise ValueError(
            f"task.path is not set and {name} could not be read from the hub "
            f"({type(error).__name__}: {first}). {how}"
        ) from None
