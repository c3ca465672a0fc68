"""Composing configurations: what knows Hydra's inside (1.3, the last of its line)."""

from __future__ import annotations

from contextlib import redirect_stderr
from functools import lru_cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from hydra._internal.hydra import Hydra
    from hydra.core.override_parser.types import Override

ELSEWHERE = {
    "experimental_rerun": "the same command again, which only runs what is missing",
    "config_path": "--config-dir for a folder beside conf",
}
"""Flags of Hydra's that name another way to what is here."""


def parser() -> ArgumentParser:
    """Of Hydra's command line."""
    from hydra import version
    from hydra._internal.utils import get_args_parser

    version.setbase("1.3")
    return get_args_parser()


def config_name(arguments: Namespace) -> str:
    """The root of the composition."""
    return str(arguments.config_name or "config")


def opened(arguments: Namespace, conf: Path) -> Hydra:
    """Hydra over the folder `conf` and the one of --config-dir; ValueError where that is none, and
    for what would be passed over.
    """
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra

    from longspan.composed import Loader

    for flag, right in ELSEWHERE.items():
        if (value := getattr(arguments, flag)) is not None:
            raise ValueError(f"--{flag.replace('_', '-')} = {value!r}: not taken; right is {right}")
    search = create_config_search_path(str(conf.resolve()))
    if arguments.config_dir is not None:
        extra = Path(arguments.config_dir).resolve()
        if not extra.is_dir():
            raise ValueError(f"--config-dir = {arguments.config_dir!r}: there is no such folder")
        anchor = SearchPathQuery(provider="schema")
        search.prepend(provider="command-line", path=f"file://{extra}", anchor=anchor)
    hydra = Hydra(task_name="longspan", config_loader=Loader(search))
    GlobalHydra.instance().initialize(hydra)
    return hydra


def check(hydra: Hydra, overrides: Sequence[str]) -> None:
    """ValueError for overrides that Hydra would refuse without their name, as one of no key, or
    would take for something else: of a key given twice the last, of a list of options the last, a
    folder `None`.
    """
    from longspan.composed import parsed

    loader = hydra.config_loader
    groups, given = set(loader.list_groups("")), dict[str, str]()
    for each in parsed(loader, overrides):
        name, line = each.get_key_element().lstrip("+"), str(each.input_line)
        if each.key_or_group == "":
            raise ValueError(f"{line}: names no key; right would be key=value")
        if given.setdefault(name, line) != line:
            raise ValueError(
                f"{name} is given twice, {given[name]} and {line}: right would be once"
            )
        if each.is_delete():
            if each.key_or_group == "results":
                raise ValueError(f"{line}: runs leave their files there; right is results=FOLDER")
            continue
        if each.is_sweep_override():
            _check_sweep(each)
            continue
        value = each.value()
        if name == "results":
            check_folder(name, value)
        if name in groups and isinstance(value, list):
            names = ",".join(map(str, value))
            raise ValueError(f"{name} = {value}: a run has one; right would be -m {name}={names}")
        if name in groups and (value == "" or not isinstance(value, str)):
            options = loader.get_group_options(name)
            right = ", ".join([*options[:12], *["..."] * (len(options) > 12)])
            raise ValueError(f"{name} = {value!r}: no name of an option; right would be {right}")


def _check_sweep(override: Override) -> None:
    """ValueError for a sweep through nothing, or through more than can be counted."""
    name, text = override.get_key_element().lstrip("+"), str(override.input_line).partition("=")[2]
    if not override.is_discrete_sweep():
        raise ValueError(f"{name} = {text}: cannot be swept; right would be {name}=range(0,3)")
    if not list(override.sweep_string_iterator()):
        raise ValueError(f"{name} = {text}: matches nothing; right would be values with commas")


def check_folder(name: str, value: Any) -> None:
    """ValueError where `value` is no folder and none can be made there."""
    if value in (None, "") or f"{value}/".startswith("~/"):
        raise ValueError(f"{name} = {value!r}: right would be a folder, and $HOME where ~ is meant")
    if not isinstance(value, str):
        return  # said when the request is parsed
    path = Path(value).absolute()
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir():
        raise ValueError(f"{name} = {value!r}: {there} is a file; right would be a folder")
    try:
        TemporaryFile(dir=there).close()  # rights say nothing of /proc
    except OSError as error:
        reason = "cannot be written to; name another folder"
        raise ValueError(f"{name} = {value!r}: {there} {reason}") from error


def without_papers(hydra: Hydra, overrides: Sequence[str]) -> list[str]:
    """The overrides, with preset=<paper> for protocol=<paper>: a paper's protocol is more than how
    its question is read.
    """
    loader = hydra.config_loader
    papers = set(loader.get_group_options("preset")) - set(loader.get_group_options("protocol"))
    named = {f"protocol={name}": f"preset={name}" for name in papers}
    return [named.get(each, each) for each in overrides]


def shows(hydra: Hydra, arguments: Namespace, parser: Any) -> bool:
    """Print what is asked for, if the command line asks for anything but a run."""
    name = config_name(arguments)
    if arguments.help:
        hydra.app_help(config_name=name, args_parser=parser, args=arguments)
    elif arguments.hydra_help:
        hydra.hydra_help(config_name=name, args_parser=parser, args=arguments)
    elif arguments.cfg:
        _show_configuration(hydra, arguments)
    elif arguments.info:
        hydra.show_info(arguments.info, config_name=name, overrides=arguments.overrides)
    elif arguments.shell_completion:
        hydra.shell_completion(config_name=name, overrides=arguments.overrides)
    else:
        return False
    return True


def _show_configuration(hydra: Hydra, asked: Namespace) -> None:
    name, package = config_name(asked), asked.package
    try:
        with redirect_stderr(StringIO()):  # it exits with a line of its own
            hydra.show_cfg(name, asked.overrides, asked.cfg, package, asked.resolve)
    except SystemExit:
        reason = "nothing of the configuration; right would be method, task, ..."
        raise ValueError(f"--package = {package!r}: {reason}") from None


@lru_cache(maxsize=1)
def jobs_of(overrides: tuple[str, ...]) -> Sequence[Sequence[str]]:
    """The overrides of every job that Hydra's own sweeper makes of these; for a running Hydra."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra

    from longspan.composed import parsed

    given = parsed(GlobalHydra.instance().config_loader(), overrides)
    (jobs,) = BasicSweeper.split_arguments(given, None)
    return jobs


def is_sweep(hydra: Hydra, arguments: Namespace) -> bool:
    """With -m, and where a study's configuration says so by hydra.mode."""
    if arguments.multirun or arguments.run:
        return bool(arguments.multirun)
    ours = arguments.config_name is None and arguments.config_dir is None
    if ours and not any(each.startswith(("+", "hydra")) for each in arguments.overrides):
        return False  # ours set no mode, and composing costs a quarter of a second
    mode = hydra.get_mode(config_name(arguments), arguments.overrides)
    return getattr(mode, "name", None) == "MULTIRUN"
