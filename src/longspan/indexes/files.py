"""The files of an index: JSON about it, and its tensors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FILE = "index.json"


def write_facts(folder: Path, kind: str, version: str, facts: Mapping[str, Any]) -> None:
    """Write what is to be known of an index of that kind; the file comes last, whole or not."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / (FILE + ".part")
    draft.write_text(json.dumps({"format": kind, "version": version, **facts}))
    draft.replace(folder / FILE)


def read_facts(folder: Path, kind: str, version: str) -> dict[str, Any]:
    """What `write_facts` wrote. Raises ValueError naming the file where it is missing, truncated,
    of another kind or of another version.
    """
    path = folder / FILE
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
        found = (facts.get("format"), facts.get("version"))
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is no index: {error}; it should be a complete file that `save` wrote"
        ) from error
    if found != (kind, version):
        raise ValueError(
            f"{path} has format {found[0]!r} version {found[1]!r}; it should be {kind!r} version"
            f" {version!r}: build the index again"
        )
    return facts


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file; it appears whole or not at all."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, draft)
    draft.replace(path)


def read_tensor(path: Path, name: str) -> Tensor:
    """A tensor that `write_tensors` wrote. Raises ValueError naming a file that has none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} holds no {name}: {error}; it should be a complete file that `save` wrote"
        ) from error
