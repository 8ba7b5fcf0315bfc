"""Dialogues turn by turn: what the model reads at each, what was said before, and the slope of a gain."""

from collections import Counter

import numpy as np
import pytest

from mipo_nb import prompts
from mipo_nb.base.errors import UserError
from mipo_nb.studies import dialogues


def test_over_a_full_round_every_message_stands_at_every_turn_equally_often():
    made = dialogues.scripts(60, 5)
    assert Counter((turn, m) for script in made for turn, m in enumerate(script)).most_common(1)[0][1] == 1
    assert all(len(set(script)) == 5 for script in made)
    assert len({m for script in made for m in script}) == 60


def test_scripts_begin_alike_whatever_their_length():
    assert [s[:3] for s in dialogues.scripts(15, 5)] == dialogues.scripts(15, 3)


def test_each_turn_reads_all_that_was_said_and_the_context_once():
    seen = []

    def respond(turn, conversations):
        seen.append(conversations)
        return [f"reply {turn} to {c[-1]['content']}" for c in conversations]

    replies = dialogues.roll(respond, ["Ada keeps bees.", None], [["a?", "b?", "c?"], ["x?", "y?", "z?"]])
    assert replies == [
        ["reply 0 to a?", "reply 1 to b?", "reply 2 to c?"],
        ["reply 0 to x?", "reply 1 to y?", "reply 2 to z?"],
    ]
    assert seen[0] == [prompts.messages("a?", "Ada keeps bees."), prompts.messages("x?")]
    last = seen[2][0]
    assert [m["role"] for m in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [m["content"] for m in last[1:]] == ["a?", "reply 0 to a?", "b?", "reply 1 to b?", "c?"]
    assert [sum("bees" in m["content"] for m in c) for c in seen[2]] == [1, 0]


def test_fewer_replies_than_dialogues_are_not_taken():
    with pytest.raises(ValueError):
        dialogues.roll(lambda turn, c: ["one"], ["A.", "B."], [["a?"], ["b?"]])


def test_phrases_that_an_earlier_reply_has_are_counted():
    found = dialogues.repeated_from_before(
        [
            ["one two three four five", "ONE two three four six", "two three four six seven"],
            ["a b", "", "new words stand here now"],
        ]
    )
    assert np.isnan(found[:, 0]).all()
    assert found[0, 1:] == pytest.approx([0.5, 0.5])  # 1-2-3-4 of two; 2-3-4-6, said in the second, of two
    assert found[1, 1:] == pytest.approx([0, 0])


@pytest.mark.parametrize("turns", [2, 5])
def test_a_line_has_its_slope_and_a_constant_none(turns):
    lines = np.array([[3.0], [-0.5], [0.0]]) * np.arange(turns) + 7
    assert dialogues.slope(lines) == pytest.approx([3, -0.5, 0])
    assert dialogues.slope(lines[None]).shape == (1, 3)


@pytest.mark.model
def test_turns_of_a_real_model_are_the_same_again(model_and_tokenizer):
    from mipo_nb import generation

    how = generation.Sampling(max_new_tokens=8)

    def respond(turn, conversations):
        return list(generation.sample(*model_and_tokenizer, conversations, how, seed=turn)["text"])

    first, again = (dialogues.roll(respond, ["Ada keeps bees."] * 2, dialogues.scripts(2, 2)) for _ in range(2))
    assert first == again and np.shape(first) == (2, 2)


@pytest.mark.parametrize("turns", [1, 6])
def test_a_dialogue_repeats_no_message_and_has_more_than_one(turns):
    with pytest.raises(UserError, match="set n_turns"):
        dialogues.scripts(3, turns)
