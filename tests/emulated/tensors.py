"""Tensors that say that they are on cuda:0 or cuda:1 and hold their numbers on the CPU.

Every operation on them comes to `dispatch`, which runs it on the inner tensors; what torch makes
on the device comes through kernels for its CUDA key. Not emulated: memory that ends, operations
that give other numbers on a GPU, `resize_` and whatever else changes a tensor's shape in place.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from tests.emulated import pinned
from tests.emulated.rules import Illegal, capturing, check, cross, facts, gpu, gpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.emulated.captures import Capture
    from torch import Tensor

aten = torch.ops.aten
_wrapper: Any = torch.Tensor._make_wrapper_subclass


class Memory:
    """Of one storage: goes when nobody holds a tensor of it."""

    def __init__(self, capture: Capture | None) -> None:
        self.capture = capture
        """The one that it was allocated in."""


MEMORIES: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()
"""By address of the storage."""


class CudaTensor(torch.Tensor):
    """Made of a CPU tensor, `numbers`, that has its shape and strides."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    numbers: Tensor
    memory: Memory

    @staticmethod
    def __new__(cls: type[CudaTensor], inner: Tensor, device: torch.device) -> CudaTensor:
        place = inner.size(), inner.stride(), inner.storage_offset()
        # a view, also one that is taken in inference mode, is of the kind of what it looks at
        with torch.inference_mode(inner.is_inference()):
            made = _wrapper(cls, *place, None, inner.dtype, torch.strided, device)
        made.numbers = inner
        key = inner.untyped_storage()._cdata
        memory = MEMORIES.get(key)
        if memory is None:
            capture = capturing()
            memory = MEMORIES[key] = Memory(capture)
            if capture is not None:
                capture.allocated(memory, inner)
        made.memory = memory
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return dispatch(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"CudaTensor({list(self.shape)}, {self.dtype}, {self.device})"

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def untyped_storage(self) -> Any:
        return self.numbers.untyped_storage()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda device type tensor to numpy")


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation one of whose tensors is on the device."""
    if facts(func).composite:
        return func.decompose(*args, **kwargs)
    if func is aten.copy_.default and args[0].device.type == args[1].device.type:
        if args[0].device != args[1].device:
            return passed_on(*args[:2])
    elif func is aten.copy_.default and not all(isinstance(x, CudaTensor) for x in args[:2]):
        return crossing_copy(*args, **kwargs)
    if func is aten._to_copy.default and kwargs.get("device") is not None:
        device = torch.device(kwargs["device"])
        if device.type == "cpu":
            return fetched(args[0], **kwargs)
        if gpu(device) != args[0].device and isinstance(args[0], CudaTensor):
            named = {"device": gpu(device), "dtype": kwargs.get("dtype")}
            return passed_on(aten.empty_like.default(args[0], **named), args[0])
    check(func, args, kwargs)
    return run(func, args, kwargs)


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Whatever needs no copy between host and device."""
    to_host = "device" in kwargs and torch.device(kwargs["device"] or "cuda").type == "cpu"
    capture, given = capturing(), dict[int, CudaTensor]()
    there = next(gpus(args, kwargs))

    def inside(x: Any) -> Any:
        if isinstance(x, CudaTensor):
            given[id(x.numbers)] = x
            return x.numbers
        return kept(x) if capture is not None and isinstance(x, torch.Tensor) else x

    def outside(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or to_host:
            return x
        known = given.get(id(x))
        if known is not None and known.shape != x.shape:
            raise Illegal(f"{func} changes a tensor's shape in place, which is not emulated")
        return CudaTensor(x, there) if known is None else known

    inner_args, inner_kwargs = mapped(inside, args), mapped(inside, kwargs)
    if "device" in kwargs:
        inner_kwargs["device"] = torch.device("cpu")
    if capture is not None:
        capture.before(func, args, kwargs)
    work = func if capture is None else partial(shaped, func)
    found = work(*inner_args, **inner_kwargs)
    if facts(func).empty and not to_host:
        poison(found) if capture is None else found.zero_()  # numbers of no kernel
    wrapped = mapped(outside, found)
    if capture is not None:
        capture.after(func, inner_args, inner_kwargs, found)
    return wrapped


def shaped(func: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation of a capture, whose numbers, made by no kernel, may be out of range for it: then
    it is its shape that counts. A replay finds out whether they are.
    """
    try:
        return func(*args, **kwargs)
    except (IndexError, RuntimeError) as error:
        if "out of bounds" not in str(error) or facts(func).written:
            raise
    moved = mapped(lambda x: x.to("meta") if isinstance(x, torch.Tensor) else x, (args, kwargs))
    found = func(*moved[0], **moved[1])
    return mapped(lambda x: torch.zeros_like(x, device="cpu"), found)


def crossing_copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """copy_ where one of both is on the host."""
    upwards = isinstance(target, CudaTensor)
    cross(source if upwards else target, "copy_", non_blocking=non_blocking)
    if upwards:
        run(aten.copy_.default, (target, source), {})
    elif (capture := capturing()) is not None:
        capture.brings(target, source)
    else:
        target.copy_(source.numbers)  # type: ignore[attr-defined]
    return target


def passed_on(target: CudaTensor, source: CudaTensor) -> Tensor:
    """A copy to another device, whose streams wait for one another."""
    if (capture := capturing()) is not None:
        capture.spoil("a copy between devices within a capture, which is of one")
    target.numbers.copy_(source.numbers)
    return target


def fetched(source: CudaTensor, *, non_blocking: bool = False, **named: Any) -> Tensor:
    """A copy on the host, which torch pins where nobody waits for it."""
    target = torch.empty_like(source.numbers, dtype=named.get("dtype"))
    if non_blocking:
        target = pinned.locked_copy(target)
    return crossing_copy(target, source, non_blocking)


def kept(host: Tensor) -> Tensor:
    """How a graph holds a tensor of the host: a number as it is now, memory not at all."""
    return pinned.held_by_nobody(host) if host.dim() else host.clone()


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Lists, tuples and dicts with what is in them changed."""
    if isinstance(value, list | tuple):
        changed = [mapped(change, each) for each in value]
        return changed if isinstance(value, list) else tuple(changed)
    if isinstance(value, dict):
        return {name: mapped(change, each) for name, each in value.items()}
    return change(value)


def tensors(value: Any) -> list[Tensor]:
    """All that are in it."""
    found: list[Tensor] = []
    mapped(lambda x: found.append(x) if isinstance(x, torch.Tensor) else None, value)
    return found


def poison(tensor: Tensor) -> None:
    """What memory holds that nobody has written."""
    if tensor.is_floating_point():
        tensor.fill_(float("nan"))
    else:
        tensor.fill_(True if tensor.dtype == torch.bool else 77)
