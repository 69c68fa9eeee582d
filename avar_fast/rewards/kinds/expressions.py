"""Mathematical expressions: what counts as one, and comparing two by computer algebra."""

import logging
import re
from fractions import Fraction
from typing import Any

from .numbers import GIVEN_DIGITS, GOLD_DIGITS, number, stands_for, terminates, too_large
from .quantities import DECADE, TURN

_ALL_FUNCTIONS = (
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp sqrt abs min max gcd"
    " lcm mod det lim"
)
_FUNCTIONS = frozenset(_ALL_FUNCTIONS.split())
_ALL_NAMES = (
    "pi alpha beta gamma delta epsilon theta lambda mu rho sigma tau phi psi omega infinity inf"
)
_NAMES = frozenset(_ALL_NAMES.split())
_SHORT_WORDS = "and or to of in on at by no if is it the not for as yes an be he we"
_NO_PRODUCT = frozenset(_SHORT_WORDS.split())
_RUN = re.compile(r"\\[A-Za-z]+|[A-Za-z]+|[^\W\d_]")
# Their letters are points, which do not multiply.
_FIGURE = re.compile(
    r"\\(?:m?angle|triangle|square|over(?:line|right|left)\w*(?!\{\d)|vec|widehat|parallel|perp)"
)
_OPERATOR = re.compile(
    r"\\(?!text|math|mbox)[a-zA-Z]+|(?<=\d) x (?=\d)"
    r"|[=<>\u2264\u2265\u2260\u221a\u03c0\u221e^*/+\u00d7\u00b7\u00f7!|\u222a\u2229\u2208-]"
)
_PRODUCT = re.compile(r"[\d.]+\s?[^\s:]+")  # 2x, 3 ab
_CALL = re.compile(
    rf"(?<![A-Za-z])(?:{'|'.join(sorted(_FUNCTIONS, key=len, reverse=True))})\s*[\s(\d]"
)
_ION = re.compile(r"[A-Za-z)\]\d]\^?\{?\d*[+-]\}?$")
_FORMULA = re.compile(r"[A-Za-z]_?\{?\d")
_SIGNS = (
    ("\u00d7", r"\times "), ("\u00b7", r"\cdot "), ("\u00f7", r"\div "), ("\u00b1", r"\pm "),
    ("\u03c0", r"\pi "), ("\u221e", r"\infty "), ("\u2264", r"\le "), ("\u2265", r"\ge "),
    ("\u2260", r"\ne "), ("\u222a", r"\cup "), ("\u2229", r"\cap "), ("\u2208", r"\in "),
    ("\u2205", r"\emptyset "), ("**", "^"), ("*", r"\cdot "),
)  # fmt: skip
_GREEK = {
    "\u03b1": "alpha", "\u03b2": "beta", "\u03b3": "gamma", "\u03b4": "delta", "\u03b8": "theta",
    "\u03bb": "lambda", "\u03bc": "mu", "\u03c1": "rho", "\u03c3": "sigma", "\u03c4": "tau",
    "\u03c6": "phi", "\u03c8": "psi", "\u03c9": "omega",
}  # fmt: skip
_PRECISION = 40  # digits that constants are computed to
_AGREEMENT = "1e-12"  # of those, as a share of the larger one
_POINTS = (("0.37", "0.11"), ("1.71", "0.23"))


def mathematical(text: str) -> bool:
    """Whether a plain text is mathematics: no word in it, and an operator, a command or a constant.
    Letters multiply only next to a number or an operator, so "on" and "H2O" do not."""
    unsigned = text.lstrip("+- ")
    if unsigned in ("\u221e", "\u03c0", "\u2205") or unsigned in _NAMES:
        return True
    if re.fullmatch(r"[+-] ?[A-Za-z]", text):
        return True
    if DECADE.fullmatch(text) or re.fullmatch(r"\d+[A-Z]+", text) or _FIGURE.search(text):
        return False
    operator = _OPERATOR.search(unsigned)
    digit = any(char.isdigit() for char in text)
    runs = _RUN.findall(text)
    if not operator and not (runs and _PRODUCT.fullmatch(text)):
        return _CALL.search(text) is not None and all(_factor(run, 1) for run in runs)
    if _ION.search(text) or (text.casefold() in ("n/a", "w/o")):
        return False
    if _FORMULA.search(text) and not re.search(r"[=^*/+\u00d7\u00b7\u221a]|\\[a-z]|\s-\s", text):
        return False
    longest = 3 if digit or "^" in text or "\\" in text else 2 if re.search("[=+*]", text) else 1
    return all(_factor(run, longest) for run in runs)


def _factor(run: str, longest: int) -> bool:
    """Whether a run of letters is a name, or a product of not too many variables."""
    if run[0] == "\\" or len(run) == 1:
        return run.isascii() or run in _GREEK or run == "\u03c0"
    if run in _FUNCTIONS or run in _NAMES:
        return True
    return len(run) <= longest and run.isascii() and run.casefold() not in _NO_PRODUCT


def latex(text: str) -> str:
    """A plain text as LaTeX."""
    text = re.sub(r"\u221a\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|\w))",
                  lambda m: f"\\sqrt{{{m[1] or m[2] or m[3]}}}", text)  # fmt: skip
    text = re.sub(r"(?<![\\\w])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![\\\w])sqrt\s*(\d+(?:\.\d+)?|[A-Za-z](?![A-Za-z]))", r"\\sqrt{\1}", text)
    turns = r"(\1\\cdot\\frac{\\pi}{180})" if TURN.search(text) else r"\1"
    text = re.sub(r"(\d+(?:\.\d+)?|[)}])\s*\u00b0", turns, text)
    text = re.sub(r"(?<=\d)\s*x\s*(?=\d)", "\u00d7", text)
    for sign, command in _SIGNS:
        text = text.replace(sign, command)
    for sign, name in _GREEK.items():
        text = text.replace(sign, f"\\{name} ")
    text = re.sub(r"(?<![\\A-Za-z])infinity|(?<![\\A-Za-z])inf(?![A-Za-z])", r"\\infty ", text)
    names = "|".join(
        sorted((_FUNCTIONS | _NAMES) - {"abs", "sqrt", "inf", "infinity"}, key=len, reverse=True)
    )
    text = re.sub(rf"(?<![\\A-Za-z])({names})(?![a-z])", r"\\\1 ", text)
    text = re.sub(r"\^\s*\(([^()]*)\)", r"^{\1}", text)
    return re.sub(r"\^\s*([+-]?\d+)(?![\d}])", r"^{\1}", text)


def equal(given: str, gold: str) -> bool:
    """Whether two plain texts are the same mathematics. May take any time and memory."""
    if too_large(given) or too_large(gold):
        return False
    one, other = (_parsed(latex(text)) for text in (given, gold))
    if one is None or other is None:
        return False
    decimals = _decimal_for(given, other, GIVEN_DIGITS), _decimal_for(gold, one, GOLD_DIGITS)
    if True in decimals:
        return True
    close = _close(one, other)
    return close if close is not None else _verified(other, one)


def rounds_to(given: str, gold: str, decimals: int) -> bool:
    """Whether math-verify takes two raw texts to be equal, numbers that are not exact where they
    round to so many decimals. May take any time and memory."""
    from math_verify import parse, verify

    # Its own limit is signal.alarm, which long operations on big integers outlive.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    wanted, said = (_read(parse, text) for text in (gold, given))
    return bool(wanted) and bool(said) and verify(wanted, said, decimals, timeout_seconds=None)


def _read(parse: Any, text: str) -> list[Any]:
    marked = text if "$" in text or "\\boxed" in text else f"${text}$"
    return parse(marked, parsing_timeout=None) or parse(text, parsing_timeout=None)


def _parsed(text: str) -> Any:
    import math_verify
    import sympy

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    parse: Any = math_verify.parse  # whose limit is a signal: None is none
    found = parse(f"${text}$", [math_verify.LatexExtractionConfig()], parsing_timeout=None)
    got = next((x for x in found if not isinstance(x, str)), None)
    if not isinstance(got, sympy.Expr):
        return got
    return got.subs({symbol: sympy.I for symbol in got.free_symbols if str(symbol) == "i"})


def _decimal_for(text: str, other: Any, digits: int) -> bool:
    """Whether a text is a decimal that stands for a constant without an end."""
    lone = number(text)
    if lone is None or not lone.digits:
        return False
    value = _constant(other)
    if value is None or not value.is_real or not value.is_finite:
        return False
    return stands_for(lone, Fraction(str(value)), digits) and not _has_an_end(other)


def _has_an_end(expression: Any) -> bool:
    """Whether a constant is a decimal that ends, which no other stands for."""
    import sympy

    floats = expression.has(sympy.Float)
    value = sympy.nsimplify(expression) if floats else sympy.simplify(expression)
    return bool(value.is_Rational) and terminates(int(value.q))


def _constant(expression: Any) -> Any:
    """The value of an expression without variables; None of any other."""
    import sympy

    if not isinstance(expression, sympy.Expr) or expression.free_symbols:
        return None
    value = sympy.N(expression.doit(), _PRECISION)
    return value if value.is_number and not value.has(sympy.zoo, sympy.nan) else None


def _close(one: Any, other: Any) -> bool | None:
    """Of constants, whether they are one number but for rounding; of expressions, False where they
    differ at some point. None where that does not decide it."""
    import sympy

    if not (isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr)):
        return None
    if one == other:
        return True
    if one.free_symbols != other.free_symbols:
        return None if sympy.simplify(one - other) == 0 else False
    values = _constant(one), _constant(other)
    if None not in values:
        return _near(*values)
    symbols = sorted(one.free_symbols, key=str)
    for start, step in _POINTS:
        at: Any = {
            s: sympy.Rational(start) + i * sympy.Rational(step) for i, s in enumerate(symbols)
        }
        values = tuple(_constant(x.subs(at)) for x in (one, other))
        if None not in values and not _near(*values):
            return False
    return None


def _near(one: Any, other: Any) -> bool:
    import sympy

    if one.is_infinite or other.is_infinite:
        return bool(one == other)
    largest = max(abs(one), abs(other))
    return bool(
        abs(one - other) <= sympy.Float(_AGREEMENT) * largest or largest < sympy.Float("1e-30")
    )


def _verified(gold: Any, given: Any) -> bool:
    from math_verify import verify

    return verify([gold], [given], 15, allow_set_relation_comp=True, timeout_seconds=None)
