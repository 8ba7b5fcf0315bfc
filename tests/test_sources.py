"""Reading rows: the project's own users, a file of someone else's, and what is said about a broken one."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb import sources
from mipo_nb.base.errors import UserError


def write(folder, rows):
    path = folder / "rows.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(user, prompt="What now?", **more):
    return {"prompt": prompt, "context": f"{user} likes soup.", "user_id": user, **more}


def test_rows_come_back_as_written_and_blank_lines_do_not_count(tmp_path):
    rows = [{"a": 1}, {"b": ["é", None]}]
    assert sources.read_jsonl(write(tmp_path, [rows[0], "", "   ", rows[1]])) == rows


@pytest.mark.parametrize(
    "lines, message",
    [
        (['{"prompt": "a"}', "", "{oops"], r"line 3: not valid JSON.*mend or remove"),
        (["[1, 2]"], r"line 1: a row must be a JSON object.*not list"),
        (['{"context": "a"}'], r"line 1: column 'prompt' is missing"),
        (['{"prompt": "  "}'], r"line 1: column 'prompt' must be text that is not empty"),
        (['{"prompt": "a"}', '{"prompt": 3}'], r"line 2: column 'prompt' must be text.*not 3"),
        (['{"prompt": "a", "split": "trian"}'], r"line 1: unknown split 'trian'; did you mean 'train'\?"),
        (['{"prompt": "a", "split": null}'], r"line 1: unknown split 'None'"),
        ([""], r"has no rows; write one JSON object per line"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, lines, message):
    path = write(tmp_path, lines)
    with pytest.raises(UserError, match=message) as caught:
        sources.read_jsonl(path, required=("prompt",))
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_foreign_encoding_are_explained(tmp_path):
    with pytest.raises(UserError, match="There is no file.*give a JSONL file"):
        sources.read_jsonl(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="There is no file"):
        sources.read_jsonl(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "café"}'.encode("latin-1"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        sources.read_jsonl(tmp_path / "latin.jsonl")


def test_a_home_folder_in_the_path_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, [{"a": 1}])
    assert sources.read_jsonl("~/rows.jsonl") == [{"a": 1}]


def test_own_users_and_prompts_are_those_of_the_split():
    everyone = [u["user_id"] for split in sources.SPLITS for u in sources.own_users(split)]
    assert len(everyone) == len(set(everyone)) == len(sources.read_jsonl(sources.data_folder() / "users.jsonl"))
    asked = [p for split in sources.SPLITS for p in sources.own_prompts(split)]
    assert len(asked) == len(set(asked)) == len(sources.read_jsonl(sources.data_folder() / "prompts.jsonl"))


def spread(values, n_all):
    counts = Counter(values)
    return max(counts.values()) - (min(counts.values()) if len(counts) == n_all else 0)


@pytest.mark.parametrize("split", sources.SPLITS)
@given(n=st.integers(1, 900), seed=st.integers(0, 5))
def test_own_rows_are_distinct_and_even_over_users(split, n, seed):
    users, asked = sources.own_users(split), sources.own_prompts(split)
    rows = sources.personal_prompts(split, n=n, seed=seed)
    assert len(rows) == min(n, len(users) * len(asked))
    assert len(set(zip(rows["user_id"], rows["prompt"], strict=True))) == len(rows)
    assert spread(rows["user_id"], len(users)) <= 1
    assert set(rows["prompt"]) <= set(asked)
    contexts = {u["user_id"]: f"{u['context']} {u['standing_wish']}" for u in users}
    assert all(contexts[u] == c for u, c in zip(rows["user_id"], rows["context"], strict=True))


PROMPT_SPREAD = [
    "train",
    "dev",
    "test",
]


@pytest.mark.parametrize("split", PROMPT_SPREAD)
def test_own_rows_are_even_over_prompts(split):
    asked = sources.own_prompts(split)
    for n in (1, 50, 150, 256, 312, 700):
        assert spread(sources.personal_prompts(split, n=n)["prompt"], len(asked)) <= 1, n


def test_the_seed_decides_which_rows():
    def take(seed):
        return sources.personal_prompts("train", n=40, seed=seed).to_list()

    assert take(1) == take(1)
    assert take(1) != take(2)


def test_all_columns_are_there_for_own_rows_and_for_a_bare_file(tmp_path):
    own = sources.personal_prompts("train", n=3)
    bare = sources.personal_prompts("train", n=3, data=str(write(tmp_path, [row("Ada", split="train")])))
    expected = {"prompt", "context", "user_id", "name", "preferences", "reference_response"}
    assert set(own.column_names) == set(bare.column_names) == expected
    assert bare[0] == row("Ada", name="", preferences=[], reference_response=None)


def test_optional_columns_of_a_file_are_kept(tmp_path):
    liked = [{"text": "short answers", "kind": "at_most_words", "value": 20}]
    full = row("u1", name="Ada", preferences=liked, split="dev", reference_response="Soup.")
    found = sources.personal_prompts("dev", n=3, data=str(write(tmp_path, [full])))[0]
    del full["split"]
    assert found == full


def test_files_without_splits_are_split_by_user(tmp_path):
    path = str(write(tmp_path, [row(f"user {i}", f"prompt {i} {k}") for i in range(1000) for k in range(2)]))
    found = {split: sources.personal_prompts(split, n=5000, data=path) for split in sources.SPLITS}
    assert sum(map(len, found.values())) == 2000
    users = {split: set(rows["user_id"]) for split, rows in found.items()}
    assert not (users["train"] & users["dev"] | users["train"] & users["test"] | users["dev"] & users["test"])
    shares = [len(users[split]) / 1000 for split in sources.SPLITS]
    assert shares == pytest.approx([0.5, 0.2, 0.3], abs=0.05)


def test_a_user_stays_in_its_split_when_the_file_grows(tmp_path):
    some = [row(f"user {i}") for i in range(30)]
    before = set(sources.personal_prompts("train", n=99, data=str(write(tmp_path, some)))["user_id"])
    more = [row(f"new {i}") for i in range(30)] + some
    after = set(sources.personal_prompts("train", n=99, data=str(write(tmp_path, more)))["user_id"])
    assert {u for u in after if u.startswith("user")} == before


def test_a_user_in_two_splits_is_refused(tmp_path):
    path = write(tmp_path, [row("Ada", split="train"), row("Bo", split="test"), row("Ada", "Why?", split="test")])
    with pytest.raises(UserError, match=r"user 'Ada' \(row 3\) is in two splits; keep a user in one"):
        sources.personal_prompts("train", n=5, data=str(path))


@pytest.mark.parametrize("split", ["dev", "test"])
def test_prompts_seen_in_training_are_left_out_as_long_as_others_remain(tmp_path, split):
    trained = row("Ada", "seen", split="train")
    seen, fresh = row("Bo", "seen", split=split), row("Cy", "fresh", split=split)
    both = str(write(tmp_path, [trained, seen, fresh]))
    assert list(sources.personal_prompts(split, n=9, data=both)["prompt"]) == ["fresh"]
    only = str(write(tmp_path, [trained, seen]))
    assert list(sources.personal_prompts(split, n=9, data=only)["prompt"]) == ["seen"]


def test_a_file_gives_at_most_n_rows_chosen_by_the_seed(tmp_path):
    path = str(write(tmp_path, [row(f"u{i}", split="train") for i in range(50)]))

    def take(seed):
        return list(sources.personal_prompts("train", n=10, data=path, seed=seed)["user_id"])

    assert len(set(take(0))) == 10
    assert take(0) == take(0) != take(1)


def test_an_unknown_or_empty_split_is_explained(tmp_path):
    with pytest.raises(UserError, match="Unknown split 'tset'; did you mean 'test'?"):
        sources.personal_prompts("tset", n=1)
    path = str(write(tmp_path, [row("Ada", split="train")]))
    with pytest.raises(UserError, match="no 'dev' rows; add users"):
        sources.personal_prompts("dev", n=1, data=path)


MALFORMED = {
    "text": [row("Ada", split="train", preferences="likes soup")],
    "list of text": [row("Ada", split="train", preferences=["likes soup"])],
    "unknown kind": [row("Ada", split="train", preferences=[{"text": "rhymes", "kind": "rhymes"}])],
    "limit without number": [row("Ada", split="train", preferences=[{"text": "short", "kind": "at_most_words"}])],
    "name a number": [row("Ada", split="train", name=5), row("Bo", split="train", name="Bo")],
}


@pytest.mark.parametrize("case", sorted(MALFORMED))
def test_malformed_optional_columns_are_explained(tmp_path, case):
    with pytest.raises(UserError):
        sources.personal_prompts("train", n=5, data=str(write(tmp_path, MALFORMED[case])))
