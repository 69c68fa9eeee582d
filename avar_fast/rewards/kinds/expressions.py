"""Mathematical expressions: recognizes them and compares them with computer algebra."""

import logging
import re
from fractions import Fraction
from typing import Any

from .numbers import GIVEN_DIGITS, GOLD_DIGITS, parse_number, stands_for, terminates, too_large
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
# The letters of these figures are points, which do not multiply.
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
_PRECISION = 40  # digits of computed constants
_AGREEMENT = "1e-12"  # largest relative difference of equal constants
_POINTS = (("0.37", "0.11"), ("1.71", "0.23"))


def mathematical(text: str) -> bool:
    """Whether a plain text is mathematics: it has no words, and has an operator, a command or a
    constant. Letters are a product only next to a number or an operator, so "on" and "H2O" are
    not mathematics."""
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
    """Converts a plain text to LaTeX."""
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
    """Whether two plain texts are mathematically equal. May take unlimited time and memory."""
    if too_large(given) or too_large(gold):
        return False
    a, b = _parse(latex(given)), _parse(latex(gold))
    if a is None or b is None:
        return False
    decimals = _decimal_for(given, b, GIVEN_DIGITS), _decimal_for(gold, a, GOLD_DIGITS)
    if True in decimals:
        return True
    close = _close(a, b)
    return close if close is not None else _verified(b, a)


def rounds_to(given: str, gold: str, decimals: int) -> bool:
    """Whether math-verify finds two raw texts equal; inexact numbers are equal if they round to the
    same ``decimals``. May take unlimited time and memory."""
    from math_verify import parse, verify

    # No timeouts: they use signal.alarm, which does not interrupt operations on big integers.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    a, b = _parse_raw(parse, given), _parse_raw(parse, gold)
    return bool(b) and bool(a) and verify(b, a, decimals, timeout_seconds=None)


def _parse_raw(parse: Any, text: str) -> list[Any]:
    marked = text if "$" in text or "\\boxed" in text else f"${text}$"
    return parse(marked, parsing_timeout=None) or parse(text, parsing_timeout=None)


def _parse(text: str) -> Any:
    """The sympy object of a LaTeX text, with "i" as the imaginary unit; None if it has none."""
    import math_verify
    import sympy

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    parse: Any = math_verify.parse
    parsed = parse(f"${text}$", [math_verify.LatexExtractionConfig()], parsing_timeout=None)
    expression = next((x for x in parsed if not isinstance(x, str)), None)
    if not isinstance(expression, sympy.Expr):
        return expression
    symbols = expression.free_symbols
    return expression.subs({symbol: sympy.I for symbol in symbols if str(symbol) == "i"})


def _decimal_for(text: str, other: Any, digits: int) -> bool:
    """Whether a text is a decimal that approximates a constant without a finite decimal form."""
    decimal = parse_number(text)
    if decimal is None or not decimal.digits:
        return False
    value = _constant(other)
    if value is None or not value.is_real or not value.is_finite:
        return False
    return stands_for(decimal, Fraction(str(value)), digits) and not _is_finite_decimal(other)


def _is_finite_decimal(expression: Any) -> bool:
    """Whether a constant is exactly a decimal with finitely many digits."""
    import sympy

    floats = expression.has(sympy.Float)
    value = sympy.nsimplify(expression) if floats else sympy.simplify(expression)
    return bool(value.is_Rational) and terminates(int(value.q))


def _constant(expression: Any) -> Any:
    """The value of an expression without variables; None for any other expression."""
    import sympy

    if not isinstance(expression, sympy.Expr) or expression.free_symbols:
        return None
    value = sympy.N(expression.doit(), _PRECISION)
    return value if value.is_number and not value.has(sympy.zoo, sympy.nan) else None


def _close(a: Any, b: Any) -> bool | None:
    """Whether two constants are equal except for rounding. For expressions: False if they differ at
    a test point. None if this does not decide."""
    import sympy

    if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)):
        return None
    if a == b:
        return True
    if a.free_symbols != b.free_symbols:
        return None if sympy.simplify(a - b) == 0 else False
    values = _constant(a), _constant(b)
    if None not in values:
        return _near(*values)
    symbols = sorted(a.free_symbols, key=str)
    for start, step in _POINTS:
        point: Any = {
            s: sympy.Rational(start) + i * sympy.Rational(step) for i, s in enumerate(symbols)
        }
        values = tuple(_constant(x.subs(point)) for x in (a, b))
        if None not in values and not _near(*values):
            return False
    return None


def _near(a: Any, b: Any) -> bool:
    import sympy

    if a.is_infinite or b.is_infinite:
        return bool(a == b)
    largest = max(abs(a), abs(b))
    return bool(abs(a - b) <= sympy.Float(_AGREEMENT) * largest or largest < sympy.Float("1e-30"))


def _verified(gold: Any, given: Any) -> bool:
    from math_verify import verify

    return verify([gold], [given], 15, allow_set_relation_comp=True, timeout_seconds=None)
