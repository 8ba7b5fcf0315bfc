"""Self-checks of the exercises of notebooks 13 and 15, as in `checks`."""

from mipo_nb.course import checking

no_larger = checking.numbers(
    "Notebook 13, exercise 1: `function(value, error, margin)` says whether two one-sided tests at 5% exclude the margin.",
    ((1.0, 2.0, 5.0), 1, "1 + 1.645 x 2 = 4.3 is below 5, and so is the other side"),
    ((-2.0, 2.0, 5.0), 0, "both sides count: -2 - 1.645 x 2 is below -5"),
    ((0.0, 3.0, 5.0), 1, "each side has 5%, so 1.645 errors and not 1.96"),
    ((6.0, 0.5, 5.0), 0, "a change that is surely larger is not within the margin"),
)
best_per_character = checking.numbers(
    "Notebook 13, exercise 2: `function(scores, options)` is the index of the highest log-probability per character.",
    (([-6.0, -7.0], ["ice", "a red planet"]), 1, "divide each score by the length of its option"),
    (([-2.0, -9, -8], ["a stone", "b", "cc"]), 0, "log-probabilities are negative: the one nearest to 0 per character"),
    (([-4.0, -2.0], ["stone", "a b"]), 1, "a space is a character as well"),
    (([-6.0, -5.0], ["a cat", "elephants"]), 1, "per character, not per word"),
)


def deal(function):
    """Notebook 13, exercise 3: everybody gets one response, nobody their own, nobody one that claims the same."""
    for claims in map(list, ("123", "7575", "414924", "001122334455")):
        indices, problem = checking.tried(function, list(claims))
        if problem:
            return checking.verdict(problem)
        try:
            every = sorted(indices) == list(range(len(claims)))
        except TypeError:
            return checking.verdict(f"a list of indices is wanted, you give {type(indices).__name__}.")
        if not every:
            wanted = f"every index from 0 to {len(claims) - 1} must occur once"
            return checking.verdict(f"for {claims} you give {indices}: {wanted}.")
        for i, k in enumerate(indices):
            if claims[i] == claims[k]:
                same = "its own response" if i == k else f"one that claims {claims[k]} as well"
                return checking.verdict(f"for {claims}, number {i} gets {same}.")
    return checking.verdict(None)


part_of_two = checking.numbers(
    "Notebook 13, exercise 4: `function(before, after, i)` is the part of factor i in the change of a product of two.",
    (((0.5, 0.8), (0.6, 0.9), 0), 0.085, "the change of the factor, times the mean of the other one before and after"),
    (((0.5, 0.8), (0.6, 0.9), 1), 0.055, "both parts together are the change of the product"),
    (((0.8, 0.5), (0.9, 0.4), 1), -0.085, "a factor that falls has a negative part"),
    (((0.3, 0.7), (0.3, 0.2), 0), 0.0, "a factor that stays has no part"),
)
names_a_page = checking.numbers(
    "Notebook 15, exercise 1: `function(text)` is true where a text names the number of a page.",
    (("It is shown best on page 7.",), 1, "a page with its number counts"),
    (("For the recipe see p. 12.",), 1, "an abbreviation counts too"),
    (("Pages 30 to 34 have maps.",), 1, "so do several pages, at the start of a sentence"),
    (("You find it on the home page.",), 0, "a page without a number is not named"),
    (("It has 300 pages.",), 0, "how many there are is not which"),
    (("Stop 7 is where you get off.",), 0, "the p has to begin a word"),
)
people_needed = checking.numbers(
    "Notebook 15, exercise 2: `function(gain, deviation)` is the number of people with which the gain is found.",
    ((10, 20), 32, "2.8 standard errors are to fit into the gain; a standard error is deviation / sqrt(n)"),
    ((5, 20), 126, "half the gain needs four times as many"),
    ((10, 10), 8, "people are whole: round up"),
    ((20, 40), 32, "only the ratio of the two counts"),
)
