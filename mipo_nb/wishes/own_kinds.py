"""Wishes that come with somebody else's users: a regular expression that an answer matches, or kinds in a file of rules."""

import ast
import contextlib
import functools
import re
import runpy
import signal
import threading
import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path

import regex

from mipo_nb.base.errors import UserError, require_known
from mipo_nb.wishes.kind import FAMILIES, NAME, Kind
from mipo_nb.wishes.response import Response
from mipo_nb.wishes.sentences import normal

_SECONDS = 0.2  # that a pattern may take for one answer
_LONGEST = 1000  # characters of a pattern: it is read by recursion
_RULE_SECONDS = 2.0  # that a rule of a file may take
# Answers that ask for no wish: a pattern that all of them match asks for nothing.
_PLAIN = (
    "Start with a short walk each morning. After a week, add ten minutes.",
    "No.",
    "Of course! Here is what you need: flour, eggs, and a little patience; the rest is practice",
)
# Runs of one thing and an end that does not fit, on which a careless pattern tries every way to divide them.
_LONG = tuple(piece * 400 + "\x00" for piece in ("a", "1", " ", "ab ", "word, ", "a.", "\n"))


class Kinds(dict):
    """Kinds of wishes by name. A name that begins with `PATTERN` is found without having been put there."""

    PATTERN = "pattern: "  # a kind of this name is the regular expression that follows

    def written_short(self, preference):
        """{"kind", "value"} of a preference that is written {"text", "pattern": a regular expression}, {"text",
        "at_most_words": 25} or {"text", "in_language": "Spanish"}; {} of another.

        Raises `UserError` for two of these in one, an unknown language, and a pattern as `checked` does.
        """
        short = [name for name in ("pattern", "at_most_words", "in_language") if preference.get(name) is not None]
        kind = preference.get("kind")
        if isinstance(kind, str) and kind.startswith(self.PATTERN):  # a row that was handed on
            checked(kind.removeprefix(self.PATTERN))
        if not short:
            return {}
        if len(short) > 1 or kind is not None:
            raise UserError("a preference has one kind; write one of kind, pattern, at_most_words and in_language.")
        value, example = preference[short[0]], preference.get("example")
        if short[0] == "pattern" and not (isinstance(value, str) and isinstance(example, (str, type(None)))):
            raise UserError(f"a pattern and its example are text, not {value!r} and {example!r}.")
        if short[0] == "at_most_words":
            return {"kind": "at_most_words", "value": value}
        if short[0] == "pattern":
            return {"kind": self.PATTERN + checked(value, example), "value": None}
        languages = {name.removeprefix("in_"): name for name in self if name.startswith("in_")}
        language = " ".join(str(value).lower().split())
        require_known("language", language, languages)
        return {"kind": languages[language], "value": None}

    def __missing__(self, name):
        if not isinstance(name, str) or not name.startswith(self.PATTERN):
            raise KeyError(name)
        return _pattern_kind(name.removeprefix(self.PATTERN))


@functools.cache
def checked(expression, example=None):
    """A regular expression, in the syntax of the package `regex` (that of `re` and more), as it is.

    It is matched with answers in one form of writing (`sentences.normal`), as examples are. Raises `UserError` for one that
    does not compile, runs away, matches any answer, does not match its `example`, or has signs that no answer has then.
    """
    if len(expression) > _LONGEST:
        raise UserError(
            f"the pattern {expression[:60]!r}... is longer than {_LONGEST} characters; write a rule instead."
        )
    if any(ord(sign) < 32 and sign not in "\t\n" for sign in expression):  # as of "\b" in a JSON file
        raise UserError(
            f"the pattern {expression!r} has a control character; write each backslash twice in a JSON file."
        )
    plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), expression)
    plain = re.sub(r"(?s)\\(.)", lambda m: "x" if m[1] in "wd" else " ", plain).strip(" \t\n")  # without escapes
    if normal(plain) != plain:
        raise UserError(
            f"the pattern {expression!r} has signs that answers are freed of first; write {normal(expression).replace('’', chr(39))!r}."
        )
    if re.search(r"\{\d*,?\d{6,}", expression):
        raise UserError(f"the pattern {expression!r} counts beyond the length of any answer; write less than 100000.")
    try:
        compiled = regex.compile(expression)
    except (regex.error, RecursionError) as e:
        raise UserError(f"the pattern {expression!r} is no regular expression ({e}).") from None
    for text in _LONG:
        _found(compiled, text)
    if all(_found(compiled, text) for text in _PLAIN):
        raise UserError(f"the pattern {expression!r} matches any answer, such as {_PLAIN[1]!r}; ask for more.")
    if example is not None and not _found(compiled, normal(example)):
        raise UserError(f"the pattern {expression!r} does not match its own example {example!r}; mend one of them.")
    return expression


@functools.cache
def _pattern_kind(expression):
    compiled = regex.compile(expression)
    return Kind(lambda response, value: _found(compiled, response.answer), "words", f"matches {expression}", (), ())


def _found(compiled, text):
    try:
        return compiled.search(text, timeout=_SECONDS) is not None
    except TimeoutError:
        raise UserError(
            f"The pattern {compiled.pattern!r} takes more than {_SECONDS:g} s for a text of {len(text)} characters; "
            "write it without one repetition inside another."
        ) from None


def found(kind, text):
    """Whether a text as a whole matches the pattern of a kind, wish or no wish."""
    return _found(regex.compile(kind.removeprefix(Kinds.PATTERN)), normal(text))


def read_kinds(path):
    """{name: `Kind`} of a Python file that defines KINDS so; the file is run. See docs/own_wishes.md.

    Raises `UserError` for a file that fails or has no such KINDS, and for a kind without examples, or whose rule fails on
    one or takes longer than `_RULE_SECONDS`, also on long texts: it must keep each text that it `accepts` and break each
    that it `refuses`, for a user called `kind.NAME`.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"There is no file of rules {path}; give a Python file that defines KINDS.")
    try:
        with contextlib.chdir("."):  # whatever the file does, relative paths mean the same afterwards
            kinds = runpy.run_path(str(file)).get("KINDS")
    except (Exception, SystemExit) as e:
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(e.__traceback__)) if f.filename == str(file)), None
        )
        where = f"{file.name}, line {line or getattr(e, 'lineno', None) or 1}"
        raise UserError(f"{where}: {_told(e)}; mend the rules.") from None
    named = (
        isinstance(kinds, dict)
        and not isinstance(kinds, Kinds)
        and all(isinstance(n, str) and isinstance(k, Kind) for n, k in kinds.items())
    )
    if not named or not kinds:
        raise UserError(
            f"{file.name} must define KINDS, a dictionary of its own of names and mipo_nb.preferences.Kind."
        )
    if twice := _twice(file):
        raise UserError(f"{file.name}, line {twice[1]}: the name {twice[0]!r} occurs twice; name one otherwise.")
    for name, kind in kinds.items():
        require_known(f"family of kind '{name}'", kind.family, FAMILIES)
        if not name.strip() or name.startswith(Kinds.PATTERN):
            raise UserError(f"{file.name}: a kind cannot be called {name!r}; name it otherwise.")
        _check_examples(f"{file.name}, kind '{name}'", kind)
    return {n: replace(kind, rule=_telling(f"{file.name}, kind '{n}'", kind.rule)) for n, kind in kinds.items()}


def _twice(file):
    """(name, line) of a name that one dictionary of a Python file has twice, of which the last would win; None."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        names = [key.value for key in getattr(node, "keys", ()) if isinstance(key, ast.Constant)]
        for name in names:
            if names.count(name) > 1:
                return name, node.lineno
    return None


def _telling(where, rule):
    """The rule, which says where it stands when it fails on an answer, or takes too long for it."""

    def told(response, value):
        return _timed(where, response.answer, partial(rule, response, value))

    return told


def _told(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _check_examples(where, kind):
    for texts in (kind.accepts, kind.refuses):
        if not isinstance(texts, (tuple, list)) or not all(isinstance(text, str) for text in texts):
            raise UserError(f'{where}: accepted and refused texts are tuples such as ("Far.",), not {texts!r}.')
    if kind.value is not None and not (type(kind.value) is int and kind.value > 0):
        raise UserError(f"{where}: its value must be a whole number from 1, or None, not {kind.value!r}.")
    if not kind.accepts or not kind.refuses:
        raise UserError(f"{where}: give at least one text that it accepts and one that it refuses.")
    for expected, verb in ((True, "accepts"), (False, "refuses")):
        for text in getattr(kind, verb):
            if _timed(where, text, partial(kind.keeps, Response(text, NAME))) is not expected:
                raise UserError(f"{where}: it says that it {verb} {text!r}, but its rule says otherwise.")
    for text in _LONG:
        _timed(where, text, partial(kind.keeps, Response(text, NAME)))


def _timed(where, text, judge, tries=5):
    """What `judge` says of a text, within `_RULE_SECONDS`; raises `UserError` where it takes longer or fails."""
    begun = time.process_time()
    try:
        with _within(_RULE_SECONDS):
            return judge()
    except TimeoutError:
        if tries > 1 and time.process_time() - begun < _RULE_SECONDS / 2:  # others had the processor, or it waits
            return _timed(where, text, judge, tries - 1)
        raise UserError(
            f"{where}: its rule takes more than {_RULE_SECONDS:g} s for {text[:20]!r}{' and so on' * (len(text) > 20)}; "
            "write it without a pattern that has one repetition inside another, and without waiting."
        ) from None
    except (Exception, SystemExit) as e:
        raise UserError(f"{where}: its rule fails on {text[:60]!r} ({_told(e)}).") from None


@contextlib.contextmanager
def _within(seconds):
    """Raise `TimeoutError` in code that takes longer, where a signal can: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # and again: where it is raised, it may be swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
