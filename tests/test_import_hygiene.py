"""The folder ``kernels`` must shadow nothing, packages stay light, and imports go one way."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections import defaultdict, deque
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "kernels" / "avar_kernels"
PACKAGE = ROOT / "avar_fast"

# A part may import parts of a lower number, and itself.
LAYERS = {
    "bootstrap": 0,
    "characters": 0,
    "extras": 0,
    "missing": 0,
    "journal": 0,
    "progress": 0,
    "tables": 0,
    "chat": 1,
    "models": 1,
    "rewards": 1,
    "attention": 2,
    "config": 2,
    "loading": 3,
    "data": 4,
    "vas": 4,
    "objectives": 5,
    "rollout": 5,
    "integrations": 6,
    "report": 6,
    "evaluate": 7,
    "train": 7,
    "studies": 8,
    "lab": 9,
    "synthesize": 10,
    "doctor": 11,
}


def python(code, *path):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.strip()


def imports(file: Path) -> list[tuple[int, str]]:
    """(level, module) of every import of a file, inside functions too; level 0 is absolute."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.module is None:
                found += [(node.level, alias.name) for alias in node.names]
            else:
                found.append((node.level, node.module))
    return found


def test_kernels_folder_holds_no_module():
    assert not list((ROOT / "kernels").glob("*.py"))


def test_an_installed_kernels_package_wins_over_the_folder(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("real = True")
    assert (
        python(
            "import sys; sys.path.append(sys.argv[1]); import kernels; print(kernels.real)",
            tmp_path,
        )
        == "True"
    )


def test_transformers_answer_about_kernels_is_that_of_the_installed_distribution():
    code = (
        "from transformers.utils.import_utils import is_kernels_available, _is_package_available as"
        " has\nimport importlib.metadata as m\nnames = {d.metadata['Name'] for d in"
        " m.distributions()}\nis_kernels_available()\nprint(has('kernels', return_version=True)[0]"
        " == ('kernels' in names))"
    )
    assert python(code) == "True"


@pytest.mark.parametrize(
    "file", sorted(KERNELS.rglob("*.py")), ids=lambda f: str(f.relative_to(KERNELS))
)
def test_avar_kernels_imports_only_torch_triton_and_the_standard_library(file):
    for level, module in imports(file):
        top = module.partition(".")[0]
        assert level > 0 or top in ("torch", "triton") or top in sys.stdlib_module_names, module


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_imports_go_one_way(file):
    if file == PACKAGE / "__init__.py":
        assert not imports(file)
        return
    own = part_of(file)
    depth = len(file.relative_to(PACKAGE).parts)
    for level, module in imports(file):
        parts = module.split(".")
        if level == 0:
            assert parts[0] != "avar_fast", f"{module}: inside the package imports are relative"
            if parts[0] == "avar_kernels":
                assert len(parts) == 1, f"{module}: only the public names of avar_kernels"
            if parts[0] == "deepspeed":
                assert own == "train", "DeepSpeed stays in train/"
            if ".modeling_" in f".{module}":
                assert own == "models", "model internals stay in models/"
        elif level == depth and parts[0] != own:
            assert LAYERS[parts[0]] < LAYERS[own], f"{own} must not import {parts[0]}"
            assert parts[-1] != "__main__", f"{module} is a program"


def module_name(file: Path, root: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imported(name: str, file: Path, known: set[str]) -> set[str]:
    """The modules among ``known`` that a file imports, by absolute and relative imports, inside
    functions and for type checking too. ``from .a import b`` imports the file of b if b is a
    module, or else that of a."""
    parents = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= {each if each in known else source for each in names}
    return found & known - {name}


def shortest_circle(start: str, graph: dict[str, set[str]]) -> list[str]:
    """The shortest way over the graph from a module back to itself; empty where there is none."""
    todo, before = deque([start]), {}
    while todo:
        module = todo.popleft()
        for target in sorted(graph[module]):
            if target == start:
                way = [module]
                while way[-1] != start:
                    way.append(before[way[-1]])
                return [*reversed(way), start]
            if target not in before:
                before[target] = module
                todo.append(target)
    return []


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Every module's shortest circle, each once."""
    found = {}
    for start in sorted(graph):
        way = shortest_circle(start, graph)
        if way:
            found.setdefault(frozenset(way), " -> ".join(way))
    return list(found.values())


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "e"}, "e": {"f"}, "f": {"d"}}
    assert circles(graph) == ["b -> c -> b", "d -> e -> f -> d"]


def test_imports_are_resolved(tmp_path):
    (tmp_path / "p" / "q").mkdir(parents=True)
    known = {"p", "p.a", "p.b", "p.q", "p.q.c", "p.q.d"}
    for name, text, want in (
        ("p/q/c.py", "from . import d\nfrom .. import a, name", {"p.q.d", "p.a", "p"}),
        ("p/q/c.py", "def f():\n    from ..b import x\n    import p.q.d", {"p.b", "p.q.d"}),
        (
            "p/q/__init__.py",
            "if TYPE_CHECKING:\n    from .c import x\n    from . import y",
            {"p.q.c"},
        ),
        ("p/a.py", "import os\nfrom .q import y\nfrom p.q import d", {"p.q", "p.q.d"}),
    ):
        file = tmp_path / name
        file.write_text(text)
        assert imported(module_name(file, tmp_path), file, known) == want, text


def test_no_files_import_each_other():
    files = {
        module_name(file, folder.parent): file
        for folder in (PACKAGE, KERNELS)
        for file in folder.rglob("*.py")
    }
    graph = {name: imported(name, file, set(files)) for name, file in files.items()}
    assert sum(map(len, graph.values())) > len(graph)  # the imports were found
    found = circles(graph)
    assert not found, "files import each other:\n" + "\n".join(found)


def test_class_names_are_unique():
    places = defaultdict(list)
    for folder in (PACKAGE, KERNELS, ROOT / "bench"):
        for file in sorted(folder.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(f"{file.relative_to(ROOT)}:{node.lineno}")
    shared = [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]
    assert not shared, "classes of one name:\n" + "\n".join(shared)


# In programs for child processes too, which are strings.
OF_TEST_MODULE = re.compile(
    r"^\s*(?:from [\w.]*\btest_\w+ import|from [\w.]+ import .*\btest_|import [\w.]*\btest_).*",
    re.M,
)


def test_imports_of_test_modules_are_found():
    for line in ("from .test_a import b", "from tests.a.test_b import c", "    import a.test_b"):
        assert OF_TEST_MODULE.search(f"import os\n{line}\n"), line
    assert OF_TEST_MODULE.search("from . import a, test_b")
    assert not OF_TEST_MODULE.search("from .tests_of_a import b\nfrom a.latest_b import c")


def test_no_test_module_is_imported():
    """Fixtures are in conftest files and other helpers in modules of their own."""
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in sorted((ROOT / "tests").rglob("*.py"))
        if file != Path(__file__)
        for line in OF_TEST_MODULE.findall(file.read_text())
    ]
    assert not found, "test modules are imported:\n" + "\n".join(found)


def test_names_of_helper_modules_are_unique():
    places = defaultdict(list)
    for file in sorted((ROOT / "tests").rglob("*.py")):
        if file.stem not in ("__init__", "conftest") and not file.stem.startswith("test_"):
            places[file.stem].append(str(file.relative_to(ROOT)))
    shared = [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]
    assert not shared, "helper modules of one name:\n" + "\n".join(shared)


def test_imports_are_light():
    code = (
        "import sys, torch; before = set(sys.modules); import avar_kernels, avar_fast\nnew ="
        " {m.partition('.')[0] for m in set(sys.modules) - before}\nprint(sorted(new &"
        " {'deepspeed', 'datasets', 'transformers', 'liger_kernel', 'matplotlib', 'sklearn'}))"
    )
    assert python(code) == "[]"


def test_the_metric_is_lighter_than_its_studies():
    code = (
        "import sys; import avar_fast.vas\nprint(sorted({m.partition('.')[0] for m in"
        " sys.modules} & {'deepspeed', 'datasets', 'matplotlib'}))"
    )
    assert python(code) == "[]"


def test_integrations_are_light():
    """AgtoMixin needs neither the trainer's packages nor TRL."""
    code = (
        "import sys; import avar_fast.integrations\nprint(sorted({m.partition('.')[0] for m in"
        " sys.modules} & {'deepspeed', 'datasets', 'trl', 'peft', 'matplotlib'}))"
    )
    assert python(code) == "[]"


def test_the_page_of_runs_is_light():
    """It needs matplotlib and none of the trainer's packages."""
    code = (
        "import sys; import avar_fast.report.__main__\nprint(sorted({m.partition('.')[0] for m in"
        " sys.modules} & {'deepspeed', 'datasets', 'transformers', 'peft', 'math_verify'}))"
    )
    assert python(code) == "[]"


def test_programs_start_without_openai():
    code = (
        "import sys; sys.modules['openai'] = None\n"
        "import avar_fast.evaluate.__main__, avar_fast.rollout.vllm_server\n"
        "import avar_fast.train.grpo.loop"
    )
    assert python(code) == ""


def test_the_sdpa_path_works_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, avar_kernels as ak\n"
        "q = torch.randn(1, 4, 2, 8); print(ak.visual_attn_func(q, q, q).out.shape[1])"
    )
    assert python(code) == "4"


def test_the_wheel_holds_both_packages_and_nothing_else():
    from setuptools import find_packages

    found = [
        name
        for where in (ROOT, ROOT / "kernels")
        for name in find_packages(str(where), include=["avar_fast*", "avar_kernels*"])
    ]
    assert {name.partition(".")[0] for name in found} == {"avar_fast", "avar_kernels"}
    for folder in (PACKAGE, KERNELS):
        for file in folder.rglob("*.py"):
            package = ".".join(file.parent.relative_to(folder.parent).parts)
            assert package in found, f"{file} is in no package"
    assert importlib.util.find_spec("avar_kernels") is not None
