"""Dialogues of several turns: a user's scripted messages, the model's replies, and what is left of the user at each
turn.

The user's context is in the system message only, and no message repeats it. The model also reads its own earlier
replies: a model that has drifted once may go on drifting.
"""

import numpy as np

from mipo_nb import evaluation, prompts, sources
from mipo_nb.base.errors import UserError


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
