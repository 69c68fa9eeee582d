"""Gates: what passes, what does not, and by which name."""

import time

import pytest

from avar_fast.rewards import is_correct
from avar_fast.synthesize.duplicates import NUM_HASHES, band_width, near_duplicates
from avar_fast.synthesize.gates import (
    best,
    count_anchors,
    gate_candidate,
    script_share,
    split_answer,
    step_failure,
)
from avar_fast.synthesize.journal import StepRecord
from avar_fast.synthesize.ledger import Usage
from avar_fast.synthesize.recipe import GatesConfig

from .server import ANCHORED, DESCRIPTION, REASONING


def entry(step, text, finish="stop"):
    return StepRecord("k", step, 0, text, finish, "m", "v", Usage(), 0.0, 1, 0.0)


def candidate(reason=f"{REASONING}<answer>2</answer>", rewrite=ANCHORED, answer="2", **gates):
    entries = {
        "describe": entry("describe", DESCRIPTION),
        "reason": entry("reason", reason),
        "rewrite": entry("rewrite", f"{rewrite}\n<answer>2</answer>"),
    }
    return gate_candidate(entries, 0, answer, GatesConfig(**gates), is_correct)


def test_a_good_candidate_passes_and_keeps_its_reasoning_alone():
    got = candidate()
    assert (got.failures, got.reasoning) == ((), ANCHORED)


@pytest.mark.parametrize(
    ("rewrite", "failure"),
    [
        (ANCHORED[:150] + ".", "too_short"),
        (ANCHORED * 100, "too_long"),
        (ANCHORED + " <image>", "format"),
        (ANCHORED + " <|im_end|>", "format"),
        (REASONING.replace("description", "task") * 2, "few_anchors"),
        (ANCHORED + " x" * 3000, "few_anchors"),  # two anchors in six thousand characters
        (ANCHORED + " This fits the description.", "mentions_description"),
        (ANCHORED + " As described, two.", "mentions_description"),
        (ANCHORED + " The written description agrees.", "mentions_description"),
        (ANCHORED + " The descriptions agree.", "mentions_description"),
        (ANCHORED + "\u4f60\u597d\u4e16\u754c" * 20, "language"),
    ],
)
def test_each_gate_turns_away_what_it_is_for(rewrite, failure):
    assert failure in candidate(rewrite=rewrite).failures


@pytest.mark.parametrize(
    ("reason", "failure"),
    [
        ("I think it is 2.", "reason: no_answer"),
        ("<answer>3</answer>", "reason: wrong_answer"),
        ("I'm sorry, I cannot help with that.", "reason: refused"),
        ("I\u2019m sorry, but I can\u2019t help with that.", "reason: refused"),
        ("Sorry, I cannot assist with this image.", "reason: refused"),
        ("I can\u2019t describe people.", "reason: refused"),
    ],
)
def test_a_step_that_fails_ends_the_candidate(reason, failure):
    got = candidate(reason=reason)
    assert (got.failures, got.reasoning) == ((failure,), None)


def test_a_candidate_with_a_step_to_come_is_none():
    entries = {"describe": entry("describe", DESCRIPTION), "reason": None, "rewrite": None}
    assert gate_candidate(entries, 0, "2", GatesConfig(), is_correct) is None


def test_thoughts_that_a_model_had_before_it_wrote_are_not_taken_for_its_text():
    thought = "<think>\nThe user wants the description out of it. <answer>5</answer>\n</think>\n"
    assert candidate(rewrite=thought + ANCHORED).reasoning == ANCHORED


def test_an_answer_among_those_thoughts_is_none():
    text = f"<think>It says <answer>2</answer>.</think>\n{ANCHORED}"
    failure = step_failure(entry("rewrite", text), "2", GatesConfig(), is_correct)
    assert failure == "no_answer"


def test_the_reasoning_model_may_put_its_chain_into_think_tags():
    assert split_answer("<think>\nso\n</think>\n<answer>2</answer>") == "so"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Look again at the triangle.", 1),
        ("Let me look back at the legend in the image.", 2),
        ("I see a bar. Checking the chart once more: it is lower.", 2),
        ("We look for a number that divides twelve.", 0),
        ("The image of f under g is the set of all g(x).", 0),
        ("Adding both gives 7.", 0),
    ],
)
def test_anchors(text, count):
    assert count_anchors(text, GatesConfig()) == count


def test_without_patterns_there_are_no_anchors():
    assert count_anchors("look again", GatesConfig(anchors=())) == 0


def test_many_open_tags_take_no_time():
    """Looking ahead from each to the end of the text took minutes."""
    started = time.process_time()
    assert split_answer("<answer>" * 50_000 + "2").startswith("<answer>")
    assert split_answer("so <answer>2</answer>" + "</answer>" * 50_000).startswith("so")
    assert time.process_time() - started < 2


def test_script_share_counts_letters_alone():
    assert script_share("a = 3 + 4, b = 5", "LATIN") == 1.0
    assert script_share("ab\u4f60\u597d", "LATIN") == 0.5
    assert script_share("1 + 1", "LATIN") == 1.0
    assert script_share("\u4f60\u597d", "CJK") == 1.0


def test_the_best_passes_the_gates_before_it_has_many_anchors():
    good = candidate()
    bad = candidate(rewrite=ANCHORED + " I see it. I see it. As described.")
    none = candidate(reason="no")
    assert best([none, bad, good]) is good
    assert best([none, bad]) is bad
    more = candidate(rewrite=ANCHORED + " I see it in the image.")
    assert best([good, more]) is more


def test_near_duplicates_are_those_of_the_exact_definition():
    """Against all pairs, compared by words rather than by hashes."""
    base = [f"w{i}" for i in range(100)]

    def shingles(words):
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    texts = []
    for changed in (0, 1, 2, 40, 90, 3):
        words = list(base)
        words[:changed] = [f"x{changed}-{i}" for i in range(changed)]
        texts.append(words)
    wanted, kept = {}, []
    for at, words in enumerate(texts):
        for other in kept:
            one, two = shingles(words), shingles(texts[other])
            if len(one & two) / len(one | two) > 0.9:
                wanted[at] = other
                break
        else:
            kept.append(at)
    assert wanted == {1: 0, 2: 0, 5: 0}
    assert near_duplicates([" ".join(words) for words in texts], 0.9) == wanted
    assert near_duplicates(["", "a", "A!", "b"], 0.9) == {2: 1}


@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.8, 0.9, 0.97, 1.0])
def test_bands_miss_hardly_any_pair_at_the_threshold(similarity):
    width = band_width(similarity)
    shared = similarity**width  # a band of independent hashes agrees with this probability
    assert (1 - shared) ** (NUM_HASHES / width) <= 1e-4
    assert width == 32 or (1 - similarity ** (2 * width)) ** (NUM_HASHES / 2 / width) > 1e-4
