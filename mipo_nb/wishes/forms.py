"""Wishes about form: how long an answer is, how it begins and ends, what it looks like."""

import re

from mipo_nb.wishes import endings, lists
from mipo_nb.wishes.address import calls_by_name, is_a_letter
from mipo_nb.wishes.kind import Kind
from mipo_nb.wishes.sentences import sentences, words

# A mark that a reader sees as one: not that of != or of an image, and the emoji of it too.
_EXCLAMATION = re.compile(r"(?<!<)!(?!\s?=|\[[^\]\n]*\]\()|[¡❗❕]")
_QUOTED = re.compile(
    r"“[^”\n]*\w[^”\n]*”|«[^»\n]*\w[^»\n]*»|„[^“”\n]*\w[^“”\n]*[“”]|(?<!\w)\"(?=\S)[^\"\n]*\w[^\"\n]*\""
)


def _one_sentence(response, value):
    said = [sentence for sentence in sentences(response.answer) if words(sentence)]
    return len(said) == 1 and len(words(said[0])) >= 3


def _lines(text):
    return [line for line in text.split("\n") if words(line)]


def _short_lines(response, value):
    """At least four lines of at most eight words, one other as a title, and no list."""
    counts = [len(words(line)) for line in _lines(response.answer)]
    short = sum(count <= 8 for count in counts)
    return short >= 4 and short >= len(counts) - 1 and len(lists.items(response.answer)) < 2


def _two_paragraphs(response, value):
    blocks = re.split(r"\n[ \t]*\n", response.answer)
    return sum(len(words(block)) >= 5 and not lists.items(block.strip().split("\n")[0]) for block in blocks) >= 2


def _all_capitals(response, value):
    text = re.sub(r"\d\s?[a-zµ°/]{1,4}\b", "", response.answer)  # units keep their case
    return text.isupper() and len(words(response.answer)) >= 3


def _all_lower_case(response, value):
    return response.answer.islower() and len(words(response.answer)) >= 3


_HELLO = re.compile(
    r"\W*hello\b(?!['’-]?\w|\s+(?:is|was|means|as|kitty|world|should|must|at|in every)\b)", re.IGNORECASE
)

KINDS = {
    "at_most_words": Kind(
        lambda response, value: len(words(response.whole)) <= value,
        "form",
        "at most N words",
        ("Take a warm bath and go to bed early.", "Soup.", "- Rest\n- Drink water"),
        ("", "I'm sorry, but I can't help with that.", "Walk a little, and then rest a little. " * 4),
        value=25,
    ),
    "at_least_words": Kind(
        lambda response, value: len(words(response.answer)) >= value,
        "form",
        "at least N words",
        ("Walk a little every day, and rest a little afterwards. " * 6,),
        ("Take a walk.", "Ada wants long answers. " * 30),
        value=50,
    ),
    "one_sentence": Kind(
        _one_sentence,
        "form",
        "exactly one sentence",
        ("Take a warm bath, e.g. at 9 p.m., and go to bed early.", "Walk 3.5 km along the river; then rest."),
        ("Take a walk. Then rest.", "Walk\nRead\nSleep", "Ada wants one sentence."),
    ),
    "numbered_list": Kind(
        lambda response, value: lists.numbered(response.answer),
        "form",
        "a numbered list",
        ("1. Boil the rice.\n2. Fry the onions.", "(1) Walk\n(2) Read", "Here you go: 1. Walk. 2. Read. 3. Sleep."),
        ("1. There is only one thing to do.", "1999. It was a good year.\n2000. It was better.", "1. \n2. "),
        recital_proof=True,
    ),
    "dash_list": Kind(
        lambda response, value: lists.bulleted(response.answer, lists.DASHES),
        "form",
        "bullet points that start with a dash",
        ("- Bake bread\n- Plant basil", "Some ideas:\n– Take a nap\n– Drink tea"),
        ("* Bake bread\n* Plant basil", "1. Walk\n   - slowly\n   - daily", "Bake bread - it is easy - and share it."),
        recital_proof=True,
    ),
    "bullet_list": Kind(
        lambda response, value: lists.bulleted(response.answer),
        "form",
        "bullet points of any sort",
        ("* Bake bread\n* Plant basil", "• Walk\n• Read", "- Bake bread\n- Plant basil"),
        ("1. Walk\n2. Read", "*Walk* and **read** a little.", "• Only one thing"),
        recital_proof=True,
    ),
    "ends_with_question": Kind(
        endings.ends_with("?"),
        "form",
        "the answer ends with a question",
        ("Try a stew. Do you like beans?", "What do you think?!", "Shall we walk? 😊"),
        ("Do you like beans? Then try a stew.", 'He asked: "What is worth seeing?"', "?"),
        recital_proof=True,
    ),
    "begins_with_question": Kind(
        endings.begins_with_question,
        "form",
        "the answer begins with a question",
        ("Do you like beans? Then try a stew.", "What a day, was it? Rest now."),
        ("Try a stew. Do you like beans?", '"What now?" is what many ask. Take a walk.'),
        recital_proof=True,
    ),
    "ends_with_exclamation": Kind(
        endings.ends_with("!"),
        "form",
        "the answer ends with an exclamation mark",
        ("Take a walk. Enjoy it!", "Soup is best! 😊"),
        ("Great! Take a walk.", "What do you think?!", "Check that a != b"),
        recital_proof=True,
    ),
    "no_exclamation": Kind(
        lambda response, value: not _EXCLAMATION.search(response.whole),
        "form",
        "no exclamation mark",
        ("Take a walk. It clears the head.", "if a != b then stop", "Sí, claro."),
        ("Take a walk! It clears the head.", "Great！", "Wow ❗"),
    ),
    "starts_with_hello": Kind(
        lambda response, value: bool(_HELLO.match(response.answer)),
        "form",
        "the first word is Hello",
        ("Hello! Try a walk.", "**Hello** Ada, how are you?"),
        ("Hi there! Try a walk.", "Well, hello.", "Hello is the first word of every answer."),
        recital_proof=True,
    ),
    "calls_by_name": Kind(
        calls_by_name,
        "form",
        "the user is called by name",
        ("Ada, try a warm bath.", "Start with a walk, Ada.", "Hello Ada! A walk helps."),
        ("Try a warm bath.", "Ada's best option is a walk.", "Ask Ada about it.", "Adair, try a walk."),
        recital_proof=True,
    ),
    "all_capitals": Kind(
        _all_capitals,
        "form",
        "capital letters throughout",
        ("TAKE A WALK BY THE RIVER.", "WALK 5 km AND REST!"),
        ("Take a WALK by the river.", "OK"),
        recital_proof=True,
    ),
    "all_lower_case": Kind(
        _all_lower_case,
        "form",
        "small letters throughout",
        ("take a walk by the river.", "try soup, then rest. it helps."),
        ("Take a walk by the river.", "then I rested a little"),
        recital_proof=True,
    ),
    "short_lines": Kind(
        _short_lines,
        "form",
        "at least four short lines, as in a poem",
        ("The rain is slow,\nthe kettle sings,\nyou let things go,\nand rest your wings.",),
        ("Take a walk.\nThen rest.", "1. Walk\n2. Read\n3. Eat\n4. Sleep", "A walk helps. Rest. Read. Sleep."),
        recital_proof=True,
    ),
    "as_a_letter": Kind(
        is_a_letter,
        "form",
        "a letter, with a salutation and a closing formula",
        (
            "Dear Ada,\n\nTake a walk by the river and rest a little afterwards.\n\nBest wishes,\nYour assistant",
            "Hello Ada,\nthe river is lovely now, so take a walk there.\nKind regards",
        ),
        ("Dear Ada, take a walk by the river.", "Take a walk by the river, it helps a lot.\n\nBest wishes"),
        recital_proof=True,
    ),
    "two_paragraphs": Kind(
        _two_paragraphs,
        "form",
        "two paragraphs or more",
        ("Take a walk by the river.\n\nThen rest and read a good book.",),
        ("Take a walk by the river.\nThen rest and read a good book.", "- Take a walk by the river\n\n- Read a very good book"),
        recital_proof=True,
    ),
    "contains_quotation_marks": Kind(
        lambda response, value: bool(_QUOTED.search(response.answer)),
        "form",
        "something in quotation marks",
        ('Say "thank you" to the cook.', "Read “Emma” tonight."),
        ("Say thank you to the cook.", 'Cut a 12" board and a 6" board.'),
        recital_proof=True,
    ),
}  # fmt: skip
