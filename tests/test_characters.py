"""Text that is shown: nothing acts on the terminal or the page, and no script loses characters."""

import pytest

from avar_fast.characters import visible


@pytest.mark.parametrize(
    "text",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, a non-joiner inside
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family: three joined
        "\u7b54\u6848\u3000\u662f 7",  # an ideographic space
        "1\u202f000\u00a0km \u2009 \u00ad",
        "\u05e9\u05dc\u05d5\u05dd\u200f!",
        "two lines\n\tof text",
    ],
)
def test_scripts_stay_as_they_are(text):
    assert visible(text) == text


@pytest.mark.parametrize("character", ["\x1b", "\x00", "\x85", "\ud83d", "\u202e", "\u2067"])
def test_what_would_act_on_its_surroundings_is_marked(character):
    assert visible(f"a{character}b") == "a\ufffdb"


def test_kept_control_characters_can_be_chosen():
    assert visible("a\nb\tc", kept="\t") == "a\ufffdb\tc"
