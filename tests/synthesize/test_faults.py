"""What endpoints do wrong, over real HTTP, and what a run makes of it."""

import re

import pytest

from .server import ANCHORED


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "fault", [429, 500, 503, 408, "cut", "garbage", "nested", "empty", "page", "abort"]
)
def test_a_fault_that_passes_is_tried_again(world, script, fault, stream):
    world.write_rows(1)
    world.recipe["reason"]["stream"] = stream
    script.faults["reason"].append(fault)
    assert world.run() == 0
    assert len(script.asked("reason")) == 2
    assert world.report["rows"]["accepted"] == 1
    entry = next(e for e in world.lines("steps.jsonl") if e["step"] == "reason")
    assert (entry["attempts"], len(entry["problems"])) == (2, 1)


def test_a_stream_that_ends_without_its_end_is_tried_again_and_paid_for(world, script):
    world.write_rows(1)
    script.faults["reason"].append("ends early")
    assert world.run() == 0
    entry = next(e for e in world.lines("steps.jsonl") if e["step"] == "reason")
    assert "ends in the middle" in entry["problems"][0]
    assert entry["usage"]["estimated"]
    assert entry["usage"]["output"] > 50  # the lost answer's tokens on top of the counted 50


def test_a_hanging_answer_times_out_and_is_tried_again(world, script):
    world.write_rows(1)
    world.recipe["describe"]["timeout_s"] = 0.5
    script.faults["describe"].append("hang")
    assert world.run() == 0
    assert "no whole answer within 0.5 s" in world.lines("steps.jsonl")[0]["problems"][0]


def test_retry_after_is_kept_to_by_all_requests(world, script):
    world.recipe["describe"]["concurrency"] = 1
    script.faults["describe"].append("wait")
    assert world.run() == 0
    times = [request[3] for request in script.asked("describe")]
    assert times[1] - times[0] >= 1.0


def test_requests_that_waited_for_a_pause_keep_to_the_rate(world, script):
    """They once all went out at the pause's end."""
    world.write_rows(5)
    world.recipe["describe"].update(requests_per_minute=240, concurrency=5)  # one in 0.25 s
    script.faults["describe"].append("wait")
    assert world.run() == 0
    times = [request[3] for request in script.asked("describe")]
    after = [at for at in times if at - times[0] >= 0.9]
    assert len(after) >= 2
    assert after[-1] - after[0] >= 0.15 * (len(after) - 1)  # as they arrive, which varies


def test_a_request_that_fails_for_good_leaves_its_row_open_and_is_asked_again(world, script):
    world.recipe["reason"]["backoff_s"] = 0.001
    script.fault_if = lambda step, body: (
        500 if step == "reason" and "(1)" in body["messages"][1]["content"] else None
    )
    assert world.run() == 4
    assert world.report["rows"] == {"read": 3, "accepted": 2, "rejected": 0, "open": 1}
    assert world.report["steps"]["reason"]["failed"] == 1
    assert world.report["steps"]["reason"]["attempts"] == 5
    script.fault_if = None
    assert world.run() == 0
    assert world.report["rows"] == {"read": 3, "accepted": 3, "rejected": 0, "open": 0}


def test_a_good_sample_decides_a_row_whose_other_sample_fails(world, script):
    world.write_rows(1)
    world.recipe["rewrite"]["seed"] = 0
    script.fault_if = lambda step, body: 400 if body.get("seed") == 1 else None
    assert world.run("samples=2") == 4
    assert world.report["rows"]["accepted"] == 1
    assert world.lines("rows.jsonl")[0]["meta"]["sample"] == 0


def test_too_many_failures_in_a_row_stop_the_run(world, script, capsys):
    world.write_rows(30)
    script.faults["describe"].extend([500] * 1000)
    world.recipe["max_failures"] = 4
    assert world.run() == 4
    assert len(script.asked()) < 90
    said = capsys.readouterr().err
    assert "requests in a row failed (max_failures = 4), each after its retries" in said
    assert "fault 500" in said


def test_a_bad_request_is_not_tried_again(world, script):
    world.write_rows(1)
    script.faults["rewrite"].append(400)
    assert world.run() == 4
    assert len(script.asked("rewrite")) == 1


@pytest.mark.parametrize("code", [401, 403, 404])
def test_an_endpoint_that_will_never_answer_stops_the_run_at_once(world, script, code, capsys):
    world.write_rows(30)
    world.recipe["describe"]["concurrency"] = 2
    script.faults["describe"].extend([code] * 1000)
    assert world.run() == 4
    assert len(script.asked()) <= 4
    said = capsys.readouterr().err
    assert f"cannot be used, tried 1 time; HTTP {code}: fault {code}. Check " in said


def test_what_an_endpoint_took_before_it_failed_is_counted(world, script):
    world.write_rows(1)
    script.faults["reason"].extend(["ends early", 404])
    assert world.run() == 4
    counts = world.report["steps"]["reason"]
    assert (counts["failed"], counts["attempts"]) == (1, 2)
    assert counts["output_tokens"] > 30  # by rule of thumb
    assert counts["tokens_partly_estimated"]


def test_an_unreachable_endpoint_is_named_after_bounded_retries(world, capsys):
    world.recipe["describe"]["base_url"] = "http://127.0.0.1:9/v1"  # discard: nobody listens
    assert world.run() == 4
    said = capsys.readouterr().err
    assert "describe: test-describe at http://127.0.0.1:9/v1 cannot be used, tried 3 times" in said
    assert "connection" in said


@pytest.mark.parametrize(
    ("step", "fault", "reason"),
    [
        ("describe", "refusal", "describe: refused"),
        ("reason", "filter", "reason: refused"),
        ("rewrite", "refusal", "rewrite: refused"),
        ("reason", "length", "reason: cut"),
    ],
)
def test_a_refusing_model_and_a_cut_answer_reject_the_row(world, script, step, fault, reason):
    world.write_rows(1)
    script.faults[step].append(fault)
    assert world.run() == 0
    assert world.report["rejected_by"] == {reason: 1}
    assert world.lines("rows.jsonl") == []


def test_an_answer_that_stays_empty_is_a_failure(world, script):
    world.write_rows(1)
    script.faults["describe"].extend(["empty"] * 3)
    assert world.run() == 4
    assert world.lines("steps.jsonl")[0]["finish"] == "the answer is empty"


def test_missing_usage_is_estimated_and_said_to_be(world, script):
    world.write_rows(1)
    script.faults["rewrite"].append("no usage")
    world.run()
    counts = world.report["steps"]["rewrite"]
    assert counts["tokens_partly_estimated"]
    assert counts["output_tokens"] == pytest.approx(len(ANCHORED) / 4, rel=0.2)


def test_a_count_that_cannot_be_is_estimated(world, script):
    """A negative one once gave budget back, an endless one ended the run."""
    world.write_rows(1)
    script.faults["rewrite"].append("bad usage")
    assert world.run() == 0
    counts = world.report["steps"]["rewrite"]
    assert counts["tokens_partly_estimated"]
    assert 0 < counts["input_tokens"] < 1000
    assert 0 < counts["output_tokens"] < 1000


def test_half_of_a_surrogate_pair_is_replaced(world, script):
    """JSON can hold it, the UTF-8 of the next request and of rows.jsonl cannot."""
    script.answer = lambda step, request: f"{ANCHORED} \ud83d\n<answer>2</answer>"
    assert world.run() == 0
    assert world.report["rows"]["accepted"] == 3
    assert "\ufffd" in world.lines("rows.jsonl")[0]["messages"][1]["content"]


def test_the_budget_is_never_exceeded_and_partial_results_are_kept(world, script, capsys):
    world.write_rows(10)
    # A request costs 0.0006 USD and at most about 0.0054; 0.02 pays for some of the thirty.
    world.recipe["budget"] = {"usd": 0.012}
    assert world.run() == 3
    report = world.report
    assert 0 < report["usd"] <= 0.012
    assert 0 < len(script.asked()) < 30
    assert report["usd"] == pytest.approx(len(script.asked()) * 0.0006)
    assert "budget.usd = 0.012" in capsys.readouterr().err
    spent = len(script.asked())
    assert world.run() == 3  # what was spent counts in the next run
    assert len(script.asked()) == spent
    assert world.run("budget.usd=1.0") == 0
    assert world.report["rows"]["accepted"] == 10
    assert len(script.asked()) == 30


def test_a_budget_in_tokens(world, script):
    world.write_rows(10)
    world.recipe["budget"] = {"tokens": 2500}
    assert world.run() == 3
    assert len(script.asked()) * 150 <= 2500
    assert world.report["rows"]["open"] > 0


def test_keys_come_from_the_environment_and_are_written_nowhere(world, script, monkeypatch, capsys):
    key = "sk-very-secret-0123456789"
    for step in ("describe", "reason", "rewrite"):
        world.recipe[step]["key_env"] = "AVAR_TEST_KEY"
    monkeypatch.delenv("AVAR_TEST_KEY", raising=False)
    assert world.run() == 1
    assert re.search(r"describe.key_env .* AVAR_TEST_KEY is not set", capsys.readouterr().err)
    assert not script.asked()
    monkeypatch.setenv("AVAR_TEST_KEY", key)
    script.answer = lambda step, request: f"{ANCHORED}\n<answer>2</answer>"
    script.faults["reason"].append("leak")  # an error that repeats the key it was sent
    script.faults["describe"].append("echo")  # as an answer does
    assert world.run() == 0
    assert script.asked()[0][2]["Authorization"] == f"Bearer {key}"
    said = capsys.readouterr()
    texts = [said.out, said.err]
    texts += [p.read_text(errors="replace") for p in world.out.rglob("*") if p.is_file()]
    assert not any(key in text for text in texts)


def test_what_can_be_no_key_is_refused_and_not_repeated(world, script, monkeypatch, capsys):
    """The error of a header that cannot be sent once put two lines of a key into the journal."""
    world.recipe["reason"]["key_env"] = "AVAR_TEST_KEY"
    monkeypatch.setenv("AVAR_TEST_KEY", "sk-first-line-0123\nsk-second-line-0123")
    assert world.run() == 1
    said = capsys.readouterr().err
    assert "AVAR_TEST_KEY holds blanks, line breaks or letters outside ASCII" in said
    assert "0123" not in said
    assert not script.asked()
    assert not world.out.exists()
