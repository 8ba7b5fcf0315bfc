"""Messages and tokens: what is sampled, scored and trained is the same sequence."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mipo_nb import prompts
from mipo_nb.base.errors import UserError

# Letters and marks that a person types; control characters are the tokenizer's business, not ours.
sentences = st.text("abcdefgh ABC.,?!'éñ{}%0123\n-", min_size=1, max_size=60).filter(str.strip)


@given(sentences, sentences)
def test_the_context_goes_into_the_system_message_as_it_is(prompt, context):
    system, user = prompts.messages(prompt, context)
    assert (system["role"], user["role"]) == ("system", "user")
    assert context in system["content"]
    assert user["content"] == prompt
    assert system["content"].startswith(prompts.SYSTEM)


@given(sentences)
def test_without_a_context_the_system_message_is_the_same_for_all(prompt):
    assert prompts.messages(prompt) == [
        {"role": "system", "content": prompts.SYSTEM},
        {"role": "user", "content": prompt},
    ]


@pytest.mark.model
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sentences, sentences, sentences)
def test_prompt_and_completion_make_up_the_whole_conversation(tokenizer, prompt, context, response):
    conversation = prompts.messages(prompt, context)
    start = prompts.prompt_ids(tokenizer, conversation)
    end = prompts.completion_ids(tokenizer, conversation, response)
    whole = [*conversation, {"role": "assistant", "content": response}]
    assert tokenizer.decode(start + end) == tokenizer.apply_chat_template(whole, tokenize=False)
    assert start + end == tokenizer.apply_chat_template(whole, return_dict=False)


@pytest.mark.model
def test_a_completion_is_the_response_and_its_end_of_turn(tokenizer):
    conversation = prompts.messages("What should I cook?", "Ada likes soup.")
    found = prompts.completion_ids(tokenizer, conversation, "Soup with beans.")
    assert tokenizer.eos_token_id in found
    assert tokenizer.decode(found, skip_special_tokens=True).strip() == "Soup with beans."


@pytest.mark.model
def test_the_prompt_ends_where_the_assistant_begins(tokenizer):
    conversation = prompts.messages("What should I cook?", "Ada likes soup.")
    text = tokenizer.decode(prompts.prompt_ids(tokenizer, conversation))
    assert text.index("Ada likes soup.") < text.index("What should I cook?") < text.rindex("assistant")
    assert text.rstrip().endswith("assistant")


@pytest.mark.model
def test_a_template_that_changes_the_prompt_is_refused(tokenizer):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = (
        "{{ messages|length }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    with pytest.raises(UserError, match="use a model or template"):
        prompts.completion_ids(changed, prompts.messages("Hi", "Ada"), "Hello.")


@pytest.mark.model
def test_length_is_checked_to_the_token_and_names_the_prompt(tokenizer):
    short, long = prompts.messages("Hi"), prompts.messages("Hi", "Ada likes soup, bread, tea and long walks.")
    n = len(prompts.prompt_ids(tokenizer, long))
    assert len(prompts.prompt_ids(tokenizer, short)) < n
    assert prompts.check_length(tokenizer, [short, long], 10, n + 10) is None
    with pytest.raises(UserError, match=rf"ends with 'Hi' has {n} tokens.*lower max_new_tokens"):
        prompts.check_length(tokenizer, [short, long], 10, n + 9)


STORY = {
    "question": "Ada has 2 eggs. How many?",
    "answer": "2",
    "letters": [],
    "options": [],
    "solution": "1 + 1 = 2. #### 2",
}
CHOICE = {"question": "Which?", "answer": "B", "letters": ["A", "B"], "options": ["ice", "fire"], "solution": ""}


def test_a_problem_is_put_with_its_options():
    assert prompts.problem_text(STORY) == "Ada has 2 eggs. How many?"
    assert prompts.problem_text(CHOICE) == "Which?\nA. ice\nB. fire"


def test_exemplars_come_as_earlier_turns_with_the_closing_phrase():
    turns = prompts.problem_messages(STORY, [{**STORY, "question": "Q?"}])
    assert [t["role"] for t in turns] == ["system", "user", "assistant", "user"]
    assert [t["content"] for t in turns[1:]] == ["Q?", "1 + 1 = 2. The answer is 2.", STORY["question"]]
    assert prompts.worked(CHOICE) == "The answer is B."
    assert prompts.problem_messages(STORY)[0] != prompts.problem_messages(CHOICE)[0]


def test_no_answer_is_told_with_the_problem():
    for row in ({**STORY, "answer": "77", "solution": "77 #### 77"}, CHOICE):
        told = " ".join(turn["content"] for turn in prompts.problem_messages(row)[1:])
        assert "77" not in told and "answer" not in told


# --- how prompt and context are put ---


@pytest.fixture
def put():
    yield lambda *frame: prompts.use(prompts.Frame(*frame))
    prompts.use(prompts.Frame())


def test_a_context_can_be_put_into_the_users_turn_and_the_system_message_left_out(put):
    put("", "About me: {context}\n\n{prompt}")
    assert prompts.messages("Hi {context}", "likes {prompt} {x}") == [
        {"role": "user", "content": "About me: likes {prompt} {x}\n\nHi {context}"}
    ]
    assert prompts.messages("Hi") == [{"role": "user", "content": "Hi"}]
    put("Be kind.", "Be kind to {context}.")
    assert [m["content"] for m in prompts.messages("Hi", "Ada")] == ["Be kind to Ada.", "Hi"]
    assert [m["content"] for m in prompts.messages("Hi")] == ["Be kind.", "Hi"]


def test_a_frame_without_a_place_for_the_context_is_refused():
    with pytest.raises(UserError, match="has no {context} in it"):
        prompts.Frame("Be kind.", "Be kind.")


def test_earlier_turns_come_along():
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    row = {"prompt": "And now?", "history": history, "context": "Ada likes soup."}
    told = prompts.messages(prompts.asked(row), row["context"])
    assert told == [
        *prompts.messages("And now?", row["context"])[:1],
        *history,
        {"role": "user", "content": "And now?"},
    ]
    assert prompts.asked({"prompt": "And now?", "history": None}) == "And now?"


def test_a_step_is_another_one_under_another_frame(put):
    from mipo_nb.lab.steps import key

    usual = key(prompts.problem_text, ({},), {})
    put("Be kind.", "Be kind to {context}.")
    assert key(prompts.problem_text, ({},), {}) != usual
