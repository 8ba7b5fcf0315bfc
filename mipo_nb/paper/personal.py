"""The paper's personalization data as personal prompts: PRISM, Community Alignment, Multifaceted-Bench.

Each function gives the columns of `sources.personal_prompts`. `data_files` finds and streams the files; what was read,
and at which commit, stands in `rows.info.description`. A user is in one split only, by the hash that `sources` uses.

How the paper made contexts and pairs of these fields is known for PRISM only in outline (arXiv 2603.19294), so the wording
here is our own: short statements about "this person", which a judge can be asked about one by one.
"""

import functools
import hashlib
import random
import re
from collections import defaultdict

import numpy as np

from mipo_nb import sources
from mipo_nb.base import splits
from mipo_nb.base.errors import UserError, require_known
from mipo_nb.paper import data_files

CUT = 600  # characters of each text that a user wrote of themselves; longer ones end at a sentence
FEEDBACK_CUT = 300  # characters of a piece of feedback
KINDS = ("unguided", "values guided", "controversy guided")
LANGUAGES = ("en", "fr", "it", "hi", "pt")
STRONG = 0.75  # standard deviations above the survey's mean from which a slider is a wish: most lie near 100
AT_MOST = 3  # wishes by sliders
OWN, WEAK = 75, 25  # marks of 0 to 100: from here on a wish of one's own counts, up to here a slider means little
FRAMES = {"multifaceted_bench": "{context}"}  # `with_context` where a context tells the assistant what to be

# A slider of PRISM's survey: (what a high one means, said after "This person"; what a low one means little of).
SLIDERS = {
    "values": ("wants answers that fit their own values and culture", "being answered in the spirit of their culture"),
    "creativity": ("likes fresh and imaginative answers", "imagination"),
    "fluency": ("wants answers that read well and hang together", "style"),
    "factuality": ("wants facts that can be relied on", "facts"),
    "diversity": ("wants to hear more than one point of view", "hearing several points of view"),
    "safety": ("wants answers that put nobody in danger", "warnings"),
    "personalisation": ("wants an assistant that gets to know them and adapts to them", "being known to the assistant"),
    "helpfulness": ("wants answers that help with exactly what was asked", "answers that stay with the question"),
}
ATTRIBUTES = ("country", "age", "gender", "education_level", "political", "ethnicity")
_TURNS = ("first", "second", "third", "fourth")
_LETTERED = re.compile(r"\b(?i:response|option|answer|choice|reply)s?\s+\W?[A-D]\b|^\W?[B-D]\b")


def personal_prompts(data, split, *, n, seed=0):
    """Rows of a data set by its name: "prism", "community_alignment" or "multifaceted_bench" as the functions below give
    them, anything else as `sources.personal_prompts` takes it ("own", or a file)."""
    named = {"prism": prism, "community_alignment": community_alignment, "multifaceted_bench": multifaceted_bench}
    return named.get(data, functools.partial(sources.personal_prompts, data=data))(split, n=n, seed=seed)


def prism(split, *, n=None, seed=0, kinds=KINDS):
    """A `datasets.Dataset` of at most `n` rows of PRISM (Kirk et al. 2024, arXiv 2404.16019), in an order drawn from `seed`.

    A row is a conversation: `prompt` is its opening prompt and `reference_response` the model response that the user
    chose in the first turn, None where it is empty. The context is what the user wrote of themselves
    (`self_description`) and asks of an assistant (`system_string`), each cut to CUT characters, and what their sliders
    say: a wish of their own, then those at STRONG or above, the farthest first, AT_MOST in all, and all marks at WEAK or
    below. The request and these wishes are the `preferences`. `kinds` chooses among the conversation types KINDS.

    Left out: empty opening prompts, and users who said nothing. Raises `UserError` for an unknown split or kind, and
    where the files cannot be had or are of another form.
    """
    _chosen("split", split, sources.SPLITS)
    kinds = _chosen("kind of conversation", kinds, KINDS)
    (survey, conversations), origin = data_files.files("prism")
    columns = ("user_id", "self_description", "system_string", "stated_prefs")
    people = list(data_files.lines(survey, columns))
    usual = _usual_marks(people)
    users = {row["user_id"]: _prism_user(row, usual) for row in people}
    rows, trained = [], set()
    columns = ("user_id", "opening_prompt", "conversation_type", "conversation_history")
    for row in data_files.lines(conversations, columns):
        prompt, (context, wishes) = _text(row["opening_prompt"]), users.get(row["user_id"], ("", []))
        if not prompt or not context or row["conversation_type"] not in kinds:
            continue
        first = (turn for turn in row["conversation_history"] or () if turn.get("turn") == 0 and turn.get("if_chosen"))
        reference = next((_text(turn["content"]) for turn in first), "")
        _keep(rows, trained, split, row["user_id"], _row(prompt, context, row["user_id"], wishes, reference))
    return _drawn("prism", rows, trained, split, n, seed, origin)


def _marks(row):
    """{slider: mark} of a row of the survey, those that were moved."""
    marks = row["stated_prefs"] or {}
    return {key: mark for key, mark in marks.items() if isinstance(mark, int | float) and mark >= 0}


def _usual_marks(people):
    """{slider: (mean, standard deviation)} over the survey, of those that were moved."""
    moved = {key: [marks[key] for marks in map(_marks, people) if key in marks] for key in SLIDERS}
    return {key: (np.mean(found), np.std(found)) for key, found in moved.items() if found}


def _prism_user(row, usual):
    """(context, wishes) of a row of the survey."""
    description, request = (_cut(_text(row[column]), CUT) for column in ("self_description", "system_string"))
    marks, other = _marks(row), _cut(_text((row["stated_prefs"] or {}).get("other_text")), CUT)
    above = {key: (marks[key] - mean) / sd for key, (mean, sd) in usual.items() if key in marks and sd > 0}
    strong = sorted((key for key in above if above[key] >= STRONG), key=lambda key: -above[key])
    own = [f'has a wish of their own: "{other}"'] if other and marks.get("other", 0) >= OWN else []
    wants = [*own, *(SLIDERS[key][0] for key in strong)][:AT_MOST]
    wishes = [f'asks this of an assistant: "{request}"', *wants] if request else wants
    little = [SLIDERS[key][1] for key in SLIDERS if marks.get(key, OWN) <= WEAK]
    facts = [f'says of themselves: "{description}"'] if description else []
    facts += wishes + ([f"cares little for {', '.join(little)}"] if little else [])
    return " ".join(map(_sentence, facts)), wishes


def community_alignment(split, *, n=None, seed=0, languages=("en",), attributes=ATTRIBUTES, feedback=3):
    """A `datasets.Dataset` of at most `n` rows of Community Alignment (arXiv 2507.09650), in an order drawn from `seed`.

    A row is a conversation: `prompt` is its first prompt and `reference_response` the response preferred in the first
    turn. The context holds the annotator's `attributes` (of ATTRIBUTES) and at most `feedback` remarks, which are also
    the `preferences`: on responses in *other* conversations that began with another prompt, for remarks on the row's own
    would give the reference away; none that names a response by its letter. `seed` decides which; each is cut to
    FEEDBACK_CUT characters. `languages` are those the annotators were assigned (of LANGUAGES); some wrote in another.

    Most first prompts were put to many annotators, so test rows with a prompt that nobody in training had are mostly
    ones that annotators thought of themselves. Raises `UserError` as `prism` does.
    """
    _chosen("split", split, sources.SPLITS)
    languages, attributes = _chosen("language", languages, LANGUAGES), _chosen("attribute", attributes, ATTRIBUTES)
    [file], origin = data_files.files("community_alignment")
    rows, remarks, trained = [], defaultdict(list), set()
    for row, user, prompt in _annotations(file, languages, [f"{turn}_turn_feedback" for turn in _TURNS]):
        part = splits.split_of(user)
        if prompt and part == "train":
            trained.add(_plain(prompt))
        for turn in _TURNS if part == split else ():
            remark = _cut(_text(row[f"{turn}_turn_feedback"]), FEEDBACK_CUT)
            if remark and not _LETTERED.search(remark):
                order = hashlib.sha256(f"{seed}-{row['conversation_id']}-{turn}".encode()).digest()
                remarks[user].append((order, _plain(prompt), remark))
    remarks = {user: sorted(theirs) for user, theirs in remarks.items()}
    responses = [f"first_turn_response_{letter}" for letter in "abcd"]
    details = [f"annotator_{name}" for name in attributes]
    for row, user, prompt in _annotations(file, languages, [*responses, "first_turn_preferred_response", *details]):
        if not prompt or splits.split_of(user) != split:
            continue
        others = [remark for _, about, remark in remarks.get(user, ()) if about != _plain(prompt)]
        wishes = [f'said of another answer: "{remark}"' for remark in others[:feedback]]
        context = " ".join(map(_sentence, [*_details(row, attributes), *wishes]))
        reference = _text(row.get(f"first_turn_{row['first_turn_preferred_response']}"))
        if context:
            rows.append(_row(prompt, context, user, wishes, reference))
    return _drawn("community_alignment", rows, trained, split, n, seed, origin)


def _annotations(file, languages, columns):
    """(row, annotator, first prompt) of the rows whose annotator is known and was assigned one of the languages."""
    identity = ("conversation_id", "annotator_id", "assigned_lang", "first_turn_prompt")
    for row in data_files.batched(file, (*identity, *columns)):
        if row["annotator_id"] and row["assigned_lang"] in languages:
            yield row, row["annotator_id"], _text(row["first_turn_prompt"])


def _details(row, attributes):
    """What is known of an annotator, as at most one fact; what they would rather not say is left out."""
    known = {name.replace("_", " "): _text(row[f"annotator_{name}"]) for name in attributes}
    details = [f"{name}: {value}" for name, value in known.items() if value]
    details = [detail for detail in details if "prefer not to say" not in detail.lower()]
    return [f"gave these details, {'; '.join(details)}"] if details else []


def multifaceted_bench(split, *, n=None, seed=0):
    """A `datasets.Dataset` of at most `n` of Multifaceted-Bench's 921 rows (arXiv 2405.17977), in an order drawn from `seed`.

    There are no users: each row's `system` message is the context of a user of its own (`user_id` is a hash of both
    texts), and stays a system message in a run with FRAMES. The four preferences are its `preferences`, and
    `reference_response` is by a stronger model. One column more, `rubrics`, is a list of `{"criteria",
    "score_descriptions"}` with a text for each score "1" to "5", for the data set's own protocol. The hub has one part; a
    hash of the *prompt* divides it here, so that a prompt with several system messages stays in one split. Raises
    `UserError` as `prism` does.
    """
    _chosen("split", split, sources.SPLITS)
    (files, origin), rows, trained = data_files.files("multifaceted_bench"), [], set()
    columns = ("system", "prompt", "reference_answer", "preference_set", "rubrics")
    for row in (row for file in files for row in data_files.batched(file, columns)):
        prompt, context = _text(row["prompt"]), _text(row["system"])
        if not prompt or not context:
            continue
        user = f"mb-{hashlib.sha256(f'{context}|{prompt}'.encode()).hexdigest()[:12]}"
        wishes = [f"prefers: {p['preference']} ({_text(p['description']).rstrip('.')})" for p in row["preference_set"]]
        prompt_row = _row(prompt, context, user, wishes, _text(row["reference_answer"]))
        _keep(rows, trained, split, _plain(prompt), {**prompt_row, "rubrics": row["rubrics"]})
    return _drawn("multifaceted_bench", rows, trained, split, n, seed, origin)


def _row(prompt, context, user, wishes, reference):
    wishes = [{"text": text} for text in wishes]
    row = {"prompt": prompt, "context": context, "user_id": user, "preferences": wishes}
    return sources.columns({**row, "reference_response": reference or None})


def _keep(rows, trained, split, identity, row):
    """Keep a row if the split of its identity (a user, or a prompt where there are no users) is the one asked for."""
    part = splits.split_of(identity)
    if part == "train":
        trained.add(_plain(row["prompt"]))
    if part == split:
        rows.append(row)


def _drawn(name, rows, trained, split, n, seed, origin):
    """At most n of the rows. Development and test rows whose prompt is in training go, as long as others remain."""
    from datasets import Dataset

    if split != "train":
        rows = [row for row in rows if _plain(row["prompt"]) not in trained] or rows
    if not rows:
        raise UserError(f"{origin} has no '{split}' rows for these choices; choose more kinds, languages or files.")
    random.Random(f"{name}-{split}-{seed}").shuffle(rows)
    drawn = Dataset.from_list(rows[:n])
    drawn.info.description = origin
    return drawn


def _chosen(what, names, known):
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        require_known(what, name, known)
    return names


def _text(value):
    """A field as text: "" for what is missing (None, NaN, PRISM's mark), and without the end that Llama's tokens leave."""
    text = value.strip() if isinstance(value, str) else ""
    text = text.removesuffix("<|end_of_text|>").rstrip()
    return "" if text == "EMPTY STRING" else text


def _plain(text):
    return " ".join(text.casefold().split())


def _cut(text, limit):
    """A text on one line, ending at a sentence, else at a word, where it is longer than `limit` characters."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    ends = [m.end() for m in re.finditer(r"[.!?।…][\"'”’)]*(?=\s)", text[: limit + 1])]
    return text[: ends[-1]] if ends else text[: limit - 1].rpartition(" ")[0] + " …"


def _sentence(fact):
    return f"This person {fact}" + ("" if re.search(r"[.!?।…]\"?$", fact) else ".")
