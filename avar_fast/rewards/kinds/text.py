"""Strips an answer of its wrapping: Markdown, LaTeX, quotes, "the answer is", a final period."""

import functools
import re
import unicodedata

LONGEST = 1000  # characters; a longer answer is compared as words only
_ROUNDS = 6  # deepest nesting of wrappers, as in **$\boxed{\text{B}}$**
_ANNOUNCED = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:the|my)?\s*(?:final|correct|right)?\s*"
    r"(?:answer|result|solution|option|choice)\s*(?:is|:|=|would be|should be|must be)[\s:=]*"
    r"|(?:it|this|that|value)(?:'s|\s+is)\s+(?=[\d$\\(+-])"
    r"|\u7b54\u6848\s*(?:\u662f|\u4e3a|\u5e94\u4e3a|:)\s*:?\s*",  # Chinese
    re.IGNORECASE,
)
_ABOUT = re.compile(
    r"(?:(?:about|approximately|approx\.?|around|roughly|circa|nearly|exactly|ca\.)(?=\s)"
    r"|\\approx(?![a-z])|[\u2248~])\s*",
    re.IGNORECASE,
)
_EMPHASIS = re.compile(r"(?<![\w)}\].])\*\*|\*\*(?![\w({\[\\$-]|\.\d)|(?<=[a-z:.])\*\*(?=\s)")
_WRAPPERS = (
    ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("```", "```"), ("`", "`"),
    ("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"), ('"', '"'), ("'", "'"),
    ("\u300c", "\u300d"),
)  # fmt: skip
_COMMAND = re.compile(r"\\(?:boxed|fbox|text\w*|math(?:rm|bf|it|sf|tt|bb|cal)|mbox|hbox)\s*\{")
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:rm|bf|it|sf|tt|bb|cal)|mbox|hbox|operatorname"
    r"|boldsymbol|bm)\s*\{([^{}]*)\}"
)
_MATH_DOLLARS = re.compile(r"(?<!\\)\$(?!\s*\d[\d.,]*\s*(?:-|to|and|or|,|;))([^$]+?)(?<!\\)\$")
_LATEX = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{,\}", ","),
        (r"\\!", ""),
        (r"\\(?:left|right|bigl|bigr|Bigl|Bigr|big|Big|displaystyle|limits|rm)(?![a-zA-Z])", ""),
        (r"\\[,;: ]|\\(?:quad|qquad|thinspace|enspace)(?![a-zA-Z])|~", " "),
        (r"\\[dtc]frac(?![a-z])", r"\\frac"),
        (r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![a-z])|\^\s*\{?\u00b0\}?", "\u00b0"),
        (r"\\times(?![a-z])", "\u00d7"),
        (r"\\(?:cdot|bullet|ast)(?![a-z])", "\u00b7"),
        (r"\\pm(?![a-z])", "\u00b1"),
        (r"\\infty(?![a-z])", "\u221e"),
        (r"\\(?:varnothing|emptyset)(?![a-z])|\\\{\s*\\\}", "\u2205"),
        (r"\\pi(?![a-z])", "\u03c0"),
        (r"\\lbrace(?![a-z])", r"\\{"),
        (r"\\rbrace(?![a-z])", r"\\}"),
        (r"\\l?angle\s*(?=.*\\rangle)|\\rangle", "|"),
        (r"\\colon(?![a-z])", ":"),
        (r"\\([%$#&_])", r"\1"),
    )
)
_SPACES = re.compile(r"\s+")
_SUPERSCRIPTS = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b\u207f]+")
_VULGAR = re.compile("(\\d?)\\s*([\u00bc-\u00be\u2150-\u215e\u2189])")
_CHARACTERS = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\u00ad\ufe63", "-")
    | dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u00b4\u2032", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb\u2033", '"')
    | dict.fromkeys("\u22c5\u2219\u30fb", "\u00b7")
    | dict.fromkeys("\u00ba\u02da", "\u00b0")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u200e\u200f", None)
    | {"\u3001": ",", "\u3002": ".", "\u2215": "/", "\u2217": "*", "\u2236": ":", "\u0131": "i"}
)


@functools.lru_cache(4096)
def bare(text: str) -> str:
    """The plain form of an answer of at most ``LONGEST`` characters: one kind of minus sign and
    space, ASCII digits, no LaTeX spaces and wrappers."""
    text = text.strip() if text.isascii() else _one_form(text).strip()
    if "**" in text:
        text = _EMPHASIS.sub("", text)
    for _ in range(_ROUNDS):
        before = text
        text = _unwrapped(_ANNOUNCED.sub("", text, count=1) if _ANNOUNCED.match(text) else text)
        if text == before:
            break
    if "$" in text:
        text = _MATH_DOLLARS.sub(r"\1", text)
    if "\\" in text or "{" in text or "~" in text or "^" in text:
        text = _without_latex(text)
    text = _SPACES.sub(" ", text).strip()
    about = _ABOUT.match(text)
    return text[about.end() :].strip() if about else text


def words(text: str) -> str:
    """The form in which words are compared: lower case, without accents of Latin letters, leading
    article, and punctuation except between two digits."""
    text = unicodedata.normalize("NFKD", text.translate(_CHARACTERS)).casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFC", re.sub(r"(?<=[a-z])[\u0300-\u036f]+", "", text))
    text = re.sub(r"[_{}^\\`*$]", "", text)
    text = re.sub(r"(?<=[^\W\d])\.(?=[^\W\d]\b)|(?<=[^\W\d])'(?=[^\W\d])|(?<=\d)'(?=s)", "", text)
    text = re.sub(r"(?<=\d) ?[x\u00d7] ?(?=\d)", "x", re.sub(r"(?<=\w)-(?=\w)", " ", text))
    text = re.sub(r"(?<!\d)[.,:;]|[.,:;](?!\d)|[!?\"()\[\]\u3002\u2026]|'", " ", text)
    text = _SPACES.sub(" ", text).strip()
    return re.sub(r"^(?:an?|the) (?=\S)", "", text)


def squeezed(text: str) -> str:
    """A text without spaces, except those between two digits."""
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


def _one_form(text: str) -> str:
    text = _VULGAR.sub(
        lambda m: f"{m[1]}{' ' if m[1] else ''}{unicodedata.normalize('NFKC', m[2])}", text
    )
    text = _SUPERSCRIPTS.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_CHARACTERS)).translate(_CHARACTERS)
    text = text.replace("\u2044", "/").replace("\u3002", ".")
    return "".join(
        str(unicodedata.digit(c)) if c.isdigit() and not c.isascii() else c for c in text
    )


def _unwrapped(text: str) -> str:
    text = text.strip()
    if text[:1].isalnum() and text[-1:].isalnum():
        return text
    for start, end in _WRAPPERS:
        inner = text[len(start) : -len(end)]
        if (
            len(text) > len(start) + len(end)
            and text.startswith(start)
            and text.endswith(end)
            and end not in inner.replace("\\$", "")
        ):
            return inner.strip()
    command = _COMMAND.match(text)
    if command and closing(text, command.end() - 1) == len(text) - 1:
        return text[command.end() : -1].strip()
    return text.rstrip(" ,;:").removesuffix(".").rstrip() or text


def closing(text: str, start: int) -> int:
    """The index of the brace that closes the brace at ``start``; -1 if there is none."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] in "{}" and (at == 0 or text[at - 1] != "\\"):
            depth += 1 if text[at] == "{" else -1
            if depth == 0:
                return at
    return -1


def _without_latex(text: str) -> str:
    for _ in range(3):  # deepest nesting of text commands
        text, count = _TEXT.subn(r"\1", text)
        if not count:
            break
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text
