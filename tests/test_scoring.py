"""Log-probabilities of responses: against a token-by-token loop, and independent of batching and padding."""

import numpy as np
import pytest
import torch

from mipo_nb import generation, prompts, scoring
from mipo_nb.engine import routes

pytestmark = pytest.mark.model

CONTEXT = "Ada repairs clocks in a small town. She wants answers of at most 20 words."
ROWS = [
    ("What should I do today?", CONTEXT, "Take a walk."),
    ("How do I sleep better?", None, "Go to bed at the same time every night, and keep the room cool and dark."),
    ("Name a bird.", CONTEXT, "A heron"),
    ("What is a good gift for a friend who has everything and lives far away?", None, "A letter."),
]


@pytest.fixture(scope="module")
def conversations():
    return [prompts.messages(p, c) for p, c, _ in ROWS]


@pytest.fixture(scope="module")
def responses():
    return [r for _, _, r in ROWS]


def test_equals_a_loop_over_tokens(model_and_tokenizer, conversations, responses):
    model, tokenizer = model_and_tokenizer
    found = scoring.token_log_probabilities(model, tokenizer, conversations, responses)
    for conversation, response, row in zip(conversations, responses, found, strict=True):
        ids = prompts.prompt_ids(tokenizer, conversation)
        expected = []
        for token in prompts.completion_ids(tokenizer, conversation, response):
            with torch.inference_mode():
                logits = model(torch.tensor([ids])).logits[0, -1].double()
            expected.append((logits[token] - logits.logsumexp(-1)).item())
            ids = [*ids, token]
        np.testing.assert_allclose(row, expected, atol=2e-4)


def test_a_row_is_scored_the_same_alone_and_in_any_batch(model_and_tokenizer, conversations, responses):
    model, tokenizer = model_and_tokenizer
    together = scoring.log_probabilities(model, tokenizer, conversations, responses, batch_size=4)
    for size in (1, 3):
        found = scoring.log_probabilities(model, tokenizer, conversations, responses, batch_size=size)
        np.testing.assert_allclose(found, together, rtol=1e-4)


def test_order_of_rows_does_not_matter(model_and_tokenizer, conversations, responses):
    model, tokenizer = model_and_tokenizer
    straight = scoring.log_probabilities(model, tokenizer, conversations, responses)
    backwards = scoring.log_probabilities(model, tokenizer, conversations[::-1], responses[::-1])
    np.testing.assert_allclose(backwards[::-1], straight, rtol=1e-4)


def test_end_of_turn_counts_as_a_token(model_and_tokenizer, conversations):
    _, tokenizer = model_and_tokenizer
    ids = prompts.completion_ids(tokenizer, conversations[0], "Yes.")
    assert tokenizer.eos_token_id in ids


def test_context_matrix_holds_the_single_scores(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    contexts = [[CONTEXT, "Ben sells fish.", None]]
    matrix = scoring.context_matrix(model, tokenizer, ["Name a bird."], contexts, ["A heron"])
    alone = [
        scoring.log_probabilities(model, tokenizer, [prompts.messages("Name a bird.", c)], ["A heron"])[0]
        for c in contexts[0]
    ]
    np.testing.assert_allclose(matrix[0], alone, rtol=1e-4)


def test_context_information_is_a_difference_of_two_scores(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    pmi = scoring.context_information(model, tokenizer, ["Name a bird."], [CONTEXT], ["A heron"])
    with_context, without = (
        scoring.log_probabilities(model, tokenizer, [prompts.messages("Name a bird.", c)], ["A heron"])[0]
        for c in (CONTEXT, None)
    )
    assert pmi[0] == pytest.approx(with_context - without, abs=1e-3)


def test_what_was_said_before_counts(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    history = [{"role": "user", "content": "Name a fish."}, {"role": "assistant", "content": "A carp."}]
    row = {"prompt": "And a bird?", "history": history, "context": CONTEXT}
    asked = [prompts.asked(row), prompts.asked({**row, "history": None})]
    pmi = scoring.context_information(model, tokenizer, asked, [CONTEXT] * 2, ["A heron"] * 2)
    turns = [*history, {"role": "user", "content": "And a bird?"}]
    by_hand = scoring.log_probabilities(
        model, tokenizer, [prompts.messages(turns, CONTEXT), prompts.messages(turns)], ["A heron"] * 2
    )
    assert pmi[0] == pytest.approx(by_hand[0] - by_hand[1], abs=1e-3) and abs(pmi[0] - pmi[1]) > 0.01
    matrix = scoring.context_matrix(model, tokenizer, asked[:1], [[CONTEXT, None]], ["A heron"])
    np.testing.assert_allclose(matrix[0], by_hand, rtol=1e-4)


def test_greedy_text_does_not_depend_on_its_neighbours(model_and_tokenizer, conversations):
    """Left padding in generation: a short prompt in a batch with longer ones continues as it does alone."""
    model, tokenizer = model_and_tokenizer
    how = generation.Sampling(temperature=0, max_new_tokens=12, batch_size=4)
    together = generation.sample(model, tokenizer, conversations, how, seed=0)["text"]
    for conversation, text in zip(conversations, together, strict=True):
        assert generation.sample(model, tokenizer, [conversation], how, seed=0)[0]["text"] == text


def test_packed_rows_give_the_text_and_the_scores_of_plain_attention(model_and_tokenizer, conversations, responses):
    model, tokenizer = model_and_tokenizer
    how = generation.Sampling(temperature=0, max_new_tokens=12)

    def both():
        texts = list(generation.sample(model, tokenizer, conversations, how, seed=0)["text"])
        return texts, scoring.log_probabilities(model, tokenizer, conversations, responses)

    assert routes.enable_packing(model)
    packed = both()
    try:
        model.set_attn_implementation("sdpa")
        assert not routes.enable_packing(model)
        plain = both()
    finally:
        model.set_attn_implementation("grouped_sdpa")
    assert packed[0] == plain[0]
    np.testing.assert_allclose(packed[1], plain[1], rtol=1e-4)


def test_a_matrix_of_prompts_and_responses_is_what_single_scores_are(model_and_tokenizer, conversations, responses):
    model, tokenizer = model_and_tokenizer
    every = [(c, r) for c in conversations for r in responses]
    matrix = scoring.log_probabilities(model, tokenizer, *map(list, zip(*every, strict=True)), batch_size=5)
    alone = [scoring.log_probabilities(model, tokenizer, [c], [r])[0] for c, r in every]
    np.testing.assert_allclose(matrix, alone, rtol=1e-4)


def test_a_response_depends_on_its_row_and_the_seed_not_on_the_batch(model_and_tokenizer, conversations):
    model, tokenizer = model_and_tokenizer
    how = {"temperature": 1.0, "top_p": 1.0, "top_k": 20, "max_new_tokens": 10}
    together = generation.sample(model, tokenizer, conversations, generation.Sampling(**how, batch_size=8), seed=3)
    apart = generation.sample(model, tokenizer, conversations, generation.Sampling(**how, batch_size=1), seed=3)
    assert together.to_list() == apart.to_list()
    other = generation.sample(model, tokenizer, conversations, generation.Sampling(**how, batch_size=8), seed=4)
    assert together.to_list() != other.to_list()


def test_the_tokens_of_a_response_spell_it_and_end_only_where_it_ended(model_and_tokenizer, conversations):
    model, tokenizer = model_and_tokenizer
    how = {"temperature": 0, "max_new_tokens": 24}
    rows = {
        choice: generation.sample(model, tokenizer, conversations, generation.Sampling(**how, at_limit=choice), seed=0)
        for choice in ("sentence", "whole", "drop")
    }
    assert {row["finished"] for row in rows["whole"]} == {True, False}
    for sentence, whole, drop in zip(*rows.values(), strict=True):
        for row in (sentence, whole, drop):
            ended = row["tokens"][-1:] == [tokenizer.eos_token_id]
            assert ended == row["finished"]
            assert tokenizer.decode(row["tokens"], skip_special_tokens=True).strip() == row["text"]
        if whole["finished"]:
            assert sentence == whole == drop
        else:
            assert len(whole["tokens"]) == 24 and drop["text"] == "" and drop["tokens"] == []
            assert sentence["text"] == generation.cut_to_sentence(whole["text"])
            assert sentence["tokens"] == whole["tokens"][: len(sentence["tokens"])]


def test_sampling_resumes_from_finished_batches(model_and_tokenizer, conversations, tmp_path):
    model, tokenizer = model_and_tokenizer
    how = generation.Sampling(max_new_tokens=6, batch_size=2)
    whole = list(generation.sample(model, tokenizer, conversations, how, seed=3, folder=tmp_path)["text"])
    (tmp_path / "batch-0001.json").unlink()
    first = (tmp_path / "batch-0000.json").stat().st_mtime_ns
    again = list(generation.sample(model, tokenizer, conversations, how, seed=3, folder=tmp_path)["text"])
    assert again == whole
    assert (tmp_path / "batch-0000.json").stat().st_mtime_ns == first
