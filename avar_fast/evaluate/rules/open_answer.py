"""MMMU's open questions: any of the phrases a response ends on may hold the answer."""

import re

_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_SENTENCES = re.compile(r"\.\s(?=[A-Z])|\n")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # with commas
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)

LONGEST = 1000  # characters of a phrase, from its end, that numbers are looked for in

Normal = str | float


def open_candidates(response: str) -> list[Normal]:
    """What MMMU's rule takes a response to answer: the shortest end of each sentence behind a word
    such as "is", or the whole response; and every number in them."""
    phrases = _phrases(response)
    found = list(phrases)
    for phrase in phrases:
        for pattern in _NUMBERS:
            found += pattern.findall(phrase[-LONGEST:])
    return list(dict.fromkeys(form for text in found for form in normal_forms(text)))


def open_matches(candidates: list[Normal], answers: list[str]) -> bool:
    """Whether a candidate contains one of the answers as text, or equals it as a number of two
    decimals."""
    wanted = [form for answer in answers for form in normal_forms(answer)]
    texts = [form for form in wanted if isinstance(form, str)]
    for candidate in candidates:
        if isinstance(candidate, str):
            if any(text in candidate for text in texts):
                return True
        elif candidate in wanted:
            return True
    return False


def normal_forms(text: str) -> list[Normal]:
    """A number rounded to two decimals, or lower-case text; a single letter with a space on either
    side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        lower = text.lower()
        return [f" {lower}", f"{lower} "] if len(lower) == 1 else [lower]


def _phrases(response: str) -> list[str]:
    response = response.strip().strip(".").lower()
    sentences = _SENTENCES.split(response)
    phrases = []
    for number, sentence in enumerate(sentences, start=1):
        keys = (*_KEYS, "=") if number == len(sentences) else _KEYS
        ends = [sentence.rpartition(key)[2].strip() for key in keys if key in sentence]
        if not ends:
            continue
        shortest = ""
        for end in ends:  # an empty end is passed over, as in the original
            if not shortest or len(end) < len(shortest):
                shortest = end
        if shortest and shortest not in (":", ",", ".", "!", "?", ";", "'"):
            phrases.append(shortest)
    return phrases or [response]
