"""MMMU's rules: the letter of a choice, and the answer to an open question."""

import re

from .choice import bare, stated_letter
from .final import Final

_PUNCTUATION = ",.!?;:'"
_FEW = 5  # in a response of at most this many words, the rule does not look for an option's text
_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_SENTENCES = re.compile(r"\.\s(?=[A-Z])|\n")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # with commas
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)

LONGEST = 1000  # numbers are searched in this many characters from the end of a phrase

Normal = str | float


def open_candidates(response: str) -> list[Normal]:
    """Candidates for the answer in a response, by MMMU's rule.

    They are the shortest end of each sentence after a word such as "is" (or the whole response if
    there are none), and every number in these phrases.
    """
    phrases = _phrases(response)
    texts = list(phrases)
    for phrase in phrases:
        for pattern in _NUMBERS:
            texts += pattern.findall(phrase[-LONGEST:])
    return list(dict.fromkeys(form for text in texts for form in normal_forms(text)))


def open_matches(candidates: list[Normal], answers: list[str]) -> bool:
    """Whether a candidate contains one of the answers as text, or equals it as a number rounded to
    two decimals."""
    references = [form for answer in answers for form in normal_forms(answer)]
    texts = [form for form in references if isinstance(form, str)]
    for candidate in candidates:
        if isinstance(candidate, str):
            if any(text in candidate for text in texts):
                return True
        elif candidate in references:
            return True
    return False


def normal_forms(text: str) -> list[Normal]:
    """The forms in which a text is compared: a number rounded to two decimals, or else lower-case
    text. A single character gets two forms, with a space before and after it."""
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
        for end in ends:  # empty ends are skipped, as in the original
            if not shortest or len(end) < len(shortest):
                shortest = end
        if shortest and shortest not in (":", ",", ".", "!", "?", ";", "'"):
            phrases.append(shortest)
    return phrases or [response]


def mmmu_letter(final: Final, options: tuple[str, ...], pro: bool = False) -> str | None:
    """The letter by MMMU's rule. The official rule draws a random letter if it finds none; here, a
    letter that stands alone or is announced counts instead, or else None.

    Args:
        final: final part of the completion. A few words in tags count only as a letter or an
            option. If a box holds neither, everything around it is read.
        options: in the order of their letters.
        pro: use MMMU-Pro's form of the rule.
    """
    letters = "".join(chr(ord("A") + i) for i in range(len(options)))
    stated = stated_letter(final, letters)
    if final.explicit:
        same = [x for x, option in zip(letters, options, strict=True) if _same(final.text, option)]
        if stated or len(same) == 1:
            return stated or same[0]
        if final.around:
            return mmmu_letter(Final(final.around, explicit=False), options, pro)
        if len(final.text.split()) <= _FEW:
            return None
    return _mmmu_letter(final.text, letters, options, pro) or stated


def _same(answer: str, option: str) -> bool:
    return bare(answer).casefold() == bare(option).casefold()


def _mmmu_letter(response: str, letters: str, options: tuple[str, ...], pro: bool) -> str | None:
    """Finds a letter in brackets, else a letter alone, else (in more than five words) the text of
    an option. Of several, the last one mentioned counts.

    MMMU-Pro first looks for a single letter after the last "Answer:". It also accepts letters at
    the end of a word or before a period.
    """
    if pro and "Answer:" in response:
        ending = response[response.rindex("Answer:") + len("Answer:") :].strip()
        found = [letter for letter in letters if letter in ending]
        if len(found) == 1:
            return found[0]
    for mark in _PUNCTUATION:
        response = response.strip(mark)
    response = f" {response} "
    forms = ("({})", "{} ", "{}.") if pro else ("({})", " {} ")
    for form in forms:
        found = [letter for letter in letters if form.format(letter) in response]
        if found:
            if len(found) == 1:
                return found[0]
            shown = form if form == "({})" else " {} "
            return max(found, key=lambda letter: response.rfind(shown.format(letter)))
    if len(response.split()) > _FEW:
        lower = response.lower()
        named = {
            letter: lower.rfind(text.lower())
            for letter, text in zip(letters, options, strict=True)
            if text.lower() in lower
        }
        if named:
            return max(named, key=lambda letter: named[letter])
    return None
