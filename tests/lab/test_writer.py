"""The lab's rule-based writer: reads what is drawn, and its server speaks the protocol."""

import re
from pathlib import Path

import numpy as np
import openai
import pytest
from PIL import Image

from avar_fast.data import load_rows
from avar_fast.lab.digits import digit_part, draw_grid
from avar_fast.lab.endpoint import serve
from avar_fast.lab.world import WorldConfig, write_rows
from avar_fast.lab.writer import CannotWriteError, read_digits, write
from avar_fast.rewards import extract_answer, is_correct
from avar_fast.synthesize.__main__ import main

ROOT = Path(__file__).parents[2]


def test_plain_digits_are_read_as_they_were_drawn():
    rng = np.random.default_rng(3)
    digits = rng.integers(10, size=(3, 4))
    part = digit_part("test")
    pictures = np.array([[part.draw(int(value), rng) for value in row] for row in digits])
    assert (read_digits(draw_grid(pictures)) == digits).all()


@pytest.mark.parametrize(("line", "total"), [("row 2", "7"), ("column 1", "12")])
def test_the_reasoner_adds_what_the_description_says(line, total):
    text = f"row 1: 9 5\nrow 2: 3 4\n<question>Add {line}. Think first.</question>"
    answer = write("lab-reason", text, [], 0)
    assert extract_answer(answer) == total
    rewritten = write("lab-rewrite", f"Add {line}.<reasoning>\n{answer}\n</reasoning>", [], 0)
    assert "description" not in rewritten
    assert extract_answer(rewritten) == total
    assert re.findall(r"\d+", rewritten) != []


def test_what_the_rules_do_not_cover_is_refused():
    with pytest.raises(CannotWriteError, match="must be one of lab-describe"):
        write("gpt", "", [], 0)
    with pytest.raises(CannotWriteError, match="must ask to add a row or column"):
        write("lab-reason", "What is this?", [], 0)
    with pytest.raises(CannotWriteError, match="grid of 28 x 28 tiles"):
        read_digits(Image.new("RGB", (20, 20)))


def test_the_server_answers_openais_client_whole_and_streamed():
    text = "row 1: 9 5\n<question>Add row 1.</question>"
    request = {"model": "lab-reason", "messages": [{"role": "user", "content": text}]}
    http = openai.DefaultHttpxClient(trust_env=False)
    with (
        serve() as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0, http_client=http) as client,
    ):
        assert next(model.id for model in client.models.list()) == "lab-describe"
        whole = client.chat.completions.create(**request)
        options = {"include_usage": True}
        pieces = list(
            client.chat.completions.create(**request, stream=True, stream_options=options)
        )
        with pytest.raises(openai.BadRequestError, match="must be one of lab-describe"):
            client.chat.completions.create(**request | {"model": "other"})
    said = whole.choices[0].message.content
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == said
    assert pieces[-1].usage == whole.usage


def test_the_labs_recipe_makes_rows_that_train(tmp_path):
    """The recipe that ships, over the lab's own server, test digits: rules read them all."""
    data = write_rows(tmp_path / "data", WorldConfig(), "test", 6, seed=1)
    arguments = [f"data.path={data}", f"output_dir={tmp_path / 'out'}"]
    assert main([str(ROOT / "configs" / "lab-vard.yaml"), *arguments]) == 0
    rows = list(load_rows(str(tmp_path / "out" / "rows.jsonl")))
    assert len(rows) == 6
    for row in rows:
        assert row.target is not None
        assert is_correct(row.target, row.answer)
        assert re.search("<think>.*look.* the image.*</think>", row.target, re.DOTALL)
