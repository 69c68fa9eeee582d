"""The reference page of all recipe keys, and the docstrings that it is made of."""

import ast
import dataclasses
import importlib.util
import inspect
import itertools
from pathlib import Path

import pytest

from avar_fast.config import AgtoConfig, OptimConfig

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
make_reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_reference)

RECIPES = [recipe for _, _, recipe in make_reference.PROGRAMS]
CLASSES = [kind for recipe in RECIPES for kind in (recipe, *make_reference.sections(recipe))]


def test_the_page_is_that_of_the_sources():
    written = (DOCS / "recipe.md").read_text(encoding="utf-8")
    assert written == make_reference.reference(), "docs/recipe.md is stale; run make docs"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_and_field_has_one_docstring(kind):
    (tree,) = ast.parse(inspect.getsource(kind)).body
    lacking = [] if ast.get_docstring(tree) else ["the class itself"]
    texts = [statement for statement in tree.body if isinstance(statement, ast.Expr)]
    documented = [
        statement.target.id
        for statement, below in itertools.pairwise(tree.body)
        if isinstance(statement, ast.AnnAssign) and below in texts
    ]
    fields = [field.name for field in dataclasses.fields(kind)]
    lacking += [name for name in fields if name not in documented]
    assert not lacking, f"without a docstring in {kind.__name__}: {', '.join(lacking)}"
    assert len(texts) == 1 + len(fields), f"{kind.__name__} has a docstring that is of no field"


def test_rows_of_the_page():
    page = make_reference.table(OptimConfig, "optim.") + make_reference.table(AgtoConfig, "agto.")
    rows = {line.split(" | ")[0]: line.split(" | ")[1:3] for line in page.splitlines()}
    assert rows["| `optim.lr`"] == ["float", "`1e-05`"]
    assert rows["| `optim.vision_lr`"] == ["float or null", "`null`"]
    assert rows["| `optim.betas`"] == ["list of 2 float", "`[0.9, 0.95]`"]
    assert rows["| `agto.enabled`"] == ["bool", "`false`"]
    assert rows["| `agto.decay`"] == ["one of `linear`, `cosine`", "`linear`"]
    assert rows["| `agto.layers`"] == ["list of int or null", "`null`"]


def test_required_keys_are_marked_and_every_key_is_there():
    page = make_reference.reference()
    for key in ("stage", "model", "model.path", "train.steps", "output_dir", "SECTION.base_url"):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
        assert "| **required** |" in row
    for kind in CLASSES:
        for field in dataclasses.fields(kind):
            assert f"{field.name}` |" in page
