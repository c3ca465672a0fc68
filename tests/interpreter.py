"""Triton's interpreter, quickened: it works out at every operation what does not change.

Of an operation on a small block it takes nearly all of the time for types: their names, their
checks, the tuples of their shapes. These depend on the element type and the shape alone. With
what is kept here its launches take half the time and give the same, overflows and all.
"""

from __future__ import annotations

from functools import cache, wraps
from typing import Any


def quicken() -> None:
    """From here on, in this process, which compiles nothing: TRITON_INTERPRET was set before."""
    from triton import language as tl
    from triton.runtime import interpreter

    interpreter._patch_lang = _once(interpreter._patch_lang)
    interpreter._get_np_dtype = _by_name(interpreter._get_np_dtype)
    _share(tl.block_type)
    tl.tensor.__init__ = _by_type(tl.tensor.__init__)


class _Stays:
    def restore(self) -> None:
        """The language is the interpreter's for good."""


def _once(patch: Any) -> Any:
    """Not at every launch and call."""

    @cache
    def patched(function: Any) -> _Stays:
        patch(function)
        return _Stays()

    return patched


def _by_name(numpys: Any) -> Any:
    known: dict[str, Any] = {}

    @wraps(numpys)
    def dtype_of(type: Any) -> Any:
        if type.name not in known:
            known[type.name] = numpys(type)
        return known[type.name]

    return dtype_of


def _share(block_type: Any) -> None:
    """One object for all blocks of an element type and a shape; nothing writes to it."""
    init, known = block_type.__init__, dict[Any, Any]()

    def __new__(cls: Any, element_ty: Any, shape: Any) -> Any:
        sizes = tuple([getattr(size, "value", size) for size in shape])
        space = getattr(element_ty, "address_space", None)
        key = element_ty.name, space, sizes, *map(type, sizes)  # 2.0 is no size
        if key not in known:
            made = object.__new__(cls)
            init(made, element_ty, shape)
            known[key] = made
        return known[key]

    @wraps(init)
    def __init__(self: Any, element_ty: Any, shape: Any) -> None:
        """It is made."""

    block_type.__new__, block_type.__init__ = __new__, __init__


def _by_type(init: Any) -> Any:
    """All that a tensor has of its type: shape, size, element type."""

    @wraps(init)
    def __init__(self: Any, handle: Any, type: Any) -> None:
        if (known := type.__dict__.get("of_its_tensors")) is None:
            init(self, handle, type)
            type.of_its_tensors = {k: v for k, v in self.__dict__.items() if k != "handle"}
        else:
            self.__dict__.update(known)
            self.handle = handle

    return __init__
