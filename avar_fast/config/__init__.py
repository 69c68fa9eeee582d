"""The recipe of a run: what can be set, and how it is read."""

from .recipe_file import dump_recipe, load_recipe, read_recipe
from .schema import Recipe

__all__ = ["Recipe", "dump_recipe", "load_recipe", "read_recipe"]
