"""The scores of walks, against models whose answers and attention are known."""

import contextlib

import pytest
import torch

from avar_fast.attention import attach, intervene
from avar_fast.data import load_rows
from avar_fast.lab.model import save_base
from avar_fast.lab.steps import score_steps
from avar_fast.lab.walk import WalkConfig
from avar_fast.lab.world import write_rows
from avar_fast.loading import load

NUM_ROWS = 12
SURE = 5.0  # the logit of the token that a model prefers, 0 for all others


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walks")
    return load_rows(str(write_rows(folder, WalkConfig(), "test", NUM_ROWS, seed=0)))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = save_base(tmp_path_factory.mktemp("model"), seed=0, tower="scarce")
    loaded = load(str(path), torch.float32)
    attach(loaded.model, loaded.tokenizer)
    return loaded


@contextlib.contextmanager
def answering(loaded, next_token):
    """The model prefers what `next_token(texts, at)` gives behind token `at` of a row."""

    def replaced(module, args, kwargs, output):
        logits = torch.zeros_like(output.logits)
        for row, ids in enumerate(kwargs["input_ids"]):
            texts = loaded.tokenizer.convert_ids_to_tokens(ids)
            for at in range(len(texts) - 1):
                preferred = next_token(texts, at)
                logits[row, at, loaded.tokenizer.convert_tokens_to_ids(preferred)] = SURE
        output.logits = logits
        return output

    handle = loaded.model.register_forward_hook(replaced, with_kwargs=True)
    yield
    handle.remove()


def by_rule(texts, at):
    """The rule's digit behind a letter that follows a digit, "0" elsewhere."""
    before = texts[at - 1]
    return str((9 * int(before) + 3) % 10) if before.isdecimal() else "0"


def differing(walks, step):
    return [walk for walk in walks if walk[step] != (9 * walk[step - 1] + 3) % 10]


def test_a_model_that_reads_is_right_at_every_step(loaded, rows):
    with answering(loaded, lambda texts, at: texts[at + 1]):
        scores = score_steps(loaded, rows, batch_size=5)
    assert scores.accuracy == [1.0] * 6
    assert scores.first_accuracy == scores.late_accuracy == 1.0
    assert scores.follows_rule == [0.0] * 5
    assert scores.margin == pytest.approx([SURE] * 5)


def test_a_model_that_follows_the_rule_is_right_by_chance_alone(loaded, rows):
    with answering(loaded, by_rule):
        scores = score_steps(loaded, rows, batch_size=5)
    walks = [row.columns["meta"]["digits"] for row in rows]
    assert scores.first_accuracy == pytest.approx(sum(walk[0] == 0 for walk in walks) / NUM_ROWS)
    right = [NUM_ROWS - len(differing(walks, step)) for step in range(1, 6)]
    assert scores.accuracy[1:] == pytest.approx([count / NUM_ROWS for count in right])
    assert scores.late_accuracy == pytest.approx(sum(right) / (5 * NUM_ROWS))
    assert scores.follows_rule == [1.0] * 5
    assert scores.margin == pytest.approx([-SURE] * 5)


def test_the_attention_is_that_of_the_predicting_positions(loaded, rows):
    scores = score_steps(loaded, rows)
    whole = torch.tensor(list(scores.masses.values()))
    torch.testing.assert_close(whole.sum(0), torch.ones(6))
    assert scores.visual_mass == pytest.approx(whole[1].mean().item())
    by_head = torch.tensor(scores.visual_by_head)
    assert by_head.shape == (2, 1)
    assert by_head.mean().item() == pytest.approx(scores.visual_mass, rel=1e-5)
    with intervene(loaded.model, visual_bias=-1e4):
        assert score_steps(loaded, rows).visual_mass == 0.0
    # Changed for the response alone, all of it is changed: no other position counts.
    with intervene(loaded.model, visual_bias=-1e4, queries="response"):
        assert score_steps(loaded, rows).visual_mass == 0.0


def test_the_batch_size_changes_nothing(loaded, rows):
    one, two = (score_steps(loaded, rows, batch_size=size) for size in (5, 12))
    assert one.accuracy == two.accuracy
    assert one.margin == pytest.approx(two.margin, abs=1e-4)
    assert one.masses["visual"] == pytest.approx(two.masses["visual"], abs=1e-5)


def test_walks_of_other_lengths_are_refused(loaded, tmp_path):
    short = write_rows(tmp_path / "short", WalkConfig(steps=1), "test", 2, seed=0)
    with pytest.raises(ValueError, match="two or more; got walks of 1 steps"):
        score_steps(loaded, load_rows(str(short)))
    other = write_rows(tmp_path / "other", WalkConfig(steps=3), "test", 2, seed=0)
    mixed = tmp_path / "short" / "mixed.jsonl"
    lines = [other.read_text().replace("images/", "../other/images/"), short.read_text()]
    mixed.write_text("".join(lines))
    with pytest.raises(ValueError, match="got walks of 1, 3 steps"):
        score_steps(loaded, load_rows(str(mixed)))
