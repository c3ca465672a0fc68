"""From configuration to objects; whatever is wrong with a field becomes one line that names it."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")


def checked(make: Callable[..., T], given: Mapping[str, Any], path: str) -> T:
    """`make(**given)`; raises ValueError naming the field under `path`, its value and what would
    be right.
    """
    if not hasattr(given, "items"):
        raise ValueError(f"{path} = {given!r}: not a group of settings; {_settings_of(make)}")
    known = _names(make)
    for name in given:
        if known is not None and name not in known:
            raise ValueError(f"{_join(path, name)}: no such setting; {_settings_of(make)}")
    try:
        return make(**given)
    except ValidationError as error:
        raise ValueError(_invalid(error, make, path)) from error


def part(config: Mapping[str, Any], path: str, kind: type[object] = object) -> Any:
    """The object that a group of the configuration describes: `_target_` called with the rest.

    Nested groups with a `_target_` are built first. Raises ValueError naming the field under
    `path`, also where what is built is no `kind`.
    """
    from hydra.errors import HydraException
    from hydra.utils import get_object

    if "_target_" not in config:
        raise ValueError(f"{path}: nothing to build, its yaml has no _target_")
    try:
        make = get_object(config["_target_"])
    except (HydraException, ImportError, AttributeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"{path}._target_ = {config['_target_']!r}: {reason}") from error
    if not callable(make):
        made = f"a {type(make).__name__}; right would be the class of a {kind.__name__}"
        raise ValueError(f"{path}._target_ = {config['_target_']!r}: {made}")
    given = {
        name: part(value, f"{path}.{name}") if _is_part(value) else value
        for name, value in config.items()
        if name != "_target_"
    }
    built = checked(make, given, path)
    if not isinstance(built, kind):
        made = f"makes a {type(built).__name__}; right would be a {kind.__name__}"
        raise ValueError(f"{path}._target_ = {config['_target_']!r}: {made}")
    if kind is not object and given and not is_dataclass(built):
        raise ValueError(
            f"{path}._target_ = {config['_target_']!r}: {type(built).__name__} keeps no fields of "
            "its settings, so that runs that differ in them would be taken for one; right would be "
            "a class that is marked @settings"
        )
    return built


def _is_part(value: object) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _invalid(error: ValidationError, make: Callable[..., Any], path: str) -> str:
    first = error.errors(include_url=False)[0]
    # behind the field: places in a list count, names of a union's members tell nobody anything
    where = _join(path, *first["loc"][:1], *(n for n in first["loc"][1:] if isinstance(n, int)))
    if first["type"] in ("missing", "missing_keyword_only_argument", "missing_argument"):
        return f"{where} is missing: {_settings_of(make)}"
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    reason = reason[0].lower() + reason[1:]
    return reason if not first["loc"] else f"{where} = {first['input']!r}: {reason}"


def _join(path: str, *names: object) -> str:
    return ".".join(str(name) for name in (path, *names) if name != "")


def _names(make: Callable[..., Any]) -> list[str] | None:
    """The settings that `make` takes; None where it takes any."""
    if is_dataclass(make):
        return [field.name for field in fields(make) if field.init]
    parameters = inspect.signature(make).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return [each.name for each in parameters]


def _settings_of(make: Callable[..., Any]) -> str:
    names = _names(make)
    return f"its settings are {', '.join(sorted(names))}" if names else "it has no settings"
