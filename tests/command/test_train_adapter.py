"""`mipo-nb train` on a small file of somebody else's users: an adapter with a card, a page, and the same again at once."""

import json
import re

import pytest

from mipo_nb import models
from mipo_nb.base.errors import UserError
from mipo_nb.command import train_adapter

NAME = "embedded:smollm2-135m"
SMALL = {"N_PAIRS": 8, "MAX_NEW_TOKENS": 12, "N_MEASURED": 6, "N_OTHERS": 3, "N_HELD_OUT": 4, "EVALUATE_EVERY": 1}


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    """12 people with a wish by a pattern, and two prompts each besides a text for somebody else."""
    file, rows = tmp_path_factory.mktemp("users") / "readers.jsonl", []
    for k in range(12):
        wish = {"text": f"Reader {k} wants an example in each answer.", "pattern": "(?i)for (example|instance)"}
        user = {"user_id": f"r{k}", "context": f"Reader {k} borrows maps. {wish['text']}", "preferences": [wish]}
        asked = [f"Question {k % 3}: which map?", f"Question {k % 4}: how far?"]
        rows += [{**user, "prompt": text} for text in asked]
        rows.append({**user, "prompt": "Write a sign for the door.", "for_somebody_else": True})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.model
def test_from_a_file_to_an_adapter_and_again_at_once(users, tmp_path, capsys):
    how = {"profile": "smoke", "output_dir": tmp_path, "seed": 0, "data": str(users), **SMALL}
    said = train_adapter.train(**how)
    folder = tmp_path / "smoke" / "train" / "readers"
    card = (folder / "adapter" / "README.md").read_text()
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in card and "license: apache-2.0" in card and "readers.jsonl" in card
    assert "held-out margin" in card and str(tmp_path) not in card
    assert {"for the user", "misapplied", "repetition"} <= {line.partition(",")[0] for line in said}
    assert sum(line.startswith("  mipo-nb ") for line in said) == 3
    page = (folder / "report.html").read_text()
    assert page.index("What training did") < page.index("<table>") < page.index("before and after")
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == NAME
    models.load(NAME, adapter=folder / "adapter")
    manifest = json.loads((tmp_path / "smoke" / "train" / "manifest.json").read_text())
    assert train_adapter.train(**how) == said
    again = json.loads((tmp_path / "smoke" / "train" / "manifest.json").read_text())
    assert [s["key"] for s in again["steps"]] == [s["key"] for s in manifest["steps"]]
    assert all(step["found"] for step in again["steps"])


@pytest.mark.model
def test_the_commands_that_it_ends_with_are_commands(users, tmp_path):
    import typer.testing

    from mipo_nb.command import cli

    said = train_adapter._next(tmp_path, type("S", (), {"model": NAME, "profile": "smoke", "data": str(users)}))
    for line in said[1:]:
        words = line.split()[1:]
        assert typer.testing.CliRunner().invoke(cli.app, [words[0], "--help"]).exit_code == 0
        assert re.match(r"(export|run)$", words[0])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"LORA_RANK": 0}, "This command trains an adapter"),
        ({"WITH_CONTEXT": "You are kind."}, "has no {context} in it"),
        ({"N_PAIR": 3}, "Unknown parameter 'N_PAIR'; did you mean"),
        ({"data": "none.jsonl"}, "There is no file none.jsonl"),
        ({"profile": "paper"}, "The profile 'paper' is for notebooks"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_anything_is_written(tmp_path, change, told):
    with pytest.raises(UserError) as caught:
        train_adapter.train(**{"profile": "smoke", "output_dir": tmp_path / "out", "seed": 0, "data": "own", **change})
    assert told in str(caught.value) and not (tmp_path / "out").exists()
