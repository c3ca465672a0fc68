"""The three passes of a run, each of which does only what its folder does not hold yet."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from longspan.fingerprint import FULL
from longspan.partials import Partials

if TYPE_CHECKING:
    from longspan.measures.answers import Job
    from longspan.measures.base import Subject, Voice
    from longspan.record.jsonl import RunFolder
    from longspan.runner import Run
    from longspan.screen import Screen

LONG = 16_384
"""Tokens of context from which on reading them is most of a run."""
PRODUCTS = (("amx", "several times"), ("avx512_bf16", "about twice"))
"""How much faster bfloat16 reads them than float32, by what of a CPU multiplies it."""


def quality(run: Run, folder: RunFolder, screen: Screen) -> None:
    """Answer and record what is not recorded yet."""
    from longspan.measures.quality import Quality

    if not run.request.measure.quality:
        return
    partials = Partials(folder.path, run.request.partial_seconds, folder.done)
    if not (jobs := _missing(run, folder)):
        with partials:  # a kill may have left what was recorded since
            return
    if run.task.samples_per_example > 1 and run.sampling.temperature == 0:
        screen.note("generation.temperature = 0: the answers to one example are all the same")
    for hint in filter(None, (_slow_dtype(run), _long_answers(run))):
        screen.note(hint)
    known = (0, 0) if run.prompts is None else run.prompts.counts
    wanted = sum(len(job.samples) for job in jobs)
    total = len(run.examples) * run.task.samples_per_example
    if wanted < total:
        screen.note(f"{total - wanted} of {total} samples are already in {folder.path}")
    with (
        screen.stage("samples", total) as done,
        screen.within() as tell,
        partials,
    ):
        done(total - wanted)
        jobs = [replace(job, begun=partials.of(job.example.id, job.samples)) for job in jobs]
        quality = Quality(
            _subject(run, tell), run.task, _voice(run),
            batch=run.request.batch, seed=run.request.seed, keep=run.request.partial_states,
        )  # fmt: skip
        for count, record in enumerate(quality(jobs, partials.growing), start=1):
            folder.append(record)
            partials.done(record.id, record.sample)
            run.recorder.sample(record)
            done(total - wanted + count)
    for line in filter(None, (_read_whole(run, folder), _known(run, known))):
        screen.note(line)


def _known(run: Run, before: tuple[int, int]) -> str | None:
    """What to say of prompts that jobs of a sweep read once for all, after those of before."""
    if run.prompts is None:
        return None
    given, left_out = (now - then for now, then in zip(run.prompts.counts, before, strict=True))
    lines = []
    if given:
        lines.append(f"{given} prompts had been read before")
    if left_out:
        full = f"prompts_gb = {run.prompts.most_bytes / 1e9:.3g} is full"
        what = f"{left_out} prompts are not kept for later jobs"
        if run.prompts.most is not None:  # there are none, and others than recall's were left out
            what = "recall reads prompts again"
        lines.append(f"{what}: {full}")
    return "; ".join(lines)


def _read_whole(run: Run, folder: RunFolder) -> str | None:
    """What to say where a sparse method left nothing out."""
    known = {"exact_tokens", "context_tokens"}
    works = [record.work for record in folder.records if known <= record.work.keys()]
    whole = [
        work["context_tokens"]
        for work in works
        if work["exact_tokens"] >= 0.999 * work["context_tokens"]
    ]
    if run.method.name == "full" or not whole:
        return None
    said = f"{len(whole)} of {len(works)} answers read all of their context, as full attention does"
    names = ("update_tokens", "sink_tokens", "local_tokens")
    least, *steady = (getattr(run.method, name, 0) for name in names)
    if max(whole) >= least + sum(steady) + run.model.layers:  # layers take turns to index
        return said
    return f"{said}: method.update_tokens = {least} is the least that is indexed"


def _slow_dtype(run: Run) -> str | None:
    """What to say where the CPU's products of bfloat16 are not used while long prompts are read."""
    import torch

    from longspan_kernels.dispatch import build_info

    idle = run.model.device.type == "cpu" and run.model.dtype == torch.float32
    gain = next((gain for isa, gain in PRODUCTS if isa in build_info()["isas"]), None)
    if not idle or (run.request.ctx or 0) < LONG or gain is None:
        return None
    return f"model.dtype=bfloat16 would read prompts {gain} as fast on this CPU"


def _long_answers(run: Run) -> str | None:
    """What to say where answers may be longer than prompts leave room for."""
    most = run.request.max_new_tokens or 0
    room = min((each.max_new_tokens for each in run.examples if not each.forced), default=most)
    if run.request.ctx is None or most <= room:
        return None
    return (
        f"generation.max_new_tokens = {most}: beyond the {room} of the task, for which prompts "
        "leave room: answers may end beyond ctx"
    )


def _missing(run: Run, folder: RunFolder) -> list[Job]:
    from longspan.measures.answers import Job

    known = {record.id: record.references for record in folder.records}
    jobs = []
    for example in run.examples:
        if known.get(example.id, example.references) != example.references:
            raise ValueError(
                f"{folder.path}: sample {example.id} was recorded with other references; the data "
                "has changed without its version: move the folder away"
            )
        samples = [
            sample
            for sample in range(run.task.samples_per_example)
            if (example.id, sample) not in folder.done
        ]
        if samples:
            jobs.append(Job(example, tuple(samples)))
    return jobs


def recall(run: Run, folder: RunFolder, screen: Screen) -> None:
    """Write recall.json, unless it is there for the same sizes and these examples."""
    from longspan.measures.recall import recall as measured

    sizes = run.request.measure.recall
    if not sizes.enabled:
        return
    examples = run.examples[: sizes.samples]
    kept, ids = folder.read("recall.json") or {}, [example.id for example in examples]
    if kept.get("sizes") == asdict(sizes) and set(ids) <= set(kept.get("ids", ())):
        return
    with (
        screen.stage("recall", len(examples)) as done,
        screen.within() as tell,
    ):
        found = measured(
            _subject(run, tell), examples, steps=sizes.steps, at=sizes.at, every=sizes.every,
            voice=_voice(run, endless=True) if sizes.tokens == "generated" else None, done=done,
        )  # fmt: skip
    folder.write("recall.json", {"sizes": asdict(sizes), "ids": ids, "found": found})
    run.recorder.curve("recall/by_stretch", (found or {}).get("by_stretch", []))


def latency(run: Run, folder: RunFolder, screen: Screen) -> None:
    """Write latency.json, unless it is there for the same sizes, examples, hardware, threads, code
    and settings of the model: of the last, some (graphs, chunks of a full prefill) change the time
    and no answer, so no fingerprint.
    """
    from longspan.measures.latency import latency as measured

    sizes = run.request.measure.latency
    if not sizes.enabled:
        return
    if not run.alone:
        screen.note(
            "latency is not measured: jobs that run side by side disturb one another's time"
        )
        return
    kept = folder.read("latency.json") or {}
    here = folder.read("environment.json") or {}
    examples = [run.examples[row % len(run.examples)] for row in range(sizes.rows)]
    facts = {
        "sizes": asdict(sizes),
        "ids": [example.id for example in examples],
        **{name: here.get(name) for name in ("hardware", "gpus", "threads", "kernels")},
        "source": (here.get("source") or {}).get("digest"),
        "model": {key: value for key, value in run.config["model"].items() if key != "path"},
    }
    if {name: kept.get(name) for name in facts} == facts:
        return
    with screen.stage("latency"), screen.within() as tell:
        timing, memory = measured(
            _subject(run, tell, timed=True), examples, warmup=sizes.warmup, steps=sizes.steps
        )
    if run.prompts is not None:  # what other jobs keep is none of its own
        memory["peak_host_bytes"] -= run.prompts.nbytes
    folder.write("latency.json", {**facts, "latency": timing, "memory": memory})
    run.recorder.curve("latency/by_stretch", timing["by_stretch"])


def _subject(run: Run, tell: Any, *, timed: bool = False) -> Subject:
    from longspan.measures.base import Subject

    known = run.prompts
    if known is not None and (timed or run.prefill.name != FULL):
        known = known.aside()
    return Subject(
        model=run.model, method=run.method, protocol=run.request.protocol, prefill=run.prefill,
        context_tokens=run.request.ctx, prompts=known, tell=tell,
    )  # fmt: skip


def _voice(run: Run, *, endless: bool = False) -> Voice:
    from functools import partial

    from longspan.measures.base import Voice
    from longspan.models.generation import Stream, Taught, generate

    speak: Any = partial(
        generate,
        tokenizer=run.model.tokenizer,
        eos_ids=run.model.eos_ids,
        sampling=replace(run.sampling, ignore_eos=True) if endless else run.sampling,
        seed=run.request.seed,
    )
    return Voice(
        stream=Stream, taught=Taught, generate=speak, max_new_tokens=run.request.max_new_tokens
    )
