"""PRISM, Community Alignment and Multifaceted-Bench from small files of our own in the original formats."""

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mipo_nb import pairs, prompts, sources
from mipo_nb.base import splits
from mipo_nb.base.errors import UserError
from mipo_nb.paper import data_files, personal

COLUMNS = ["prompt", "context", "user_id", "name", "preferences", "reference_response", "biography", "wish"]
EMPTY, END = "EMPTY STRING", "<|end_of_text|>"

# --- PRISM ---

SLIDERS = dict.fromkeys(personal.SLIDERS, 50.0) | {"other": None, "other_text": None}


def surveyed(user, said="I keep goats.", asked="Be brief.", sliders=None, **more):
    """A row of survey.jsonl with its nested fields; most of them are not used."""
    return {
        "user_id": user,
        "survey_only": False,
        "num_completed_conversations": 2,
        "timing_duration_s": 321,
        "lm_familiarity": "Somewhat familiar",
        "self_description": said,
        "system_string": asked,
        "age": "25-34 years old",
        "religion": {"self_described": "None", "categorised": "No affiliation", "simplified": "No affiliation"},
        "location": {"birth_country": "Peru", "reside_country": "Peru", "special_location_case": None},
        "lm_usecases": {"research": 1, "other": 0, "other_text": None},
        "stated_prefs": SLIDERS | (sliders or {}),
        "order_stated_prefs": {"values": 1},
        "included_in_balanced_subset": True,
        **more,
    }


def talk(number, user, prompt, chosen="Take a rope.", kind="unguided", turns=None):
    """A row of conversations.jsonl: four models answer first, then the chosen one twice."""

    def answer(turn, place, text, if_chosen):
        told = {"turn": turn, "role": "model", "content": text, "model_name": f"m{place}", "model_provider": "p"}
        return {**told, "score": 90 - place, "if_chosen": if_chosen, "within_turn_id": place}

    asked = {"turn": 0, "role": "user", "content": prompt, "model_name": None, "score": None, "if_chosen": None}
    first = [answer(0, k, chosen if k == 2 else f"Other {k}.", k == 2) for k in range(4)]
    later = [{**asked, "turn": 1, "content": "And then?"}, answer(1, 0, "Later.", True), answer(1, 1, "Never.", False)]
    return {
        "conversation_id": f"c{number}",
        "user_id": user,
        "included_in_balanced_subset": True,
        "conversation_type": kind,
        "opening_prompt": prompt,
        "conversation_turns": 2,
        "conversation_history": [asked, *first, *later] if turns is None else turns,
        "performance_attributes": {"values": 50, "other": None},
        "choice_attributes": {"values": None},
        "open_feedback": "The second was to my taste.",
        "generated_datetime": "2023-11-22 10:00:00",
        "timing_duration_mins": 3.1,
    }


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_prism(folder, survey, conversations):
    jsonl(folder / "prism" / "survey.jsonl", survey)
    jsonl(folder / "prism" / "conversations.jsonl", conversations)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MIPO_NB_DATA", str(tmp_path))
    return tmp_path


def user_of(split, number=0):
    """A user id that the hash puts in a split."""
    found = (f"user{k}" for k in range(10_000) if splits.split_of(f"user{k}") == split)
    return next(user for k, user in enumerate(found) if k == number)


ADA, BO = user_of("train"), user_of("train", 1)


def test_the_survey_meets_the_conversations(folder):
    write_prism(folder, [surveyed(ADA)], [talk(1, ADA, "How do I lead a goat?")])
    rows = personal.prism("train")
    assert rows.info.description == f"HannahRoseKirk/prism-alignment in {folder / 'prism'}"
    [row] = rows.to_list()
    assert list(row) == COLUMNS
    assert row["prompt"] == "How do I lead a goat?" and row["user_id"] == ADA and row["name"] == ""
    assert row["reference_response"] == "Take a rope."
    assert row["context"] == (
        'This person says of themselves: "I keep goats." This person asks this of an assistant: "Be brief."'
    )
    assert row["preferences"] == [{"text": 'asks this of an assistant: "Be brief."', "kind": None, "value": None}]


def test_sliders_far_above_the_surveys_mean_are_wishes_and_low_marks_only_context(folder):
    # Of 20 others half mark 40 and half 60; helpfulness is 90 or 100, so that 96 is nothing of one's own.
    marks = {"values": 60, "creativity": 90, "fluency": 57, "factuality": 70, "helpfulness": 96, "safety": 25}
    others = [dict.fromkeys(personal.SLIDERS, 50 + k) | {"helpfulness": 95 + k / 2} for k in (10, -10) * 10]
    survey = [surveyed(f"other{k}", sliders=each) for k, each in enumerate(others)]
    survey += [surveyed(ADA, said="", asked="", sliders=marks), surveyed(BO, sliders={"safety": 75})]
    write_prism(folder, survey, [talk(1, ADA, "Why?"), talk(2, BO, "When?")])
    row, other = sorted(personal.prism("train").to_list(), key=lambda row: row["user_id"] != ADA)
    assert [p["text"] for p in other["preferences"]][1:] == [personal.SLIDERS["safety"][0]]
    wants = [personal.SLIDERS[key][0] for key in ("creativity", "factuality", "values")]
    assert [p["text"] for p in row["preferences"]] == wants
    assert (
        row["context"] == " ".join(f"This person {want}." for want in wants) + " This person cares little for warnings."
    )


def test_a_wish_of_ones_own_is_taken_where_it_is_written(folder):
    own = {"other": 95, "other_text": "rhymes"}
    survey = [surveyed(ADA, asked="", sliders=own), surveyed(BO, asked="", sliders={"other": 95, "other_text": None})]
    write_prism(folder, survey, [talk(1, ADA, "Why?"), talk(2, BO, "When?")])
    found = {row["user_id"]: row["preferences"] for row in personal.prism("train").to_list()}
    assert [p["text"] for p in found[ADA]] == ['has a wish of their own: "rhymes"'] and found[BO] == []


@pytest.mark.parametrize("sliders", [None, {}, dict.fromkeys(SLIDERS), dict.fromkeys(personal.SLIDERS, math.nan)])
def test_missing_sliders_say_nothing(folder, sliders):
    survey = [surveyed(ADA, asked=None) | {"stated_prefs": sliders}]
    write_prism(folder, survey, [talk(1, ADA, "Why?")])
    [row] = personal.prism("train").to_list()
    assert row["preferences"] == [] and row["context"] == 'This person says of themselves: "I keep goats."'


def test_empty_strings_users_without_words_and_unknown_users_are_left_out(folder):
    survey = [surveyed(ADA), surveyed(BO, said=EMPTY, asked="  ")]
    talks = [
        talk(1, ADA, EMPTY),
        talk(2, ADA, "Why?", chosen=EMPTY),
        talk(3, BO, "Unheard?"),
        talk(4, "nobody", "Who?"),
        talk(5, ADA, "Nothing yet?", turns=[]),
    ]
    write_prism(folder, survey, talks)
    found = {row["prompt"]: row["reference_response"] for row in personal.prism("train").to_list()}
    assert found == {"Why?": None, "Nothing yet?": None}


def test_users_without_conversations_make_no_rows(folder):
    write_prism(folder, [surveyed(ADA), surveyed(BO, survey_only=True)], [talk(1, ADA, "Why?")])
    assert personal.prism("train")["user_id"] == [ADA]


def test_the_choice_of_the_first_turn_counts_once(folder):
    twice = talk(1, ADA, "Why?")
    twice["conversation_history"][4]["if_chosen"] = True  # some rows have two chosen ones
    write_prism(folder, [surveyed(ADA)], [twice])
    assert personal.prism("train")["reference_response"] == ["Take a rope."]
    for turn in twice["conversation_history"]:
        turn["if_chosen"] = turn["turn"] == 1 and turn["role"] == "model"
    write_prism(folder, [surveyed(ADA)], [twice])
    assert personal.prism("train")["reference_response"] == [None]  # a later choice answers another question


def test_very_long_system_strings_end_at_a_sentence(folder):
    long = "Answer in plain words, please. " * 4000 + "Omega"
    endless = "word " * 4000
    write_prism(
        folder, [surveyed(ADA, asked=long), surveyed(BO, asked=endless)], [talk(1, ADA, "A?"), talk(2, BO, "B?")]
    )
    asked = {}
    for row in personal.prism("train").to_list():
        [wish] = row["preferences"]
        asked[row["user_id"]] = re.fullmatch('asks this of an assistant: "(.*)"', wish["text"]).group(1)
        assert asked[row["user_id"]] in row["context"] and len(row["context"]) < personal.CUT + 200
    assert personal.CUT - 31 < len(asked[ADA]) <= personal.CUT and asked[ADA].endswith("words, please.")
    assert len(asked[BO]) <= personal.CUT and asked[BO].endswith("word …")


def test_kinds_of_conversation_can_be_chosen(folder):
    talks = [talk(k, ADA, f"{kind}?", kind=kind) for k, kind in enumerate(personal.KINDS)]
    write_prism(folder, [surveyed(ADA)], talks)
    assert personal.prism("train", kinds=["values guided"])["prompt"] == ["values guided?"]
    assert len(personal.prism("train")) == 3
    with pytest.raises(UserError, match="Unknown kind of conversation 'unguidded'; did you mean 'unguided'"):
        personal.prism("train", kinds=["unguidded"])


def many_prism(folder, users=200):
    survey = [surveyed(f"user{k}", said=f"I am number {k}.") for k in range(users)]
    write_prism(
        folder, survey, [talk(2 * k + j, f"user{k}", f"What is {k} and {j}?") for k in range(users) for j in (0, 1)]
    )


def test_users_never_cross_from_train_to_test(folder):
    many_prism(folder)
    found = {split: personal.prism(split) for split in sources.SPLITS}
    assert sum(map(len, found.values())) == 400
    users = [set(rows["user_id"]) for rows in found.values()]
    assert len(set.union(*users)) == sum(map(len, users)) == 200 and min(map(len, users)) > 20


def test_the_seed_draws_and_n_limits(folder):
    many_prism(folder)
    ten = personal.prism("train", n=10)["prompt"]
    assert len(ten) == 10 and personal.prism("train", n=10)["prompt"] == ten == personal.prism("train")["prompt"][:10]
    assert personal.prism("train", n=10, seed=1)["prompt"] != ten


def test_prompts_of_training_are_left_out_of_test_as_long_as_others_remain(folder):
    tester = user_of("test")
    survey = [surveyed(ADA), surveyed(tester)]
    write_prism(folder, survey, [talk(1, ADA, "Seen?"), talk(2, tester, " seen? "), talk(3, tester, "Fresh?")])
    assert personal.prism("test")["prompt"] == ["Fresh?"]
    write_prism(folder, survey, [talk(1, ADA, "Seen?"), talk(2, tester, "Seen?")])
    assert personal.prism("test")["prompt"] == ["Seen?"]


# --- Community Alignment ---

TURNS = ("first", "second", "third", "fourth")
ATTRIBUTES = {
    "annotator_age": "18-34",
    "annotator_gender": "female",
    "annotator_education_level": "(At most) Complete Secondary",
    "annotator_political": "Prefer not to say",
    "annotator_ethnicity": "",
    "annotator_country": "brazil",
}


def chat(number, user, prompt, *, lang="en", chosen="b", remarks=(), answers=None, **more):
    """A row of community_alignment.csv: empty cells for turns that did not come."""
    row = {"conversation_id": str(number), "assigned_lang": lang, "annotator_id": user}
    for turn in TURNS:
        row |= {f"{turn}_turn_{column}": "" for column in ("prompt", "preferred_response", "feedback")}
        row |= {f"{turn}_turn_response_{letter}": "" for letter in "abcd"}
    row |= {"first_turn_prompt": prompt, "first_turn_preferred_response": f"response_{chosen}" if chosen else ""}
    for letter in "abcd":
        row[f"first_turn_response_{letter}"] = (answers or {}).get(letter, f"Answer {letter}.{END}")
    for turn, remark in zip(TURNS, remarks, strict=False):
        row[f"{turn}_turn_feedback"] = remark
    flags = {"is_pregenerated_first_prompt": "False", "in_balanced_subset": "True", "wave": "1"}
    return {**row, **ATTRIBUTES, **flags, **more}


def write_community(folder, rows):
    path = folder / "community_alignment" / "community_alignment.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_attributes_and_remarks_on_other_conversations_make_the_context(folder):
    rows = [
        chat(1, ADA, "How do I plant a lemon?", remarks=["It says when to water.", "", "Too long."]),
        chat(2, ADA, "Is rain good?", chosen="d", remarks=["I like its numbers"]),
    ]
    write_community(folder, rows)
    found = {row["prompt"]: row for row in personal.community_alignment("train").to_list()}
    lemon, rain = found["How do I plant a lemon?"], found["Is rain good?"]
    details = (
        "This person gave these details, country: brazil; age: 18-34; gender: female; "
        "education level: (At most) Complete Secondary."
    )
    assert list(lemon) == COLUMNS
    assert lemon["context"] == details + ' This person said of another answer: "I like its numbers".'
    assert [p["text"] for p in lemon["preferences"]] == ['said of another answer: "I like its numbers"']
    assert lemon["reference_response"] == "Answer b." and rain["reference_response"] == "Answer d."
    assert {p["text"].partition(": ")[2] for p in rain["preferences"]} == {'"It says when to water."', '"Too long."'}
    assert all(p["text"] in rain["context"] for p in rain["preferences"])


def test_remarks_on_the_same_prompt_would_give_the_reference_away(folder):
    rows = [
        chat(1, ADA, "Is rain good?", remarks=["I took the one on crops."]),
        chat(2, ADA, "is  rain good?", remarks=["Crops again."]),
        chat(3, BO, "Is rain good?", remarks=["Mine is mine."]),
    ]
    write_community(folder, rows)
    for row in personal.community_alignment("train").to_list():
        assert row["preferences"] == [] and "said of" not in row["context"]


def test_remarks_are_few_short_and_drawn_by_the_seed(folder):
    rows = [chat(k, ADA, f"Prompt {k}?", remarks=[f"Remark {k}. " + "It goes on. " * 60]) for k in range(12)]
    write_community(folder, rows)

    def remarks(seed, **more):
        found = personal.community_alignment("train", seed=seed, **more).to_list()
        return {row["prompt"]: [p["text"] for p in row["preferences"]] for row in found}

    assert {len(texts) for texts in remarks(0).values()} == {3}
    assert {len(texts) for texts in remarks(0, feedback=0).values()} == {0}
    assert remarks(0) == remarks(0) != remarks(1)
    [text] = remarks(0, feedback=1)["Prompt 3?"]
    assert re.fullmatch(r'said of another answer: "Remark \d+\. (It goes on\. ?)+"', text)
    assert len(text) < personal.FEEDBACK_CUT + 30


@pytest.mark.parametrize(
    "remark", ["Response B was too long.", "I prefer option (C).", "B is shorter", "Answers A and D are the same."]
)
def test_a_remark_that_names_a_response_by_its_letter_is_left_out(folder, remark):
    rows = [chat(1, ADA, "A?", remarks=[remark, "A good answer, plan B included."]), chat(2, ADA, "B?")]
    write_community(folder, rows)
    found = {row["prompt"]: row["preferences"] for row in personal.community_alignment("train").to_list()}
    assert [p["text"] for p in found["B?"]] == ['said of another answer: "A good answer, plan B included."']


def test_languages_are_those_the_annotators_were_assigned(folder):
    asked = {"en": "Why?", "fr": "Pourquoi ?", "it": "Perché?", "hi": "क्यों?", "pt": "Por quê?"}
    remarks = {lang: [f"said in {lang}"] for lang in asked}
    rows = [chat(k, ADA, p, lang=lang, remarks=remarks[lang]) for k, (lang, p) in enumerate(asked.items())]
    write_community(folder, rows)
    assert personal.community_alignment("train")["prompt"] == ["Why?"]
    assert personal.community_alignment("train", languages="fr")["prompt"] == ["Pourquoi ?"]
    two = personal.community_alignment("train", languages=("hi", "pt")).to_list()
    assert {row["prompt"] for row in two} == {"क्यों?", "Por quê?"}
    assert {p["text"] for row in two for p in row["preferences"]} == {
        'said of another answer: "said in hi"',
        'said of another answer: "said in pt"',
    }
    with pytest.raises(UserError, match="Unknown language 'de'; known: en, fr, hi, it, pt"):
        personal.community_alignment("train", languages=["de"])


def test_texts_with_lines_quotes_and_numbers_come_back_whole(folder):
    text = 'First,\n"second" line;\r\nnull'
    rows = [
        chat(1, ADA, "null", answers={"b": f"  {text}\n{END}"}),
        chat(2, ADA, "42", chosen=""),
        chat(3, ADA, "", remarks=["Kept, though nobody asked."]),
        chat(4, ADA, "Which?", answers={"b": END}),
    ]
    write_community(folder, rows)
    found = {row["prompt"]: row["reference_response"] for row in personal.community_alignment("train").to_list()}
    assert found == {"null": text, "42": None, "Which?": None}


def test_attributes_can_be_chosen_and_whoever_says_nothing_is_left_out(folder):
    silent = dict.fromkeys(ATTRIBUTES, "")
    rows = [chat(1, ADA, "A?"), chat(2, BO, "B?", **silent), chat(3, "", "C?")]
    write_community(folder, rows)
    [row] = personal.community_alignment("train", attributes=["age", "political"]).to_list()
    assert row["user_id"] == ADA and row["context"] == "This person gave these details, age: 18-34."
    with pytest.raises(UserError, match="has no 'train' rows"):
        personal.community_alignment("train", attributes=[])
    with pytest.raises(UserError, match="Unknown attribute 'aeg'; did you mean 'age'"):
        personal.community_alignment("train", attributes=["aeg"])


def test_annotators_never_cross_though_they_share_prompts(folder):
    rows = [chat(3 * k + j, f"{k}", f"Shared {j}?", remarks=["ok"]) for k in range(150) for j in range(3)]
    rows += [chat(1000 + k, f"{k}", f"Own {k}?") for k in range(150)]
    write_community(folder, rows)
    found = {split: personal.community_alignment(split) for split in sources.SPLITS}
    users = [set(rows["user_id"]) for rows in found.values()]
    assert len(set.union(*users)) == sum(map(len, users)) == 150
    assert not set(found["train"]["prompt"]) & set(found["test"]["prompt"])
    assert len(found["test"]) == len(users[2]) and len(found["train"]) == 4 * len(users[0])


# --- Multifaceted-Bench ---


def bench(prompt, system="You answer like a lighthouse keeper.", answer="Keep the lamp lit."):
    wants = ("short words", "sea images", "calm", "care")
    return {
        "source": "invented",
        "preference_set": [
            {"dimension": "style", "subdimension": "clarity", "preference": w, "description": f"An answer with {w}."}
            for w in wants
        ],
        "system": system,
        "prompt": prompt,
        "reference_answer": answer,
        "rubrics": [
            {"criteria": f"Has it {w}?", "score_descriptions": {str(s): f"{w} {s}" for s in range(1, 6)}} for w in wants
        ],
    }


def write_bench(folder, rows):
    path = folder / "multifaceted_bench" / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def every_split(load):
    """Rows by split, for the splits that have any."""
    found = {}
    for split in sources.SPLITS:
        try:
            found[split] = load(split).to_list()
        except UserError:
            found[split] = []
    return found


def test_system_messages_preferences_answers_and_rubrics_are_read(folder):
    made = bench("How do I fish?")
    write_bench(folder, [made])
    [row] = sum(every_split(personal.multifaceted_bench).values(), [])
    assert list(row) == [*COLUMNS, "rubrics"]
    assert row["context"] == made["system"] and row["prompt"] == made["prompt"]
    told = prompts.Frame(with_context=personal.FRAMES["multifaceted_bench"]).put(row["prompt"], row["context"])
    assert told == (made["system"], made["prompt"])  # an instruction to the assistant, and nothing is added to it
    assert row["reference_response"] == made["reference_answer"] and row["rubrics"] == made["rubrics"]
    assert [p["text"] for p in row["preferences"]][:2] == [
        "prefers: short words (An answer with short words)",
        "prefers: sea images (An answer with sea images)",
    ]


def test_a_prompt_with_several_system_messages_stays_in_one_split(folder):
    write_bench(folder, [bench(f"Prompt {k}?", f"System {k} {j}.") for k in range(60) for j in range(3)])
    found = every_split(personal.multifaceted_bench)
    rows = sum(found.values(), [])
    assert len(rows) == len({row["user_id"] for row in rows}) == 180 and all(found.values())
    asked = [{row["prompt"] for row in part} for part in found.values()]
    assert len(set.union(*asked)) == sum(map(len, asked)) == 60


# --- ten rows of each with every column that the real files have; the texts are our own ---

REAL_FORM = json.loads((Path(__file__).parent / "ten_rows.json").read_text(encoding="utf-8"))


def test_ten_rows_of_prism_in_their_real_form(folder):
    made = REAL_FORM["prism"]
    write_prism(folder, made["survey"], made["conversations"])
    found = {row["user_id"]: row for row in sum(every_split(personal.prism).values(), [])}
    assert len(made["survey"]) == len(made["conversations"]) == 10
    assert len(found) == 9  # one user only filled in the survey, one said nothing of themselves
    wishes = [tuple(p["text"] for p in row["preferences"]) for row in found.values()]
    assert len(set(wishes)) >= 8  # though nearly all marks lie near 100
    assert sum(any("exactly what was asked" in text for text in own) for own in wishes) <= 3
    assert found["user9"]["reference_response"] is None and not any("EMPTY" in row["context"] for row in found.values())


def test_ten_rows_of_community_alignment_in_their_real_form(folder):
    write_community(folder, REAL_FORM["community_alignment"])
    rows = sum(every_split(personal.community_alignment).values(), [])
    assert len(rows) == 9  # one was asked in French
    assert all(row["reference_response"] and END not in row["reference_response"] for row in rows)
    said = " ".join(row["context"] for row in rows)
    assert "fewer bullet points" in said and "Response C" not in said and "prefer not" not in said.lower()


def test_ten_rows_of_multifaceted_bench_in_their_real_form(folder):
    made = {row["system"]: row for row in REAL_FORM["multifaceted_bench"]}
    write_bench(folder, list(made.values()))
    rows = sum(every_split(personal.multifaceted_bench).values(), [])
    assert len(rows) == len(made) == 10 and max(map(len, made)) > 600
    for row in rows:
        assert row["rubrics"] == made[row["context"]]["rubrics"] and len(row["preferences"]) == 4
        assert all(p["text"].startswith("prefers: ") for p in row["preferences"])


# --- all of them ---


def test_pairs_are_built_from_every_one(folder):
    write_prism(folder, [surveyed(ADA), surveyed(BO, said="I row.")], [talk(1, ADA, "A?"), talk(2, BO, "B?")])
    write_community(folder, [chat(1, ADA, "A?"), chat(2, BO, "B?", annotator_country="france")])
    write_bench(folder, [bench(f"{k}?", f"System {k}.") for k in range(20)])
    for load in (personal.prism, personal.community_alignment, personal.multifaceted_bench):
        rows = load("train")
        assert sources.personal_prompts("train", n=1).features.keys() <= rows.features.keys()
        for negative in ("missing_context", "random_context", "random_prompt"):
            assert len(pairs.negative_conversations(rows, negative)) == len(rows) >= 2


def test_rows_can_be_handed_on_as_a_file(folder):
    many_prism(folder, 40)
    path = folder / "rows.jsonl"
    personal.prism("test").to_json(path, force_ascii=False)
    again = sources.personal_prompts("test", n=99, data=str(path)).to_list()
    key = lambda row: row["prompt"]  # noqa: E731
    assert sorted(again, key=key) == sorted(personal.prism("test").to_list(), key=key)


@pytest.mark.parametrize("name", data_files.HUB)
def test_what_cannot_be_had_is_explained(folder, monkeypatch, name):
    load = getattr(personal, name)
    with pytest.raises(UserError, match="Unknown split 'tset'; did you mean 'test'"):
        load("tset")
    with pytest.raises(UserError, match=rf"There is no file {re.escape(str(folder / name))}.*as the hub has it"):
        load("test")
    monkeypatch.delenv("MIPO_NB_DATA")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(UserError, match=rf"could not be loaded \(OSError\).*MIPO_NB_DATA.*{name}/"):
        load("test")


def test_every_data_set_is_pinned():
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for _, commit, _ in data_files.HUB.values())


def test_the_hub_is_asked_for_the_pinned_commit_and_the_needed_files_only(tmp_path, monkeypatch):
    monkeypatch.delenv("MIPO_NB_DATA", raising=False)
    asked = {}

    def download(repository, **options):
        asked[repository] = options
        return str(tmp_path / "0123abc")

    write_community(tmp_path, [chat(1, ADA, "Why?")])
    (tmp_path / "community_alignment").rename(tmp_path / "0123abc")
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    rows = personal.community_alignment("train")
    assert rows.info.description == "facebook/community-alignment-dataset at commit 0123abc"
    [options] = asked.values()
    assert options["repo_type"] == "dataset" and options["allow_patterns"] == ["community_alignment.csv"]
    assert re.fullmatch("[0-9a-f]{40}", options["revision"])


def test_files_of_another_form_are_explained(folder):
    write_prism(folder, [{"user_id": ADA}], [talk(1, ADA, "Why?")])
    with pytest.raises(
        UserError, match=r"survey.jsonl: column 'self_description' is missing; take the file as the hub has it"
    ):
        personal.prism("train")
    write_prism(folder, [surveyed(ADA)], [])
    with pytest.raises(UserError, match="has no 'train' rows for these choices"):
        personal.prism("train")
    path = folder / "prism" / "conversations.jsonl"
    path.write_text(json.dumps(talk(1, ADA, "Why?")) + "\n{broken\n")
    with pytest.raises(UserError, match="conversations.jsonl, line 2: not valid JSON"):
        personal.prism("train")
    write_community(folder, [{"conversation_id": "1"}])
    with pytest.raises(UserError, match="community_alignment.csv: column 'annotator_id' is missing"):
        personal.community_alignment("train")
    write_bench(folder, [{"prompt": "Why?", "system": "S."}])
    with pytest.raises(UserError, match="parquet: column 'reference_answer' is missing"):
        personal.multifaceted_bench("train")
    write_bench(folder, [bench("Why?")]).write_bytes(b"half a file")
    with pytest.raises(UserError, match="parquet cannot be read .*fetch it again"):
        personal.multifaceted_bench("train")


# --- memory ---


def test_columns_that_are_not_asked_for_are_never_decoded(folder):
    path = write_bench(folder, [bench(f"{k}?") for k in range(5)])
    assert [list(row) for row in data_files.batched(path, ("prompt",))] == [["prompt"]] * 5
    path = write_community(folder, [chat(1, ADA, "Why?")])
    broken = path.read_bytes().replace(b"Answer c.", b"\xff\xfe bad")
    path.write_bytes(broken)  # bytes that are no text, in a column that is not asked for
    assert list(data_files.batched(path, ("annotator_id",))) == [{"annotator_id": ADA}]
    with pytest.raises(UserError, match="cannot be read"):
        list(data_files.batched(path, ("annotator_id", "first_turn_response_c")))


BIG = 160  # MB, of each file
MEASURE = """
import re, sys
from mipo_nb.paper import data_files, personal
import datasets, pyarrow.parquet, pyarrow.csv, huggingface_hub
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
before = peak()
rows = getattr(personal, sys.argv[1])("train")
print(len(rows), peak() - before)
path = data_files.files(sys.argv[1])[0][-1]
whole = path.read_bytes() if path.suffix == ".jsonl" else None
if path.suffix == ".csv":
    whole = pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
if path.suffix == ".parquet":
    whole = pyarrow.parquet.read_table(path)
print(peak() - before)
"""


def write_big(folder, name):
    """A file of BIG MB, nearly all of it in fields that no row keeps."""
    users = [f"user{k}" for k in range(320)]
    filler = "lorem \n" * (BIG * 1024**2 // len(users) // 7)
    if name == "prism":
        later = [{"turn": 1, "role": "model", "content": filler, "if_chosen": True}]
        write_prism(folder, [surveyed(u) for u in users], [talk(u, u, f"{u}?", turns=later) for u in users])
    elif name == "community_alignment":
        path = write_community(folder, [chat(u, u, f"{u}?", second_turn_response_a="FILLER") for u in users])
        path.write_bytes(path.read_bytes().replace(b"FILLER", f'"{filler}"'.encode()))
    else:
        path = folder / name / "data" / "train-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        schema = pa.Table.from_pylist([bench("Why?")]).schema
        with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
            for u in users:
                file.write_table(pa.Table.from_pylist([{**bench(f"{u}?"), "source": filler}], schema))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from /proc")
@pytest.mark.parametrize("name", data_files.HUB)
def test_memory_goes_with_the_rows_and_not_with_the_file(folder, name):
    write_big(folder, name)
    done = subprocess.run([sys.executable, "-c", MEASURE, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows, grown, grown_whole = map(float, done.stdout.split())
    assert rows > 50
    assert grown < 0.5 * BIG, f"{grown:.0f} MB for a file of {BIG} MB"
    assert grown_whole > 0.8 * BIG  # what reading it whole takes, so that the bound above means something


def test_rows_are_had_by_the_name_of_their_data(folder):
    many_prism(folder, 40)
    named = personal.personal_prompts("prism", "train", n=2, seed=3)
    assert named.to_list() == personal.prism("train", n=2, seed=3).to_list() and len(named) == 2
    assert personal.personal_prompts("own", "test", n=3).to_list() == sources.personal_prompts("test", n=3).to_list()
