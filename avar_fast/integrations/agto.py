"""AGTO in any trainer that derives from transformers' Trainer."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from avar_kernels import KeyType
from torch import Tensor, nn

from ..attention import (
    Recording,
    SpecialTokens,
    query_mask,
    record_attention,
    sees_image,
)
from ..attention.attached import attachment_of
from ..attention.masses import require_types
from ..attention.visual_ids import without_featureless
from ..config.agto import AgtoConfig
from ..objectives import AgtoParts, agto_loss, scheduled_weights
from .fit import require_fit, require_token_mean

IGNORE = -100  # transformers' label of tokens without a loss
OFFSETS = "cu_seq_lens_q"  # transformers' argument with the offsets of packed samples


class AgtoMixin:
    """Adds AGTO to the loss of a trainer: ``class MyTrainer(AgtoMixin, SFTTrainer)``.

    The gradient of an optimizer step is that of the whole batch, however it is divided into
    micro-batches and ranks. AGTO is a mean over all samples of the step with image keys, system
    keys and queries. The LM loss is a mean over all target tokens of the step, with
    ``average_tokens_across_devices`` (the default) over those of all ranks. Without the mixin,
    transformers takes the mean of the micro-batches' means for Qwen-VL models.

    The model must be attached (``avar_fast.attention.attach`` or ``use_avar``). It may be wrapped
    (PEFT, DDP). Gradient checkpointing must be non-reentrant. The loss of evaluation is the LM loss
    alone. Logs get ``agto_enhance`` and ``agto_suppress``, the terms without their
    weights, and ``agto_skipped``, the number of samples without AGTO; all of this rank since the
    last log.

    Args:
        agto: keys of a recipe's section ``agto``, such as ``{"alpha": 0.1}``; the others have the
            recipe's defaults. ``enabled`` is true by default.
        mean_of_means: whether the LM loss stays transformers' mean of the micro-batches' means.
        visual, system: key types that take the place of the image and of the system turn, such as
            those of ``attach(classify=)``.

    Raises:
        ValueError: a key or value of ``agto`` is wrong, the model is not attached or has no such
            key types, or a setting of the trainer does not fit.
    """

    def __init__(
        self,
        *args: Any,
        agto: Mapping[str, Any] | None = None,
        mean_of_means: bool = False,
        visual: int = KeyType.VISUAL,
        system: int = KeyType.SYSTEM,
        **kwargs: Any,
    ) -> None:
        self.agto = _settings(agto or {})
        self._agto_visual, self._agto_system = visual, system
        self._agto_count: Tensor | None = None
        self._agto_sums: Tensor | None = None
        initialize: Any = super().__init__
        initialize(*args, **kwargs)
        trainer: Any = self
        if not self.agto.enabled:
            return
        self._agto_typing = attachment_of(trainer.model).typing
        require_types(self._agto_typing.num_types, visual=visual, system=system)
        require_fit(trainer)
        if not mean_of_means:
            require_token_mean(trainer)
            # The trainer then counts the targets of a step, and the model divides by their number.
            trainer.model_accepts_loss_kwargs = True

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The micro-batches of a step, as the trainer collects them. Their samples are counted."""
        trainer: Any = super()
        batches, num_items = trainer.get_batch_samples(*args, **kwargs)
        if self.agto.enabled:
            self._agto_count = self._count(batches)
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The trainer's loss of a micro-batch, plus AGTO in training."""
        trainer: Any = super()
        options = {"return_outputs": return_outputs, "num_items_in_batch": num_items_in_batch}
        if not (self.agto.enabled and model.training):
            return trainer.compute_loss(model, inputs, **options)
        queries = _queries(inputs, self.agto.queries, self._agto_typing.tokens)
        with record_attention(model, self.agto.layers) as recording:
            found = trainer.compute_loss(model, inputs, **options)
        loss, outputs = found if return_outputs else (found, None)
        extra = self._agto_loss(recording, queries) * self._agto_scale(num_items_in_batch)
        loss = loss + extra.to(loss.device)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds AGTO's terms to the trainer's logs."""
        if self._agto_sums is not None and "loss" in logs:
            enhance, suppress, count, skipped = self._agto_sums.tolist()
            self._agto_sums = None
            logs = logs | {
                "agto_enhance": enhance / max(count, 1),
                "agto_suppress": suppress / max(count, 1),
                "agto_skipped": skipped,
            }
        trainer: Any = super()
        trainer.log(logs, *args, **kwargs)

    def _count(self, batches: list[Any]) -> Tensor:
        """The samples of a step with image keys, system keys and queries, over all ranks."""
        accelerator = self.accelerator  # pyright: ignore[reportAttributeAccessIssue]
        count = torch.zeros((), device=accelerator.device)
        tokens = self._agto_typing.tokens
        for batch in batches:
            queries = _queries(batch, self.agto.queries, tokens)
            ids = without_featureless(batch["input_ids"], batch, tokens)
            types = self._agto_typing(ids, batch.get("attention_mask"))
            seeing = (queries & sees_image(types, visual=self._agto_visual)).any(dim=1)
            has_system = (types == self._agto_system).any(dim=1)
            count += (seeing & has_system).sum().to(count.device)
        return accelerator.reduce(count, reduction="sum")

    def _agto_loss(self, recording: Recording, queries: Tensor) -> Tensor:
        """This micro-batch's share of the step's AGTO."""
        if self._agto_count is None:
            raise RuntimeError(
                "AgtoMixin must count the samples of a step in get_batch_samples; this"
                f" {type(self).__name__} trains without calling it. Use Trainer.train, or the"
                " own loop of docs/drop-in.md."
            )
        if not any(mass.requires_grad for mass in recording.mass.values()):
            raise RuntimeError(
                "the recorded attention must have a gradient; it has none. Either no layer at or"
                " below the recorded ones is trained, or the trainer's compute_loss runs another"
                " forward without gradient after the one of the loss (SFTTrainer does so with"
                " label_smoothing_factor or compute_loss_func: leave them out)."
            )
        state = self.state  # pyright: ignore[reportAttributeAccessIssue]
        weights = scheduled_weights(self.agto, state.global_step, state.max_steps)
        device_type = queries.device.type
        types, image = recording.key_types, self._agto_visual
        assert types is not None
        with torch.autocast(device_type, enabled=False):  # masses stay float32
            loss, parts = agto_loss(
                recording.mass,
                queries & sees_image(types, visual=image),
                types,
                *weights,
                self.agto.eps,
                num_samples=self._agto_count.clamp(min=1),
                eps_in=self.agto.eps_in,
                visual=image if self.agto.enhance_keys == "image" else KeyType.TEXT,
                system=self._agto_system,
            )
        sums = _sums(parts)
        self._agto_sums = sums if self._agto_sums is None else self._agto_sums + sums
        return loss

    def _agto_scale(self, num_items_in_batch: Tensor | int | None) -> int:
        """The factor that undoes the trainer's division by the number of micro-batches, where it
        divides, and the mean over ranks that data parallelism takes of gradients."""
        trainer: Any = self
        accepts = trainer.model_accepts_loss_kwargs and num_items_in_batch is not None
        divides = not accepts and trainer.compute_loss_func is None
        steps = trainer.current_gradient_accumulation_steps if divides else 1
        return steps * trainer.accelerator.num_processes


def _settings(given: Mapping[str, Any]) -> AgtoConfig:
    known = [field.name for field in dataclasses.fields(AgtoConfig)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"agto must have keys of {', '.join(known)}; got {', '.join(unknown)}.")
    values: dict[str, Any] = {"enabled": True} | dict(given)
    return AgtoConfig(**values)


def _queries(inputs: Any, role: str, tokens: SpecialTokens) -> Tensor:
    """(B, L) bool: the queries of a micro-batch.

    Raises:
        ValueError: it has no input_ids, or holds packed samples.
    """
    if not isinstance(inputs, Mapping) or "input_ids" not in inputs:
        got = ", ".join(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise ValueError(
            f"AGTO needs input_ids in every micro-batch; got {got}. AgtoMixin is for supervised"
            " trainers, whose data collator makes them."
        )
    ids: Tensor = inputs["input_ids"]
    offsets = inputs.get(OFFSETS)
    if offsets is not None and len(offsets) - 1 > len(ids):
        raise ValueError(
            f"AgtoMixin needs one sample per row; got {len(offsets) - 1} packed samples in"
            f" {len(ids)} row. Set packing=False and padding_free=False."
        )
    ids = without_featureless(ids, dict(inputs), tokens)
    mask = query_mask(ids, inputs.get("attention_mask"), role=role, tokens=tokens)
    labels = inputs.get("labels")
    # A conversation may have turns that are not trained.
    if role == "response" and labels is not None:
        mask = mask & (labels != IGNORE)
    return mask


def _sums(parts: AgtoParts) -> Tensor:
    """(4,) float32: both terms summed over samples, the samples, and the skipped ones."""
    count = parts.num_samples
    sums = (parts.enhance * count, parts.suppress * count, count, parts.num_skipped)
    return torch.stack([x.float() for x in sums])
