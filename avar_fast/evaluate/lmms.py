"""The model ``avar`` for lmms-eval. lmms-eval supplies tasks and scores, this project the model.

lmms-eval --model avar --model_args pretrained=MODEL,visual_scale=1.15,record=vas.jsonl --tasks ...
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from lmms_eval.api.instance import (  # pyright: ignore[reportMissingImports]
    GenerationResult,
    Instance,
    TokenCounts,
)
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]

from ..data import Row
from ..data.images import image_reference
from ..data.problems import bad_row
from ..progress import progress
from .answerer import Answerer
from .command import Model
from .ranks import local_device
from .settings import Settings

MAX_NEW_TOKENS = 2048  # for tasks that set no limit; reasoning is long


class Avar(lmms):
    """A Qwen-VL model with "avar" attention, interventions and the VAS of every prompt. It answers
    greedily.

    Args:
        pretrained: folder or hub name.
        batch_size: requests that are answered at the same time.
        dtype: float32 or bfloat16.
        system_prompt: system turn of requests that have none; empty for none.
        max_new_tokens: overrides the limit of the tasks, which is often too short for reasoning.
        min_pixels, max_pixels: smallest and largest image after resizing.
        record: JSON lines file for the VAS of every request; None does not measure VAS.
        visual_scale, system_scale, visual_bias, system_bias, form, changed_queries: see
            ``Settings``.
        layers: text layers to intervene in, by their index in the model, such as "0;1;5"; None for
            all with attention.
        device, max_batch_size: passed by lmms-eval and ignored; the device is this rank's.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        dtype: str = "bfloat16",
        system_prompt: str | None = Settings.system_prompt,
        max_new_tokens: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        record: str | None = None,
        visual_scale: float = 1.0,
        system_scale: float = 1.0,
        visual_bias: float = 0.0,
        system_bias: float = 0.0,
        layers: str | int | None = None,
        form: str = "logits",
        changed_queries: str = "all",
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        chosen = None if layers is None else tuple(int(x) for x in str(layers).split(";"))
        self._settings = Settings(
            system_prompt=system_prompt or None,
            max_new_tokens=max_new_tokens or MAX_NEW_TOKENS,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            vas=record is not None,
            visual_scale=float(visual_scale),
            system_scale=float(system_scale),
            visual_bias=float(visual_bias),
            system_bias=float(system_bias),
            layers=chosen,
            form=form,
            changed_queries=changed_queries,
        )
        self._settings.require_effect()
        self._max_new_tokens, self._batch_size = max_new_tokens, int(batch_size)
        self._record = None if record is None else Path(record)
        self.device = local_device()
        self._model = Model(pretrained, dtype, self.device)

    @property
    def model(self) -> torch.nn.Module:
        return self._model.loaded.model

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers the requests, in their order. Stop strings are ignored: most tasks stop at an
        empty line, but a chain of thought contains empty lines.

        Raises:
            ValueError: a request asks for sampling, or holds video or audio.
        """
        by_length: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            by_length.setdefault(self._length(request), []).append(i)
        answers: dict[int, GenerationResult] = {}
        for length, members in by_length.items():
            settings = dataclasses.replace(self._settings, max_new_tokens=length)
            answerer = Answerer(self._model.loaded, settings, self._batch_size)
            steps = range(0, len(members), answerer.chunk_size)
            for start in progress(steps, desc="avar", disable=self.rank != 0):
                numbers = members[start : start + answerer.chunk_size]
                answers |= self._answers(answerer, requests, numbers)
        return [answers[i] for i in range(len(requests))]

    def _answers(
        self, answerer: Answerer, requests: Sequence[Instance], numbers: list[int]
    ) -> dict[int, GenerationResult]:
        rows = [self._row(requests[i]) for i in numbers]
        responses = answerer.respond([answerer.encoder(row) for row in rows])
        if self._record is not None:
            with self._record.open("a", encoding="utf-8") as file:
                for i, response in zip(numbers, responses, strict=True):
                    if response.vas is None:
                        continue
                    _, _, _, doc_id, task, split = requests[i].args
                    line = {"task": task, "split": split, "doc_id": doc_id}
                    line |= {"vas": response.vas.scores, "num_queries": response.vas.num_queries}
                    file.write(json.dumps(line) + "\n")
        return {
            i: GenerationResult(response.text, TokenCounts(output_tokens=response.num_tokens))
            for i, response in zip(numbers, responses, strict=True)
        }

    def _length(self, request: Instance) -> int:
        generation = request.args[2]
        if generation.get("temperature") or generation.get("do_sample"):
            raise ValueError(
                "model avar answers greedily; the task asks for samples, with"
                f" {generation}. Use --gen_kwargs temperature=0,do_sample=False."
            )
        return int(self._max_new_tokens or generation.get("max_new_tokens") or MAX_NEW_TOKENS)

    def _row(self, request: Instance) -> Row:
        _, to_messages, _, doc_id, task, split = request.args
        where = f"{task} {split} {doc_id}"
        messages, images = [], []
        for message in to_messages(self.task_dict[task][split][doc_id]):
            content = []
            for part in message["content"]:
                if part["type"] == "image":
                    field = f"image {len(images)}"
                    images.append(image_reference(part["url"], where, field, Path()))
                elif part["type"] != "text":
                    raise bad_row(where, "a part", "be text or image", f"got {part['type']}")
                content.append(part if part["type"] == "text" else {"type": "image"})
            messages.append({"role": message["role"], "content": content})
        return Row(where, messages, images, None, (), "lmms-eval")

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("model avar generates; tasks of log-likelihoods are not served.")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        raise NotImplementedError("model avar answers in one turn; such tasks are not served.")
