"""Refuses what TRL can be told and the engine cannot do."""

from typing import Any

_OFF: dict[str, tuple[Any, ...]] = {
    "top_p": (1.0,),
    "top_k": (0, None),
    "min_p": (None, 0.0),
    "repetition_penalty": (1.0,),
    "cache_implementation": (None,),
    "use_vllm": (False,),
    "use_transformers_continuous_batching": (False,),
}
"""Settings of GRPOConfig that the engine does not know, with the values that turn them off."""
_SUPPRESSED = "suppress_tokens"


def suppressed(trainer: Any) -> list[int]:
    """The ids of tokens that the user forbids."""
    return list((trainer.args.generation_kwargs or {}).get(_SUPPRESSED) or [])


def require_settings(trainer: Any) -> None:
    """Raises ValueError if the trainer has settings that the engine does not know."""
    args = trainer.args
    for name, values in _OFF.items():
        value = getattr(args, name)
        if value not in values:
            raise ValueError(
                f"{name} must be {' or '.join(map(repr, values))} with rollout(), whose engine has"
                f" no such thing; got {value!r}. Set it so, or leave rollout_func out."
            )
    unknown = sorted(set(args.generation_kwargs or {}) - {_SUPPRESSED})
    if unknown:
        raise ValueError(
            f"generation_kwargs must hold {_SUPPRESSED} alone with rollout(); got"
            f" {', '.join(unknown)}. Leave them out, or leave rollout_func out."
        )
    if trainer.tools or trainer.environment_factories is not None:
        raise ValueError(
            "tools and environment_factory must be left out with rollout(), which samples one"
            " answer per prompt and calls nothing."
        )
    _require_whole_model(trainer)


def _require_whole_model(trainer: Any) -> None:
    state = trainer.accelerator.state
    zero_3 = state.deepspeed_plugin is not None and state.deepspeed_plugin.zero_stage == 3
    if zero_3 or getattr(state, "fsdp_plugin", None) is not None:
        raise ValueError(
            "the model must be whole on each rank with rollout(); got"
            f" {'ZeRO-3' if zero_3 else 'FSDP'}. Use DDP, ZeRO-1 or ZeRO-2, or train with"
            " avar_fast.train, which gathers the weights."
        )
    for adapter in getattr(trainer.model, "peft_config", {}).values():
        if adapter.is_prompt_learning:
            raise ValueError(
                "PEFT adapters must be inside layers with rollout(), as LoRA is; got"
                f" {type(adapter).__name__}, which adds tokens."
            )


def require_prompts(prompts: list[Any], trainer: Any) -> None:
    """Raises ValueError if prompts are texts, or if TRL would train without their images."""
    if any(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(
            "prompts must be conversations with rollout(), lists of messages with role and content;"
            " got a text."
        )
    dataset = trainer.train_dataset if trainer.model.training else trainer.eval_dataset
    columns = getattr(dataset, "column_names", None)
    has_images = any(
        part.get("type") in ("image", "video")
        for prompt in prompts
        for message in prompt
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )
    if has_images and isinstance(columns, list) and not {"images", "image"} & set(columns):
        raise ValueError(
            "images must be in the column images or image of the data set with a rollout_func, as"
            f" TRL reads them from nowhere else when it trains; got columns {', '.join(columns)}."
        )
