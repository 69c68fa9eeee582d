"""Command-line options of the judge."""

import argparse
import json
from collections.abc import Sequence

from ...extras import lack_of
from ..benchmark import JudgedBenchmark
from ..benchmarks import BENCHMARKS
from ..tasks import EvalTask
from .config import JudgeConfig


def add_judge(parser: argparse.ArgumentParser) -> None:
    judge = parser.add_argument_group(
        "judge",
        "ask a language model about answers that the rules of"
        f" {', '.join(_judged())} do not score as right; off by default",
    )
    judge.add_argument(
        "--judge-url", help="address of an endpoint that speaks OpenAI's protocol, up to /v1"
    )
    judge.add_argument("--judge-model", default="", help="model name at the endpoint")
    judge.add_argument(
        "--judge-key-env", metavar="NAME", help="environment variable that holds the key"
    )
    judge.add_argument("--judge-seconds", type=float, default=120.0, help="seconds per attempt")
    judge.add_argument(
        "--judge-requests", type=int, default=8, help="requests at the same time, per rank"
    )
    judge.add_argument(
        "--judge-body",
        default='{"temperature": 0}',
        metavar="JSON",
        help="further fields of its requests",
    )


def _judged() -> list[str]:
    """Names of the benchmarks that can use a judge."""
    return [name for name, task in BENCHMARKS.items() if isinstance(task, JudgedBenchmark)]


def judge_of(options: argparse.Namespace, tasks: Sequence[EvalTask]) -> JudgeConfig | None:
    """Reads the judge from the options; None if no judge was requested.

    Raises:
        ValueError: a setting is invalid, the key is missing, or no benchmark can use a judge.
    """
    if options.judge_url is None:
        if options.judge_model or options.judge_key_env:
            raise ValueError("--judge-model and --judge-key-env need --judge-url; got none.")
        return None
    try:
        body = json.loads(options.judge_body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ValueError(f"--judge-body must be a JSON object; got {options.judge_body!r}.")
    config = JudgeConfig(
        url=options.judge_url,
        model=options.judge_model,
        key_env=options.judge_key_env,
        seconds=options.judge_seconds,
        at_once=options.judge_requests,
        body=body,
    )
    config.read_key()  # report a missing key now and not after hours of generation
    if lack := lack_of("openai", "--judge-url", "avar_fast.evaluate"):
        raise ValueError(lack)
    if not any(isinstance(task.benchmark, JudgedBenchmark) for task in tasks):
        names = ", ".join(task.benchmark.name for task in tasks)
        raise ValueError(
            f"--judge-url is for {', '.join(_judged())}, whose official rule has a judge; got"
            f" {names}. Leave it out."
        )
    return config
