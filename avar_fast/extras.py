"""Which pip extra brings which package, and one clear line where a package is missing."""

import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

EXTRAS = {
    "train": (
        "transformers", "deepspeed", "liger-kernel", "datasets", "peft", "pillow", "pyyaml",
        "tqdm", "math-verify", "numpy",
    ),
    "lab": ("scikit-learn",),
    "eval": ("scipy", "openai"),
    "synth": ("openai",),
    "report": ("matplotlib", "pyyaml"),
    "vllm": ("vllm",),
    "flash": ("flash-attn",),
    "integrations": ("trl",),
    "bench": ("trl",),
    "dev": ("pytest", "pytest-benchmark"),
}  # fmt: skip
"""{extra: the distributions that it adds}, as in pyproject.toml; of dev those that bench needs."""
INCLUDED = {
    "lab": ("train",),
    "eval": ("train",),
    "synth": ("train",),
    "integrations": ("train",),
    "bench": ("train", "lab"),
}
"""{extra: the other extras that it brings}."""
PARTS = {
    "avar_fast.attention": ("train",),
    "avar_fast.data": ("train",),
    "avar_fast.train": ("train",),
    "avar_fast.evaluate": ("eval",),
    "avar_fast.studies": ("eval", "report"),
    "avar_fast.synthesize": ("synth",),
    "avar_fast.report": ("report",),
    "avar_fast.integrations": ("train",),
    "avar_fast.integrations.trl": ("integrations",),
    "avar_fast.lab": ("lab",),
    "avar_fast.lab.demo": ("lab", "report"),
    "avar_fast.lab.demo_study": ("lab", "report"),
    "avar_fast.lab.study": ("lab", "report"),
    "avar_fast.lab.vas_study": ("lab", "eval", "report"),
    "avar_fast.lab.walk_study": ("lab", "report"),
    "avar_fast.lab.vars_study": ("lab", "report"),
    "avar_fast.lab.hint_study": ("lab", "report"),
    "avar_fast.lab.ablation": ("lab", "eval", "synth", "report"),
    "bench": ("bench", "report", "dev"),
}
"""{a program or another part: the extras that bring all that it needs}."""
WITHOUT_EXTRA = ("tensorboard", "wandb")
"""Packages that a recipe can ask for and no extra brings."""
_MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}


class MissingPackageError(ModuleNotFoundError):
    """A part needs a package that is not installed. The message names the remedy."""


def packages_of(part: str) -> tuple[str, ...]:
    """The distributions that a part needs."""
    found: dict[str, None] = {}
    for extra in PARTS[part]:
        for name in (*INCLUDED.get(extra, ()), extra):
            found |= dict.fromkeys(EXTRAS[name])
    return tuple(found)


def remedy(part: str) -> str:
    """The command that installs all that a part needs."""
    return f'pip install "avar-fast[{",".join(PARTS[part])}]"'


def remedy_for(package: str, part: str | None = None) -> str:
    """The command that installs a distribution: by the extras of the part that needs it, or else by
    the first extra that brings it, or by itself."""
    if part is not None and package in packages_of(part):
        return remedy(part)
    extra = next((name for name, added in EXTRAS.items() if package in added), None)
    return f"pip install {package}" if extra is None else f'pip install "avar-fast[{extra}]"'


def module_of(package: str) -> str:
    """The name by which a distribution is imported."""
    return _MODULES.get(package, package.replace("-", "_"))


def lack_of(package: str, what: str, part: str | None = None) -> str:
    """A message that ``what``, a setting or a part, needs a distribution; empty where it is
    installed. ``part`` is the part whose extras to name."""
    if importlib.util.find_spec(module_of(package)) is not None:
        return ""
    return _message(what, package, remedy_for(package, part))


@contextmanager
def needs(part: str) -> Iterator[None]:
    """Names the extras of a part where an import inside the context fails because a package is
    missing. Also a decorator.

    A program then ends with that line alone: the error makes ``sys.excepthook`` print it without a
    traceback. Code that catches ImportError notices no difference.

    Raises:
        MissingPackageError: a package of some extra, or a logger, is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = _package_of(error.name or "")
        if package is None:
            raise
        if getattr(sys.excepthook, "func", None) is not _show:
            sys.excepthook = functools.partial(_show, sys.excepthook)
        raise MissingPackageError(
            _message(part, package, remedy_for(package, part)), name=error.name
        ) from None


def _message(what: str, package: str, command: str) -> str:
    return f"{what} needs the package {package}, which is not installed. Use: {command}"


def _package_of(module: str) -> str | None:
    """The distribution of a missing module; None if no extra and no recipe names it."""
    top = module.partition(".")[0]
    known = (*(name for added in EXTRAS.values() for name in added), *WITHOUT_EXTRA)
    return next((name for name in known if top in (name, module_of(name))), None)


def _show(
    otherwise: Callable[..., object],
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    if isinstance(error, MissingPackageError):
        print(f"error: {error}", file=sys.stderr)
    else:
        otherwise(kind, error, trace)
