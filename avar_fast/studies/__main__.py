"""``python -m avar_fast.studies``: studies of the Visual Attention Score; --help lists them."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..extras import needs

with needs("avar_fast.studies"):
    from tqdm import tqdm
    from transformers.utils import logging as transformers_logging

    from ..attention import attach
    from ..data import Rows, load_rows
    from ..evaluate import RowsTask, Settings
    from ..evaluate.arguments import layer_numbers
    from ..evaluate.benchmarks.rows import OwnRows
    from ..evaluate.command import Model, evaluate_once
    from ..evaluate.ranks import Ranks, local_device
    from ..evaluate.settings import differing_settings
    from ..evaluate.tasks import EvalTask
    from ..loading import Loaded, load, require_layers, require_model
    from ..missing import AS_OPTIONS
    from ..models import family_at
    from ..models.decoders import attention_layers
    from ..models.load_errors import naming_model
    from ..progress import progress
    from ..report.response_maps import ResponseMaps, response_maps
    from ..rewards import AnswerChecker
    from . import plots, texts
    from .arguments import bootstrap_of, build_parser, mass_settings
    from .compare import compare, require_names, require_same_shape
    from .correlate import PAPER, correlate, require_three
    from .heads import rank_heads
    from .look import Looked, rows_with_images, write_look
    from .masses import AttentionShape, collect, lacks_answer
    from .points import Point, read_point, require_same_questions
    from .score import summarize

Result = tuple[dict[str, Any], str]


@needs("avar_fast.studies")
def main(arguments: Sequence[str] | None = None) -> None:
    options = build_parser().parse_args(arguments)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        if options.out.exists() and not options.out.is_dir():
            raise ValueError(f"--out must be a folder; {options.out} is a file.")
        options.out.mkdir(parents=True, exist_ok=True)
        result, text = COMMANDS[options.command](options)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    path = options.out / f"{options.command}.json"
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    drawn = [path.with_suffix(end).name for end in (".png", ".html")]
    shown = [name for name in drawn if (options.out / name).is_file()]
    print(f"{text}\n\n{', '.join([str(path), *shown])}")


def score(options: argparse.Namespace) -> Result:
    """Measures the score of one model over a data set."""
    name, path = options.model
    settings = mass_settings(options)
    collected = collect(_open(path, options), _rows(options), settings, name)
    summary = summarize(collected, bootstrap_of(options))
    plots.plot_summary(options.out / "score.png", name, summary)
    result = {"model": path, **_conditions(options), **collected.sizes(), **summary.as_dict()}
    read = texts.data_text(collected, settings.intervention)
    return result, f"{read}\n\n{texts.summary_text(summary)}"


def compare_models(options: argparse.Namespace) -> Result:
    """Compares checkpoints with the first of them."""
    names, paths = zip(*options.models, strict=True)
    require_names(names)
    shapes = [_shape(path) for path in paths]
    for name, shape in zip(names, shapes, strict=True):
        require_same_shape(names[0], shapes[0], name, shape)
    rows, settings = _rows(options), mass_settings(options)
    collected = [
        collect(_open(path, options), rows, settings, name)
        for name, path in zip(names, paths, strict=True)
    ]
    comparison = compare(names, collected, options.threshold, bootstrap_of(options), options.moves)
    plots.plot_comparison(options.out / "compare.png", comparison)
    result = {
        "models": dict(options.models),
        "threshold_of_log_ratio": options.threshold,
        **_conditions(options),
        **collected[0].sizes(),
        "checkpoints": [
            {"name": name, **summary.as_dict()}
            for name, summary in zip(names, comparison.summaries, strict=True)
        ],
        "shifts": [shift.as_dict() for shift in comparison.shifts],
    }
    read = texts.data_text(collected[0], settings.intervention)
    return result, f"{read}\n\n{texts.comparison_text(comparison)}"


def correlate_points(options: argparse.Namespace) -> Result:
    """Correlates score and accuracy of finished results, or of models that it evaluates."""
    require_three(len(options.points))
    points = _points(options)
    require_same_questions(points)
    differing = differing_settings([point.settings for point in points])
    correlations = correlate(points, options.confidence)
    plots.plot_correlation(options.out / "correlate.png", points, correlations)
    result = {
        "points": [
            {"name": point.name, "accuracy": point.accuracy, "vas": point.vas} for point in points
        ],
        "differing": differing,
        "confidence": options.confidence,
        "correlations": [correlation.as_dict() for correlation in correlations],
        "paper": PAPER,
    }
    text = texts.correlation_text(correlations, len(points), options.confidence, differing)
    return result, text


def heads(options: argparse.Namespace) -> Result:
    """Ranks the heads of one model by visual mass and by the effect of masking."""
    name, path = options.model
    rows, settings = _rows(options), mass_settings(options)
    masks = tuple(dict.fromkeys(options.masks))
    ranking = rank_heads(_open(path, options), rows, settings, masks, bootstrap_of(options))
    plots.plot_heads(options.out / "heads.png", name, ranking)
    result = {"model": path, **_conditions(options), **ranking.as_dict()}
    return result, texts.heads_text(ranking, options.show)


def look(options: argparse.Namespace) -> Result:
    """Shows what one or two models look at while they answer rows."""
    if len(options.models) > 2 or len({name for name, _ in options.models}) < len(options.models):
        raise ValueError(
            "look takes one model, or two with names of their own; got"
            f" {', '.join(name for name, _ in options.models)}. Write NAME=PATH to name one."
        )
    layers = None if options.layers is None else list(layer_numbers(options.layers))
    for _, path in options.models:
        require_layers(path, layers)  # before the first answer is written
    rows = rows_with_images(load_rows(options.data, options.split, names=AS_OPTIONS), options.limit)
    prompt = options.system_prompt or None
    answers: list[dict[str, ResponseMaps]] = [{} for _ in rows]
    for name, path in options.models:
        loaded = _open(path, options)
        for row, of_row in zip(progress(rows, desc=name), answers, strict=True):
            of_row[name] = response_maps(loaded, row, prompt, options.max_new_tokens, layers)
        del loaded
    looked = Looked([row.where for row in rows], answers)
    which = "all layers with attention" if layers is None else f"layers {options.layers}"
    count = "The first row" if len(rows) == 1 else f"The first {len(rows)} rows"
    intro = f"{count} with an image of {options.data}; mean over the heads of {which}."
    write_look(options.out, looked, intro)
    result = {
        "models": dict(options.models),
        "data": {"path": options.data, "split": options.split, "limit": options.limit},
        "layers": layers,
        **looked.as_dict(),
    }
    return result, texts.look_text(looked)


COMMANDS = {
    "score": score,
    "compare": compare_models,
    "correlate": correlate_points,
    "heads": heads,
    "look": look,
}


def _points(options: argparse.Namespace) -> list[Point]:
    files = [Path(path).suffix == ".json" for _, path in options.points]
    if all(files):
        return [read_point(name, Path(path)) for name, path in options.points]
    if any(files) or options.data is None:
        raise ValueError(
            "correlate takes results (.json) alone, or models alone with --data; got"
            f" {sum(files)} results, {len(files) - sum(files)} models and --data {options.data}."
        )
    rows = _rows(options)
    for row in rows:
        if row.answer is None:
            raise lacks_answer(row.where, "accuracy")
    for _, path in options.points:
        require_model(path)  # report a wrong path before any model is evaluated
    with AnswerChecker(options.checker) as checker, Ranks() as ranks:
        points = []
        for number, (name, path) in enumerate(options.points, start=1):
            tqdm.write(f"[{number}/{len(options.points)}] {name}", file=sys.stderr)
            points.append(_evaluate(name, path, rows, checker, ranks, options))
        return points


def _evaluate(
    name: str,
    path: str,
    rows: Rows,
    checker: AnswerChecker,
    ranks: Ranks,
    options: argparse.Namespace,
) -> Point:
    """Evaluates a model. The result stays in a file that ``correlate`` accepts. The same command
    reuses the file if it is repeated."""
    settings = Settings(
        system_prompt=options.system_prompt or None,
        min_pixels=options.min_pixels,
        max_pixels=options.max_pixels,
        max_new_tokens=options.max_new_tokens,
        checker=options.checker,
    )
    result = options.out / "results" / f"{name.replace('/', '_')}.json"
    result.parent.mkdir(exist_ok=True)
    tasks: list[EvalTask] = [RowsTask(OwnRows(checker), rows, options.data, settings)]
    model = Model(path, _dtype(options), ranks.device)
    evaluate_once(result, model, settings, tasks, ranks, options.batch_size, None)
    return read_point(name, result)


def _rows(options: argparse.Namespace) -> Rows:
    return load_rows(options.data, options.split, options.limit, names=AS_OPTIONS)


def _shape(path: str) -> AttentionShape:
    """The layers and heads of a model, read from its configuration only."""
    with naming_model(path):
        text = family_at(path)[1].text_config
    return AttentionShape(attention_layers(text), text.num_attention_heads)


def _open(path: str, options: argparse.Namespace) -> Loaded:
    """Loads a model onto its device and attaches attention to it."""
    dtype = getattr(torch, _dtype(options))
    loaded = load(path, dtype, local_device(), options.min_pixels, options.max_pixels)
    attach(loaded.model, loaded.tokenizer)
    return loaded


def _dtype(options: argparse.Namespace) -> str:
    return options.dtype or ("bfloat16" if torch.cuda.is_available() else "float32")


def _conditions(options: argparse.Namespace) -> dict[str, Any]:
    """The settings on which the numbers depend, for the JSON."""
    return {
        "data": {"path": options.data, "split": options.split, "limit": options.limit},
        "pixels": {"min": options.min_pixels, "max": options.max_pixels},
        "reading": asdict(mass_settings(options)),
        "bootstrap": {"over": "rows", "method": "percentile", **asdict(bootstrap_of(options))},
    }


if __name__ == "__main__":
    main()
