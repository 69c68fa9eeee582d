"""VARD against a real server: random weights behind vLLM's OpenAI-compatible HTTP.

Prompts and token counts are those of the shipped prompts and of vLLM. Where a test needs another
text than noise, vLLM's structured outputs make the model write it. No request has a seed: with one
vLLM's CPU build fails as soon as a prompt is read in parts.
"""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml
from PIL import Image
from transformers import AutoTokenizer

from avar_fast.data import load_rows
from avar_fast.lab.digits import TILE_PX
from avar_fast.lab.world import WorldConfig, write_rows

from .api_server import Server
from .environment import ENVIRONMENT, ROOT, needs_vllm

pytestmark = needs_vllm
NUM_ROWS = 6
NOISE = {"structured_outputs": {"regex": "[a-z ]{40,60}"}}
ANCHORED = (
    "Looking at the image, I see two digits in the row that is asked for, and add them. Let me look"
    " again at the upper row of the image to be sure of both digits: they are as I read them, and"
    " the sum of the two stands."
)


@pytest.fixture(scope="module")
def server(long_model):
    server = Server(long_model, "--max-model-len", "8192", "--served-model-name", "tiny")
    try:
        server.start()
        yield server
    finally:
        server.stop()


class World:
    """Rows of the lab, a recipe, and the command in a process of its own."""

    def __init__(self, folder, address):
        self.folder, self.out = folder, folder / "out"
        self.data = write_rows(folder / "data", WorldConfig(), "train", NUM_ROWS, seed=0)
        step = {"base_url": f"{address}/v1", "model": "tiny", "retries": 1, "backoff_s": 0.2}
        self.recipe = {
            "output_dir": str(self.out),
            "data": {"path": str(self.data)},
            **{name: step | {"max_tokens": 400} for name in ("describe", "reason", "rewrite")},
        }

    def start(self):
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(self.recipe))
        return subprocess.Popen(
            [sys.executable, "-m", "avar_fast.synthesize", str(path)],
            env=os.environ | ENVIRONMENT,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, expect=0):
        """What the command says."""
        return self.end(self.start(), expect)

    def end(self, process, expect=0):
        said = process.communicate(timeout=100)[1]
        assert process.returncode == expect, said[-3000:]
        return said

    def lines(self, name):
        path = self.out / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def report(self):
        return json.loads((self.out / "report.json").read_text())


@pytest.fixture
def world(tmp_path, server):
    return World(tmp_path, server.address)


def test_noise_is_rejected_and_counted_as_the_server_counts(world, server, long_model):
    counters = ("prompt_tokens", "generation_tokens", "request_success")
    before = [server.total(name) for name in counters]
    for step in ("describe", "reason", "rewrite"):
        world.recipe[step]["max_tokens"] = 48
    world.recipe["describe"]["extra_body"] = NOISE
    world.run()
    took = [server.total(name) - old for name, old in zip(counters, before, strict=True)]
    steps = world.report["steps"].values()
    assert took == [
        sum(step[name] for step in steps) for name in ("input_tokens", "output_tokens", "attempts")
    ]
    assert not any(step["tokens_partly_estimated"] for step in steps)
    entries = world.lines("steps.jsonl")
    for entry in entries:  # a finish reason for each: most noise has no end
        assert (entry["finish"] == "length") == (entry["usage"]["output"] == 48)
    reasons = {row["reasons"][0] for row in world.lines("rejected.jsonl")}
    assert reasons <= {"reason: cut", "reason: no_answer"}
    assert world.report["rows"] == {
        "read": NUM_ROWS, "accepted": 0, "rejected": NUM_ROWS, "open": 0,
    }  # fmt: skip


def test_the_image_is_read_and_a_length_is_a_cut(world, long_model):
    world.recipe["describe"] |= {"max_tokens": 16, "extra_body": {"ignore_eos": True}}
    world.run()
    assert world.report["rejected_by"] == {"describe: cut": NUM_ROWS}
    described = world.lines("steps.jsonl")
    assert [entry["usage"]["output"] for entry in described] == [16] * NUM_ROWS
    prompt = yaml.safe_load((ROOT / "avar_fast/synthesize/prompts/describe.yaml").read_text())
    tokenizer = AutoTokenizer.from_pretrained(long_model)
    wanted = []
    for row in load_rows(str(world.data)):
        (question,) = (part["text"] for part in row.messages[0]["content"] if "text" in part)
        text = prompt["user"].replace("{{question}}", question).strip()
        turns = [
            {"role": "system", "content": prompt["system"].strip()},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]},
        ]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        with Image.open(row.images[0]) as image:  # a tile is a token; one pad stands for them all
            tiles = image.width * image.height // TILE_PX**2
        wanted.append(len(ids) - 1 + tiles)
    assert sorted(entry["usage"]["input"] for entry in described) == sorted(wanted)


def test_three_steps_make_rows_that_load(world):
    answers = [row.answer for row in load_rows(str(world.data))]
    most = max(set(answers), key=answers.count)

    def written(text):
        return {"structured_outputs": {"choice": [f"{text}\n<answer>{most}</answer>"]}}

    world.recipe["describe"]["extra_body"] = NOISE
    world.recipe["reason"]["extra_body"] = written("By the description, that is the sum.")
    world.recipe["rewrite"]["extra_body"] = written(ANCHORED)
    world.recipe["gates"] = {"max_similarity": None}
    world.run()
    good = answers.count(most)
    assert world.report["rows"]["accepted"] == good
    assert world.report["rejected_by"] == {"reason: wrong_answer": NUM_ROWS - good}
    rows = list(load_rows(str(world.out / "rows.jsonl")))
    assert [row.target for row in rows] == [
        f"<think>\n{ANCHORED}\n</think>\n<answer>{most}</answer>"
    ] * good


def test_a_model_that_the_server_does_not_have(world):
    world.recipe["describe"]["extra_body"] = NOISE
    world.recipe["reason"]["model"] = "tiny-2"
    said = world.run(expect=4)
    assert "reason: tiny-2 at http://127.0.0.1" in said
    assert "The model `tiny-2` does not exist" in said
    assert "Check model" in said
    assert {entry["step"] for entry in world.lines("steps.jsonl")} == {"describe"}


def test_a_server_that_dies_half_way_and_comes_back(world, server):
    for step in ("describe", "reason"):
        world.recipe[step] |= {"extra_body": NOISE, "concurrency": 1}
    running = world.start()
    deadline = time.monotonic() + 60
    while len(world.lines("steps.jsonl")) < 4:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.kill()
    assert "cannot be used" in world.end(running, expect=4)
    finished = sum(entry["text"] is not None for entry in world.lines("steps.jsonl"))
    assert 4 <= finished < 2 * NUM_ROWS
    assert world.report["rows"]["open"] > 0
    server.start()
    world.run()
    assert server.total("request_success") == 2 * NUM_ROWS - finished
    assert world.report["rejected_by"] == {"reason: no_answer": NUM_ROWS}
