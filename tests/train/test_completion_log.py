"""The table of completions in the log."""

from avar_fast.train.grpo.completion_log import table


def record(completion, visual=None):
    return {
        "row": "rows.jsonl row 3",
        "prompt": "<image>How many?",
        "completion": completion,
        "tokens": 7,
        "rewards": {"accuracy": 1.0, "visual": visual},
        "reward": 1.25,
        "advantage": -0.5,
    }


def test_a_table_shows_rewards_and_the_ends_of_long_texts_on_one_line():
    lines = table(3, [record("a\nb"), record("start " + "x" * 900 + " end", 0.25)]).splitlines()
    assert lines[0] == "completions of step 3"
    assert lines[1] == (
        "| rows.jsonl row 3 | reward 1.25 (accuracy 1, visual -) | advantage -0.5 | 7 tokens"
    )
    assert lines[2:4] == ["|   < <image>How many?", "|   > a b"]
    assert "visual 0.25" in lines[4]
    assert lines[6].startswith("|   > start x")
    assert lines[6].endswith("x end")
    assert len(lines[6]) < 330


def test_control_characters_do_not_reach_the_terminal():
    shown = table(1, [record("\x1b[2Jgone \x00 \u2028 text")])
    assert "\x1b" not in shown
    assert "\x00" not in shown
    assert "gone" in shown
