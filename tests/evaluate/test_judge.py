"""The optional judge over real HTTP: who is asked about what, what an endpoint does wrong, and what
a run makes of it."""

import json

import pytest

from avar_fast.evaluate import answerer, read_result
from avar_fast.evaluate.__main__ import main
from avar_fast.evaluate.benchmark import JudgedBenchmark
from avar_fast.evaluate.benchmarks import BENCHMARKS
from avar_fast.evaluate.journal import PredictionJournal
from avar_fast.evaluate.judge import client as judge_client
from avar_fast.evaluate.judge.config import JudgeConfig, JudgeError
from avar_fast.lab.model import save_base

from ..synthesize.server import Script, serving
from . import world

SAID = {
    "1": "I count twelve of them, so it must be a dozen.",  # 12: not parsable without a judge
    "2": "<answer>1.2</answer>",  # right by the rule
    "3": "It is a city, but I cannot say which one, for the picture shows too little\nof it.",
    "4": "<answer>[2014, 2015]</answer>",  # wrong by the rule
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_base(tmp_path_factory.mktemp("model"), seed=0))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return world.mathvista(tmp_path_factory.mktemp("mathvista"))


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(judge_client, "RETRIES", 1)
    with serving(Script(answer=by_prompt)) as running:
        yield running


def by_prompt(_, request):
    prompt = request["messages"][0]["content"]
    if "a dozen" in prompt:
        return "<answer>12</answer>"
    return "<answer>[2014, 2015]</answer>" if "2015" in prompt else "<answer>NONE</answer>"


class Run:
    """MathVista with given completions, judged by the scripted server."""

    def __init__(self, folder, model, data, monkeypatch, said=SAID):
        self.out, self.parts = folder / "r.json", folder / "r.json.parts"
        self.asked_model = 0
        self.given = [model, "--benchmarks=mathvista", f"--data=mathvista={data}"]
        self.given += [f"--out={self.out}", "--dtype=float32", "--no-vas"]

        def respond(answerer_, samples):
            self.asked_model += 1
            texts = list(said.values())
            assert len(samples) == len(texts)
            return [answerer.Response(text, 9, False, None) for text in texts]

        monkeypatch.setattr(answerer.Answerer, "respond", respond)

    def __call__(self, script, *more, expect=0):
        judge = [f"--judge-url={script.url}", "--judge-model=test-judge"]
        assert main([*self.given, *judge, *more]) == expect
        return read_result(self.out)


@pytest.fixture
def run(tmp_path, model, data, monkeypatch):
    return Run(tmp_path, model, data, monkeypatch)


def rights(result):
    return {p.id: p.right for p in result.predictions}


def test_it_is_asked_for_what_the_rule_finds_not_right_and_is_named(run, script, capsys):
    assert main(run.given) == 0
    assert rights(read_result(run.out)) == {"1": False, "2": True, "3": False, "4": False}
    assert not script.asked(), "off by default"
    assert "judge" not in capsys.readouterr().out
    run.out.unlink()

    result = run(script)
    assert rights(result) == {"1": True, "2": True, "3": False, "4": False}
    assert [p.parsed for p in result.predictions] == ["12", "1.2", None, "[2014, 2015]"]
    assert [p.judge_replies for p in result.predictions] == [
        ["<answer>12</answer>"], None, ["<answer>NONE</answer>"], ["<answer>[2014, 2015]</answer>"]
    ]  # fmt: skip
    host = script.url.removeprefix("http://").removesuffix("/v1")
    name = {"model": "test-judge", "host": host, "body": {"temperature": 0}}
    assert result.head["judge"] == result.head["identity"]["judge"] == name
    summary = result.benchmarks["mathvista"]
    assert summary.judge == name | {"asked": 3, "right": 1, "failed": 0, "reasons": {}}
    assert summary.score == 0.5
    assert summary.unparsable == 0.25
    said = capsys.readouterr().out
    assert f"judge test-judge at {host}: 1 right of 3, 0 failed" in said
    assert len(script.asked()) == 3
    assert all(body["temperature"] == 0 for _, body, _, _ in script.asked())
    assert not run.parts.exists()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("empty", "the answer is empty"),
        ("hang", "no whole answer within 0.3 s"),
        ("refusal", "the judge refused"),
        ("filter", "the judge refused"),
        ("length", "the answer is cut"),
        ("page", "the answer is malformed"),
        ("garbage", "the answer is not JSON"),
        (500, "HTTP 500"),
        (429, "HTTP 429"),
        (400, "HTTP 400"),
        (401, "HTTP 401"),
        ({"body": {"error": {"code": 400, "message": "too long"}}}, "error 400: too long"),
        ({"body": {"error": "too busy"}}, "too busy"),
        ({"finish": "MAX_TOKENS"}, "the answer is cut"),
        ({"finish": "SAFETY"}, "the judge refused"),
        ({"finish": "so_it_goes"}, "not known: finish_reason 'so_it_goes'"),
        ({"finish": "tool_calls"}, "calls a tool"),
    ],
)
def test_a_fault_leaves_the_rules_verdict_with_its_reason(run, script, fault, reason, capsys):
    script.fault_if = lambda *_: fault
    result = run(script, "--judge-seconds=0.3", expect=1)
    assert rights(result) == {"1": False, "2": True, "3": False, "4": False}
    assert [p.parsed for p in result.predictions] == [None, "1.2", None, "[2014, 2015]"]
    judge = result.benchmarks["mathvista"].judge
    assert (judge["asked"], judge["right"], judge["failed"]) == (3, 0, 3)
    assert all(reason in why for why in judge["reasons"])
    told = capsys.readouterr()
    assert "3 answers could not be judged and count as wrong" in told.err
    assert reason in told.out
    assert len(script.asked()) <= 6, "retries have a bound"


def test_a_reply_in_parts_is_read(run, script):
    """It was dropped as empty."""
    script.fault_if = lambda *_: {"parts": lambda text: [{"type": "text", "text": text}]}
    assert rights(run(script)) == {"1": True, "2": True, "3": False, "4": False}


def test_it_waits_as_long_as_the_endpoint_asks(run, script):
    body = {"error": {"message": "slow down"}}
    script.faults["judge"].append(
        {"status": 429, "body": body, "headers": {"retry-after-ms": "700"}}
    )
    result = run(script, "--judge-requests=1")
    assert rights(result)["1"]
    times = [request[3] for request in script.asked()]
    assert times[1] - times[0] >= 0.7


def test_an_unreachable_judge_costs_no_answer(run, capsys, monkeypatch):
    monkeypatch.setattr(judge_client, "RETRIES", 1)
    nobody = Script(url="http://127.0.0.1:9/v1")  # discard: nobody listens
    result = run(nobody, "--judge-seconds=2", expect=1)
    assert result.benchmarks["mathvista"].judge["failed"] == 3
    assert "connection" in next(iter(result.benchmarks["mathvista"].judge["reasons"]))
    assert "3 answers could not be judged" in capsys.readouterr().err


@pytest.mark.parametrize("reply", ["I think that it is fine.\nAll of it.", "<answer></answer>"])
def test_a_reply_that_is_no_answer_is_no_verdict(run, script, reply):
    script.answer = lambda *_: reply
    judge = run(script, expect=1).benchmarks["mathvista"].judge
    assert (judge["right"], judge["failed"]) == (0, 3)
    assert "the reply holds no answer" in next(iter(judge["reasons"]))


def test_verdicts_are_kept_and_only_the_others_are_asked_again(run, script, capsys):
    script.fault_if = lambda _, body: 500 if "a dozen" in body["messages"][0]["content"] else None
    first = run(script, expect=1)
    assert rights(first)["1"] is False
    asked = len(script.asked())
    script.fault_if = None
    with (run.parts / "judge-0.jsonl").open("ab") as file:
        file.write(b'{"benchmark": "mathvi')  # as a kill within a write leaves it
    run.out.unlink()
    assert main([*run.given, f"--judge-url={script.url}", "--judge-model=other"]) == 1
    assert '"test-judge"' in capsys.readouterr().err
    result = run(script)
    assert rights(result) == {"1": True, "2": True, "3": False, "4": False}
    assert len(script.asked()) == asked + 1
    assert run.asked_model == 1, "the model is not asked again"
    assert not run.parts.exists()


def test_an_endpoint_that_fails_again_and_again_is_given_up(run, script, monkeypatch):
    monkeypatch.setattr(judge_client, "MOST_FAILURES", 2)
    script.fault_if = lambda *_: "empty"
    judge = run(script, "--judge-requests=1", expect=1).benchmarks["mathvista"].judge
    assert judge["failed"] == 3
    assert any(why.startswith("not asked, the endpoint was given up") for why in judge["reasons"])
    assert len(script.asked()) == 2


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    run, script, tmp_path, monkeypatch, capsys
):
    key = "sk-very-secret-0123456789"
    monkeypatch.delenv("AVAR_TEST_KEY", raising=False)
    given = [*run.given, f"--judge-url={script.url}", "--judge-model=test-judge"]
    assert main([*given, "--judge-key-env=AVAR_TEST_KEY"]) == 1
    assert "AVAR_TEST_KEY is not set" in capsys.readouterr().err
    assert run.asked_model == 0
    monkeypatch.setenv("AVAR_TEST_KEY", key)
    script.fault_if = lambda *_: "leak"  # an error that repeats the key it was sent
    run(script, "--judge-key-env=AVAR_TEST_KEY", expect=1)
    assert script.asked()[0][2]["Authorization"] == f"Bearer {key}"
    told = capsys.readouterr()
    texts = [told.out, told.err]
    texts += [p.read_text(errors="replace") for p in tmp_path.rglob("*.json*") if p.is_file()]
    assert any("***" in text for text in texts)
    assert not any(key in text for text in texts)


def test_only_the_benchmarks_with_an_official_judge_have_one():
    judged = [
        name for name, benchmark in BENCHMARKS.items() if isinstance(benchmark, JudgedBenchmark)
    ]
    assert judged == ["mathvista", "mathverse", "hallusion"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--judge-url=localhost:8000", "--judge-model=m"], "--judge-url must be an address"),
        (["--judge-url=http://me:key@host/v1", "--judge-model=m"], "must hold no user"),
        (["--judge-url=http://host/v1"], "--judge-model must name"),
        (["--judge-model=m"], "need --judge-url"),
        (["--judge-url=http://host/v1", "--judge-model=m", "--judge-body=[]"], "a JSON object"),
        (["--judge-url=http://host/v1", "--judge-model=m", "--judge-seconds=nan"], "positive"),
    ],
)
def test_bad_arguments(run, more, words, capsys):
    assert main([*run.given, *more]) == 1
    assert words in capsys.readouterr().err


def test_a_judge_for_benchmarks_that_have_none(tmp_path, model, capsys):
    world.mmstar(tmp_path / "data")
    given = [model, "--benchmarks=mmstar", f"--data=mmstar={tmp_path / 'data'}"]
    given += [f"--out={tmp_path / 'r.json'}", "--judge-url=http://host/v1", "--judge-model=m"]
    assert main(given) == 1
    assert "--judge-url is for mathvista, mathverse, hallusion" in capsys.readouterr().err


def test_results_with_and_without_a_judge_are_not_compared(run, script, tmp_path, capsys):
    with_judge = run(script)
    plain = json.loads(run.out.read_text())
    assert with_judge.benchmarks["mathvista"].judge
    plain["benchmarks"]["mathvista"]["judge"] = None
    other = tmp_path / "plain.json"
    other.write_text(json.dumps(plain))
    assert main(["compare", str(run.out), str(other)]) == 1
    assert "two results must be judged alike" in capsys.readouterr().err


def talk(benchmark, folder, number, completion, *replies):
    """(prompts, verdict) of a dialogue."""
    from avar_fast.evaluate import BenchmarkTask, Settings

    getattr(world, benchmark)(folder)
    question = BenchmarkTask(BENCHMARKS[benchmark], str(folder), Settings()).questions[number]
    dialogue = BENCHMARKS[benchmark].dialogue(question, completion)
    prompts = [next(dialogue)]
    for i, reply in enumerate(replies):
        try:
            prompts.append(dialogue.send(reply))
        except StopIteration as end:
            assert i == len(replies) - 1
            return prompts, end.value
    raise AssertionError("no verdict")


@pytest.mark.parametrize(
    ("number", "replies", "parsed", "right"),
    [
        (0, ["<answer>B</answer>"], "B", True),
        (0, ["(C)"], "C", False),
        (1, ["<answer>45</answer>"], "45", True),
        (1, ["<answer>NONE</answer>"], None, False),
        (1, ["forty-five degrees", "<answer>same</answer>"], "forty-five degrees", True),
        (1, ["forty-six degrees", "Different."], "forty-six degrees", False),
    ],
)
def test_mathverse_extracts_then_compares(tmp_path, number, replies, parsed, right):
    prompts, verdict = talk("mathverse", tmp_path, number, "Some words.", *replies)
    assert (verdict.parsed, verdict.right) == (parsed, right)
    assert "Find the angle." in prompts[0]
    assert "Some words." in prompts[0]
    assert "Reference" not in prompts[0], "who extracts is not told the answer"
    assert all("Reference" in prompt for prompt in prompts[1:])


@pytest.mark.parametrize(
    ("number", "reply", "parsed", "right"),
    [
        (0, "correct", "yes", True),
        (1, "<answer>Correct</answer>", "no", True),
        (0, "incorrect", "no", False),
        (0, "unclear.", None, False),
        (4, "unclear", "unclear", True),  # without an image not to know is right, officially
    ],
)
def test_hallusion_is_judged_as_a_whole(tmp_path, number, reply, parsed, right):
    prompts, verdict = talk("hallusion", tmp_path, number, "Words.", reply)
    assert (verdict.parsed, verdict.right) == (parsed, right)
    assert "It is." in prompts[0], "the reference in words"


def test_a_word_that_was_not_asked_for_is_no_verdict(tmp_path):
    with pytest.raises(JudgeError, match="must be one of correct, incorrect, unclear; got 'maybe'"):
        talk("hallusion", tmp_path, 0, "Words.", "maybe")


def test_a_judge_sees_the_end_of_a_long_response(tmp_path):
    prompts, _ = talk("hallusion", tmp_path, 0, "a" * 50_000 + " the end", "unclear")
    assert len(prompts[0]) < 10_000
    assert "the end" in prompts[0]


def test_a_journal_of_before_has_no_judgments(tmp_path):
    assert PredictionJournal(tmp_path / "r.json").judgments() == {}
    assert JudgeConfig(url="http://a:1/v1", model="m").name["host"] == "a:1"
