"""Our sampling and VARS in TRL's GRPOTrainer, against our generate and whole forwards."""

import copy
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from avar_kernels import KeyType

from avar_fast.attention import SpecialTokens, key_types, record_attention
from avar_fast.objectives import visual_reward
from avar_fast.rollout import Sampling, generate
from avar_fast.train.forward import evaluating

from ..train.runs import on_ranks
from .clients import TOKENIZER, conversations, processor, tiny_model

trl = pytest.importorskip("trl")
from avar_fast.integrations import use_avar  # noqa: E402
from avar_fast.integrations.trl import rollout, rule_reward, vars_reward  # noqa: E402
from avar_fast.integrations.trl.prompts import groups_of  # noqa: E402
from avar_fast.integrations.trl.settings import require_settings  # noqa: E402

from .grpo_trainer import GROUP, NEW_TOKENS, odd, trainer_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
TOKENS = SpecialTokens.from_processor(TOKENIZER)


class PromptTuning:
    is_prompt_learning = True


def prompts_of(rows, repeats):
    """As TRL passes them: images in the messages, and each prompt once per completion."""
    return [
        trl.data_utils.prepare_multimodal_messages(
            copy.deepcopy(row["prompt"]), images=[image.copy() for image in row["images"]]
        )
        for row, count in zip(rows, repeats, strict=True)
        for _ in range(count)
    ]


def padded_inputs(rows):
    return processor().apply_chat_template(
        prompts_of(rows, [1] * len(rows)), add_generation_prompt=True, tokenize=True,
        return_dict=True, return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows(rows_file):
    return conversations(rows_file)


def test_completions_are_those_of_our_generate(rows, tmp_path):
    model = tiny_model()
    trainer = trainer_of(tmp_path, rows, [odd], rollout(), model)
    inputs = padded_inputs(rows[:3])
    torch.manual_seed(5)
    got = trainer.rollout_func(prompts_of(rows[:3], [GROUP] * 3), trainer)
    sampling = Sampling(
        num_samples=GROUP, max_new_tokens=NEW_TOKENS, temperature=1.3,
        eos_ids=(TOKENIZER.eos_token_id,), pad_id=TOKENIZER.pad_token_id,
        banned_ids=TOKENS.visual, mass_layers=(0, 1, 2, 3),
    )  # fmt: skip
    torch.manual_seed(5)
    want = generate(model, range(3), lambda _: dict(inputs), sampling)
    lines = zip(want.completion_ids, want.completion_mask, strict=True)
    assert got["completion_ids"] == [ids[mask].tolist() for ids, mask in lines]
    for i, ids in enumerate(got["prompt_ids"]):
        exists = inputs["attention_mask"][i // GROUP].bool()
        assert ids == inputs["input_ids"][i // GROUP][exists].tolist()
    for masses, whole, mask in zip(
        got["avar_masses"], want.masses, want.completion_mask, strict=True
    ):
        assert torch.allclose(masses, whole[mask])
    assert got["logprobs"] is None


def test_groups_that_ranks_divide_are_completed_in_their_order(rows, tmp_path):
    """Greedy, so that a completion does not depend on the group that it is sampled in."""
    options = {"temperature": 1e-6}
    trainer = trainer_of(tmp_path, rows, [odd], rollout(at_once=2), **options)
    got = trainer.rollout_func(prompts_of(rows[:4], [1, 3, 3, 2]), trainer)
    alone = [
        trainer.rollout_func(prompts_of([row], [1]), trainer)["completion_ids"][0]
        for row in rows[:4]
    ]
    want = [alone[i] for i, count in enumerate([1, 3, 3, 2]) for _ in range(count)]
    assert got["completion_ids"] == want


def test_equal_prompts_make_a_group(rows):
    prompts = prompts_of(rows[:2], [2, 2])
    assert groups_of(prompts) == [[0, 1], [2, 3]]
    prompts[1][1]["content"][0]["image"].putpixel((3, 3), (7, 7, 7))  # another image
    assert groups_of(prompts) == [[0], [1], [2, 3]]


def whole_reward(model, prompt_ids, completion_ids, inputs, form):
    """VARS of right completions of one prompt, by a forward over whole rows."""
    longest = max(map(len, completion_ids))
    pad = TOKENIZER.pad_token_id
    rows = [prompt_ids + ids + [pad] * (longest - len(ids)) for ids in completion_ids]
    ids = torch.tensor(rows)
    mask = torch.zeros_like(ids)
    for i, said in enumerate(completion_ids):
        mask[i, : len(prompt_ids) + len(said)] = 1
    image = {
        "pixel_values": inputs["pixel_values"].repeat(len(rows), 1),
        "image_grid_thw": inputs["image_grid_thw"].repeat(len(rows), 1),
        "mm_token_type_ids": (ids == TOKENS.visual[0]).int(),
    }
    with torch.no_grad(), evaluating(model), record_attention(model) as recording:
        model(input_ids=ids, attention_mask=mask, **image, use_cache=False)
    response = mask.bool()
    response[:, : len(prompt_ids)] = False
    types = key_types(ids, mask, tokens=TOKENS)
    return visual_reward(
        recording.mass, response, torch.ones(len(rows)), form, key_types=types
    ).tolist()


@pytest.mark.parametrize("form", ["ratio", "log_ratio", "share"])
def test_vars_is_that_of_a_whole_forward_and_zero_for_wrong_answers(rows, tmp_path, form):
    model = tiny_model()
    trainer = trainer_of(tmp_path, rows, [odd], rollout(), model)
    torch.manual_seed(2)
    sampled = trainer.rollout_func(prompts_of(rows[:2], [4, 4]), trainer)
    fields = {name: value for name, value in sampled.items() if name.startswith("avar")}
    ids = sampled["completion_ids"]
    got = vars_reward(odd, form)(prompts=[], completions=[], completion_ids=ids, **fields)
    right = odd([], [], ids)
    assert 0 < sum(right) < len(right)
    for i in range(2):
        chosen = slice(4 * i, 4 * i + 4)
        inputs = padded_inputs(rows[i : i + 1])
        want = whole_reward(model, sampled["prompt_ids"][4 * i], ids[chosen], inputs, form)
        for value, whole, is_right in zip(got[chosen], want, right[chosen], strict=True):
            assert value == pytest.approx(whole if is_right else 0.0, rel=1e-4)


def test_a_completion_that_opens_a_system_turn_has_the_masses_of_a_whole_forward(
    rows, tmp_path, monkeypatch
):
    model = tiny_model()
    trainer = trainer_of(tmp_path, rows, [odd], rollout(), model)
    # Every row says: a word, <|im_start|>, system, newline, words.
    word = TOKENIZER.encode("0")[0]
    newline = TOKENIZER.encode("\n")[0]
    said = [word, TOKENS.turn_start, *TOKENS.system, newline] + [word] * (NEW_TOKENS - 4)
    steps = iter(said)
    monkeypatch.setattr(
        sys.modules[generate.__module__],
        "_draw",
        lambda logits, sampling, noise: torch.full((len(logits),), next(steps)),
    )
    sampled = trainer.rollout_func(prompts_of(rows[:1], [2]), trainer)
    assert sampled["completion_ids"] == [said, said]
    got = vars_reward(lambda **_: [1.0, 1.0])(
        prompts=[], completions=[], completion_ids=sampled["completion_ids"],
        **{name: value for name, value in sampled.items() if name.startswith("avar")},
    )  # fmt: skip
    inputs = padded_inputs(rows[:1])
    want = whole_reward(model, sampled["prompt_ids"][0], [said, said], inputs, "ratio")
    assert got == pytest.approx(want, rel=1e-4)
    types = key_types(torch.tensor([said]), tokens=TOKENS)
    assert (types == KeyType.SYSTEM).sum() > 2


def test_visual_pads_are_never_sampled(rows, tmp_path):
    """With a head that wants them most; TRL itself forbids the image pad alone."""
    model = tiny_model()
    pads = list(TOKENS.visual)
    model.lm_head.register_forward_hook(
        lambda module, args, out: out.index_fill(-1, torch.tensor(pads), 50.0)
    )
    trainer = trainer_of(tmp_path, rows, [odd], rollout(), model)
    sampled = trainer.rollout_func(prompts_of(rows[:4], [GROUP] * 4), trainer)
    ids = {i for row in sampled["completion_ids"] for i in row}
    assert not ids & set(pads)


def test_grpo_with_vars_trains(rows, tmp_path):
    """Two steps through TRL, with a gate that logs."""
    calls = []

    def logging_gate(prompts, completions, completion_ids, log_extra, log_metric, **columns):
        log_extra("id_sum", [sum(ids) for ids in completion_ids])
        log_metric("calls", 1.0)
        calls.append(sorted(columns))
        return odd(prompts, completions, completion_ids)

    rewards = [logging_gate, vars_reward(logging_gate, clip=5.0)]
    trainer = trainer_of(
        tmp_path, rows, rewards, rollout(), reward_weights=[1.0, 0.3], log_completions=True
    )
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    logs = trainer.state.log_history[0]
    assert 0 < logs["rewards/vars/mean"] <= 5.0
    assert 0 < logs["rewards/logging_gate/mean"] < 1
    assert len(calls) == 4  # in each of two steps, as a reward and as the gate
    assert "answer" in calls[0]
    after = trainer.model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert trainer.model.training


def with_adapters():
    peft = pytest.importorskip("peft")
    targets = r".*language_model.*(q_proj|v_proj)"
    config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    torch.manual_seed(1)
    return peft.get_peft_model(tiny_model(), config)


def test_adapters_are_sampled_from(rows, tmp_path):
    models = with_adapters(), with_adapters().merge_and_unload(), tiny_model()
    said = []
    for model in models:
        trainer = trainer_of(tmp_path, rows, [odd], rollout(), model, temperature=1e-6)
        said.append(trainer.rollout_func(prompts_of(rows[:3], [1] * 3), trainer)["completion_ids"])
    assert said[0] == said[1]
    assert said[0] != said[2]


def test_adapters_train(rows, tmp_path):
    rewards = [odd, vars_reward(odd, "share")]
    trainer = trainer_of(tmp_path, rows, rewards, rollout(), with_adapters())
    before = {name: p.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert all(".lora_" in name for name in before)
    assert any(not torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_p": 0.9}, "top_p must be 1.0 with rollout.*got 0.9"),
        ({"top_k": 20}, "top_k must be 0 or None"),
        ({"min_p": 0.1}, "min_p must be None or 0.0"),
        ({"repetition_penalty": 1.1}, "repetition_penalty must be 1.0"),
        ({"cache_implementation": "static"}, "cache_implementation must be None"),
        ({"generation_kwargs": {"num_beams": 2}}, "hold suppress_tokens alone .* got num_beams"),
    ],
)
def test_settings_that_the_engine_does_not_know_are_refused(rows, tmp_path, options, message):
    trainer = trainer_of(tmp_path, rows, [odd], rollout(), **options)
    with pytest.raises(ValueError, match=message):
        trainer.rollout_func(prompts_of(rows[:1], [1]), trainer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_vllm": True}, "use_vllm must be False with rollout"),
        ({"tools": [print]}, "tools and environment_factory must be left out"),
        ({"environment_factories": {}}, "tools and environment_factory must be left out"),
        ({"deepspeed_plugin": SimpleNamespace(zero_stage=3)}, "whole on each rank .* got ZeRO-3"),
        ({"deepspeed_plugin": SimpleNamespace(zero_stage=2)}, None),
        ({"fsdp_plugin": SimpleNamespace()}, "whole on each rank .* got FSDP"),
        ({"peft_config": {"default": PromptTuning()}}, "got PromptTuning, which adds tokens"),
    ],
)
def test_trainers_that_cannot_be_served_are_refused(rows, tmp_path, change, message):
    """Trainers of their kind cannot be built here, so a stand-in has what the check reads."""
    args = trainer_of(tmp_path, rows, [odd], rollout()).args
    state = {"deepspeed_plugin": None} | {k: v for k, v in change.items() if k.endswith("plugin")}
    trainer = SimpleNamespace(
        args=args,
        tools=change.get("tools", []),
        environment_factories=change.get("environment_factories"),
        accelerator=SimpleNamespace(state=SimpleNamespace(**state)),
        model=SimpleNamespace(peft_config=change.get("peft_config", {})),
    )
    args.use_vllm = change.get("use_vllm", False)
    if message is None:
        require_settings(trainer)
        return
    with pytest.raises(ValueError, match=message):
        require_settings(trainer)


def test_groups_are_divided_between_ranks(rows_file, tmp_path):
    """Four completions of a prompt on two ranks, in DDP: both are half of each group."""
    on_ranks(["tests.integrations.grpo_worker", str(rows_file), str(tmp_path)], ranks=2)
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert seen[0]["prompts"] == seen[1]["prompts"]
    assert seen[0]["completions"] != seen[1]["completions"]
    assert seen[0]["norm"] == pytest.approx(seen[1]["norm"], rel=1e-6)
    assert seen[0]["vars"] == seen[1]["vars"] > 0


def test_suppressed_tokens_are_not_sampled(rows, tmp_path):
    allowed = TOKENIZER.encode("7")[0]
    others = [i for i in range(len(TOKENIZER)) if i != allowed]
    options = {"generation_kwargs": {"suppress_tokens": others}}
    trainer = trainer_of(tmp_path, rows, [odd], rollout(layers=()), **options)
    sampled = trainer.rollout_func(prompts_of(rows[:1], [2]), trainer)
    assert sampled["completion_ids"] == [[allowed] * NEW_TOKENS] * 2
    assert "avar_masses" not in sampled


def test_other_mistakes_are_named(rows, tmp_path):
    trainer = trainer_of(tmp_path, rows, [odd], rollout())
    with pytest.raises(ValueError, match="must be conversations"):
        trainer.rollout_func(["What is it?"], trainer)
    without = [{"prompt": row["prompt"], "answer": row["answer"]} for row in rows]
    no_column = trainer_of(tmp_path, without, [odd], rollout())
    with pytest.raises(ValueError, match="in the column images or image .* columns prompt, answer"):
        no_column.rollout_func(prompts_of(rows[:1], [1]), no_column)
    loose = trainer_of(tmp_path, rows, [odd], rollout(), tiny_model(attached=False))
    with pytest.raises(ValueError, match="must be attached first"):
        loose.rollout_func(prompts_of(rows[:1], [1]), loose)
    with pytest.raises(ValueError, match="needs the attention masses of sampling"):
        vars_reward(odd)(prompts=[], completions=[], completion_ids=[[1]])
    fields = {"avar_masses": [torch.ones(1, 2, 3)], "avar_prompt_types": [[0, 1, 2]]}
    with pytest.raises(ValueError, match="a reward for each of 1 completions; got 2"):
        vars_reward(lambda **_: [1, 1])(prompts=[], completions=[], completion_ids=[[1]], **fields)

    async def late(**columns):
        return [1.0]

    with pytest.raises(TypeError, match="asynchronous"):
        vars_reward(late)


def test_a_right_answer_without_system_turn_is_an_error():
    fields = {"avar_masses": [torch.ones(2, 2, 3)] * 2, "avar_prompt_types": [[0, 1, 2], [0, 1]]}
    given = {"prompts": [], "completions": [], "completion_ids": [[1, 1], [1, 2]]}
    assert vars_reward(lambda **_: [1.0, None])(**given, **fields) == pytest.approx([1.0, 0.0])
    with pytest.raises(ValueError, match="system turn"):
        vars_reward(lambda **_: [1.0, 1.0])(**given, **fields)


def test_vars_reads_types_of_ones_own(rows, tmp_path):
    """The first image token counts as the image, text as the system turn."""

    def refined(ids, types):
        visual = types == KeyType.VISUAL
        first = visual & (visual.cumsum(1) == 1)
        return torch.where(first, 3, torch.where(types == KeyType.TEXT, 4, types))

    model = tiny_model(attached=False)
    use_avar(model, TOKENIZER, num_types=5, classify=refined)
    trainer = trainer_of(tmp_path, rows, [odd], rollout(), model)
    sampled = trainer.rollout_func(prompts_of(rows[:2], [2, 2]), trainer)
    assert sampled["avar_prompt_types"] == [[1, 2, 3, 4]] * 4
    masses = sampled["avar_masses"]
    want = [float((m[..., 3] / (m[..., 3] + m[..., 4] + 1e-6)).mean()) for m in masses]
    given = {"prompts": [], "completions": [], "completion_ids": sampled["completion_ids"]}
    given |= {name: sampled[name] for name in ("avar_masses", "avar_prompt_types")}
    reward = vars_reward(lambda **_: [1.0] * 4, "share", visual=3, system=4)
    assert reward(**given) == pytest.approx(want, rel=1e-4)
    with pytest.raises(ValueError, match="system turn"):
        vars_reward(lambda **_: [1.0] * 4, "share", visual=3, system=0)(**given)
    with pytest.raises(ValueError, match="visual must be a key type of the masses, 0 to 4; got 9"):
        vars_reward(lambda **_: [1.0] * 4, visual=9)(**given)


def test_our_rules_are_reward_functions():
    replies = ["<answer>1/2</answer>", "<answer>3</answer>", "half"]
    turns = [[{"role": "assistant", "content": text}] for text in replies]
    given = {"prompts": [[]] * 3, "completions": turns, "completion_ids": [[1]] * 3}
    right = rule_reward("accuracy", column="solution")
    assert right.__name__ == "accuracy"
    assert right(**given, solution=["0.5", "4", "0.5"]) == [1.0, 0.0, 0.0]
    algebra = "<answer>$(x+1)^2$</answer>"
    turns[0][0]["content"] = algebra  # in a process that can be killed
    assert right(**given, solution=["$x^2+2x+1$", "3", "0.5"]) == [1.0, 1.0, 0.0]
    letters = rule_reward("multiple_choice")
    assert letters(**given, answer=["B", "cat", "cat"]) == [0.0, None, None]
    form = rule_reward("format")
    turns[0][0]["content"] = "<think>x</think><answer>3</answer>"
    assert form(**given)[0] == 1.0
    with pytest.raises(ValueError, match="rule must be one of accuracy"):
        rule_reward("truth")
    with pytest.raises(ValueError, match="must have the column 'solution'"):
        right(**given, answer=["1"] * 3)
