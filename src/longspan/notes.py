"""What is said of a folder that holds something already, before more is added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from longspan.record.files import entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from longspan.record.jsonl import RunFolder
    from longspan.runner import Run


def notes(run: Run, folder: RunFolder, here: dict[str, Any]) -> Iterator[str]:
    """A line each; `here` is the environment of now, and the folder's file that of before."""
    yield from _other_source(folder, here)
    for number in folder.corrupt:
        yield f"samples.jsonl: line {number} is no sample; it is answered again"
    if run.request.measure.quality:
        yield from _recorded(run, folder)


def _other_source(folder: RunFolder, here: dict[str, Any]) -> Iterator[str]:
    """Versions make a fingerprint, edits do not: say so where they may have mixed."""
    before = entries(folder.read("environment.json"), "source")
    digest = here["source"]["digest"]
    kept = [f"{len(folder.records)} samples"] if folder.records else []
    kept += ["recall.json"] if folder.read("recall.json") else []
    if kept and (other := before.get("digest")) not in (None, digest):
        yield (
            f"{' and '.join(kept)} were recorded by other source ({other}, now "
            f"{digest}); if the edit changes answers, delete {folder.path} and run again"
        )


def _recorded(run: Run, folder: RunFolder) -> Iterator[str]:
    """Where nothing is left to answer, and where there are answers that are not asked for; the pass
    itself says what it goes on from.
    """
    done, count = folder.done, run.task.samples_per_example
    wanted = [(each.id, sample) for each in run.examples for sample in range(count)]
    if done.issuperset(wanted):
        yield f"all {len(wanted)} samples are already in {folder.path}"
    most = max((sample + 1 for _, sample in done), default=0)
    if most > count:
        yield f"task.n_sampling = {count}: of the {most} recorded answers the first {count} count"
