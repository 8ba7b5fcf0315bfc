"""Stories, poems, letters and dialogues: what a training on everyday questions does where nothing was trained (notebook 43).

Users are in groups; those of a group are asked for the same story, poem and letter, so that texts to one prompt can be
compared between users. In a dialogue the user's messages are scripted and no message repeats the context, which stands
in the system message only. The model also reads its own earlier replies: one that has drifted may go on drifting.
"""

import numpy as np

from mipo_nb import evaluation, generation, models, pairs, preferences, prompts, sources
from mipo_nb.base.embedded import SentenceEncoder
from mipo_nb.base.errors import UserError
from mipo_nb.generation import Sampling
from mipo_nb.lab.ledger import of_users
from mipo_nb.paper import diversity

KINDS = ("story", "poem", "letter")
MAIN, EVERYONE = "for the user, recital-proof", "for everyone, recital-proof"
PRICES = ("answered", "repetition", "refusal", "echo", "empty")
BY_TURN, SAID_BEFORE = f"dialogue: {MAIN}", "dialogue: said before"
SPREADS = ("spread between draws", "spread between users")
_DIGITS = 4  # of a kept value


def creative_prompts(split):
    """{kind: list of prompts} of `data/creative.jsonl` in one split, "train" or "test"."""
    rows = sources.read_jsonl(sources.data_folder() / "creative.jsonl", required=("prompt", "kind"))
    return {kind: [r["prompt"] for r in rows if r["split"] == split and r["kind"] == kind] for kind in KINDS}


def people(s):
    """[users] of rows, one for each of the `s.n_measured` test users that a run measures; their prompts are not used."""
    rows = sources.personal_prompts("test", n=s.n_measured, data=s.data, seed=s.seed)
    return list({row["user_id"]: row for row in rows}.values())


def asked(people):
    """One row for each kind and person, with its `kind`, kind after kind: as many groups as there are prompts of a kind,
    or half as many as people, and all of a group have the same prompts. Raises `UserError` for fewer than two people."""
    by_kind = creative_prompts("test")
    groups = min(len(people) // 2, *map(len, by_kind.values()))
    if not groups:
        raise UserError("One user's texts have no other's to be compared with; set n_measured to 2 or more.")
    rows = [(kind, texts, i, person) for kind, texts in by_kind.items() for i, person in enumerate(people)]
    return [{**person, "prompt": texts[i % groups], "kind": kind} for kind, texts, i, person in rows]


def written(model, tokenizer, rows, s, *, step, told=True):
    """What a model writes for `asked` rows, as `generation.sample` returns it, `s.draws` times; where not `told` of the
    users, without their contexts. A draw has one seed for all models: they share their luck."""
    asked = pairs.positive_conversations(rows) if told else pairs.negative_conversations(rows, "missing_context")
    put = (generation.sample_draws, model, tokenizer, asked, Sampling.of(s))
    return step("creative texts", *put, seeds=[51 + k for k in range(s.draws)])


# --- dialogues ---


def scripts(n, turns):
    """n lists of `turns` messages: the themes of `data/dialogues.jsonl` in order, each round begun one message later.

    Over a full cycle (as many dialogues as there are themes times messages of a theme) every message stands at every
    turn equally often, so that no turn is easier or harder by what is asked at it. Raises `UserError` for one turn, or
    for more than a theme has messages.
    """
    themes = [row["turns"] for row in sources.read_jsonl(sources.data_folder() / "dialogues.jsonl")]
    shortest = min(map(len, themes))
    if not 2 <= turns <= shortest:
        raise UserError(
            f"A dialogue has 2 to {shortest} turns, so that none is repeated; set n_turns to one of these, not {turns}."
        )
    begun = [(themes[i % len(themes)], i // len(themes)) for i in range(n)]  # theme, number of its first message
    return [[theme[(first + k) % len(theme)] for k in range(turns)] for theme, first in begun]


def dialogues(people, s):
    """([n] rows, [n] scripts): `s.n_dialogues` dialogues for each person, on different themes."""
    talking = [person for person in people for _ in range(s.n_dialogues)]
    return talking, scripts(len(talking), s.n_turns)


def roll(respond, contexts, scripts):
    """Replies [dialogues][turns]: all dialogues go on together, one turn after the other.

    `respond(turn, conversations)` gives one reply per conversation, a message list that ends with the user's message of
    this turn (counted from 0). `contexts[i]` is what the system message says of the user, None for nothing;
    `scripts[i]` are the user's messages, as many for all.
    """
    conversations = [prompts.messages(script[0], context) for script, context in zip(scripts, contexts, strict=True)]
    replies = [[] for _ in scripts]
    for turn in range(len(scripts[0])):
        if turn:
            conversations = [
                [*messages, {"role": "assistant", "content": texts[-1]}, {"role": "user", "content": script[turn]}]
                for messages, texts, script in zip(conversations, replies, scripts, strict=True)
            ]
        for texts, reply in zip(replies, respond(turn, conversations), strict=True):
            texts.append(reply)
    return replies


def replied(model, tokenizer, people, scripts, s, *, step, told=True):
    """`roll` with a model, each turn a step; `told` and luck as in `written`."""

    def respond(turn, conversations):
        put = (generation.sample, model, tokenizer, conversations, Sampling.of(s))
        return list(step(f"dialogues, turn {turn + 1}", *put, seed=61 + turn)["text"])

    return roll(respond, [person["context"] if told else None for person in people], scripts)


def repeated_from_before(replies):
    """Array [dialogues, turns]: share of a reply's 4-grams of words that an earlier reply of its dialogue has. NaN for
    the first turn; 0 for a reply of fewer than four words."""
    shares = np.full((len(replies), len(replies[0])), np.nan)
    for row, dialogue in enumerate(replies):
        earlier = set(evaluation.n_grams(dialogue[0]))
        for turn, reply in enumerate(dialogue[1:], 1):
            grams = evaluation.n_grams(reply)
            shares[row, turn] = np.mean([gram in earlier for gram in grams]) if grams else 0.0
            earlier.update(grams)
    return shares


def slope(values):
    """Array [...]: the slope per turn of the least-squares line through values [..., turns], of two turns or more."""
    values = np.asarray(values, dtype=float)
    turns = np.arange(values.shape[-1]) - (values.shape[-1] - 1) / 2
    return values @ turns / (turns @ turns)


# --- what is measured ---


def of_texts(rows, draws, encoder):
    """{view: [users]} of what was `written` for `asked` rows: wishes kept for the user and for everyone, as
    `evaluation.measured` has them, for the user in each kind of text too, and PRICES; with `spreads`."""
    asked, kept = _kept(rows, draws)
    shares = evaluation.for_the_user(asked, kept)
    health = [evaluation.text_health(rows, list(draw["text"])) for draw in draws]
    found = {MAIN: shares["for the user"], EVERYONE: shares["for everyone"], "answered": answered(rows, draws, encoder)}
    found |= {price: np.mean([table[price] for table in health], axis=0) for price in PRICES[1:]}
    views = {view: _by_user(values, rows) for view, values in found.items()}
    for kind in KINDS:
        own = np.array([row["kind"] == kind for row in rows])
        values = np.full(len(rows), np.nan)
        values[own] = evaluation.for_the_user(asked[own], kept[own])["for the user"]
        views[f"{kind}: {MAIN}"] = _by_user(values, rows)
    return views | spreads(rows, draws, encoder)


def _kept(rows, draws):
    """(asked, kept): arrays [n, kinds] for `evaluation.for_the_user`, of recital-proof kinds, kept as a mean over draws."""
    judged = [evaluation.kept_matrix(rows, list(draw["text"])) for draw in draws]
    kinds, kept = judged[0][0], np.mean([matrix for _, matrix in judged], axis=0)
    proof = np.array([preferences.proven(kind, rows) for kind in kinds])
    return evaluation.asked_matrix(rows, kinds)[:, proof], kept[:, proof]


def answered(rows, draws, encoder):
    """Array [n], over draws: whether the encoder finds the text's own prompt first, among all creative ones of the test."""
    known = [prompt for texts in creative_prompts("test").values() for prompt in texts]
    choices = [[row["prompt"], *(p for p in known if p != row["prompt"])] for row in rows]
    found = [evaluation.identify_by_encoder(encoder, list(draw["text"]), choices) for draw in draws]
    return np.mean([evaluation.identification(scores)["top1"] for scores in found], axis=0)


def spreads(rows, draws, encoder):
    """{"spread between draws", "spread between users"}: [prompts] of `diversity.spread`, of the draws for one user averaged
    over users, and of one text for each user averaged over draws. NaN where there is one draw."""
    vectors, numbers = np.stack([encoder.encode(list(draw["text"])) for draw in draws]), {}
    for i, row in enumerate(rows):
        numbers.setdefault(row["prompt"], []).append(i)
    between_draws = [np.mean([diversity.spread(vectors[:, i]) for i in some]) for some in numbers.values()]
    between_users = [np.mean([diversity.spread(draw[some]) for draw in vectors]) for some in numbers.values()]
    return {name: _short(values) for name, values in zip(SPREADS, (between_draws, between_users), strict=True)}


def of_replies(people, scripts, replies):
    """{BY_TURN: [turns][users], wishes kept for the user at each turn; SAID_BEFORE: [users], `repeated_from_before` over the
    turns after the first}; the `replies` are those of `people`, a row each."""
    by_turn = []
    for turn, said in enumerate(zip(*replies, strict=True)):
        rows = [{**person, "prompt": script[turn]} for person, script in zip(people, scripts, strict=True)]
        shares = evaluation.for_the_user(*_kept(rows, [{"text": said}]))
        by_turn.append(_by_user(shares["for the user"], rows))
    repeated = repeated_from_before(replies)[:, 1:].mean(1)
    return {BY_TURN: by_turn, SAID_BEFORE: _by_user(repeated, people)}


def measured(model, tokenizer, s, *, step, told=True):
    """{"users": their ids, in order, and all views of `of_texts` and `of_replies`} of one model."""
    everybody = people(s)
    rows, (talking, said) = asked(everybody), dialogues(everybody, s)
    how = {"step": step, "told": told}
    drawn = written(model, tokenizer, rows, s, **how)
    replies = replied(model, tokenizer, talking, said, s, **how)
    users = sorted(person["user_id"] for person in everybody)
    return {"users": users, **of_texts(rows, drawn, SentenceEncoder(s.device)), **of_replies(talking, said, replies)}


def measured_training(model, tokenizer, arm, s, *, seed, step, train):
    """{"views": as in `measured`, "pairs", "margin"} of one training of an arm; "views" alone of the untrained model (`arm`
    None), and of one that is told nothing of the users (an arm of 0 pairs): the floor.

    `train(model, tokenizer, arm, s, seed=, step=)` gives "adapter", "log" and "pairs", as `arms.trained` does. The margin,
    in nats, is that of the last five steps: how much more the chosen side gained than the rejected one.
    """
    if arm is None or not arm.pairs:
        return {"views": measured(model, tokenizer, s, step=step, told=arm is None)}
    result = train(model, tokenizer, arm, s, seed=seed, step=step)
    policy = models.with_adapter(model, result["adapter"], s.model)
    margin = np.mean([entry["rewards/margins"] / s.beta for entry in result["log"][-5:]])
    views = measured(policy, tokenizer, s, step=step)
    return {"views": views, "pairs": len(result["pairs"]), "margin": round(float(margin), 3)}


def _by_user(values, rows):
    return _short(of_users(values, [row["user_id"] for row in rows]))


def _short(values):
    return [None if value is None or np.isnan(value) else round(float(value), _DIGITS) for value in values]
