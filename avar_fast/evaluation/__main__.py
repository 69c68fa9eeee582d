"""Evaluates a checkpoint: ``python -m avar_fast.evaluation MODEL DATA [--out RESULT.json]``."""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from ..attention import attach
from ..data import load_rows
from ..loading import load
from .exact_match import evaluate


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="avar_fast.evaluation", description=__doc__)
    parser.add_argument("model", help="folder or hub name that from_pretrained loads")
    parser.add_argument("data", help="rows with answers: .jsonl, .json, parquet or a hub name")
    parser.add_argument("--out", help="write the result as JSON")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="take only the first rows")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=2048)
    parser.add_argument("--system-prompt", default="You are a helpful assistant.")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--name", default="evaluate", help="title of the progress bar")
    options = parser.parse_args(arguments)
    transformers_logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        rows = load_rows(options.data, options.split, options.limit)
        loaded = load(options.model, getattr(torch, options.dtype), device)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    attach(loaded.model, loaded.tokenizer)
    result = evaluate(
        loaded.model,
        loaded.tokenizer,
        loaded.image_processor,
        rows,
        system_prompt=options.system_prompt,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        name=options.name,
    )
    if options.out:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        Path(options.out).write_text(json.dumps(result.as_dict(), indent=1))
    print(
        f"exact match {result.exact_match:.3f} on {result.num_rows} rows"
        f" {result.exact_match_by_style}; VAS {result.vas}"
    )


if __name__ == "__main__":
    main()
