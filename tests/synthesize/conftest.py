"""Rows with tiny images, a recipe for them, and the scripted server."""

import json

import pytest
import yaml
from PIL import Image

from avar_fast.synthesize.__main__ import main

from .server import Script, serving


@pytest.fixture
def script():
    with serving(Script()) as running:
        yield running


class World:
    """A folder of rows and a recipe that points to the scripted server."""

    def __init__(self, folder, url):
        self.folder, self.out = folder, folder / "out"
        self.data = folder / "rows.jsonl"
        self.write_rows(3)
        steps = {
            name: {
                "base_url": url,
                "model": f"test-{name}",
                "max_tokens": 500,
                "backoff_s": 0.01,
                "timeout_s": 20,
                "retries": 2,
                "input_price": 1.0,
                "output_price": 10.0,
            }
            for name in ("describe", "reason", "rewrite")
        }
        self.recipe = {
            "output_dir": str(self.out),
            "data": {"path": str(self.data), "license": "CC0"},
            **steps,
            "gates": {"max_similarity": None},
        }

    def write_rows(self, count):
        rows = []
        for at in range(count):
            Image.new("RGB", (28, 28), (at, 0, 0)).save(self.folder / f"{at}.png")
            turn = {"role": "user", "content": f"<image>How many circles? ({at})"}
            rows.append({"messages": [turn], "images": [f"{at}.png"], "answer": "2"})
        self.put(rows)
        return rows

    def put(self, rows):
        self.data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(self, *arguments):
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(self.recipe))
        return main([str(path), *arguments])

    def lines(self, name):
        return [json.loads(line) for line in (self.out / name).read_text().splitlines()]

    @property
    def report(self):
        return json.loads((self.out / "report.json").read_text())


@pytest.fixture
def world(tmp_path, script):
    return World(tmp_path, script.url)
