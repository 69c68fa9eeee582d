"""The share of the image in the completions' attention, as GRPO's log has it."""

from types import SimpleNamespace

import pytest
import torch

from avar_fast.train.grpo.tally import Tally
from avar_fast.train.grpo.visual_share import gather_layers, tally_visual_share

ALONE = SimpleNamespace(engine=SimpleNamespace(sum_over_ranks=lambda *values: values))


def completion(*masses):
    """A completion of tokens whose (layers, 3) masses are given: text, image, system."""
    return SimpleNamespace(masses=torch.tensor(masses).reshape(-1, 2, 3))


def metrics_of(*completions, has_system=None):
    tally = Tally()
    whole = torch.ones(len(completions), dtype=torch.bool)
    tally_visual_share((1, 4), completions, whole if has_system is None else has_system, tally)
    tally.add("reward", 3.0, 2.0)
    return gather_layers((1, 4), tally.means(ALONE))


def test_shares_are_means_over_the_tokens_that_see_an_image():
    seeing = completion(
        [[0.5, 0.4, 0.1], [0.2, 0.2, 0.6]],
        [[0.0, 0.5, 0.5], [0.9, 0.0, 0.1]],
    )
    short = completion([[0.0, 1.0, 0.0], [0.4, 0.3, 0.3]])
    text_only = completion([[0.7, 0.0, 0.3], [0.6, 0.0, 0.4]])
    empty = SimpleNamespace(masses=torch.zeros(0, 2, 3))
    found = metrics_of(seeing, text_only, empty, short)
    want = {1: (0.8 + 0.5 + 1.0) / 3, 4: (0.25 + 0.0 + 0.5) / 3}
    assert found.pop("visual_share_by_layer") == pytest.approx(want, abs=1e-5)
    assert found.pop("visual_share") == pytest.approx(sum(want.values()) / 2, abs=1e-5)
    assert found == {"reward": 1.5}


def test_a_prompt_without_a_system_turn_does_not_count():
    """Its share is 1 whatever the model looks at."""
    free = completion([[0.3, 0.7, 0.0], [0.9, 0.1, 0.0]])
    asked = completion([[0.0, 0.5, 0.5], [0.0, 0.2, 0.8]])
    found = metrics_of(free, asked, has_system=torch.tensor([False, True]))
    assert found["visual_share_by_layer"] == pytest.approx({1: 0.5, 4: 0.2}, abs=1e-5)
    assert metrics_of(free, has_system=torch.tensor([False])) == {"reward": 1.5}


def test_without_images_or_masses_there_is_no_share():
    assert metrics_of(completion([[0.7, 0.0, 0.3], [0.6, 0.0, 0.4]])) == {"reward": 1.5}
    tally = Tally()
    tally_visual_share((), [SimpleNamespace(masses=None)], torch.tensor([True]), tally)
    assert tally.sums == {}
