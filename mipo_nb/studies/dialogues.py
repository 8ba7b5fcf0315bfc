"""Dialogues of several turns: scripted messages of a user, the model's own replies between them, and what is left of
the user at each turn.

The user's context stands in the system message only, and no message repeats it. The model's own earlier replies are part
of what it reads: who has drifted once may go on to drift.
"""

import numpy as np

from mipo_nb import evaluation, prompts, sources
from mipo_nb.base.errors import UserError


def scripts(n, turns):
    """n lists of so many messages each: the themes of `data/dialogues.jsonl` in turn, each time begun one message later.

    Over a full round (as many dialogues as there are themes times messages of a theme) every message stands at every
    turn equally often, so that a turn is not easier or harder by what is asked at it. Raises `UserError` for one turn, or
    for more than a theme has messages.
    """
    themes = [r["turns"] for r in sources.read_jsonl(sources.data_folder() / "dialogues.jsonl")]
    shortest = min(map(len, themes))
    if not 2 <= turns <= shortest:
        raise UserError(
            f"A dialogue has 2 to {shortest} turns, so that none is repeated; set n_turns to one of these, not {turns}."
        )
    made = []
    for i in range(n):
        messages, begin = themes[i % len(themes)], i // len(themes)
        made.append([messages[(begin + k) % len(messages)] for k in range(turns)])
    return made


def roll(respond, contexts, scripts):
    """Replies [dialogues][turns]: all dialogues go on together, one turn after the other.

    `respond(turn, conversations)` gives one reply per conversation, a message list that ends with the user's message of
    this turn (counted from 0). `contexts[i]` is what the system message says of the user, None for nothing; `scripts[i]`
    are the user's messages, of the same number for all.
    """
    conversations = [prompts.messages(script[0], context) for script, context in zip(scripts, contexts, strict=True)]
    replies = [[] for _ in scripts]
    for turn in range(len(scripts[0])):
        if turn:
            conversations = [
                [*said, {"role": "assistant", "content": own[-1]}, {"role": "user", "content": script[turn]}]
                for said, own, script in zip(conversations, replies, scripts, strict=True)
            ]
        for own, text in zip(replies, respond(turn, conversations), strict=True):
            own.append(text)
    return replies


def repeated_from_before(replies):
    """Array [dialogues, turns]: share of a reply's 4-grams of words that an earlier reply of its dialogue has.

    NaN for the first turn; 0 for a reply of fewer than four words.
    """
    found = np.full((len(replies), len(replies[0])), np.nan)
    for row, dialogue in enumerate(replies):
        before = set(evaluation.n_grams(dialogue[0]))
        for turn, reply in enumerate(dialogue[1:], 1):
            grams = evaluation.n_grams(reply)
            found[row, turn] = np.mean([g in before for g in grams]) if grams else 0.0
            before.update(grams)
    return found


def slope(values):
    """Array [...]: the slope per turn of the least-squares line through values [..., turns], of two turns or more."""
    values = np.asarray(values, dtype=float)
    turns = np.arange(values.shape[-1]) - (values.shape[-1] - 1) / 2
    return values @ turns / (turns @ turns)
