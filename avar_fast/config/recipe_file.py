"""Recipes from YAML and ``section.key=value``, and back; unknown keys are errors."""

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from .schema import Recipe

Kind = TypeVar("Kind")


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Reads the trainer's recipe; ``read_recipe`` says how."""
    return read_recipe(Recipe, path, overrides)


def read_recipe(kind: type[Kind], path: str | Path, overrides: list[str] | None = None) -> Kind:
    """Reads a YAML recipe and applies ``section.key=value`` overrides (values are YAML).

    Args:
        kind: the dataclass whose fields the recipe has; fields that are dataclasses are sections.
        path: of the YAML file.
        overrides: ``section.key=value`` each.

    Raises:
        ValueError: unknown key (the nearest is named), missing key, a value of the wrong type or
            out of range, or text that is not YAML.
        FileNotFoundError: no such recipe.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"recipe must be an existing YAML file; {path} is not.")
    tree = _read_yaml(path.read_text(encoding="utf-8"), str(path)) or {}
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must hold a mapping of sections; got {type(tree).__name__}.")
    _override(tree, overrides or [])
    return _build(kind, tree, "")


def read_section(kind: type[Kind], name: str, settings: list[str]) -> Kind:
    """One section of a recipe from ``key=value`` alone.

    Raises:
        ValueError: as ``read_recipe``; keys are named with their section.
    """
    tree: dict[str, Any] = {}
    _override(tree, settings)
    return _build(kind, tree, f"{name}.")


def _override(tree: dict, overrides: list[str]) -> None:
    """Puts ``section.key=value`` into a tree of sections."""
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign:
            raise ValueError(f"override must read section.key=value; got {override!r}.")
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise ValueError(
                    f"override {key!r} names a key inside {section!r}, which is no section."
                )
        node[last] = _read_yaml(value, f"override {override!r}")


def _read_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} must be valid YAML; {error}") from None


def dump_recipe(recipe: Any) -> str:
    """A resolved recipe as YAML that ``read_recipe`` reads back to the same recipe."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return yaml.safe_dump(plain(dataclasses.asdict(recipe)), sort_keys=False)


def _build(kind: type, tree: dict, prefix: str) -> Any:
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    for key in tree:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"unknown key {prefix}{key}; did you mean {prefix}{near}? Known:"
                f" {', '.join(names)}."
            )
    values = {}
    for item in dataclasses.fields(kind):
        name, hint = prefix + item.name, hints[item.name]
        required = (
            item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        )
        if item.name not in tree:
            if required:
                raise ValueError(f"{name} must be given; the recipe lacks it.")
            continue
        value = tree[item.name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise ValueError(f"{name} must be a section; got {value!r}.")
            values[item.name] = _build(typing.cast(type, hint), value, f"{name}.")
        else:
            values[item.name] = _convert(value, hint, name)
    return kind(**values)


def _convert(value: Any, hint: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), name)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise ValueError(
                f"{name} must be one of {', '.join(map(str, arguments))}; got {value!r}."
            )
        return value
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{name} must be a mapping; got {value!r}.")
        return {str(k): _convert(v, arguments[1], f"{name}.{k}") for k, v in value.items()}
    if origin is tuple:
        if not isinstance(value, list | tuple) or (
            Ellipsis not in arguments and len(value) != len(arguments)
        ):
            raise ValueError(
                f"{name} must be a list{'' if Ellipsis in arguments else f' of {len(arguments)}'};"
                f" got {value!r}."
            )
        return tuple(_convert(v, arguments[0], f"{name}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-5 as text
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{name} must be a number; got {value!r}.") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{name} must be of type {hint.__name__}; got {value!r}.")
    return value
