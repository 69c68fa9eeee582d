"""What the documentation says can be followed: links lead somewhere, commands parse, keys exist."""

import argparse
import ast
import importlib
import importlib.util
import json
import re
import shlex
import sys
import tomllib
import typing
from pathlib import Path

import pytest
import yaml

from avar_fast.config import Recipe, load_recipe, read_recipe
from avar_fast.synthesize.recipe import SynthesisRecipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
README_BYTES = 9_000
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
TREES = ("avar_fast", "bench", "configs", "csrc", "docker", "docs", "examples", "kernels", "tests")
OF_OTHERS = ("vllm", "lmms-eval", "hadolint")  # programs whose command lines are not ours to check
PROGRAMS = ("python -m ", "torchrun ", "make ")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

names = [str(page.relative_to(ROOT)) for page in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=names)


class _ParsedError(Exception):
    """Raised in place of what a program does once it has parsed its command line."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text()) if kind == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def commands(page: Path) -> list[str]:
    """Every command of the page's bash blocks, and of code in its prose that is one; the form of a
    command line, with [optional ...] parts, is none."""
    found = []
    for block in blocks(page, "bash"):
        lines = block.replace("\\\n", " ").splitlines()
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    spans = CODE_SPAN.findall(prose(page))
    forms = re.compile(r"\.\.\.| \[")
    return found + [s for s in spans if s.startswith(PROGRAMS) and not forms.search(s)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def parsed(module: str, arguments: list[str], monkeypatch) -> argparse.Namespace:
    """What the module's own parser makes of the arguments; the program itself does not run."""

    def stopping(parse):
        def parse_and_stop(self, *args, **kwargs):
            raise _ParsedError(parse(self, *args, **kwargs))

        return parse_and_stop

    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, stopping(parse))
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    program = importlib.import_module(module)
    if hasattr(program, "__path__"):
        program = importlib.import_module(f"{module}.__main__")
    with pytest.raises(_ParsedError) as stopped:
        program.main()
    monkeypatch.undo()
    return stopped.value.options


def check_module(module: str, arguments: list[str], monkeypatch) -> None:
    spec = importlib.util.find_spec(module)
    assert spec, f"there is no module {module}"
    if module == "pytest":
        for path in (x.partition("::")[0] for x in arguments if "/" in x):
            assert (ROOT / path).exists(), path
        return
    if spec.submodule_search_locations is not None:
        assert importlib.util.find_spec(f"{module}.__main__"), f"{module} is no program"
    if not arguments:  # named in prose
        return
    options = parsed(module, arguments, monkeypatch)
    monkeypatch.chdir(ROOT)
    if module == "avar_fast.doctor":
        recipes = [word for word in options.recipes if "=" not in word]
        for recipe in recipes:
            load_recipe(recipe, [word for word in options.recipes if "=" in word])
    if module in ("avar_fast.train", "avar_fast.data"):
        load_recipe(options.recipe, options.overrides)
    elif module == "avar_fast.synthesize":
        read_recipe(SynthesisRecipe, options.recipe, options.overrides)


def check_command(command: str, monkeypatch) -> None:
    words = shlex.split(command, comments=True)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    program, *arguments = words
    if program == "python" and arguments[0] == "-c":
        ast.parse(arguments[1])
    elif program == "python" and arguments[0] == "-m":
        check_module(arguments[1], arguments[2:], monkeypatch)
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), command
    elif program == "torchrun":
        at = arguments.index("-m")
        assert at in (0, 2), command
        assert at == 0 or arguments[0] == "--nproc_per_node", command
        check_module(arguments[at + 1], arguments[at + 2 :], monkeypatch)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets), command
    elif program == "pip":
        extras = re.findall(r"\[([\w,]+)\]", " ".join(arguments))
        known = PYPROJECT["optional-dependencies"]
        assert {name for group in extras for name in group.split(",")} <= set(known), command
    elif program in PYPROJECT.get("scripts", {}):
        module = PYPROJECT["scripts"][program].partition(":")[0].removesuffix(".__main__")
        check_module(module, arguments, monkeypatch)
    else:
        assert program in OF_OTHERS, f"unknown program in: {command}"


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= README_BYTES


@every_page
def test_links_and_pictures_lead_somewhere(page):
    for picture, text, target in LINK.findall(CODE_SPAN.sub("", prose(page))):
        assert text.strip() or not picture, f"{target} has no alt text"
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(linked), f"{target} has no such heading"


def test_every_picture_is_shown():
    shown = {target for page in PAGES for _, _, target in LINK.findall(page.read_text())}
    names = {Path(target).name for target in shown}
    assert {path.name for path in (ROOT / "docs" / "img").iterdir()} <= names


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


@every_page
def test_commands_parse(page, monkeypatch):
    for command in commands(page):
        try:
            check_command(command, monkeypatch)
        except (AssertionError, ValueError, OSError, SystemExit) as error:
            pytest.fail(f"{command}: {error}")


@every_page
def test_code_compiles(page):
    for block in blocks(page, "python"):
        ast.parse(block)
    for block in blocks(page, "json"):
        json.loads(block)
    for block in blocks(page, "yaml"):
        yaml.safe_load(block)


@every_page
def test_paths_of_the_repository_exist(page):
    for span in CODE_SPAN.findall(prose(page)):
        if re.fullmatch(rf"({'|'.join(TREES)})/[\w./-]+", span) and "NAME" not in span:
            assert (ROOT / span).exists(), span


@every_page
def test_recipe_keys_exist(page):
    sections = typing.get_type_hints(Recipe), typing.get_type_hints(SynthesisRecipe)
    for span in CODE_SPAN.findall(prose(page)):
        for section, key in re.findall(r"(?:^|\s|\+ )(\w+)\.(\w+)(?=[=\s]|$)", span):
            holders = [hints[section] for hints in sections if section in hints]
            known = {name for holder in holders for name in typing.get_type_hints(holder)}
            assert not holders or key in known, f"{section}.{key} in `{span}`"


@pytest.mark.parametrize(
    "command",
    [
        "python -m avar_fast.nothing --out x",
        "python -m avar_fast.evaluate MODEL --no-such-option --out x.json",
        "torchrun -m avar_fast.train configs/lab-sft.yaml train.no_such_key=1",
        "torchrun -m avar_fast.train no-such-recipe.yaml",
        "python -m avar_fast.synthesize configs/lab-vard.yaml samples=-1",
        "make no-such-target",
        "pip install .[no_such_extra]",
        "no-such-program",
    ],
)
def test_a_wrong_command_is_found(command, monkeypatch):
    with pytest.raises((AssertionError, ValueError, OSError, SystemExit)):
        check_command(command, monkeypatch)
