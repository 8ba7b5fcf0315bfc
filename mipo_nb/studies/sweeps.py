"""Sweeps that do not end at their edge."""

from dataclasses import replace


def beyond(scores):
    """The number to try next, of {number: its score}: twice the largest one where that scores best, half of the smallest
    one where that does, None where the best lies inside. Of equals the smallest counts."""
    numbers = sorted(scores)
    best = max(numbers, key=scores.get)
    return 2 * best if best == numbers[-1] else best / 2 if best == numbers[0] else None


def swept(numbers, score, limits):
    """{number: score(number)} of the `numbers` and of those `beyond`, until the best lies inside or the next one would
    leave the `limits` (least, most)."""
    scores = {number: score(number) for number in numbers}
    while (further := beyond(scores)) is not None and limits[0] <= further <= limits[1]:
        scores[further] = score(further)
    return scores


def along(arm, score, limits):
    """{arm: score(arm)} along the one number of a dataclass that is a list, as in `swept`; `limits` {name: (least, most)}. Of
    the arm alone where none is."""
    for name, numbers in vars(arm).items():
        if isinstance(numbers, list):
            found = swept(numbers, lambda number, name=name: score(replace(arm, **{name: number})), limits[name])
            return {replace(arm, **{name: number}): points for number, points in found.items()}
    return {arm: score(arm)}
