"""The engine that samples from a vLLM server over HTTP. The server reads the trained weights from
a folder."""

import base64
import io
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from ..chat.access import is_loopback
from ..config.rollout import RolloutConfig
from ..data import Sample
from ..data.problems import shown
from ..extras import lack_of
from .engine import RolloutError
from .generate import Rollouts, Sampling
from .vllm_samples import (
    BANNED,
    WrongEngineError,
    as_rollouts,
    draw_seeds,
    images_of,
    require_same_prompt,
)
from .weights import merged_weights

RETRIES = 5  # retries of a request; the openai client sets the waits between them
POLL_SECONDS = 2.0
CACHES = ("reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache")


class ServerError(RolloutError):
    """The server does not answer, or its answer is wrong."""


class VllmServer:
    """The client of a server that all ranks share.

    Args:
        config: the recipe's rollout section.
        folder: folder for the weights, which rank 0 writes; None if they never change.
        system_prompt: system turn for rows without one.
        max_length: tokens of prompt and completion together that the server must take.

    Raises:
        RolloutError: the openai client is not installed.
        ServerError: the server does not answer within ``config.server_seconds``, or is not vLLM.
        WrongEngineError: the server accepts fewer than ``max_length`` tokens.
    """

    def __init__(
        self, config: RolloutConfig, folder: Path | None, system_prompt: str | None, max_length: int
    ) -> None:
        if lack := lack_of("openai", "rollout.engine=vllm_server"):
            raise RolloutError(f"{lack}.")
        import openai

        assert config.server_url is not None
        self._url, self._folder = config.server_url.rstrip("/"), folder
        self._system_prompt, self._config, self._openai = system_prompt, config, openai
        direct = is_loopback(self._url)
        self._client: Any = openai.OpenAI(
            base_url=f"{self._url}/v1",
            api_key="none",
            timeout=config.server_seconds,
            max_retries=RETRIES,
            http_client=openai.DefaultHttpxClient(trust_env=False) if direct else None,
        )
        self._model = self._find_model(max_length)
        self._pool = ThreadPoolExecutor(config.server_requests)

    def _find_model(self, max_length: int) -> str:
        """Waits until the server answers; returns the name of the served model."""
        served = self._first_served()
        limit = served.get("max_model_len")
        if limit is not None and limit < max_length:
            raise WrongEngineError(
                f"the server at {self._url} takes {limit} tokens; prompts and completions (in"
                f" training data.max_length + grpo.max_new_tokens) may have {max_length}. Start it"
                f" with --max-model-len {max_length}, or allow fewer."
            )
        return served["id"]

    def _first_served(self) -> dict[str, Any]:
        """Waits until the server answers; returns the first model that it lists."""
        deadline = time.monotonic() + self._config.server_seconds
        tries = 0
        while True:
            tries += 1
            try:
                client = self._client.with_options(max_retries=0, timeout=10.0)
                models = client.get("/models", cast_to=object)
                break
            except self._openai.OpenAIError as error:
                if time.monotonic() + POLL_SECONDS > deadline:
                    raise ServerError(
                        f"rollout.server_url must be a vLLM server; {self._url}/v1/models did not"
                        f" answer in {self._config.server_seconds:g} s, tried {tries} times; the"
                        f" last: {_reason(error)}. Start the server, or raise"
                        " rollout.server_seconds."
                    ) from None
                time.sleep(POLL_SECONDS)
        match models:
            case {"data": [{"id": str()} as served, *_]}:
                return served
        raise ServerError(
            f"rollout.server_url must be a vLLM server; {self._url}/v1/models lists no model:"
            f" {shown(models)}. Give the address that vllm serve prints, without /v1."
        )

    def generate(self, prompts: Sequence[Sample], sampling: Sampling) -> Rollouts:
        """Completes every prompt ``sampling.num_samples`` times.

        Raises:
            WrongEngineError: the server tokenizes a prompt differently, or sends no token ids.
            ServerError: a request fails after all retries.
        """
        seeds = draw_seeds(len(prompts))
        answers = list(self._pool.map(self._complete, prompts, seeds, [sampling] * len(seeds)))
        choices = [choice for answer in answers for choice in answer]
        ids = [choice.token_ids for choice in choices]
        log_probs = [[token.logprob for token in choice.logprobs.content] for choice in choices]
        return as_rollouts(ids, log_probs, sampling)

    def _complete(self, sample: Sample, seed: int, sampling: Sampling) -> list[Any]:
        try:
            answer = self._client.chat.completions.create(
                model=self._model,
                messages=self._messages(sample),
                n=sampling.num_samples,
                temperature=sampling.temperature,
                max_tokens=sampling.max_new_tokens,
                seed=seed,
                logprobs=True,
                top_logprobs=0,
                logit_bias={str(token): BANNED for token in sampling.banned_ids},
                top_p=1.0,
                extra_body={  # a server's defaults come from the model's generation_config
                    "top_k": 0,
                    "min_p": 0.0,
                    "repetition_penalty": 1.0,
                    "stop_token_ids": list(sampling.eos_ids),
                    "ignore_eos": True,
                    "return_token_ids": True,
                },
            )
        except self._openai.OpenAIError as error:
            raise ServerError(
                f"{sample.row.where}: the server at {self._url} must complete the prompt; tried"
                f" {RETRIES + 1} times, the last: {_reason(error)}."
            ) from None
        echoed = getattr(answer, "prompt_token_ids", None)
        require_same_prompt(sample, echoed, f"the server at {self._url}")
        return sorted(answer.choices, key=lambda choice: choice.index)

    def _messages(self, sample: Sample) -> list[dict[str, Any]]:
        row, images = sample.row, iter(images_of(sample))
        turns = []
        if self._system_prompt is not None and row.messages[0]["role"] != "system":
            turns.append({"role": "system", "content": self._system_prompt})
        for turn in row.messages:
            parts = []
            for part in turn["content"]:
                if part["type"] == "image":
                    address = _data_uri(next(images))
                    parts.append({"type": "image_url", "image_url": {"url": address}})
                else:
                    parts.append({"type": "text", "text": part["text"]})
            turns.append({"role": turn["role"], "content": parts})
        return turns

    def sync_weights(self, model: nn.Module) -> None:
        """Writes the weights to the folder on rank 0 and makes the server load them.

        Raises:
            ServerError: the server cannot load the weights; only on rank 0. The other ranks wait
                until the launcher ends them.
        """
        if torch.distributed.get_rank() == 0:
            assert self._folder is not None
            self._folder.mkdir(parents=True, exist_ok=True)
            weights = {name: x.cpu().contiguous() for name, x in merged_weights(model)}
            save_file(weights, self._folder / "model.safetensors", metadata={"format": "pt"})
            arguments = {"weights_path": str(self._folder.resolve())}
            self._post("collective_rpc", {"method": "reload_weights", "kwargs": arguments})
            for cache in CACHES:
                self._post(cache, None)
        torch.distributed.barrier()

    def _post(self, path: str, body: dict[str, Any] | None) -> None:
        try:
            self._client.post(f"{self._url}/{path}", body=body, cast_to=object)
        except self._openai.OpenAIError as error:
            raise ServerError(
                f"the server at {self._url} must take new weights; POST /{path} says:"
                f" {_reason(error)}. It must serve the model of model.path, be started with"
                f" VLLM_SERVER_DEV_MODE=1, and read {self._folder} (rollout.server_folder)."
            ) from None

    def sleep(self) -> None:
        """Does nothing: the server manages its own memory."""

    def wake(self) -> None:
        """Does nothing, as ``sleep``."""

    def close(self) -> None:
        self._pool.shutdown()
        self._client.close()


def _data_uri(image: Any) -> str:
    """An image as a data URI in PNG, which is lossless."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _reason(error: Exception) -> str:
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    return f"{error}{cause}"[:300]
