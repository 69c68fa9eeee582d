"""The report of ``python -m avar_fast.data check``: contents of a data set and its bad rows."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Recipe
from ..progress import progress
from .encode import Encoder
from .measure import Measured, measure_rows
from .order import PackOrder
from .problems import printable
from .rows import Rows, load_rows

BAR_WIDTH = 40


@dataclass(frozen=True)
class Report:
    """The report of a data set."""

    text: str
    num_unusable: int
    """Rows that would stop the run, or would be skipped as unusable."""


def check(
    recipe: Recipe,
    tokenizer: Any,
    image_processor: Any,
    listed: int = 20,
    tokens_per_s: float | None = None,
) -> Report:
    """Reads every row and image of the recipe's data set; a bad row does not stop it.

    Args:
        recipe: the recipe of the run.
        tokenizer: the model's tokenizer.
        image_processor: the model's image processor, with the recipe's limits.
        listed: most unusable rows, and most overlong rows, to list.
        tokens_per_s: throughput over all ranks; if None, the throughput in the log of
            ``train.output_dir`` is used if there is one.

    Raises:
        ValueError: the data set cannot be opened.
    """
    data = recipe.data
    rows = load_rows(data.path, data.split, data.limit, keep_bad_lines=True)
    encoder = Encoder(
        tokenizer,
        image_processor,
        data.system_prompt,
        data.max_length,
        data.overlong,
        recipe.fields_needed,
        with_target=recipe.stage == "sft",
        train_turns=data.train_turns,
    )
    started = time.perf_counter()
    reading = measure_rows(rows, encoder, range(len(rows)), data.workers, decode=True)
    measured = list(progress(reading, desc="reading rows", total=len(rows), leave=False))
    seconds = time.perf_counter() - started
    bad = [m for m in measured if m.problem and not m.overlong]
    overlong = [m for m in measured if m.overlong]
    sections = [_counts(recipe, rows, measured, seconds), _lengths(recipe, measured)]
    if bad:
        sections.append(_listed(f"{len(bad)} rows cannot be used", bad, listed))
    if overlong:
        fate = "dropped" if data.overlong != "error" else "an error in training"
        sections.append(_listed(f"{len(overlong)} rows are overlong ({fate})", overlong, listed))
    sections.append(_plan(recipe, measured, tokens_per_s))
    stops = len(bad) + (len(overlong) if data.overlong == "error" else 0)
    sections.append(f"{stops} rows that training cannot use" if stops else "every row can be used")
    return Report("\n\n".join(section for section in sections if section), stops)


def _counts(recipe: Recipe, rows: Rows, measured: Sequence[Measured], seconds: float) -> str:
    readable = [m for m in measured if m.schema]
    schemas = Counter(m.schema for m in readable)
    counts = ", ".join(f"{name} ({count} rows)" for name, count in schemas.most_common())
    text_only = sum(m.num_images == 0 for m in readable)
    cut = sum(m.size is not None and m.size.num_cut > 0 for m in measured)
    lines = [
        f"data set     {recipe.data.path}",
        f"columns      {printable(', '.join(rows.columns())) or 'no row could be read'}",
        f"schema       {counts or 'none known'}",
        f"rows         {len(measured)}",
        f"images       {sum(m.num_images for m in readable)}"
        f" (most in a row: {max((m.num_images for m in readable), default=0)})",
        f"text only    {text_only} rows",
        f"read         {len(measured) / max(seconds, 1e-9):.0f} rows/s with"
        f" {recipe.data.workers or 1} process(es), images decoded",
    ]
    earlier = [m.size.turns - 1 for m in measured if m.size is not None and m.size.turns > 1]
    if earlier and recipe.stage == "sft":
        fate = "trained" if recipe.data.train_turns == "all" else "not trained"
        lines.append(
            f"turns        {sum(earlier)} earlier assistant turns in {len(earlier)} rows, {fate}"
            f" (data.train_turns={recipe.data.train_turns})"
        )
    notes = Counter(note for m in measured for note in m.notes)
    lines += [f"note         {note}: {count} rows" for note, count in notes.items()]
    if cut:
        lines.append(f"cut          {cut} rows to data.max_length = {recipe.data.max_length}")
    return "\n".join(lines)


def _lengths(recipe: Recipe, measured: Sequence[Measured]) -> str:
    """The token counts and their histogram."""
    sizes = [m.size for m in measured if m.size is not None]
    if not sizes:
        return ""
    tokens = [size.tokens for size in sizes]
    targets = sum(size.target + size.earlier for size in sizes)
    lines = [
        f"tokens       {sum(tokens)}: mean {statistics.mean(tokens):.0f}, median"
        f" {statistics.median(tokens):.0f}, longest {max(tokens)} of data.max_length ="
        f" {recipe.data.max_length}",
        f"target       {targets} tokens ({targets / sum(tokens):.1%})",
        "length       rows",
    ]
    # Bins of powers of two show short rows in detail even if others have thousands of tokens.
    bins = Counter(max(length - 1, 1).bit_length() for length in tokens)
    most = max(bins.values())
    for power in range(min(bins), max(bins) + 1):
        bar = "#" * round(BAR_WIDTH * bins[power] / most)
        lines.append(f"  <= {2**power:<7} {bins[power]:>8} {bar}".rstrip())
    return "\n".join(lines)


def _listed(title: str, measured: Sequence[Measured], most: int) -> str:
    lines = [f"{title}:"] + [f"  {m.problem}" for m in measured[:most]]
    if len(measured) > most:
        lines.append(f"  ... and {len(measured) - most} more")
    return "\n".join(lines)


def _plan(recipe: Recipe, measured: Sequence[Measured], tokens_per_s: float | None) -> str:
    """Estimates packs, steps and time of an epoch and of the run."""
    data, train = recipe.data, recipe.train
    sizes = {m.index: m.size.tokens for m in measured if m.size is not None}
    if not sizes:
        return ""
    lines, units, unit_name = [], len(sizes), "rows"
    if data.packing:
        order = PackOrder(
            list(sizes), list(sizes.values()), data.pack_capacity, train.seed, data.shuffle
        )
        units, unit_name = len(order.packs(0)), "packs"
        filled = sum(sizes.values()) / (units * data.pack_capacity)
        lines.append(
            f"packs        {units} of {data.pack_capacity} tokens in the first epoch, {filled:.1%}"
            f" filled, {len(sizes) / units:.1f} rows each"
        )
    steps = units / recipe.units_per_step
    lines += [
        f"steps        {steps:.1f} per epoch at {recipe.units_per_step} {unit_name} a step",
        f"run          {train.steps} steps are {train.steps / steps:.2f} epochs",
    ]
    if recipe.stage == "sft":
        per_step = sum(sizes.values()) / steps
        lines.append(_time(recipe, train.steps * per_step, sum(sizes.values()), tokens_per_s))
    else:
        lines.append("time         not estimated: in stage grpo it depends on the rollouts")
    return "\n".join(lines)


def _time(
    recipe: Recipe, run_tokens: float, epoch_tokens: float, tokens_per_s: float | None
) -> str:
    log = Path(recipe.train.output_dir) / "log.jsonl"
    source = "as given"
    if tokens_per_s is None and log.is_file():
        rates = _rates(log)
        if rates:
            tokens_per_s, source = (
                statistics.median(rates),
                f"median of {len(rates)} steps of {log}",
            )
    if tokens_per_s is None:
        return (
            "time         not estimated: pass --tokens-per-s, which every step of a training log"
            f" reports, or run a few steps into {recipe.train.output_dir}"
        )
    hours = run_tokens / tokens_per_s / 3600
    epoch = epoch_tokens / tokens_per_s / 3600
    return (
        f"time         estimated {hours:.2f} h for the run, {epoch:.2f} h per epoch, at"
        f" {tokens_per_s:.0f} tokens/s ({source})"
    )


def _rates(log: Path) -> list[float]:
    """tokens_per_s of the steps in a log, except the first, which includes warm-up. Cut-off lines
    are ignored."""
    rates: list[float] = []
    for line in log.read_text().splitlines():
        try:
            entry: Any = json.loads(line)
            rates.append(float(entry["tokens_per_s"]))
        except (ValueError, KeyError, TypeError):
            continue
    return rates[1:] or rates
