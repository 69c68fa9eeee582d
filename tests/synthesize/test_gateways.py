"""What servers and gateways say in words of their own, over real HTTP, and what a run makes of
it."""

import time
from email.utils import formatdate

import pytest

STREAMS = pytest.mark.parametrize("stream", [True, False])


def first(world, step="reason"):
    return next(e for e in world.lines("steps.jsonl") if e["step"] == step)


def run_with(world, script, fault, stream, times=1, step="reason"):
    world.write_rows(1)
    world.recipe[step]["stream"] = stream
    world.recipe[step]["backoff_s"] = 0.001
    script.faults[step].extend([fault] * times)
    return world.run()


@pytest.mark.parametrize("finish", ["end_turn", "STOP", "eos", "FINISH_REASON_STOP"])
def test_good_endings_are_whole(world, script, finish):
    assert run_with(world, script, {"finish": finish}, True) == 0
    assert world.report["rows"]["accepted"] == 1
    assert first(world)["finish"] == "stop"


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("max_tokens", "reason: cut"),
        ("MAX_TOKENS", "reason: cut"),
        ("model_context_window_exceeded", "reason: cut"),
        ("SAFETY", "reason: refused"),
        ("RECITATION", "reason: refused"),
        ("content_filter", "reason: refused"),
        ("content_filtered", "reason: refused"),
        ("refusal", "reason: refused"),
    ],
)
def test_cut_and_withheld_answers_are_not_whole(world, script, finish, reason):
    """They counted as whole: what max_tokens had cut became a training target."""
    assert run_with(world, script, {"finish": finish}, True) == 0
    assert world.report["rejected_by"] == {reason: 1}
    assert len(script.asked("reason")) == 1


@pytest.mark.parametrize("finish", ["abort", "error", "OTHER", "network_error", "cancelled"])
def test_an_answer_given_up_in_the_middle_is_tried_again(world, script, finish):
    assert run_with(world, script, {"finish": finish}, True) == 0
    assert f"ends in the middle: finish_reason '{finish}'" in first(world)["problems"][0]
    assert len(script.asked("reason")) == 2


@STREAMS
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"finish": "so_it_goes"}, "not known: finish_reason 'so_it_goes'"),
        ({"finish": 7}, "not known: finish_reason 7"),
        ({"finish": "tool_calls"}, "calls a tool, and none was offered"),
        ({"finish": "function_call"}, "calls a tool"),
        (
            {"message": {"tool_calls": [{"id": "1"}]}, "parts": lambda _: None},
            "calls a tool",
        ),
        (
            {"parts": lambda _: [{"type": "image_url", "image_url": {}}]},
            "a part of type 'image_url'",
        ),
    ],
)
def test_what_reads_alike_the_next_time_is_a_named_failure_and_paid_once(
    world, script, fault, said, stream
):
    assert run_with(world, script, fault, stream) == 4
    assert len(script.asked("reason")) == 1
    assert said in first(world)["finish"]


@STREAMS
@pytest.mark.parametrize(
    "parts",
    [
        lambda text: [{"type": "text", "text": text}],
        lambda text: [
            {"type": "output_text", "text": text[:9]},
            {"type": "text", "text": text[9:]},
        ],
        lambda text: [{"type": "text", "text": {"value": text}}],
        lambda text: [text[:5], text[5:]],
        lambda text: [{"text": text}],
        lambda text: [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": text}],
    ],
)
def test_content_in_parts_is_read(world, script, parts, stream):
    """It was dropped as empty and paid for at every try."""
    assert run_with(world, script, {"parts": parts}, stream) == 0
    assert len(script.asked("reason")) == 1
    assert world.report["rows"]["accepted"] == 1
    assert "<answer>2</answer>" in first(world)["text"]


@STREAMS
@pytest.mark.parametrize(
    "thoughts",
    [
        {"type": "reasoning", "text": "I think."},
        {"type": "thinking", "thinking": "I think."},
        {"type": "thinking", "thinking": [{"type": "text", "text": "I think."}]},
        {"text": "I think.", "thought": True},
    ],
)
def test_thoughts_in_parts_are_no_answer(world, script, thoughts, stream):
    world.recipe["reason"]["take_reasoning"] = True
    fault = {"parts": lambda text: [thoughts, {"type": "text", "text": text}]}
    assert run_with(world, script, fault, stream) == 0
    assert first(world)["text"].startswith("I think.\n\n")
    world.recipe["reason"]["take_reasoning"] = False


def asked_twice(script, step="reason"):
    times = [request[3] for request in script.asked(step)]
    assert len(times) == 2
    return times[1] - times[0]


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"retry-after-ms": "700"}, 0.7),
        ({"retry-after-ms": "700", "Retry-After": "30"}, 0.7),
        ({"Retry-After": "0.7"}, 0.7),
        # A date has no fractions of seconds: up to one less.
        ({"Retry-After": lambda: formatdate(time.time() + 2, usegmt=True)}, 0.9),
        (  # an endpoint whose clock is an hour behind
            {
                "Date": lambda: formatdate(time.time() - 3600, usegmt=True),
                "Retry-After": lambda: formatdate(time.time() - 3598, usegmt=True),
            },
            1.0,
        ),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "700ms"}, 0.7),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "30s"}, 0),
        ({"Retry-After": lambda: formatdate(time.time() - 60, usegmt=True)}, 0),
        ({"Retry-After": "-30"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({}, 0),
    ],
)
def test_what_an_endpoint_asks_to_wait_is_waited(world, script, headers, least):
    """A date and milliseconds were ignored: asked again after 0.04 s."""
    fault = {"status": 429, "body": {"error": {"message": "slow down"}}, "headers": headers}
    assert run_with(world, script, fault, stream=True) == 0
    # A wrong reading waits 30 s or more; a busy machine adds a second or two.
    assert least <= asked_twice(script) < 15


def test_a_wait_of_hours_is_said_and_not_tried(world, script):
    fault = {"status": 429, "body": {"error": "quota"}, "headers": {"Retry-After": "7200"}}
    assert run_with(world, script, fault, stream=False) == 4
    assert len(script.asked("reason")) == 1
    assert "HTTP 429: quota. It asks to wait 7200 s." in first(world)["finish"]


PAGE = "<html><head><style>a{}</style></head><body><h1>Bad gateway</h1></body></html>"


@STREAMS
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"body": {"error": {"message": "too busy", "code": 503}}}, "error 503: too busy"),
        ({"body": {"error": {"message": "too busy"}}}, "HTTP 200 with an error: too busy"),
        ({"body": {"error": "too busy"}}, "too busy"),
        ({"body": [{"error": {"message": "too busy", "status": "UNAVAILABLE"}}]}, "503: too busy"),
        ({"body": {"object": "error", "message": "too busy", "code": 500}}, "500: too busy"),
        ({"body": {"detail": "too busy"}}, "too busy"),
        ({"body": {"code": 429, "msg": "too busy", "data": None}}, "429: too busy"),
        ({"body": {"choices": [{"error": {"message": "too busy"}}]}}, "too busy"),
        ({"body": PAGE, "type": "text/html"}, "Bad gateway"),
        ({"body": "upstream connect error", "type": "text/plain"}, "upstream connect error"),
        ({"body": "", "type": "text/plain"}, "it is empty"),
        ({"body": {"choices": None, "usage": None}}, "malformed"),
        ({"body": 'data: {"error": "too busy"}\n\n', "type": "text/event-stream"}, "too busy"),
        (
            {
                "body": 'data: {"error": {"message": "too busy", "code": 502}}\n\n',
                "type": "text/event-stream",
            },
            "error 502: too busy",
        ),
    ],
)
def test_an_error_under_a_status_of_success_keeps_its_message(world, script, fault, said, stream):
    """It ended as "the answer is malformed", whatever the body said."""
    assert run_with(world, script, fault, stream) == 0
    assert said in first(world)["problems"][0]
    assert "style" not in first(world)["problems"][0]
    assert len(script.asked("reason")) == 2


@pytest.mark.parametrize(
    ("error", "asked", "hopeless"),
    [
        ({"code": 400, "message": "no"}, 1, False),
        ({"type": "invalid_request_error", "message": "no"}, 1, False),
        ({"code": "context_length_exceeded", "message": "no"}, 1, False),
        ({"code": 401, "message": "no"}, 1, True),
        ({"code": "invalid_api_key", "message": "no"}, 1, True),
        ({"code": "insufficient_quota", "message": "no"}, 1, True),
        ({"code": "model_not_found", "message": "no"}, 1, True),
        ({"code": "rate_limit_exceeded", "message": "no"}, 3, False),
    ],
)
def test_it_is_tried_again_or_not_as_its_code_says(world, script, error, asked, hopeless, capsys):
    assert run_with(world, script, {"body": {"error": error}}, True, times=9) == 4
    assert len(script.asked("reason")) == asked
    assert ("cannot be used" in capsys.readouterr().err) == hopeless


def test_a_wait_that_comes_with_an_error_under_a_status_of_success(world, script):
    body = {"error": {"code": 429, "message": "slow down"}}
    fault = {"body": body, "headers": {"Retry-After": "0.7"}}
    assert run_with(world, script, fault, stream=True) == 0
    assert asked_twice(script) >= 0.7


def test_an_answer_given_whole_where_it_was_to_stream_is_read(world, script):
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"content": "Two.\n<answer>2</answer>"},
    }
    assert run_with(world, script, {"body": {"choices": [choice], "usage": None}}, True) == 0
    assert len(script.asked("reason")) == 1
    assert first(world)["text"] == "Two.\n<answer>2</answer>"
    assert first(world)["usage"]["estimated"]


def test_pieces_without_choices_or_words_are_passed_over(world, script):
    """Azure's first piece has no choices, other gateways' last has no delta."""
    pieces = [
        '{"choices": [], "prompt_filter_results": []}',
        '{"choices": [{"index": 0, "delta": null, "finish_reason": null}]}',
        '{"choices": [{"index": 0, "delta": {"role": "assistant", "content": null}}]}',
        '{"choices": [{"index": 0, "delta": {"content": "Two. <answer>2</answer>"}, "finish_reason": ""}]}',  # noqa: E501
        '{"choices": [{"index": 1, "delta": {"content": "Three."}, "finish_reason": "length"}]}',
        '{"choices": [{"index": 0, "finish_reason": "stop"}], "usage": null}',
        '{"choices": null}',
    ]
    body = "".join(f"data: {piece}\n\n" for piece in pieces) + "data: [DONE]\n\n"
    for kind in ("text/event-stream", "text/plain"):
        script.faults["reason"].clear()
        assert run_with(world, script, {"body": body, "type": kind}, True) == 0
        assert first(world)["text"] == "Two. <answer>2</answer>"
        assert first(world)["finish"] == "stop"
