"""A problem's right solution, and the same with one link broken: its topic, its form, its sum, or its reasoning.

Under a model both are scored, and nothing is sampled. By how many nats the right text is likelier says how firm a link is;
by how much training changes that says which link it moves (eq-link of notebook 13).
"""

import re
import zlib
from types import SimpleNamespace

from mipo_nb import prompts
from mipo_nb.base.errors import UserError

LINKS = ("topic", "form", "arithmetic", "reasoning")
_STEP = re.compile(r"(\d+) ([-+x/]) (\d+) = (\d+)\.")
_INSTEAD = {"+": "x-/", "-": "+x/", "x": "+-/", "/": "-x+"}  # the first that gives another whole number above 0


def broken(rows):
    """[dictionaries with "right" and each of LINKS], texts for each problem: its solution as an exemplar shows it, and with a
    link broken.

    "topic" is another problem's solution, of the same operations but other numbers as far as there is one. "form" lacks
    the closing phrase. In "arithmetic" the last sum comes out wrong by as little as leaves its length, "7 + 5 = 13"; in
    "reasoning" it is another one of the same numbers, and true, "7 x 5 = 35"; the closing phrase follows both. Raises
    `UserError` for a solution that does not end in a step like "7 + 5 = 12.", and for problems of one solution alone.
    """
    solved = list(map(_solved, rows))
    return [
        {
            "right": prompts.worked(row),
            "topic": prompts.worked(rows[_another(i, solved)]),
            "form": prompts.worked(row, closing=""),
            "arithmetic": _ending(row, own, own.sign, _wrong(row, own)),
            "reasoning": _ending(row, own, *_otherwise(own)),
        }
        for i, (row, own) in enumerate(zip(rows, solved, strict=True))
    ]


def _solved(row):
    """A solution's `text`, what stands `before` its last step, that step (`a`, `sign`, `b`, `result`), and the `numbers`
    and `signs` of all its steps."""
    text = row["solution"].partition("####")[0].strip()
    steps = list(_STEP.finditer(text))
    if not steps or steps[-1].end() != len(text) or steps[-1][4] != row["answer"]:
        raise UserError(
            f"The solution '{text[-40:]}' does not end in a step like '7 + 5 = 12.'; take a task of stories."
        )
    a, sign, b, result = steps[-1].groups()
    last = {"a": int(a), "sign": sign, "b": int(b), "result": int(result), "before": text[: steps[-1].start()]}
    all_steps = {"numbers": set(re.findall(r"\d+", text)), "signs": [step[2] for step in steps]}
    return SimpleNamespace(text=text, **last, **all_steps)


def _ending(row, own, sign, result):
    """The solution with another sign and result in its last step, and what follows from it as the answer."""
    text = f"{own.before}{own.a} {sign} {own.b} = {result}."
    return prompts.worked({**row, "solution": text, "answer": str(result)})


def _wrong(row, own):
    """The nearest other result of as many digits; above or below by chance, the same each time."""
    way = 1 if zlib.crc32(row["question"].encode()) % 2 else -1
    near = (own.result + k * distance for distance in range(1, 10) for k in (way, -way))
    fits = lambda n: n > 0 and len(str(n)) == len(str(own.result)) and n not in (own.a, own.b)  # noqa: E731
    return next(filter(fits, near))


def _otherwise(own):
    """(another sign, what comes out): a sum of the same numbers that holds and has another result."""
    a, b = own.a, own.b
    values = {"+": a + b, "-": a - b, "x": a * b, "/": a // b if b and a % b == 0 else 0}
    fits = lambda sign: values[sign] > 0 and values[sign] != own.result  # noqa: E731
    sign = next(filter(fits, _INSTEAD[own.sign]))
    return sign, values[sign]


def _another(i, solved):
    """The place of the next other solution: if there is one, of the same operations and with none of the numbers."""
    own, places = solved[i], [*range(i + 1, len(solved)), *range(i)]
    others = [k for k in places if solved[k].text != own.text]
    if not others:
        raise UserError("Another problem's solution needs two problems with different ones; take more problems.")
    apart = [k for k in others if not solved[k].numbers & own.numbers]
    return next((k for k in apart if solved[k].signs == own.signs), (apart or others)[0])
