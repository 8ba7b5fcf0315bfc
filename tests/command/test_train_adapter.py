"""`mipo-nb train` on a small file of somebody else's users: an adapter with a card, a page, and the same again at once."""

import itertools
import json
import shlex

import pytest

from mipo_nb import models, prompts, scoring
from mipo_nb.base.errors import UserError
from mipo_nb.command import export, report, train_adapter, train_page
from mipo_nb.command.parameters import check_parameters, given
from mipo_nb.lab import settings
from mipo_nb.lab.notebooks import selected
from mipo_nb.statistics import Estimate

NAME = "embedded:smollm2-135m"
SMALL = {"N_PAIRS": 8, "MAX_NEW_TOKENS": 12, "N_MEASURED": 6, "N_OTHERS": 3, "N_HELD_OUT": 4, "EVALUATE_EVERY": 1}
SMALL["AT_LIMIT"] = "whole"  # in twelve tokens hardly a sentence ends


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    """12 people with a wish by a pattern, and two prompts each besides a text for somebody else."""
    file, rows = tmp_path_factory.mktemp("users") / "readers.jsonl", []
    for k in range(12):
        wanted = {"an example": "(?i)for (example|instance)", "a walk": "(?i)walk"}
        what = list(wanted)[k % 2]
        wish = {"text": f"Reader {k} wants {what} in each answer.", "pattern": wanted[what]}
        user = {"user_id": f"r{k}", "context": f"Reader {k} borrows maps. {wish['text']}", "preferences": [wish]}
        asked = [f"Question {k % 3}: which map?", f"Question {k % 4}: how far?"]
        rows += [{**user, "prompt": text} for text in asked]
        rows.append({**user, "prompt": "Write a sign for the door.", "for_somebody_else": True})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.model
def test_from_a_file_to_an_adapter_and_again_at_once(users, tmp_path, capsys):
    how = {"profile": "smoke", "output_dir": tmp_path, "numbers": SMALL}
    said = train_adapter.train(str(users), **how)
    [folder] = (tmp_path / "smoke" / "train" / "adapters").iterdir()
    card = (folder / "adapter" / "README.md").read_text()
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in card and "license: apache-2.0" in card and "readers.jsonl" in card
    assert "held-out margin" in card and str(tmp_path) not in card
    assert {"for the user", "misapplied", "repetition"} <= {line.partition(",")[0] for line in said}
    assert sum(line.startswith("  mipo-nb ") for line in said) == 3
    page = (folder / "report.html").read_text()
    order = (
        "What training did",
        "for that user",
        'src="data:image/png',
        "<table>",
        "This is what training is for",
        "before and after",
    )
    assert sorted(order, key=page.index) == list(order)
    assert "it was trained with this system prompt" in card.lower() and "learning rate 0.0004" in card.lower()
    assert f"train/adapters/{folder.name}/report.html" in report.write(tmp_path, "smoke").read_text()
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == NAME
    models.load(NAME, adapter=folder / "adapter")
    with pytest.raises(UserError, match="holds an adapter, not a model; give its base as the model"):
        models.load(str(folder / "adapter"))
    manifest = json.loads((tmp_path / "smoke" / "train" / "manifest.json").read_text())
    assert train_adapter.train(str(users), **how) == said
    again = json.loads((tmp_path / "smoke" / "train" / "manifest.json").read_text())
    assert [s["key"] for s in again["steps"]] == [s["key"] for s in manifest["steps"]]
    assert all(step["found"] for step in again["steps"])


@pytest.mark.parametrize("family", ["gemma3_text", "qwen3", "phi3"])
def test_a_folder_with_a_model_of_another_family_goes_all_the_way(family, model_of, users, tmp_path):
    model = model_of(family)
    # Its tokens are bytes, and it writes noise.
    numbers = {**SMALL, "TEMPERATURE": 1.0, "MAX_LENGTH": 512}
    said = train_adapter.train(str(users), profile="smoke", output_dir=tmp_path / "out", model=model, numbers=numbers)
    [folder] = (tmp_path / "out" / "smoke" / "train" / "adapters").iterdir()
    assert f"`{family}`" in (folder / "adapter" / "README.md").read_text()
    assert "before and after" in (folder / "report.html").read_text()
    assert {"held-out margin", "for the user"} <= {line.partition(",")[0].partition(":")[0] for line in said}
    exported = export.export(folder / "adapter", "merged", tmp_path / "merged", model=model, dtype="float32")
    conversation, response = prompts.messages("Which map?", "Ana borrows maps."), "The green one."
    adapted, merged = (
        scoring.log_probabilities(*models.load(name, dtype="float32", adapter=adapter), [conversation], [response])[0]
        for name, adapter in ((model, folder / "adapter"), (str(tmp_path / "merged"), None))
    )
    untrained = scoring.log_probabilities(*models.load(model, dtype="float32"), [conversation], [response])[0]
    assert adapted == pytest.approx(merged, abs=1e-3) and adapted != pytest.approx(untrained, abs=1e-3), exported


def test_the_commands_that_it_ends_with_can_be_given(users, tmp_path):
    s = settings.resolve("smoke", "train", data=str(users), seed=3)
    numbers = ["SYSTEM=Be brief.", "N_PAIRS=8", "N_HELD_OUT=4", "REPORT_TO=none", "DRAWS=1"]
    said = train_adapter._next(tmp_path / "a b", s, numbers, "smoke", tmp_path)
    export, *books = (shlex.split(line)[1:] for line in said[1:])
    assert export[:2] == ["export", str(tmp_path / "a b" / "adapter")]
    of_15, of_12 = {"N_HELD_OUT": 4, "REPORT_TO": "none"}, {"DRAWS": 1}  # what each of them reads besides
    for words, more in zip(books, (of_15, of_12), strict=True):
        assert words[0] == "run" and words[words.index("--output-dir") + 1] == str(tmp_path)
        parameters = given([word for before, word in itertools.pairwise(words) if before == "-p"])
        check_parameters(selected([words[1]]), parameters, words[words.index("--profile") + 1])
        common = {"DATA": str(users), "MODEL": NAME, "SEED": 3, "SYSTEM": "Be brief.", "N_PAIRS": 8}
        assert parameters == common | more


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"LORA_RANK": 0}, "This command trains an adapter"),
        ({"WITH_CONTEXT": "You are kind."}, "has no {context} in it"),
        ({"REPORT_TO": "tensorbord"}, "cannot report to 'tensorbord'"),
        ({"PATIENCE": 2}, "Patience needs looks"),
        ({"NEGATIVE": "foo"}, "Unknown negative 'foo'"),
        ({"LORA_TARGET": "q_porj,v_proj"}, "no layer 'q_porj' to put an adapter on; did you mean 'q_proj'?"),
        ({"AT_LIMIT": "never"}, "Unknown at_limit 'never'"),
        ({"TEMPLATE_OPTIONS": {1: 2}}, "template_options must have text as its keys"),
        ({"data": "one context"}, "'random_context' needs at least two different contexts"),
        ({"data": "four people"}, "takes something of another person, and of yours 1 is in 'dev'; add people"),
        ({"data": "one context", "NEGATIVE": "random_wish"}, "'random_wish' needs a wish in every row"),
        ({"data": "/dev/zero"}, "There is no file /dev/zero to read (it is a folder, a device or a pipe)"),
        ({"SYSTEM": "You answer letters."}, "SYSTEM is put where no user is known"),
        ({"TEMPLATE_OPTIONS": {"enable_thinkin": True}}, "reads no variable 'enable_thinkin'"),
        ({"n_pair": 3}, "Unknown parameter 'n_pair'; did you mean 'N_PAIRS'?"),
        ({"MODEL": "x"}, "MODEL is no number of the profile; give it by --model."),
        ({"N_PAIR": 3}, "Unknown parameter 'N_PAIR'; did you mean"),
        ({"data": "none.jsonl"}, "There is no file none.jsonl"),
        ({"profile": "paper"}, "The profile 'paper' is for notebooks"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_anything_is_written(tmp_path, monkeypatch, change, told):
    same = [{"user_id": f"u{k}", "context": "One text for all.", "prompt": f"Question {k % 3}?"} for k in range(12)]
    (tmp_path / "one context").write_text("".join(json.dumps(row) + "\n" for row in same))
    four = [row | {"context": f"Context {k}.", "prompt": f"Question {k}?"} for k, row in enumerate(same[:4])]
    (tmp_path / "four people").write_text("".join(json.dumps(row) + "\n" for row in four))
    monkeypatch.chdir(tmp_path)
    how = {"data": "own", "profile": "smoke", **{name: change[name] for name in ("data", "profile") if name in change}}
    numbers = {name: value for name, value in change.items() if name not in how}
    with pytest.raises(UserError) as caught:
        train_adapter.train(output_dir=tmp_path / "out", numbers=numbers, **how)
    assert told in str(caught.value) and not (tmp_path / "out").exists()


def test_a_page_says_what_its_intervals_allow():
    half = Estimate(50.0, 45.0, 55.0, 30)

    def told(**changes):
        return " ".join(
            train_page.in_words({name.replace("_", " "): Estimate(*e, 30) for name, e in changes.items()}, half)
        )

    assert "keeps more of a user's wishes, for that user: +6.0 [+2.0, +10.0] points" in told(for_the_user=(6, 2, 10))
    assert "keeps fewer" in told(for_the_user=(-6, -10, -2))
    unsure = told(for_the_user=(1, -2, 4), refusal=(3, 1, 5), echo=(2, -1, 5), words=(9, 5, 13))
    assert "is undecided, 4.3 points could have been seen with 30 users: +1.0" in unsure
    assert unsure.endswith("Its price, in points: refusal +3.0 [+1.0, +5.0].")
    none = told(repetition=(0, -1, 1))
    assert "No wish here can be checked" in none and "50.0 [45.0, 55.0] %" in none and "No price rose for sure" in none
    assert "<img" not in train_page.page([], {}, half, [], "how") and "&lt;b&gt;" in train_page.page(
        [], {}, half, [], "<b>"
    )
