"""Maps of a response's attention on an image: attention per visual token, from eager attention
matrices.

The matrices of one short prompt are small, and these pictures need every single key; so this is the
one place that materializes them.
"""

from typing import Any

import torch
from torch import Tensor

from ..attention import SpecialTokens
from ..data import Encoder, Row, Sample, prompt_inputs
from ..data.images import open_image
from ..loading import Loaded
from ..rollout import Sampling, generate, without_end
from .entry import AttentionMap


@torch.no_grad()
def attention_map(
    loaded: Loaded, row: Row, system_prompt: str | None, max_new_tokens: int
) -> AttentionMap:
    """Answers a row with one image greedily, then reads the attention of the response on the
    image."""
    model, tokenizer, image_processor = loaded.model, loaded.tokenizer, loaded.image_processor
    encoder = Encoder(tokenizer, image_processor, system_prompt, max_length=1 << 20)
    sample = encoder(row)
    tokens: SpecialTokens = encoder.tokens
    device = next(model.parameters()).device

    def inputs_of(samples: list[Sample]) -> dict[str, Tensor]:
        pad_id = tokenizer.pad_token_id
        return prompt_inputs(samples, pad_id, tokens.visual, device)

    inputs = inputs_of([sample])
    sampling = Sampling(
        num_samples=1,
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        eos_ids=loaded.eos_ids,
        pad_id=tokenizer.pad_token_id,
        banned_ids=tokens.visual,
    )
    rollouts = generate(model, [sample], inputs_of, sampling)
    response_ids = rollouts.completion_ids[0][rollouts.completion_mask[0]]
    full = dict(inputs, input_ids=torch.cat([inputs["input_ids"], response_ids[None]], dim=1))
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        full[name] = torch.cat(
            [inputs[name], torch.full_like(response_ids[None], value).to(inputs[name])], dim=1
        )
    attentions = _eager_attentions(model, full)
    response = torch.stack(attentions).float().mean(dim=(0, 2))[0, -len(response_ids) :]  # (T, L)
    on_image = response[:, full["input_ids"][0] == encoder.image_pad].mean(dim=0)
    assert sample.image_grid_thw is not None
    _, height, width = (sample.image_grid_thw[0] // image_processor.merge_size).tolist()
    question = "".join(part.get("text", "") for part in row.messages[-1]["content"])
    return AttentionMap(
        image=open_image(row.images[0], row.where),
        heat=on_image.reshape(height, width).cpu(),
        question=question,
        response=sample.opened + tokenizer.decode(without_end(response_ids, loaded.eos_ids)),
        answer=str(row.answer),
    )


def _eager_attentions(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Per layer with attention (B, H, L, L); the model's own attention is put back afterwards."""
    config = model.config
    before = config.text_config._attn_implementation
    try:
        model.set_attn_implementation({"text_config": "eager"})
        return model(**inputs, use_cache=False, output_attentions=True).attentions
    finally:
        model.set_attn_implementation({"text_config": before})
