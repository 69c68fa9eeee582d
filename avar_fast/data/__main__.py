"""Checks a data set before a run: ``python -m avar_fast.data check RECIPE [section.key=value
...]``."""

import argparse
import sys

from ..extras import needs

with needs("avar_fast.data"):
    from transformers.utils import logging as transformers_logging

    from ..config import load_recipe
    from ..loading import load_processors
    from .check import check

EXAMPLE = """example:
  python -m avar_fast.data check configs/qwen2.5-vl-7b-sft-agto.yaml data.path=rows.jsonl"""


@needs("avar_fast.data")
def main(arguments: list[str] | None = None) -> int:
    """Prints the report.

    Returns:
        0 if every row can be used, 1 if some cannot, 2 if the data set or the recipe cannot be
        read.
    """
    parser = argparse.ArgumentParser(
        prog="python -m avar_fast.data",
        description="Read a recipe's data set before a run: counts, lengths, bad rows, steps.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("check",), help="read every row and image")
    parser.add_argument("recipe", help="YAML recipe")
    parser.add_argument("overrides", nargs="*", help="section.key=value, values in YAML")
    parser.add_argument("--list", type=int, default=20, metavar="N", help="bad rows to list")
    parser.add_argument(
        "--tokens-per-s", type=float, help="throughput of all ranks, to estimate the time"
    )
    options = parser.parse_intermixed_args(arguments)
    transformers_logging.set_verbosity_error()
    try:
        recipe = load_recipe(options.recipe, options.overrides)
        data = recipe.data
        loaded = load_processors(recipe.model.path, data.min_pixels, data.max_pixels)
        report = check(
            recipe, loaded.tokenizer, loaded.image_processor, options.list, options.tokens_per_s
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.text)
    return 1 if report.num_unusable else 0


if __name__ == "__main__":
    sys.exit(main())
