"""What torch or a GPU refuses, and when.

Not emulated: what depends on time. Streams run in program order, so that no race is ever lost.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from tests.emulated.pinned import is_pinned
from torch.utils._pytree import tree_iter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.emulated.captures import Capture
    from torch import Tensor

INDEXED = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_unsafe_index"}
"""Their indices may lie on the host, and wait where they are masks."""
EMPTY = {f"aten::{name}" for name in ("empty", "empty_like", "empty_strided")}
EMPTY |= {"aten::new_empty", "aten::new_empty_strided"}
LIKE = ("aten::empty_like", "aten::full_like", "aten::ones_like", "aten::zeros_like", "aten::new_")
"""They do not read what they are given, which may lie on another device."""
CHECKED = {"aten::_linalg_check_errors"}
"""They wait, and no tag says so."""


class Illegal(RuntimeError):
    """What would fail on a GPU."""


@dataclass
class Here:
    """Of the whole process."""

    capture: Capture | None = None
    waits_are_errors: bool = False


HERE = Here()
THERE = threading.local()
"""Of each thread: `device`, the number of the current one."""


def gpu(device: torch.device | str | None = None) -> torch.device:
    """With its number; by default the current one."""
    found = torch.device("cuda" if device is None else device)
    return found if found.index is not None else torch.device("cuda", getattr(THERE, "device", 0))


def capturing() -> Capture | None:
    """What records the operations of this thread."""
    capture = HERE.capture
    return capture if capture is not None and capture.thread == threading.get_ident() else None


def wait(what: str, *, known: bool = True) -> None:
    """The host waits for the device: in a capture no thread may, and not where torch forbids it,
    if that is `known` to its sync debug mode.
    """
    if HERE.capture is not None:
        HERE.capture.spoil(f"{what} waits for the device within a capture")
    if HERE.waits_are_errors and known:
        raise Illegal(f"{what} waits for the device, which set_sync_debug_mode forbids")


def cross(host: Tensor, what: str, *, non_blocking: bool) -> None:
    """A copy between a tensor of the host and the device."""
    if not non_blocking:
        wait(f"{what} between host and device that is not non_blocking")
    elif (capture := capturing()) is not None and not is_pinned(host):
        capture.spoil(f"{what} between device and pageable host memory within a capture")


@dataclass(frozen=True)
class Facts:
    """Of an operation."""

    name: str
    composite: bool
    """Whether it is made of others, whatever the device."""
    waits: bool
    """Whether its result, or the shape of it, goes to the host."""
    random: bool
    empty: bool
    written: tuple[int, ...]
    """Positions of what it writes."""
    writes_out: bool


@cache
def facts(func: Any) -> Facts:
    """Of an overload of torch.ops.aten."""
    name = func._schema.name
    tags = set(func.tags)
    said = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & tags
    arguments = func._schema.arguments
    writes = [a for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    return Facts(
        name=name,
        composite=torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        ),
        waits=(bool(said) and name not in INDEXED) or name in CHECKED,
        random=torch.Tag.nondeterministic_seeded in tags,
        empty=name in EMPTY,
        written=tuple(i for i, a in enumerate(arguments) if a in writes and not a.kwarg_only),
        writes_out=any(a.kwarg_only for a in writes),
    )


def check(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Raises Illegal where the operation may not be, here or anywhere."""
    known = facts(func)
    if known.waits and kwargs.get("output_size") is None:
        wait(known.name)
    if known.random and (capture := capturing()) is not None:
        capture.spoil(f"{known.name} within a capture, whose random numbers are not emulated")
    if kwargs.get("device") is not None and known.name.startswith(LIKE):
        return
    indexed = known.name in INDEXED
    there = next(gpus(args, kwargs), "cuda:0")
    for number, argument in enumerate((*args, *kwargs.values())):
        several = isinstance(argument, list | tuple)
        for each in argument if several else (argument,):
            if not isinstance(each, torch.Tensor):
                continue
            if indexed and number == 1:
                _check_index(known, each, args)
            elif each.device != there and (each.dim() or number in known.written):
                raise Illegal(
                    f"{known.name} of tensors on {there} and on {each.device}"
                    f" ({list(each.shape)}); they should be on one device"
                )


def gpus(args: Any, kwargs: dict[str, Any]) -> Iterator[torch.device]:
    """Where what an operation is given lies, and what it names."""
    named = kwargs.get("device")
    found = [] if named is None else [torch.device(named)]
    found += [x.device for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
    return (gpu(device) for device in found if device.type == "cuda")


def _check_index(known: Facts, index: Tensor, args: Sequence[Any]) -> None:
    if index.device.type == "cpu":
        cross(index, f"{known.name}: a copy of indices", non_blocking=False)
    if index.dtype in (torch.bool, torch.uint8) and not _fills(known, args):
        wait(f"{known.name} by a mask")


def _fills(known: Facts, args: Sequence[Any]) -> bool:
    """Whether torch makes a masked_fill_ of it: for a number."""
    return len(args) > 2 and args[2].device.type == "cpu" and args[2].numel() == 1
