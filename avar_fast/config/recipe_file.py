"""Recipes from YAML and ``section.key=value``, and back; unknown keys are errors."""

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from .recipe import Recipe

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
    return _build(kind, tree, "", keys_of(kind))


def read_section(kind: type[Kind], name: str, settings: list[str]) -> Kind:
    """One section of a recipe from ``key=value`` alone.

    Raises:
        ValueError: as ``read_recipe``; keys are named with their section.
    """
    tree: dict[str, Any] = {}
    _override(tree, settings)
    return _build(kind, tree, f"{name}.", keys_of(kind, f"{name}."))


def keys_of(kind: type, prefix: str = "") -> list[str]:
    """Every ``section.key`` of a recipe's dataclass, and the names of its sections."""
    keys = []
    for name, hint in typing.get_type_hints(kind).items():
        keys.append(prefix + name)
        if dataclasses.is_dataclass(hint):
            keys += keys_of(typing.cast(type, hint), f"{prefix}{name}.")
    return keys


def is_required(item: dataclasses.Field) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


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


def _build(kind: type, tree: dict, prefix: str, known: list[str]) -> Any:
    """
    Args:
        kind: dataclass of the recipe, or of one of its sections.
        tree: the values that were given.
        prefix: of the tree's keys: empty, or the section's name and a dot.
        known: every key of the recipe, to name the nearest of an unknown one.
    """
    hints = typing.get_type_hints(kind)
    items = dataclasses.fields(kind)
    for key in tree:
        if key not in hints:
            raise ValueError(
                f"unknown key {prefix}{key}; did you mean {_nearest(f'{prefix}{key}', known)}?"
                f" Known: {', '.join(item.name for item in items)}."
            )
    values = {}
    for item in items:
        name, hint = prefix + item.name, hints[item.name]
        if item.name not in tree:
            if is_required(item):
                raise ValueError(f"{name} must be given; the recipe lacks it.")
            continue
        value = tree[item.name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise ValueError(f"{name} must be a section; got {value!r}.")
            values[item.name] = _build(typing.cast(type, hint), value, f"{name}.", known)
        else:
            values[item.name] = _convert(value, hint, name)
    return kind(**values)


def _nearest(unknown: str, known: list[str]) -> str:
    """The key whose last part is most alike, in any section; among equals the one in the same
    section, or else in the most similar one."""

    def likeness(key: str) -> tuple[float, bool, float]:
        (section, _, name), (own, _, given) = key.rpartition("."), unknown.rpartition(".")
        return _ratio(name, given), section == own, _ratio(section, own)

    return max(known, key=likeness)


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


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
