"""Writes docs/recipe.md, the reference of all recipe keys, from the dataclasses and their
docstrings.

    python docs/make_reference.py --out docs/recipe.md
"""

import argparse
import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from pathlib import Path
from typing import Any, Literal, cast

from avar_fast.config import Recipe
from avar_fast.config.recipe_file import is_required
from avar_fast.synthesize.recipe import SynthesisRecipe

LONGEST_DEFAULT = 80  # characters; a longer default is counted instead of shown
HEAD = """\
# Recipe reference

Every key of a recipe, by section. `make docs` writes this page from the dataclasses in
`avar_fast/config/` and `avar_fast/synthesize/recipe.py`; change the docstrings there.

A recipe is a YAML file. The command line can override a key with `section.key=value`. Unknown keys
are errors. Each run stores the resolved recipe, with all defaults, as `recipe.yaml` in its
`output_dir`.
"""
PROGRAMS = (
    ("Training", "torchrun --nproc_per_node N -m avar_fast.train RECIPE.yaml", Recipe),
    ("Synthesis", "python -m avar_fast.synthesize RECIPE.yaml", SynthesisRecipe),
)


def reference() -> str:
    """The page."""
    parts = [HEAD]
    for title, command, recipe in PROGRAMS:
        parts += [f"## {title}\n", f"`{command} [section.key=value ...]`\n", table(recipe, "")]
        for kind, names in sections(recipe).items():
            shared = len(names) > 1
            parts.append(f"### {', '.join(f'`{name}`' for name in names)}\n")
            if class_text(kind):
                parts.append(plain(class_text(kind)) + "\n")
            parts.append(table(kind, "SECTION." if shared else f"{names[0]}."))
    return "\n".join(parts)


def sections(recipe: type) -> dict[type, list[str]]:
    """{dataclass: names of the sections that have its keys}, in the recipe's order."""
    found: dict[type, list[str]] = {}
    for name, hint in typing.get_type_hints(recipe).items():
        if dataclasses.is_dataclass(hint):
            found.setdefault(cast(type, hint), []).append(name)
    return found


def table(kind: type, prefix: str) -> str:
    """The keys of a dataclass as a Markdown table."""
    hints, texts = typing.get_type_hints(kind), field_texts(kind)
    lines = ["| Key | Type | Default | Description |", "| --- | --- | --- | --- |"]
    for item in dataclasses.fields(kind):
        cells = (
            f"`{prefix}{item.name}`",
            type_text(hints[item.name]),
            default_text(item),
            plain(texts.get(item.name, "")),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def type_text(hint: Any) -> str:
    """A type as a user writes its values: "float or null", "one of a, b"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(argument) for argument in arguments)
    if hint is types.NoneType:
        return "null"
    if dataclasses.is_dataclass(hint):
        return "section"
    if origin is Literal:
        return f"one of {', '.join(f'`{value}`' for value in arguments)}"
    if origin is tuple:
        many = "" if Ellipsis in arguments else f"{len(arguments)} "
        return f"list of {many}{type_text(arguments[0]).removeprefix('one of ')}"
    if origin is dict:
        return f"map of {type_text(arguments[0])} to {type_text(arguments[1])}"
    return "map" if hint is dict else hint.__name__


def default_text(item: dataclasses.Field) -> str:
    if is_required(item):
        return "**required**"
    factory = item.default_factory
    value = item.default if factory is dataclasses.MISSING else factory()
    if dataclasses.is_dataclass(value):
        return "its defaults"
    shown = yaml_text(value)
    return f"`{shown}`" if len(shown) <= LONGEST_DEFAULT else f"{len(cast(Any, value))} entries"


def yaml_text(value: Any) -> str:
    """A default as it is written in YAML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {yaml_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(yaml_text(inner) for inner in value) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def class_text(kind: type) -> str:
    """The docstring that a class has in its source; dataclasses make one up where it has none."""
    return ast.get_docstring(_class_of(kind)) or ""


def field_texts(kind: type) -> dict[str, str]:
    """{field: docstring} of a dataclass, the docstring being the string right below the field."""
    body = _class_of(kind).body
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def plain(text: str) -> str:
    """A docstring on one line, its literals in Markdown."""
    return " ".join(text.split()).replace("``", "`")


def _class_of(kind: type) -> ast.ClassDef:
    (statement,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    return cast(ast.ClassDef, statement)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the reference of all recipe keys.")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("recipe.md"))
    parser.parse_args().out.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
