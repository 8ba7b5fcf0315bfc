"""Profiles and settings of a run, and what is said about wrong ones."""

import copy
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb import training
from mipo_nb.base.errors import UserError, did_you_mean
from mipo_nb.base.hardware import Hardware
from mipo_nb.engine import decoding
from mipo_nb.lab import settings
from mipo_nb.lab.notebooks import collection
from mipo_nb.paper import data_files

PLAIN = Hardware(2, 8 * 1024**3, None, 0, False, "Linux x86_64")


@pytest.fixture
def plain_machine(monkeypatch):
    monkeypatch.setattr(settings, "hardware", lambda: PLAIN)


def resolve(**options):
    return settings.resolve("laptop", "01_test", **options)


@pytest.mark.parametrize("profile", settings.profile_names())
def test_every_profile_has_positive_numbers_and_resolves(profile):
    numbers = settings.profile_numbers(profile, None)
    assert numbers["n_pairs"] > 0 and 0 < numbers["top_p"] <= 1
    assert all(v > 0 for v in numbers.values() if type(v) in (int, float) and v)
    found = settings.resolve(profile, None)
    assert found.profile == profile
    assert found.model == numbers.pop("model")
    assert found.numbers == numbers


def test_the_laptop_profile_is_there():
    assert "laptop" in settings.profile_names()


def test_all_profiles_have_the_same_numbers():
    names = {profile: set(settings.profile_numbers(profile, None)) for profile in settings.profile_names()}
    assert all(found == names["laptop"] for found in names.values())


PAPER_IS_FOR = ["30_reproduce_personalization", "31_reproduce_reasoning", "32_reproduce_diversity"]


@pytest.mark.parametrize("notebook", PAPER_IS_FOR)
def test_the_paper_profile_has_the_authors_numbers(notebook):
    found = settings.profile_numbers("paper", notebook)
    fixed = {"learning_rate": 5e-7, "beta": 0.1, "epochs": 1, "max_length": 15360, "lora_rank": 0, "top_p": 0.9}
    assert {name: found[name] for name in fixed} == fixed
    assert found["batch_size"] * found["accumulate"] == 4
    assert (found["warmup"], found["final_rate"], found["four_bit"]) == (0.03, 0.1, False)


def test_the_paper_profile_is_for_the_reproductions_alone():
    for ask in (settings.profile_numbers, settings.resolve):
        with pytest.raises(UserError) as caught:
            ask("paper", "11_qlora_mipo")
        assert str(caught.value) == (
            "The profile 'paper' is for notebooks 30, 31, 32, not for 11_qlora_mipo; use gpu or laptop."
        )


def test_profiles_of_a_notebook_are_those_that_it_can_be_run_with():
    names = settings.profile_names()
    assert settings.profile_names("11_qlora_mipo") == [n for n in names if n not in ("paper", "evidence")]
    assert settings.profile_names("32_reproduce_diversity") == [n for n in names if n != "evidence"]
    assert settings.profile_names("14_choosing_the_dose") == [n for n in names if n != "paper"]


def test_the_evidence_profile_says_what_differs_from_laptop():
    laptop, found = (settings.profile_numbers(p, "12_measuring_personalization") for p in ("laptop", "evidence"))
    differs = {name for name in laptop if found[name] != laptop[name]}
    assert found.keys() == laptop.keys() and differs == {"n_measured", "draws", "kept_seeds", "kept_controls"}


def test_every_number_of_the_paper_profile_says_where_it_is_from():
    """A comment with a mark on its line, or on the line before for the second of two that belong together."""
    lines = settings.profile_file("paper").read_text(encoding="utf-8").splitlines()
    for before, line in zip(lines, lines[1:], strict=False):
        if "=" in line.partition("#")[0]:
            assert any(mark in line + before for mark in ("[code]", "[inferred]", "ours", "no other")), line


@given(st.integers(1, 10**6), st.floats(1e-6, 10))
def test_overrides_replace_a_number_and_nothing_else(n, rate):
    before, after = resolve(), resolve(n_pairs=n, learning_rate=rate)
    assert (after.n_pairs, after.learning_rate) == (n, rate)
    assert {k: v for k, v in after.numbers.items() if k not in ("n_pairs", "learning_rate")} == {
        k: v for k, v in before.numbers.items() if k not in ("n_pairs", "learning_rate")
    }


def test_none_is_no_override_and_a_whole_number_serves_as_a_fraction():
    assert resolve(n_pairs=None, beta=None) == resolve()
    found = resolve(beta=1).beta
    assert found == 1.0 and type(found) is float


def test_overrides_do_not_leak_into_the_next_run():
    before = resolve().n_pairs
    resolve(n_pairs=before + 1)
    assert resolve().n_pairs == before


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n_pair": 3}, "Unknown parameter 'n_pair'; did you mean 'n_pairs'"),
        ({"zzz": 3}, "Unknown parameter 'zzz'; known: "),
        ({"n_pairs": "3"}, "n_pairs must be of type int"),
        ({"n_pairs": 2.0}, "n_pairs must be of type int"),
        ({"n_pairs": True}, "n_pairs must be of type int"),
        ({"four_bit": 1}, "four_bit must be of type bool"),
        ({"n_pairs": 0}, "n_pairs must be a finite number greater than 0"),
        ({"beta": -0.1}, "beta must be a finite number greater than 0"),
        ({"seed": -1}, "SEED must be a whole number"),
        ({"seed": 2**31}, "SEED must be a whole number"),
        ({"seed": 1.0}, "SEED must be a whole number"),
        ({"seed": True}, "SEED must be a whole number"),
        ({"device": "tpu"}, "Unknown device 'tpu'; use 'cpu' or 'cuda'"),
    ],
)
def test_wrong_parameters_are_explained(options, message):
    with pytest.raises(UserError, match=message):
        resolve(**options)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["learning_rate", "temperature", "final_rate"])
def test_numbers_must_be_finite(name, value):
    with pytest.raises(UserError, match=f"{name} must be a finite number"):
        resolve(**{name: value})


MAY_BE_ZERO = ["temperature", "top_k", "lora_rank", "warmup", "final_rate"]


@pytest.mark.parametrize("profile", [p for p in settings.profile_names() if p not in ("paper", "evidence")])
def test_zero_can_be_asked_for_where_it_means_something(profile, tmp_path):
    zeros = dict.fromkeys(MAY_BE_ZERO, 0)
    found = settings.resolve(profile, "11_qlora_mipo", **zeros, four_bit=False)
    assert {name: found.numbers[name] for name in zeros} == zeros and found.four_bit is False
    kinds = {name: type(value) for name, value in settings.profile_numbers(profile, "11_qlora_mipo").items()}
    assert all(type(found.numbers[name]) is kinds[name] for name in zeros)


def test_zero_stands_in_a_profile_of_ones_own(tmp_path):
    file = tmp_path / "mine.toml"
    zeros = dict.fromkeys(MAY_BE_ZERO, 0)
    table = "".join(f"{name} = 0\n" for name in zeros)
    file.write_text(f"[defaults]\n{table}four_bit = false\n[31_reproduce_reasoning]\nchoice_temperature = 0\n")
    found = settings.resolve(str(file), "31_reproduce_reasoning", temperature=0).numbers
    assert {name: found[name] for name in (*zeros, "choice_temperature")} == {**zeros, "choice_temperature": 0}


def test_the_papers_penalty_can_be_switched_off():
    assert settings.resolve("paper", "31_reproduce_reasoning", reward_beta=0).reward_beta == 0


@pytest.mark.parametrize("name", MAY_BE_ZERO)
def test_no_number_is_negative(name):
    with pytest.raises(UserError, match=f"{name} must be a finite number of 0 or more, not -1"):
        resolve(**{name: -1})


@pytest.mark.parametrize("name", ["learning_rate", "beta", "top_p", "epochs", "batch_size", "max_new_tokens"])
def test_zero_is_refused_where_nothing_would_be_left(name):
    with pytest.raises(UserError, match=f"{name} must be a finite number greater than 0, not 0"):
        resolve(**{name: 0})


@pytest.mark.parametrize("name", ["top_p", "warmup", "final_rate", "lora_rank"])
def test_what_has_an_upper_end_keeps_below_it(name):
    most = settings._AT_MOST[name]
    assert resolve(**{name: most}).numbers[name] == most
    with pytest.raises(UserError, match=f"^{name} cannot be .*; use a number up to {most}"):
        resolve(**{name: most + 1})


@pytest.fixture
def places(tmp_path, monkeypatch):
    """(project's root, working folder), which lies beside it as JupyterLab's may."""
    root, here = tmp_path / "root", tmp_path / "here"
    for folder in (root, here):
        folder.mkdir()
    monkeypatch.setattr(settings, "project_root", lambda: root)
    monkeypatch.chdir(here)
    return root, here


def put(folder, name):
    """A file, or a folder with one in it where the name has no ending."""
    path = folder / name
    file = path if path.suffix else path / "config.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    return str(path)


PLACED = [("data", "mine/rows.jsonl"), ("model", "models/tiny"), ("adapter", "adapters/mine")]


@pytest.mark.parametrize("parameter, name", PLACED)
def test_a_relative_path_means_the_project_root_first_then_the_working_folder(places, parameter, name):
    root, here = places
    found = lambda asked=name: getattr(resolve(**{parameter: asked}), parameter)  # noqa: E731
    assert found() == name
    there = put(here, name)
    assert found() == there and os.path.isabs(there)
    first = put(root, name)
    assert found() == first
    assert found(there) == there
    assert found(f"../here/{name}") == there


@pytest.mark.parametrize("parameter, name", PLACED)
def test_a_home_folder_in_a_path_is_understood(places, monkeypatch, parameter, name):
    monkeypatch.setenv("HOME", str(places[0]))
    there = put(places[0], name)
    assert getattr(resolve(**{parameter: f"~/{name}"}), parameter) == there


def test_a_path_in_a_profile_of_ones_own_is_found_too(places, tmp_path):
    there, model = put(places[0], "rows.jsonl"), put(places[0], "tiny")
    (tmp_path / "mine.toml").write_text("[defaults]\ndata = 'rows.jsonl'\nmodel = 'tiny'\n")
    found = settings.resolve(str(tmp_path / "mine.toml"), "11_qlora_mipo")
    assert (found.data, found.model) == (there, model)


@pytest.mark.parametrize("name", ["own", *data_files.HUB])
def test_names_of_data_stay_what_they_are(places, name):
    (places[0] / name).write_text("{}")
    (places[1] / name).write_text("{}")
    assert resolve(data=name).data == name


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-1.5B-Instruct@main", "embedded:smollm2-135m", "x" * 5000, "~nobody/x"])
def test_names_that_are_no_path_stay_what_they_are(places, name):
    found = resolve(model=name, adapter=name, data=name)
    assert (found.model, found.adapter, found.data) == (name, name, name)


def test_a_file_is_no_model_and_a_folder_no_data(places):
    put(places[0], "a.bin"), put(places[0], "folder")
    assert (resolve(model="a.bin").model, resolve(data="folder").data) == ("a.bin", "folder")


def test_without_an_adapter_there_is_none(places):
    assert resolve().adapter is None and resolve(adapter="").adapter is None
    assert "adapter" not in resolve(adapter=put(places[0], "mine")).numbers


@pytest.mark.parametrize("parameter", ["model", "adapter"])
def test_a_name_that_is_no_text_is_explained(parameter):
    with pytest.raises(UserError, match=f"{parameter.upper()} must be a name or a path as text, not 1."):
        resolve(**{parameter: 1})


def test_an_unknown_profile_is_explained():
    with pytest.raises(UserError, match="Unknown profile 'laptob'; did you mean 'laptop'"):
        settings.resolve("laptob", "01_test")


def test_a_file_of_ones_own_changes_what_it_names(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[defaults]\nn_pairs = 12\nbeta = 1\n[11_qlora_mipo]\nn_pairs = 14 # more\n")
    laptop = settings.profile_numbers("laptop", "11_qlora_mipo")
    assert settings.profile_numbers(str(file), "11_qlora_mipo") == {**laptop, "n_pairs": 14, "beta": 1}
    assert settings.profile_numbers(str(file), "12_measuring_personalization")["n_pairs"] == 12
    assert settings.resolve(str(file), "11_qlora_mipo").profile == "mine"


@pytest.mark.parametrize(
    "text, told",
    [
        ("[defaults]\nbeta = 0.2\nn_pair = 3", "mine.toml, line 3: unknown number 'n_pair'; did you mean 'n_pairs'?"),
        (
            "[defaults]\n[11_qlora_mipo]\n\nn_test = 3",
            "mine.toml, line 4: unknown number 'n_test'; known: accumulate, ",
        ),
        ("[default]\nbeta = 0.2", "mine.toml, line 1: no table 'default'; did you mean 'defaults'?"),
        ("beta = 0.2", "mine.toml, line 1: no table 'beta'; known: "),
        ('notebooks = ["11_qlora_mipo"]', "mine.toml, line 1: no table 'notebooks'; known: "),
        ("[defaults]\nbeta = '0.2'", "mine.toml, line 2: beta must be of type float (like 0.1), not '0.2'."),
        ("[defaults]\n\nn_pairs = -4", "mine.toml, line 3: n_pairs must be a finite number greater than 0, not -4."),
        ("[defaults\nbeta = 0.2", "The profile mine.toml cannot be read: "),
        ("[defaults]\nbeta = 0.2\nbeta = 0.3", "The profile mine.toml cannot be read: "),
    ],
)
def test_a_wrong_profile_file_is_explained_with_its_line(tmp_path, text, told):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UserError) as caught:
        settings.profile_numbers(str(tmp_path / "mine.toml"), "11_qlora_mipo")
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)


def test_a_profile_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="There is no profile file"):
        settings.resolve(str(tmp_path / "no.toml"), "01_test")


def test_cuda_that_is_not_there_is_refused(plain_machine):
    with pytest.raises(UserError, match="no CUDA device is visible; use device='cpu'"):
        resolve(device="cuda")
    assert resolve(device="cpu").device == resolve().device == "cpu"


def test_a_machine_without_a_gpu_gets_the_laptop_profile(plain_machine):
    assert settings.resolve("auto", "01_test").profile == "laptop"


@pytest.mark.parametrize(
    "cuda, bf16, device, dtype",
    [
        (None, False, "cpu", "float32"),
        (None, True, "cpu", "bfloat16"),
        ("T4", False, "cuda", "float16"),
        ("A100", True, "cuda", "bfloat16"),
    ],
)
def test_the_machine_decides_device_and_type(cuda, bf16, device, dtype):
    machine = Hardware(2, 1, cuda, 0, bf16, "")
    assert (machine.device, machine.dtype) == (device, dtype)


def test_the_machine_is_described():
    machine = settings.hardware()
    assert machine.cores >= 1 and machine.memory > 2**28
    assert (machine.cuda is None) == (machine.cuda_memory == 0)


def test_the_model_can_be_chosen():
    assert resolve(model="some/model").model == "some/model"
    assert "model" not in resolve().numbers


def test_a_number_that_is_not_there_says_what_is():
    found = resolve()
    with pytest.raises(AttributeError, match="did you mean 'n_pairs'"):
        _ = found.n_pair
    assert not hasattr(found, "nothing_like_it")


def test_settings_can_be_copied_and_sent_to_another_process():
    found = resolve()
    assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == found


def test_the_nearest_name_is_offered_else_all():
    assert did_you_mean("tran", ["train", "dev"]) == "did you mean 'train'?"
    assert did_you_mean("xyz", ["train", "dev"]) == "known: dev, train."
    assert did_you_mean(3, {"b": 1, "a": 2}) == "known: a, b."


@pytest.mark.usefixtures("plain_machine")
def test_an_own_profile_called_like_one_of_ours_is_refused(tmp_path):
    (tmp_path / "laptop.toml").write_text("[defaults]\nn_pairs = 8\n")
    with pytest.raises(UserError, match="rename it"):
        settings.resolve(str(tmp_path / "laptop.toml"), "11_qlora_mipo")


@pytest.mark.usefixtures("plain_machine")
def test_what_a_model_is_loaded_with_includes_its_template_options(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[defaults]\ntemplate_options = { enable_thinking = true }\nat_limit = 'whole'\n")
    found = settings.resolve(str(file), "11_qlora_mipo")
    assert found.weights == {"device": "cpu", "dtype": "float32", "four_bit": False, "template_options": {"enable_thinking": True}}  # fmt: skip
    assert found.at_limit == "whole"
    assert training.Recipe.of(found).weights["template_options"] == (("enable_thinking", True),)
    assert decoding.Sampling.of(found).at_limit == "whole"


@pytest.mark.parametrize("profile", ["smoke", "laptop", "gpu", "evidence", "paper"])
def test_every_notebook_can_be_resolved_in_every_profile_that_serves_it(profile):
    names = settings.read_toml(settings.profile_file(profile)).get("notebooks", collection())
    for name in names:
        resolved = settings.resolve(profile, name)
        assert resolved.rules_file == "" and resolved.system and resolved.n_pairs > 0
