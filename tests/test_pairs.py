"""Contrastive pairs: what each side is sampled from, which rows are usable, and the audits."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb import models, pairs, prompts
from mipo_nb.base.errors import UserError

ROWS = [
    {"prompt": f"Question {i % 4}?", "context": f"User {i // 2} likes soup no. {i // 2}.", "user_id": f"u{i // 2}"}
    for i in range(12)
]
CHOSEN = [f"Soup number {i}, with beans and bread." for i in range(12)]
REJECTED = [f"A walk of {i} miles." for i in range(12)]

some_rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4)).map(
        lambda t: {"prompt": f"Question {t[0]}?", "context": f"User {t[1]} likes tea.", "user_id": f"u{t[1]}"}
    ),
    min_size=1,
    max_size=12,
)


@given(some_rows)
def test_the_chosen_side_sees_prompt_and_context(rows):
    expected = [prompts.messages(r["prompt"], r["context"]) for r in rows]
    assert pairs.positive_conversations(rows) == expected


@given(some_rows)
def test_a_missing_context_is_the_prompt_alone(rows):
    expected = [prompts.messages(r["prompt"]) for r in rows]
    assert pairs.negative_conversations(rows, "missing_context") == expected


@given(some_rows.filter(lambda rows: len({r["user_id"] for r in rows}) > 1), st.integers(0, 3))
def test_a_random_context_is_of_another_user_with_the_same_prompt(rows, seed):
    for row, found in zip(rows, pairs.negative_conversations(rows, "random_context", seed=seed), strict=True):
        options = [prompts.messages(row["prompt"], o["context"]) for o in rows if o["user_id"] != row["user_id"]]
        assert found in options


@given(some_rows.filter(lambda rows: len({r["prompt"] for r in rows}) > 1), st.integers(0, 3))
def test_a_random_prompt_is_another_one_with_the_same_context(rows, seed):
    for row, found in zip(rows, pairs.negative_conversations(rows, "random_prompt", seed=seed), strict=True):
        options = [prompts.messages(o["prompt"], row["context"]) for o in rows if o["prompt"] != row["prompt"]]
        assert found in options


def test_another_context_of_the_same_user_or_the_same_text_of_another_is_not_random():
    rows = [
        {"prompt": "a", "context": "one", "user_id": "u1"},
        {"prompt": "a", "context": "two", "user_id": "u1"},
        {"prompt": "a", "context": "one", "user_id": "u2"},
        {"prompt": "a", "context": "three", "user_id": "u3"},
    ]
    for seed in range(20):
        first = pairs.negative_conversations(rows, "random_context", seed=seed)[0]
        assert first == prompts.messages("a", "three")


@pytest.mark.parametrize("negative", ["random_context", "random_prompt"])
def test_the_random_choice_is_seeded_and_reaches_every_other(negative):
    def take(seed):
        return pairs.negative_conversations(ROWS, negative, seed=seed)

    assert take(1) == take(1)
    assert take(1) != take(2)
    reached = {repr(take(seed)[0]) for seed in range(200)}
    assert len(reached) == {"random_context": 5, "random_prompt": 3}[negative]


def test_negatives_that_cannot_be_made_are_explained():
    with pytest.raises(UserError, match="did you mean 'random_context'"):
        pairs.negative_conversations(ROWS, "random_contxt")
    for negative in ("random_context", "random_prompt"):
        with pytest.raises(UserError, match=f"'{negative}' needs at least two different.*add rows"):
            pairs.negative_conversations(ROWS[:1] * 3, negative)


def build(tokenizer, chosen=CHOSEN, rejected=REJECTED, **options):
    options = {"negative": "random_context", "max_length": 512} | options
    return pairs.build(ROWS, chosen, rejected, tokenizer, **options)


@pytest.mark.model
def test_pairs_hold_the_real_prompt_and_both_sides(tokenizer):
    made, counts = build(tokenizer)
    assert counts == {"rows": 12, "empty": 0, "thinking": 0, "identical": 0, "over-long": 0, "pairs": 12, "cut": 0}
    assert list(made["prompt"]) == pairs.positive_conversations(ROWS)
    assert pairs.texts(made, "chosen") == CHOSEN
    assert pairs.texts(made, "rejected") == REJECTED
    assert {m[0]["role"] for side in ("chosen", "rejected") for m in made[side]} == {"assistant"}
    assert list(made["user_id"]) == [r["user_id"] for r in ROWS]
    assert len(set(made["pair_id"])) == 12
    assert set(made["negative"]) == {"random_context"}


@pytest.mark.model
def test_unusable_rows_are_counted_in_the_documented_order(tokenizer):
    chosen, rejected = list(CHOSEN), list(REJECTED)
    chosen[0] = "  \n"
    rejected[1] = ""
    chosen[2] = rejected[2] = ""  # empty comes before identical
    chosen[3] = rejected[3] + "\n"
    chosen[4] = rejected[4] = "word " * 600  # identical comes before over-long
    chosen[5] = "word " * 600
    rejected[6] = "word " * 600
    chosen[7] = "<think>\nBees.\n</think>\n\nLook at the hives."
    made, counts = build(tokenizer, chosen, rejected)
    assert counts == {"rows": 12, "empty": 3, "thinking": 1, "identical": 2, "over-long": 2, "pairs": 4, "cut": 0}
    assert pairs.texts(made, "chosen") == CHOSEN[8:]
    full = build(tokenizer)[0]
    assert list(made["pair_id"]) == list(full["pair_id"])[8:]  # an id says which row, whatever was left out


@pytest.mark.model
def test_the_length_limit_is_exact(tokenizer):
    whole = [
        len(tokenizer.apply_chat_template([*c, {"role": "assistant", "content": t}], return_dict=False))
        for side in (CHOSEN, REJECTED)
        for c, t in zip(pairs.positive_conversations(ROWS), side, strict=True)
    ]
    longest = max(whole)
    assert build(tokenizer, max_length=longest)[1]["over-long"] == 0
    assert build(tokenizer, max_length=longest - 1)[1]["over-long"] > 0


@pytest.mark.model
def test_too_few_pairs_are_explained(tokenizer):
    with pytest.raises(UserError, match="Only 11 of 12 rows.*1 empty.*add rows or raise max_length"):
        build(tokenizer, ["", *CHOSEN[1:]], at_least=12)
    with pytest.raises(UserError, match="12 over-long"):
        build(tokenizer, max_length=10)
    assert build(tokenizer, at_least=12)[1]["pairs"] == 12


@pytest.mark.model
def test_sides_of_different_lengths_are_refused(tokenizer):
    with pytest.raises(ValueError):
        build(tokenizer, CHOSEN[1:])


@pytest.mark.model
@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_swapping_exchanges_half_and_twice_restores(tokenizer, n):
    made = build(tokenizer)[0].select(range(n))
    swapped = pairs.swap_sides(made, seed=3)
    differ = [a != b for a, b in zip(made["chosen"], swapped["chosen"], strict=True)]
    assert sum(differ) == n // 2
    for before, after in zip(made, swapped, strict=True):
        assert sorted([before["chosen"], before["rejected"]], key=str) == sorted(
            [after["chosen"], after["rejected"]], key=str
        )
        assert before["prompt"] == after["prompt"] and before["pair_id"] == after["pair_id"]
    assert pairs.swap_sides(swapped, seed=3).to_list() == made.to_list()


@pytest.mark.model
def test_every_pair_is_swapped_about_half_of_the_time(tokenizer):
    made = build(tokenizer)[0]
    times = Counter()
    for seed in range(60):
        swapped = pairs.texts(pairs.swap_sides(made, seed=seed), "chosen")
        times.update(i for i in range(12) if swapped[i] == REJECTED[i])
    assert len(times) == 12
    assert min(times.values()) > 15 and max(times.values()) < 45  # 30 expected, standard deviation about 4


@pytest.mark.model
def test_the_audit_measures_length_overlap_and_opening(tokenizer):
    chosen = ["I like red soup", "Try the new soup today, please", "Soup", *CHOSEN[3:]]
    rejected = ["I LIKE green soup", "Try the new bread", "Bread", *REJECTED[3:]]
    made, _ = build(tokenizer, chosen, rejected)
    table = pairs.audit(made, tokenizer)
    assert list(table["pair_id"]) == list(made["pair_id"])
    assert table["overlap"][:3].tolist() == pytest.approx([3 / 5, 3 / 7, 0])
    assert table["same_opening"][:3].tolist() == [False, True, False]
    for side, texts in (("chosen", chosen), ("rejected", rejected)):
        assert table[f"{side}_tokens"].tolist() == [len(tokenizer.tokenize(t)) for t in texts]
    assert (table["gap"] == table["chosen_tokens"] - table["rejected_tokens"]).all()


claims = st.lists(st.sampled_from(["1", "2", "3", "4", "5", None]), min_size=2, max_size=40)


@given(claims, st.integers(0, 5))
def test_a_shuffled_response_is_of_another_problem_and_claims_another_answer(claimed, seed):
    most = max((claimed.count(c) for c in claimed if c is not None), default=1)
    surplus = max(0, 2 * most - len(claimed))
    if len(claimed) - surplus < 2:
        with pytest.raises(UserError, match="claim the same answer"):
            pairs.shuffled(claimed, seed=seed)
        return
    order = pairs.shuffled(claimed, seed=seed)
    assert sorted(order) == list(range(len(claimed)))
    kept = [i for i, j in enumerate(order) if i == j]
    assert len(kept) == surplus and all(claimed.count(claimed[i]) == most for i in kept)
    assert all(claimed[i] is None or claimed[i] != claimed[j] for i, j in enumerate(order) if i != j)


def test_rows_that_can_get_no_other_answer_are_left_out_of_the_pairs(tokenizer):
    claimed = ["4"] * 5 + ["7", "8", None]
    texts = [f"{k} apples, so {claim}." for k, claim in enumerate(claimed)]
    rows = [{"prompt": f"How many are {k}?", "context": "Ana.", "user_id": "a"} for k in range(8)]
    order = pairs.shuffled(claimed, seed=2)
    made, counts = pairs.build(
        rows, texts, [texts[k] for k in order], tokenizer, negative="random_prompt", max_length=256
    )
    assert counts["identical"] == 2 and len(made) == 6
    sides = zip(pairs.texts(made, "chosen"), pairs.texts(made, "rejected"), strict=True)
    assert not any("so 4" in plus and "so 4" in minus for plus, minus in sides)


def test_half_of_all_claims_alike_can_still_be_shuffled():
    claimed = ["yes"] * 20 + ["no"] * 15 + [None] * 5
    order = pairs.shuffled(claimed, seed=3)
    assert all(claimed[order[i]] != "yes" for i in range(20)) and all(claimed[order[i]] == "yes" for i in range(20, 40))


def test_the_shuffle_is_seeded_and_any_response_can_come():
    claimed = [str(k) for k in range(6)]
    assert pairs.shuffled(claimed, seed=1) == pairs.shuffled(claimed, seed=1)
    assert {pairs.shuffled(claimed, seed=k)[0] for k in range(60)} == {1, 2, 3, 4, 5}


def test_pairs_of_problems_keep_their_conversations(tokenizer):
    rows = [{"question": f"{k} + 1?", "letters": [], "options": []} for k in range(3)]
    asked = [prompts.problem_messages(row) for row in rows]
    made, _ = pairs.build(
        rows, list("abc"), list("bca"), tokenizer, negative="random_prompt", max_length=256, conversations=asked
    )
    assert made["prompt"] == asked and pairs.texts(made, "rejected") == list("bca") and made["user_id"] == [""] * 3


def sampled(tokenizer, texts, ends=True):
    """What `generation.sample` returns, each text's first word in the tokens of its letters, as sampling may have it."""
    ids = [
        [*(i for letter in text[:4] for i in tokenizer(letter, add_special_tokens=False)["input_ids"]),
         *tokenizer(text[4:], add_special_tokens=False)["input_ids"], *[tokenizer.eos_token_id] * ends]
        for text in texts
    ]  # fmt: skip
    return [{"text": t, "tokens": y, "finished": ends} for t, y in zip(texts, ids, strict=True)]


def test_trained_are_the_tokens_that_were_sampled_and_no_end_that_was_not_written(tokenizer):
    from mipo_nb import training

    plus, minus = sampled(tokenizer, CHOSEN), sampled(tokenizer, REJECTED, ends=False)
    made, counts = pairs.build(ROWS, plus, minus, tokenizer, negative="random_context", max_length=512)
    assert counts["pairs"] == counts["cut"] == counts["rows"] == 12
    rows = training.tokenize(made, tokenizer)
    assert [chosen for _, chosen, _ in rows] == [row["tokens"] for row in plus]
    assert [rejected for *_, rejected in rows] == [row["tokens"] for row in minus]
    assert all(rejected[-1] != tokenizer.eos_token_id for *_, rejected in rows)
    exchanged = training.tokenize(pairs.swap_sides(made, seed=1), tokenizer)
    assert sum(a[1:] == b[:0:-1] for a, b in zip(rows, exchanged, strict=True)) == 6
    edited = made.map(lambda row: {"chosen": [{"role": "assistant", "content": "Bread."}]})
    text_tokens = prompts.completion_ids(tokenizer, made[0]["prompt"], "Bread.")
    assert {tuple(chosen) for _, chosen, _ in training.tokenize(edited, tokenizer)} == {tuple(text_tokens)}


def test_a_prompt_with_its_sampled_tokens_must_fit(tokenizer):
    plus, minus = sampled(tokenizer, CHOSEN), sampled(tokenizer, REJECTED)
    longest = max(
        len(prompts.prompt_ids(tokenizer, x)) + len(row["tokens"])
        for x, *sides in zip(pairs.positive_conversations(ROWS), plus, minus, strict=True)
        for row in sides
    )
    for room, n in ((longest, 0), (longest - 1, 1)):
        _, counts = pairs.build(ROWS, plus, minus, tokenizer, negative="random_context", max_length=room)
        assert (counts["over-long"] > 0) == (n > 0)


# --- which part of the context is exchanged ---

PEOPLE = [
    {"prompt": f"{q}?", "user_id": name, "name": name, "biography": f"{name} keeps {pet}.", "wish": f"{name} wants {what}.",
     "context": f"{name} keeps {pet}. {name} wants {what}.", "preferences": [{"text": "", "kind": kind, "value": None}]}
    for name, pet, what, kind in (("Ana", "bees", "Spanish", "in_spanish"), ("Ben", "hens", "a list", "numbered_list"),
                                  ("Cai", "goats", "his name", "calls_by_name"), ("Dee", "a cow", "lists", "numbered_list"))
    for q in ("What", "Where")
]  # fmt: skip


def system_texts(negative, seed):
    return [c[0]["content"] for c in pairs.negative_conversations(PEOPLE, negative, seed=seed)]


@given(st.integers(0, 50))
def test_a_random_wish_keeps_the_person_and_has_a_wish_of_another_kind_in_the_own_name(seed):
    for row, text in zip(PEOPLE, system_texts("random_wish", seed), strict=True):
        wishes = [o["wish"].replace(o["name"], row["name"]) for o in PEOPLE if o["preferences"] != row["preferences"]]
        assert text in [prompts.messages("", f"{row['biography']} {wish}")[0]["content"] for wish in wishes]


@given(st.integers(0, 50))
def test_a_random_person_has_the_own_wish_in_another_name(seed):
    for row, text in zip(PEOPLE, system_texts("random_person", seed), strict=True):
        others = [o for o in PEOPLE if o["name"] != row["name"]]
        contexts = [f"{o['biography']} {row['wish'].replace(row['name'], o['name'])}" for o in others]
        assert text in [prompts.messages("", context)[0]["content"] for context in contexts]


@pytest.mark.parametrize("negative", ["random_wish", "random_person"])
def test_rows_whose_context_is_in_one_piece_cannot_have_a_part_exchanged(negative):
    with pytest.raises(UserError, match="in every row, and one is empty"):
        pairs.negative_conversations(ROWS, negative)


def test_a_side_whose_tokens_think_aloud_is_left_out_though_its_text_does_not_show_it():
    tokenizer = models.load_tokenizer("embedded:smollm2-135m")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    said = [{"text": "Rest.", "tokens": tokenizer("<think></think>Rest.")["input_ids"], "finished": True}, "Sleep."]
    rows = [{"prompt": "What now?", "context": "Ana keeps bees.", "user_id": "u"}] * 2
    _, counts = pairs.build(rows, said, ["No.", "No."], tokenizer, negative="missing_context", max_length=None)
    assert (counts["thinking"], counts["pairs"]) == (1, 1)
