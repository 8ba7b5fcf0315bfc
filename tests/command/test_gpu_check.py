"""The GPU check runs here on the CPU, every path of it, with a tiny model; no time is tested. And its parts: random models
in folders, wheels that are put first, tests that fail, time that is up."""

import os
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch

from mipo_nb import models, prompts
from mipo_nb.base.errors import UserError
from mipo_nb.base.hardware import hardware
from mipo_nb.command import gpu_check, gpu_measures, gpu_page, random_models, samplers
from mipo_nb.engine import decoding
from mipo_nb.lab import costs

PUBLISHED = {  # parameters, as the models' safetensors on the hub have them
    "Qwen2.5-0.5B": 494_032_768,
    "Llama-3.2-1B": 1_235_814_400,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-7B": 7_615_616_512,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_models.write(tmp_path_factory.mktemp("models") / "tiny", "tiny")


@pytest.fixture
def own_environment(monkeypatch):
    """What the check sets for its process is as it was after the test."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_shapes_have_the_parameters_that_are_published():
    assert set(PUBLISHED) == set(gpu_check.SIZES) == set(random_models.SHAPES) - {"tiny"}
    for name, parameters in PUBLISHED.items():
        assert costs.count_weights(random_models.config_of(name))[2] == parameters, name


@pytest.mark.model
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_random_model_is_loaded_with_a_tokenizer_of_bytes(tmp_path, kind):
    """Whatever class transformers takes for the tokenizer of a model of this type."""
    written = random_models.write(tmp_path / kind, {**random_models.SHAPES["tiny"], "model_type": kind})
    model, tokenizer = models.load(written, dtype="float32")
    conversation = prompts.messages("Où est  la gare?\nDis-le.", "Ana, 40")
    start, end = prompts.prompt_ids(tokenizer, conversation), prompts.completion_ids(tokenizer, conversation, "Là.")
    assert tokenizer.decode(end) == "Là.<|im_end|>\n" and len(end) == len("Là.".encode()) + 2
    assert tokenizer.decode(start).endswith("Dis-le.<|im_end|>\n<|im_start|>assistant\n")
    assert len(tokenizer) == 256 + 3 and (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 2)
    assert tokenizer.decode(end, skip_special_tokens=True) == "Là.\n"
    assert decoding.ends_of(model, tokenizer) == {2}
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert head is embedding and head.std().item() == pytest.approx(64**-0.5, rel=0.05)
    norms = [p for name, p in model.named_parameters() if "norm" in name]
    assert norms and all((p == 1).all() for p in norms)


@pytest.mark.model
def test_a_model_in_several_files_is_that_in_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(random_models, "_PART", 1e5)
    parts = random_models.write(tmp_path / "parts", "tiny")
    assert len(list((tmp_path / "parts").glob("part-*.safetensors"))) > 1
    one, several = (dict(models.load(f, dtype="float32")[0].named_parameters()) for f in (folder, parts))
    assert one.keys() == several.keys() and all(torch.equal(one[name], several[name]) for name in one)


def test_pairs_of_tokens_begin_alike_and_have_their_lengths():
    pairs = random_models.token_pairs(3, 40, 8, 512)
    begins = {tuple(ids[:10]) for ids in pairs["prompt_ids"]}
    assert len(begins) == 1 and len({tuple(ids) for ids in pairs["prompt_ids"]}) == 3
    assert {len(ids) for ids in pairs["prompt_ids"]} == {40}
    assert {len(ids) for side in ("chosen_ids", "rejected_ids") for ids in pairs[side]} == {8}
    assert all(3 <= token < 512 for ids in pairs["chosen_ids"] for token in ids)
    assert list(pairs["ref_chosen_logps"]) == list(pairs["ref_rejected_logps"]) == [0.0] * 3
    assert list(random_models.token_pairs(3, 40, 8, 512)["chosen_ids"]) == list(pairs["chosen_ids"])


@pytest.mark.model
def test_every_measurement_runs_and_is_on_the_page(tmp_path, own_environment, capsys):
    given = ["--sizes", "tiny", "--parts", "train,sample", "--minutes", "10", "--output", str(tmp_path)]
    assert gpu_check.main(given) == 0
    table = pd.read_csv(tmp_path / "bench_cuda.csv")
    assert tuple(table.columns) == gpu_page.COLUMNS
    train, sample = (table[table["part"] == part] for part in ("train", "sample"))
    four_bit = ["NF4"] * 4 + [hardware().dtype] * 4
    assert list(train["weights"]) == four_bit and list(train["route"]) == ["ours", "TRL"] * 4
    assert list(train["checkpointing"]) == ["on", "on", "off", "off"] * 2
    assert list(sample["route"]) == list(samplers.ROUTES)
    missing = table[table["note"].notna()]
    assert list(missing["note"]) == ["skipped: vLLM is not installed here."], list(missing["note"])
    there = table[table["note"].isna()]
    assert (there[["tokens_s", "times", "peak_gb", "share"]] > 0).all(axis=None)
    assert (there["share"] < 1.5).all() and (there[there["route"].isin(["TRL", "generate"])]["times"] == 1).all()
    assert (train[["pairs_s", "loss"]] > 0).all(axis=None) and (train["n"] >= 1).all()
    assert (train[train["route"] == "ours"]["budget_gb"] > 0).all()
    for ours, theirs in train["loss"].to_numpy().reshape(-1, 2):
        assert ours == pytest.approx(theirs, rel=0.1)
    text = (tmp_path / "bench_cuda.txt").read_text()
    assert text in capsys.readouterr().out
    assert "tests: not asked for" in text and f"transformers {gpu_page.versions()['transformers']}" in text
    assert "tiny sample" in text and "vllm: skipped: vLLM is not installed here." in text
    assert str(tmp_path) not in text and os.path.expanduser("~") + "/" not in text


def test_when_the_time_is_up_everything_is_said_to_be_skipped(tmp_path, own_environment):
    assert gpu_check.main(["--sizes", "tiny", "--minutes", "0", "--output", str(tmp_path)]) == 0
    table, text = pd.read_csv(tmp_path / "bench_cuda.csv"), (tmp_path / "bench_cuda.txt").read_text()
    assert set(table["note"]) == {"skipped: the time was up."} and len(table) == 8 + 4
    assert text.count("skipped: the time was up.") == len(table) and "tests: skipped, the time was up" in text
    assert "tiny train NF4 on ours: skipped: the time was up." in text


def test_nothing_is_begun_that_would_take_longer_than_what_is_left():
    clock = gpu_check.Clock(1)
    assert clock.attempt(lambda: {"n": 1}) == {"n": 1}
    clock.longest = 61
    assert clock.attempt(lambda: {"n": 1}) == {"note": "skipped: the time was up."}


def test_what_fails_is_a_note_of_one_line_without_a_home():
    def fail():
        raise RuntimeError(f"{os.path.expanduser('~')}/models is full\nand more")

    assert gpu_check.Clock(1).attempt(fail) == {"note": "failed: RuntimeError: ~/models is full"}
    refused = gpu_check.Clock(1).attempt(lambda: samplers.loaded("vllm", "", "cpu", "float32", 8))
    assert refused == {"note": "skipped: vLLM is not installed here."}


def test_a_failing_test_fails_the_check_and_is_named(tmp_path):
    file = tmp_path / "test_three.py"
    file.write_text(
        "import pytest\n\ndef test_good():\n    pass\n\ndef test_bad():\n    assert 1 == 2, 'one is not two'\n\n"
        "@pytest.mark.skip(reason='needs two GPUs')\ndef test_left_out():\n    pass\n"
    )
    lines, good = gpu_check.run_tests(120, file)
    assert not good and lines[0] == "tests: 1 passed, 1 failed, 1 skipped"
    assert "failed: test_bad: " in lines[1] and "one is not two" in lines[1]
    assert lines[2] == "  skipped: test_left_out: needs two GPUs"


def test_tests_that_do_not_run_or_take_too_long_are_no_success(tmp_path):
    broken, slow = tmp_path / "test_broken.py", tmp_path / "test_slow.py"
    slow.write_text("import time\n\ndef test_slow():\n    time.sleep(60)\n")
    lines, good = gpu_check.run_tests(3, slow)
    assert not good and lines == ["tests: stopped after 3 s, when the time was up"]
    broken.write_text("import nothing_of_this_name\n")
    lines, good = gpu_check.run_tests(120, broken)
    assert not good and lines[0] == "tests: 0 passed, 1 failed, 0 skipped"
    assert gpu_check.run_tests(120, tmp_path / "test_missing.py") == (
        ["tests: skipped, for want of pytest or of a whole checkout"],
        True,
    )


def test_wheels_go_before_what_is_installed(tmp_path, own_environment):
    with pytest.raises(UserError, match="no wheels"):
        gpu_check.use_wheels(tmp_path)
    with zipfile.ZipFile(tmp_path / "only_in_a_wheel-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("only_in_a_wheel/__init__.py", "ANSWER = 42\n")
    gpu_check.use_wheels(tmp_path)
    import only_in_a_wheel

    assert only_in_a_wheel.ANSWER == 42 and os.environ["PYTHONPATH"].split(os.pathsep)[0] == sys.path[0]


@pytest.mark.parametrize("wrong", [["--sizes", "Qwen2.5-0.6B"], ["--parts", "training"]])
def test_an_unknown_size_or_part_is_refused_in_one_sentence(wrong, own_environment, capsys):
    assert gpu_check.main(wrong) == 2
    assert capsys.readouterr().err.startswith("Unknown ")


def test_rows_of_other_machines_stay_in_the_table(tmp_path):
    row = {"size": "tiny", "part": "sample", "weights": "float32", "n": 3}
    there = {**row, "route": "ours", "tokens_s": 1.0, "device": "another, float32", "torch": "2.8.0"}
    here = [
        {**row, "route": route, "tokens_s": rate, "device": "this, float32", "torch": "2.13.0"}
        for route, rate in (("ours", 6.0), ("generate", 2.0))
    ]
    for rows in ([there], here, here):
        gpu_page.write(tmp_path, rows, "page\n")
    table = pd.read_csv(tmp_path / "bench_cuda.csv")
    assert list(table["device"]) == ["another, float32", "this, float32", "this, float32"]
    assert np.array_equal(table["times"], [np.nan, 3.0, 1.0], equal_nan=True)


@pytest.mark.model
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # transformers' own, of its batching
@pytest.mark.parametrize("route", ["ours", "generate", "generate_batch"])
def test_every_way_to_sample_draws_what_is_asked_for(folder, route):
    respond = samplers.loaded(route, folder, "cpu", "float32", 48)
    ids = random_models.token_prompts(3, 40, 512)
    assert 3 <= respond(ids, decoding.Sampling(max_new_tokens=8)) <= 24


@pytest.mark.model
def test_a_training_ends_when_its_seconds_are_over(folder):
    load = gpu_measures.Load(pairs=2, prompt=40, response=8, repetitions=50, seconds=0.0)
    case = gpu_measures.Case(folder, load, "cpu", "float32", rate=1e12)
    assert gpu_measures.train(case, route="ours", four_bit=False, checkpointing=False)["n"] == 1
