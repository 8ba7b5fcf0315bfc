"""Self-checks of the exercises of notebook 15, on one's own users, as in `checks`."""

from mipo_nb.course import checking

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
