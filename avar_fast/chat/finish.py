"""Translates the ``finish_reason`` of servers and gateways into five kinds."""

from typing import Literal

Kind = Literal["stop", "length", "refused", "broken", "tool"]

_WORDS: dict[Kind, str] = {
    # The answer is complete: OpenAI and vLLM; Anthropic; text-generation-inference; Cohere.
    "stop": "stop end_turn stop_sequence eos eos_token complete",
    # Cut by max_tokens or the context length: OpenAI; Gemini and Anthropic; Mistral; others.
    "length": "length max_tokens max_output_tokens max_length model_length token_limit"
    " model_context_window_exceeded context_length_exceeded",
    # Withheld: OpenAI and Azure; Anthropic; Gemini; Bedrock; Cohere; Zhipu.
    "refused": "content_filter content_filtered refusal safety recitation blocklist"
    " prohibited_content spii language image_safety image_recitation image_prohibited_content"
    " model_armor guardrail_intervened error_toxic sensitive blocked",
    # The server gave up in the middle. Another attempt may succeed.
    "broken": "abort aborted cancelled canceled error other network_error timeout overloaded"
    " insufficient_system_resource unspecified",
    # The model calls a tool, although none was offered.
    "tool": "tool_calls tool_use function_call malformed_function_call unexpected_tool_call",
}
_KINDS: dict[str, Kind] = {word: kind for kind, words in _WORDS.items() for word in words.split()}


def kind_of(finish: object) -> Kind | None:
    """The kind of a ``finish_reason``, in upper or lower case; None if the word is unknown. An
    unknown word is not taken as success, because it may mean that the answer was cut."""
    if not isinstance(finish, str):
        return None
    return _KINDS.get(
        finish.strip().lower().removeprefix("finish_reason_").removeprefix("finishreason.")
    )
