"""The trainer's sequences: right answers, honest seeds, lengths, virtual length."""

from __future__ import annotations

import math
import random
import re
import string
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


from nano_attention import (
    Biases,
    after_haystack,
    hidden_states,
    unseen_haystack,
    virtual_length,
)
from nano_batch import Asking
from nano_clusters import Probe, clustered, summary_loss, wave_attention
from nano_curriculum import WINDOW, Curriculum, Job
from nano_forms import Form
from nano_guide import GATHER_LAYERS, MOST_POINTERS, NEXT_LAYERS, Guide, pointers, targets
from nano_model import build_model, look_back_init
from nano_niah import niah_sequence
from nano_sequence import END, NO_ANSWER, PARTS, Material, Sequence, Series, copy_sequence, pack
from nano_templates import Templates
from nano_vt import vt_sequence

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = [(kind, plural) for kind in ("numbers", "uuids") for plural in (False, True)]
WORDING = Templates(
    needle="Remember the {type_needle_v} of {key}, namely {value}.",
    noise="Rain falls. Wind blows.",
    headers=dict.fromkeys(PAIRS, "Read this."),
    questions=dict.fromkeys(PAIRS, "Which for {query}? For {query} it is"),
    vt_header="Follow this.\n\n",
    vt_question="\nWhich {num_v} hold {query}? Answer: They are:",
    cwe_header="",
    cwe_question="",
    fwe_header="",
    fwe_question="",
    cwe_words=(),
)
AS_ANSWERED = replace(WORDING, needle="The {type_needle_v} for {key} is: {value}.")
EOS = 0


def encode(text: str) -> list[int]:
    """One token a character, so that a piece is the same wherever it stands."""
    return [ord(character) for character in text]


def decode(ids: list[int]) -> str:
    return "".join(chr(token) if token else "$" for token in ids)


VOCABULARY: dict[str, int] = {}


def encode_pieces(text: str) -> list[int]:
    """Words, capitals in pairs and digits in threes, as the tokenizer of nano."""
    pieces = re.findall(r" ?VAR| ?\d{1,3}|[A-Z]{2}|[A-Za-z-]+|.|\n", text)
    return [VOCABULARY.setdefault(piece, len(VOCABULARY) + 1) for piece in pieces]


def make_material(encoder: Callable[[str], list[int]], wording: Templates = WORDING) -> Material:
    prose = ["The", "cat", "sat.", "A", "dog", "ran", "far.", "Nobody", "saw", "it.", "End."]
    words = [f"{a}{b}y" for a in string.ascii_lowercase for b in "aeiou"]
    return Material(encoder, wording, prose, (words, words), EOS, -3)


@pytest.fixture
def material() -> Material:
    return make_material(encode)


def answer_texts(sequence: Sequence) -> dict[int, str]:
    texts: dict[int, list[int]] = {}
    for token, answer in zip(sequence.ids, sequence.answers, strict=True):
        if answer != NO_ANSWER and answer % PARTS < END:
            texts.setdefault(answer, []).append(token)
    return {answer: decode(ids).strip(" ,") for answer, ids in texts.items()}


@pytest.mark.parametrize("hay", ["noise", "prose", "needle"])
@pytest.mark.parametrize("exact", ["", "single", "values", "queries"])
def test_every_needle_answer_stands_beside_its_key(
    material: Material, hay: str, exact: str
) -> None:
    for _ in range(20):
        sequence = niah_sequence(
            material, 1500, Form("numbers", hay, False, exact, exact == "values")
        )
        text = decode(sequence.ids)
        needles = re.findall(r"the numbers of ([a-z-]+), namely (\d{7})\.", text)
        answers = answer_texts(sequence)
        assert answers
        assert {value for _, value in needles} >= set(answers.values())
        if exact:
            assert {answer // PARTS for answer in answers} == {0}
            assert len(answers) == (1 if exact == "single" else 4)
        asked = re.findall(r"[ ]([a-z-]+) is: (\d{7})", text)
        assert asked
        assert set(asked) <= set(needles)
        if exact:
            assert len({key for key, _ in asked}) == (4 if exact == "queries" else 1)


def test_sequences_keep_to_the_length(material: Material) -> None:
    for hay in ("noise", "prose", "needle"):
        sequence = niah_sequence(material, 6000, Form("numbers", hay, False, "single"))
        assert 5500 < len(sequence.ids) <= 6000


def test_every_variable_of_the_chain_is_answered_once(material: Material) -> None:
    sequence = vt_sequence(material, 3000, exact=True)
    text = decode(sequence.ids)
    answers = [
        value.removeprefix("VAR ")
        for key, value in sorted(answer_texts(sequence).items())
        if key >= PARTS
    ]
    assert len(set(answers)) == len(answers) == 5
    assert sum(f"VAR {new} = VAR {old} " in text for new in answers for old in answers) == 4
    assert sum(re.search(rf"VAR {name} = \d{{5}}", text) is not None for name in answers) == 1


def test_pointers_lead_along_the_values_of_a_key() -> None:
    material = make_material(encode_pieces, AS_ANSWERED)
    sequence = niah_sequence(material, 1500, Form("numbers", "prose", False, "values", True))
    ids, (series,) = sequence.ids, sequence.series
    first = [part[0] for part in series.parts]
    gather = [pointer for pointer in pointers(sequence) if pointer.layers == GATHER_LAYERS]
    following = [pointer for pointer in pointers(sequence) if pointer.layers == NEXT_LAYERS]
    inside, given = gather[::2], gather[1::2]
    assert [ids[pointer.place] for pointer in inside] == first
    assert [ids[pointer.place + 1] for pointer in following] == first
    assert [pointer.place for pointer in given] == [pointer.place for pointer in following]
    for kind in (inside, given):
        for n, pointer in enumerate(kind):
            start, *before = pointer.keys
            assert start == 0
            assert [ids[t] for t in before] == first[:n]
            assert max(pointer.keys) <= pointer.place
    assert all(t > inside[-1].place for pointer in given for t in pointer.keys[1:])
    assert [pointer.keys for pointer in following] == [[pointer.place] for pointer in inside]


def test_pointers_follow_a_chain_on_the_right_of_its_assignments() -> None:
    material = make_material(encode_pieces, AS_ANSWERED)
    sequence = vt_sequence(material, 3000, exact=True)
    ids, (series,) = sequence.ids, sequence.series
    gather = [pointer for pointer in pointers(sequence) if pointer.layers == GATHER_LAYERS]
    following = [pointer for pointer in pointers(sequence) if pointer.layers == NEXT_LAYERS]
    assert len(gather) == len(following) == len(series.parts) - 1 == 5
    for n in range(5):
        previous, name = series.parts[n : n + 2]
        place = following[n].place + 1
        assert ids[place : place + len(name)] == name
        (assigned,) = following[n].keys
        assert ids[assigned + 1 - len(previous) : assigned + 1] == previous
        assert gather[n].place == assigned
        (left,) = gather[n].keys
        assert ids[left : left + len(name)] == name
        assert left < assigned < left + 12 < place


def test_a_guide_costs_nothing_where_one_head_looks_right() -> None:
    material = make_material(encode_pieces, AS_ANSWERED)
    sequence = niah_sequence(material, 1500, Form("numbers", "prose", False, "values", True))
    bias_BT = torch.zeros(1, len(sequence.ids))
    wanted = targets([sequence], bias_BT.shape[1], torch.Generator())
    assert len(wanted) == 2
    losses = {}
    for name, shift in (("right", 0), ("wrong", 1)):
        guide = Guide(wanted, bias_BT)
        for layer, target in ((2, wanted[0]), (3, wanted[1])):
            # A query has a dimension of its own, and so do the keys it attends to.
            count, length = target.key_BPT[0].shape
            k_BGTD = 60.0 * target.key_BPT[0].T.roll(shift, 0)[None, None]
            q_BHTD = torch.zeros(1, 2, length, count)
            q_BHTD[0, 1, target.place_BP[0]] = torch.eye(count)
            guide.note(layer, q_BHTD, k_BGTD)
        losses[name] = float(guide.loss())
    # One of two heads looks right, in each of both kinds.
    assert losses["right"] == pytest.approx(2 * math.log(2), abs=0.01)
    assert losses["wrong"] > 10


def test_a_row_has_no_more_targets_than_are_affordable() -> None:
    sequence, count = Sequence(), MOST_POINTERS + 12
    parts = [[100 + n, 7] for n in range(count)]
    sequence.series.append(Series(parts, chained=False))
    sequence.add([token for part in [*parts, *parts] for token in part])
    assert len(pointers(sequence)) == 3 * count
    wanted = targets([sequence], len(sequence.ids), torch.Generator())
    assert sum(target.place_BP.numel() for target in wanted) == MOST_POINTERS
    assert all(target.key_BPT.any(-1).all() for target in wanted)


def test_rows_without_pointers_do_not_count() -> None:
    material = make_material(encode_pieces, AS_ANSWERED)
    sequence = niah_sequence(material, 1500, Form("numbers", "prose", False, "values", True))
    plain = Sequence()
    plain.add([5] * 40)
    length, losses = len(sequence.ids), []
    source = torch.Generator().manual_seed(1)
    q_BHTD, k_BGTD = (torch.randn(2, 2, length, 8, generator=source) for _ in "qk")
    for rows in ([sequence], [sequence, plain]):
        guide = Guide(targets(rows, length, torch.Generator()), torch.zeros(len(rows), length))
        for layer in (2, 3, 4):
            guide.note(layer, q_BHTD[: len(rows)], k_BGTD[: len(rows)])
        losses.append(float(guide.loss()))
    assert losses[0] == pytest.approx(losses[1])
    assert losses[0] > 1


def test_copies_repeat_what_came_before(material: Material) -> None:
    sequence = copy_sequence(material, 64, 100)
    period = sequence.answers.index(next(a for a in sequence.answers if a != NO_ANSWER)) - 1
    for index in range(period, len(sequence.ids)):
        assert sequence.ids[index] == sequence.ids[index - period]


def test_evaluation_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="seed=0"):
        Material(encode, WORDING, ["End."], (["a"], ["b"]), EOS, 0)


def test_pack_pads_on_the_right() -> None:
    first, second = Sequence(), Sequence()
    first.add([5, 6, 7], answer=2)
    second.add([8], run=3)
    ids, answers, haystack = pack([first, second], pad=1)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert answers.tolist() == [[2, 2, 2], [NO_ANSWER] * 3]
    assert haystack.tolist() == [[0, 0, 0], [3, 0, 0]]


def test_virtual_length_reaches_the_wanted_length() -> None:
    haystack_BT = torch.tensor([[0, 1, 1, 1, 0, 0, 2, 2, 0, 0]])
    positions_BT, bias_BT = virtual_length(haystack_BT, 100, torch.Generator().manual_seed(0))
    assert abs(int(positions_BT[0, -1]) - 99) <= 1
    assert (positions_BT.diff() >= 1).all()
    assert positions_BT[0, 1:4].diff().tolist() == [1, 1]
    assert (bias_BT[haystack_BT == 0] == 0).all()
    # Copies, weighed by their bias, make up the length.
    assert bias_BT.exp().sum().item() == pytest.approx(100, rel=1e-4)


def test_training_forward_equals_hugging_face_and_bias_counts_copies() -> None:
    torch.manual_seed(0)
    sizes = {"layers": 2, "width": 128, "mlp": 64}
    model = build_model((50, 0, 1), **sizes, theta=1e8, positions=512)
    look_back_init(model, 1e8)
    ids = torch.randint(2, 50, (2, 40))
    positions = torch.arange(40).repeat(2, 1)
    with torch.no_grad():
        expected = model.model(ids).last_hidden_state
        torch.testing.assert_close(hidden_states(model, ids, positions, None), expected)
        biases = Biases(torch.full((2, 40), 1.3), torch.zeros(2, 40), torch.ones(2, 2, 40))
        torch.testing.assert_close(
            hidden_states(model, ids, positions, biases), expected, atol=1e-4, rtol=1e-4
        )


def test_the_tail_alone_does_not_see_what_is_hidden() -> None:
    torch.manual_seed(0)
    model = build_model((50, 0, 1), layers=2, width=128, mlp=64, theta=1e8, positions=512)
    ids = torch.randint(2, 50, (1, 20))
    changed = ids.clone()
    changed[0, 5:8] = (changed[0, 5:8] - 1) % 48 + 2
    positions = torch.arange(20)[None]
    hidden_NBT = torch.zeros(2, 1, 20)
    hidden_NBT[:, :, 5:8] = 1.0
    tail_BT = (torch.arange(20) >= 8).float()[None]
    biases = Biases(torch.zeros(1, 20), tail_BT, hidden_NBT)
    with torch.no_grad():
        first, second = (hidden_states(model, x, positions, biases)[0] for x in (ids, changed))
    torch.testing.assert_close(first[8:], second[8:])
    assert (first[5:8] - second[5:8]).abs().max() > 1e-3


def test_haystack_is_hidden_in_shares_and_the_tail_begins_behind_it() -> None:
    haystack_BT = torch.tensor([[0, 1, 1, 0, 2, 2, 0, 0]]).repeat(400, 1)
    unseen_NBT = unseen_haystack(haystack_BT, 3, torch.Generator().manual_seed(0))
    assert unseen_NBT[..., haystack_BT[0] == 0].sum() == 0
    shares = unseen_NBT[..., haystack_BT[0] > 0].mean(-1)
    assert 0.4 < shares.mean() < 0.6
    assert (shares == 0).any()
    assert (shares == 1).any()
    assert after_haystack(haystack_BT)[0].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]


def test_summaries_cost_nothing_where_keys_of_a_cluster_agree() -> None:
    torch.manual_seed(0)
    axes_CD = 20.0 * torch.eye(64)[:16]
    pure_GTD = axes_CD.repeat_interleave(16, 0)[None]
    q_HQD = torch.nn.functional.one_hot(torch.tensor([[3]]), 64).float()
    places_Q, bias_T = torch.tensor([259]), torch.zeros(260)
    steady_GTD = torch.zeros(1, 4, 64)

    def loss(k_GTD: torch.Tensor) -> float:
        label_GM = clustered(k_GTD, 4, 260)
        return float(summary_loss(q_HQD, k_GTD, bias_T, places_Q, 4, 260, label_GM))

    pure = loss(torch.cat([steady_GTD, pure_GTD], 1))
    mixed_GTD = torch.cat([steady_GTD, pure_GTD[:, torch.randperm(256)]], 1)
    lone_GTD = mixed_GTD.clone()
    lone_GTD[0, 4:] = 3 * torch.randn(256, 64)
    lone_GTD[0, 40] = axes_CD[3]
    assert pure < 1e-3
    assert loss(lone_GTD) > 10 * pure


def test_clusters_read_whole_are_full_attention_and_means_stand_for_equal_keys() -> None:
    torch.manual_seed(0)
    q_HQD, places_Q = torch.randn(4, 3, 16), torch.tensor([199, 205, 209])
    k_GTD, v_GTD = torch.randn(2, 210, 16), torch.randn(2, 210, 16)
    later_QT = torch.arange(210) > places_Q[:, None]
    wide = [x.repeat_interleave(2, 0) for x in (k_GTD, v_GTD)]
    right_HQD = torch.nn.functional.scaled_dot_product_attention(
        q_HQD, *wide, attn_mask=~later_QT, scale=1.0
    )
    label_GM = clustered(k_GTD, 4, 196)
    whole_HQD = wave_attention(q_HQD, k_GTD, v_GTD, places_Q, 4, label_GM, retrieved=1.0)
    torch.testing.assert_close(whole_HQD, right_HQD, atol=1e-5, rtol=1e-5)
    part_HQD = wave_attention(q_HQD, k_GTD, v_GTD, places_Q, 4, label_GM, retrieved=0.1)
    assert 0.01 < (part_HQD - right_HQD).abs().mean() < 0.5
    # A quarter of the keys, all alike, far above the others: they are retrieved or stand as means.
    k_GTD[:, 4:52], v_GTD[:, 4:52] = 3.0, v_GTD[:, :1]
    q_HQD = q_HQD.abs()
    label_GM = clustered(k_GTD, 4, 196)
    told_HQD = wave_attention(q_HQD, k_GTD, v_GTD, places_Q, 4, label_GM, retrieved=0.1)
    assert torch.allclose(told_HQD, v_GTD[:, :1].repeat_interleave(2, 0), atol=1e-3)


def test_answers_are_given_by_clusters_where_they_are_asked_to() -> None:
    model = build_model((50, 0, 1), layers=3, width=32, mlp=32, theta=1e4, positions=4096)
    ids_BT = torch.randint(2, 50, (2, 300))
    position_BT = torch.arange(300).repeat(2, 1)
    asking = [Asking(1, torch.tensor([290, 295]), 290, 280)]
    said = []
    for sparse in (False, True):
        probe = Probe(asking, torch.zeros(2, 300), Guide([], torch.zeros(2, 300)), sparse)
        said.append(hidden_states(model, ids_BT, position_BT, None, probe))
    changed_BT = (said[0] - said[1]).abs().amax(-1) > 1e-7
    assert changed_BT[1, [290, 295]].all()
    assert not changed_BT[0].any()
    assert not changed_BT[1, :290].any()


def test_each_task_grows_on_its_own_accuracy() -> None:
    curriculum = Curriculum(4096, 1024, 20_000)
    before = dict(curriculum.lengths)
    for _ in range(WINDOW):
        curriculum.note(Job("vt", before["vt"], 0, 8, False, True), 1.0)
        curriculum.note(Job("niah", before["niah"], 0, 8, False, True), 0.5)
    assert curriculum.lengths["vt"] == int(before["vt"] * 1.7)
    assert curriculum.lengths["niah"] == before["niah"]


def test_long_jobs_are_as_long_as_they_seem_as_often_as_asked() -> None:
    curriculum = Curriculum(4096, 1024, 150_000, copying=False)
    curriculum.begin(150_000)
    rng = random.Random(0)
    jobs = [curriculum.choose(rng, truly_long=0.4) for _ in range(4000)]
    longer = [job for job in jobs if job.virtual or job.length > 1024 * 1.2]
    real = [job for job in longer if not job.virtual]
    assert 0.3 < len(real) / len(longer) < 0.45
    assert max(job.length for job in real) <= curriculum.longest_real
    assert max(job.virtual for job in longer) == 150_000
    assert not any(job.counts for job in real)
    never = [curriculum.choose(rng, truly_long=0.0) for _ in range(500)]
    assert all(job.virtual or job.length <= 1024 * 1.2 for job in never)
