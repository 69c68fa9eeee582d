"""Rewards in processes: what functions get, and what becomes of those that fail."""

import os
import time

import pytest

from .completions import FUNCTIONS, asked

HANGING = "5^{5^{5^{5^5}}}"


def test_functions_get_what_trl_hands_them_and_run_side_by_side(rewards):
    names = [f"{FUNCTIONS}:{name}" for name in ("lengths", "waits", "named_only", "counts_calls")]
    both = rewards(*names, "format")
    got = both.score(asked(hint=["yes", "no", "yes"]))
    assert not got.problems
    assert got.values[names[0]] == [1.0, 2.0, 3.0]
    assert got.values[names[1]] == [1.0, None, 1.0]
    assert got.values[names[2]] == [1 + 0 + 1, 1 + 1 + 2, 1 + 2 + 3]
    assert got.values["format"] == [0.0, 0.0, 0.0]
    assert got.values[names[3]] == [1.0] * 3
    assert both.score(asked(hint=["no"] * 3)).values[names[3]] == [2.0] * 3, "a process was lost"


@pytest.mark.parametrize(
    ("name", "row", "what", "failed"),
    [
        ("raises_on_boom", 3, "raised KeyError: 'boom'", 1),
        ("hangs_on_boom", 3, "took longer than 0.5 s and was killed", 1),
        ("dies_on_boom", 3, "failed: its process died", 1),
        ("nan_for_second", 2, "returned nan", 1),
        ("one_short", 1, "returned 2 rewards for 3 completions", 3),
        ("not_a_list", 1, "returned a float, not a list", 3),
        ("words", 1, "returned 'good', not a finite number, None, or a list of one", 3),
        ("dies", 1, "failed: its process died", 3),
        ("never_applies", 1, "gave nothing: every function returned None", 3),
    ],
)
def test_a_function_that_fails_is_named_with_its_row(rewards, name, row, what, failed):
    full = f"{FUNCTIONS}:{name}"
    got = rewards(full, seconds=4.0, row_seconds=0.5).score(asked(("a", "b", "boom")))
    assert str(got.problems[0]).startswith(f"reward {full} on rows.jsonl row {row}")
    assert what in str(got.problems[0])
    assert got.num_failed == failed
    if failed == 1:
        assert got.values[full] == [float(i + 1 != row) for i in range(3)]
    elif name != "never_applies":
        assert got.values[full] == [0.0] * 3


def test_a_function_may_give_one_number_per_token(rewards):
    name = f"{FUNCTIONS}:per_token"
    got = rewards(name).score(asked())
    assert got.values[name] == [None, 0.5, [7.0, 7.0]]
    assert [str(problem) for problem in got.problems] == [
        f"reward {name} on rows.jsonl row 1 gave nothing: every function returned None"
    ]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("one_token_short", "returned a list of 1 for a completion of 2 tokens"),
        ("a_token_nan", "returned nan for token 1, not a finite number"),
        ("a_token_missing", "returned None for token 1, not a finite number"),
        ("an_array", "of one number per token; call .tolist()"),
    ],
)
def test_a_list_that_does_not_fit_its_completion_is_named_with_its_row(rewards, name, what):
    full = f"{FUNCTIONS}:{name}"
    got = rewards(full).score(asked())
    (problem,) = got.problems
    assert str(problem).startswith(f"reward {full} on rows.jsonl row 3 returned ")
    assert str(problem).endswith(what)
    assert got.values[full] == [[], [1.0], 0.0]


def test_a_call_that_fails_costs_the_completions_at_fault_alone(rewards):
    """It cost those of the whole step. Other groups are asked about whole: their completions may be
    compared with one another."""
    name = f"{FUNCTIONS}:share_of_group"
    texts = ("a", "ccc", "x", "boom", "ee", "ff")
    got = rewards(name).score(asked(texts, range(6), group_size=2))
    assert got.values[name] == [0.25, 0.75, 1.0, 0.0, 0.5, 0.5]
    assert [str(problem) for problem in got.problems] == [
        f"reward {name} on rows.jsonl row 2 raised KeyError: 'boom'"
    ]


def test_a_call_that_fails_as_a_whole_alone_is_still_a_problem(rewards):
    name = f"{FUNCTIONS}:one_per_text"
    got = rewards(name).score(asked(("a", "b", "a", "b"), range(4), group_size=2))
    assert got.values[name] == [2.0] * 4
    assert got.num_failed == 0
    (problem,) = got.problems
    assert str(problem) == (
        f"reward {name} returned 2 rewards for 4 completions, asked about all completions at once;"
        " asked again in parts it gave every reward"
    )


def test_what_is_not_reached_again_in_time_is_said(rewards):
    name = f"{FUNCTIONS}:hangs_on_boom"
    texts = ("a", "b", "boom", "boom", "c", "d")
    got = rewards(name, seconds=4.0, row_seconds=5.0).score(asked(texts, range(6), group_size=2))
    assert got.values[name] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    hung, late = got.problems
    assert (hung.count, late.count) == (2, 2)
    assert f"reward {name} on rows.jsonl row 2, and 1 more completions, took longer" in str(hung)
    assert str(late) == (
        f"reward {name} on rows.jsonl row 3, and 1 more completions, was not reached within 4 s"
    )


def test_a_function_that_hangs_is_killed_and_starts_anew(rewards):
    name = f"{FUNCTIONS}:hangs"
    some = rewards(name, "format", seconds=0.5)
    pid = some.workers[name][0].process.pid
    for _ in range(2):
        started = time.monotonic()
        got = some.score(asked())
        assert time.monotonic() - started < 10
        assert "took longer than 0.5 s and was killed" in str(got.problems[0])
        assert got.num_failed == 3
        assert got.values["format"] == [0.0] * 3
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_expression_that_hangs_costs_its_own_row_alone(rewards):
    """math-verify's own limit, signal.alarm, does not end this one."""
    given = [f"<answer>{x}</answer>" for x in (HANGING, r"\frac{1}{2}", "3", r"2\sqrt{3}")]
    got = rewards("accuracy", row_seconds=3.0, processes=1).score(
        asked(given, ["1", "0.5", "4", r"$\sqrt{12}$"])
    )
    assert got.values["accuracy"] == [0.0, 1.0, 0.0, 1.0]
    (problem,) = got.problems
    assert str(problem) == (
        "reward accuracy on rows.jsonl row 1 took longer than 3 s and was killed"
    )


def test_when_all_rows_hang_the_whole_time_is_bounded(rewards):
    texts = [f"<answer>{HANGING}</answer>"] * 6
    some = rewards("accuracy", seconds=2.0, row_seconds=1.0, processes=1)
    started = time.monotonic()
    got = some.score(asked(texts, ["1"] * 6))
    assert time.monotonic() - started < 15
    assert got.num_failed == 6
    assert got.values["accuracy"] == [0.0] * 6
    assert "was not reached within 2 s" in str(got.problems[-1])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{FUNCTIONS}:gone", "cannot be loaded: AttributeError: .*'gone'"),
        ("no.such.module:f", "cannot be loaded: ModuleNotFoundError: No module named 'no'"),
        (f"{FUNCTIONS}:not_callable", "it is a int, which cannot be called"),
        (f"{FUNCTIONS}:needs_more", r"as columns \(answer, .*hint.*\); it takes solution too"),
    ],
)
def test_a_function_that_cannot_serve_is_refused_at_the_start(rewards, name, words):
    with pytest.raises(ValueError, match=words):
        rewards(name)


def test_a_rule_without_its_package_names_the_extra(rewards, tmp_path, monkeypatch):
    """The traceback of a process, and "its process ended or hung", were all that a user saw."""
    absent = "raise ModuleNotFoundError('No module named math_verify', name='math_verify')\n"
    (tmp_path / "math_verify.py").write_text(absent)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match='package math-verify, .* "avar-fast\\[train\\]"'):
        rewards("accuracy")


def test_processes_go_when_they_are_closed(rewards):
    some = rewards("accuracy", f"{FUNCTIONS}:lengths")
    processes = [w.process for workers in some.workers.values() for w in workers]
    assert len(processes) == 3
    some.close()
    assert all(process.poll() is not None for process in processes)
