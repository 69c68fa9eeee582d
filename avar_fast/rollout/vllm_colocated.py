"""The vLLM engine inside each rank's process. It receives the trained weights as tensors."""

import os
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.distributed import is_initialized
from transformers import AutoConfig

from ..config.rollout import RolloutConfig
from ..data import Sample
from ..extras import lack_of
from .engine import RolloutError
from .generate import Rollouts, Sampling
from .vllm_samples import (
    BANNED,
    as_rollouts,
    draw_seeds,
    images_of,
    require_same_prompt,
    unexpanded,
)
from .weights import merged_weights

# Keeps vLLM's engine in this process, so that it can receive tensors.
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


class VllmEngine:
    """One vLLM engine per rank, on the rank's own device.

    Args:
        path: folder or hub name of the model with whole weights (no adapters).
        dtype: dtype of the trainer's weights.
        config: the recipe's rollout section.
        max_length: most tokens of prompt and completion together; None for the model's
            limit.
        max_rows: most completions at the same time.

    Raises:
        RolloutError: vLLM is not installed.
    """

    def __init__(
        self, path: str, dtype: str, config: RolloutConfig, max_length: int | None, max_rows: int
    ) -> None:
        if lack := lack_of("vllm", "rollout.engine=vllm"):
            raise RolloutError(f"{lack}, or set rollout.engine=model.")
        os.environ.update(IN_PROCESS)
        try:
            import vllm  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise RolloutError(
                f"rollout.engine=vllm needs the package vllm, whose import fails: {error}. Install"
                " it anew, or set rollout.engine=model."
            ) from None
        limit = AutoConfig.from_pretrained(path).get_text_config().max_position_embeddings
        options: dict[str, Any] = {}
        if config.kv_cache_gib is not None:
            options["kv_cache_memory_bytes"] = int(config.kv_cache_gib * 2**30)
        self._vllm = vllm
        self._llm: Any = vllm.LLM(
            model=path,
            dtype=dtype,  # pyright: ignore[reportArgumentType]
            max_model_len=limit if max_length is None else min(max_length, limit),
            max_num_seqs=max_rows,
            gpu_memory_utilization=config.gpu_memory,
            enforce_eager=not config.cuda_graphs,
            enable_sleep_mode=config.sleep,
            # Each rank has its own engine, within the ranks' existing process group.
            distributed_executor_backend="external_launcher" if is_initialized() else "uni",
            # Log-probabilities of the sampled distribution, after temperature and bans.
            logprobs_mode="processed_logprobs",
            # The model's own generation_config would add top-k and a repetition penalty.
            generation_config="vllm",
            limit_mm_per_prompt={"video": 0},
            **options,
        )
        self._sleeps = config.sleep

    def generate(self, prompts: Sequence[Sample], sampling: Sampling) -> Rollouts:
        """Completes every prompt ``sampling.num_samples`` times.

        Raises:
            WrongEngineError: vLLM tokenizes a prompt differently.
        """
        requests, settings = [], []
        for sample, seed in zip(prompts, draw_seeds(len(prompts)), strict=True):
            prompt: dict[str, Any] = {
                "prompt_token_ids": unexpanded(sample.prompt_ids, sampling.banned_ids)
            }
            if sample.row.images:
                prompt["multi_modal_data"] = {"image": images_of(sample)}
            requests.append(prompt)
            settings.append(
                self._vllm.SamplingParams(
                    n=sampling.num_samples,
                    temperature=sampling.temperature,
                    max_tokens=sampling.max_new_tokens,
                    seed=seed,
                    stop_token_ids=list(sampling.eos_ids),
                    ignore_eos=True,  # only stop_token_ids end a completion
                    logit_bias=dict.fromkeys(sampling.banned_ids, BANNED),
                    logprobs=0,
                    detokenize=False,
                )
            )
        answers = self._llm.generate(requests, settings, use_tqdm=False)
        ids: list[list[int]] = []
        log_probs: list[list[float]] = []
        for sample, answer in zip(prompts, answers, strict=True):
            require_same_prompt(sample, answer.prompt_token_ids, "vLLM")
            for output in sorted(answer.outputs, key=lambda output: output.index):
                tokens = list(output.token_ids)
                ids.append(tokens)
                log_probs.append(
                    [at[t].logprob for at, t in zip(output.logprobs, tokens, strict=True)]
                )
        return as_rollouts(ids, log_probs, sampling)

    def sync_weights(self, model: nn.Module) -> None:
        weights = merged_weights(model)
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self._llm.apply_model(_pack_tied_head)
        self.forget()

    def forget(self) -> None:
        """Clears all caches of earlier weights: keys and values of prompts, and outputs of the
        vision tower."""
        self._llm.reset_prefix_cache()
        self._llm.llm_engine.reset_mm_cache()
        self._llm.llm_engine.reset_encoder_cache()

    def sleep(self) -> None:
        if self._sleeps:
            self._llm.sleep(level=2)  # drops the weights; sync_weights restores them

    def wake(self) -> None:
        if self._sleeps:
            self._llm.wake_up()

    def close(self) -> None:
        """Ends the engine and its process groups. vLLM's own shutdown would also end the
        trainer's."""
        client = self._llm.llm_engine.engine_core
        if client._finalizer.detach() is not None:
            client.engine_core.model_executor.shutdown()
            self._vllm.distributed.destroy_model_parallel()


def _pack_tied_head(model: Any) -> None:
    """Updates the packed copy of the LM head after a reload. vLLM's CPU build multiplies with this
    copy, and does not update it if the head shares the embedding's weights. On a GPU there is no
    copy and this does nothing."""
    head = model.get_language_model().lm_head
    head.quant_method.process_weights_after_loading(head)
