"""The recipes of docs/clusters.md: a shell can read them, and the programs in them take what they are given."""

import re
import shlex
import subprocess

import pytest
import typer
import yaml

from mipo_nb.base.files import project_root
from mipo_nb.command import cli
from mipo_nb.lab import notebooks, settings

PAGE = (project_root() / "docs" / "clusters.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def calls(program, text):
    """[words after it] of each call of a program in a shell's text, also of one that is quoted for another shell."""
    text = re.sub(r"(?m)\s+# .*$", "", text)  # without comments
    found, words = [], shlex.split(re.sub(r"\\\n", " ", text).replace("\n", " ; "))
    for number, word in enumerate(words):
        if word.rpartition("/")[2] == program:
            rest = words[number + 1 :]
            end = next((k for k, one in enumerate(rest) if one in (";", "&&", "&", "--", "|")), len(rest))
            found.append(rest[:end])
        elif f"{program} " in word:
            found += calls(program, word)
    return found


def parsed(command, words):
    """The parameters of the innermost command that `words` call; raises where it does not take them."""
    context = command.make_context(command.name, list(words))
    while hasattr(context.command, "commands"):
        name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return context.params


OURS = [words for text in blocks("bash") for words in calls("mipo-nb", text)]
OURS += [words for text in blocks("yaml") for words in calls("mipo-nb", yaml.safe_load(text)["run"])]


@pytest.mark.parametrize("text", blocks("bash"), ids=lambda text: text.split("\n")[0][:40])
def test_a_shell_can_read_it(text):
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_our_commands_take_what_they_are_given(words):
    given = parsed(typer.main.get_command(cli.app), words)
    assert given["profile"] in settings.profile_names()
    listed = re.findall(r"notebooks=\((.*?)\)|for notebook in (.*?);", PAGE)
    numbers = " ".join(sum(listed, ())).split() if "$" in given["notebooks"][0] else given["notebooks"]
    for notebook in notebooks.selected(list(numbers)):
        settings.profile_numbers(given["profile"], notebook.name)  # which says whether it serves the notebook


def test_all_of_our_commands_were_found():
    told = re.sub(r"`[^`\n]*`", "", PAGE)
    assert len(OURS) == told.count("mipo-nb run") >= 6


def test_a_wrong_option_is_seen():
    with pytest.raises(Exception, match="No such option"):
        parsed(typer.main.get_command(cli.app), ["run", "14", "--workrs", "ray"])


def test_ray_takes_what_it_is_given():
    from ray.scripts import scripts
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

    asked = [words for text in blocks("bash") for words in calls("ray", text) if words]
    started = [scripts.start.make_context("start", words[1:]).params for words in asked if words[0] == "start"]
    [symmetric] = [words for words in asked if words[0] == "symmetric-run"]
    assert [given["num_cpus"] for given in started] == [1, 1] and started[1]["address"] == "HEAD:6379"
    assert symmetric_run.make_context("run", symmetric[1:]).params["min_nodes"] == 4
    passed_on = curate_and_validate_ray_start_args(symmetric[1:])
    assert scripts.start.make_context("start", passed_on).params["num_cpus"] == 1


def test_the_hub_takes_what_it_is_given():
    from huggingface_hub.cli.hf import app

    [words] = [words for text in blocks("bash") for words in calls("hf", text)]
    given = parsed(app, words)
    assert given["image"] == "python:3.12" and given["detach"] and given["command"][:2] == ("bash", "-c")
