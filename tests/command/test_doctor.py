"""What the doctor says of this machine, and of machines that lack something."""

import io
from collections import namedtuple

import pytest
from rich.console import Console

from mipo_nb.base import embedded
from mipo_nb.base.errors import UserError
from mipo_nb.base.hardware import Hardware
from mipo_nb.command import doctor
from mipo_nb.lab import settings


def named(findings):
    return {one.what: one for one in findings}


@pytest.fixture
def no_network(monkeypatch):
    # No request leaves a test: an address that refuses at once, and an index that is not there.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


def test_every_finding_that_is_not_good_says_what_to_do(no_network, tmp_path, monkeypatch):
    monkeypatch.setenv("MIPO_NB_CACHE", str(tmp_path / "cache"))
    found = named(doctor.examine(tmp_path / "runs"))
    assert set(found) == {
        "Python", "processor", "memory", "weights are held in", "GPU", "4-bit weights", "embedded models",
        "disk at the cache", "disk at the runs", "package index", "model hub",
    }  # fmt: skip
    assert all(one.good or one.mend for one in found.values())
    assert found["Python"].good and found["weights are held in"].found == doctor.hardware().dtype
    assert found["embedded models"].found == "not yet: smollm2-135m, minilm-l6"
    for network in ("package index", "model hub"):
        assert found[network].found == "not reached" and found[network].good is None
    assert not (tmp_path / "runs").exists()


def test_a_cache_that_cannot_be_written_must_be_mended(no_network, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MIPO_NB_CACHE", str(tmp_path / "file" / "cache"))
    found = named(doctor.examine(tmp_path))
    assert found["cache"].good is False and "set MIPO_NB_CACHE" in found["cache"].mend


def test_without_pip_the_index_is_not_asked(no_network, tmp_path, monkeypatch):
    def none():
        raise UserError("There is no pip; install it.")

    monkeypatch.setenv("MIPO_NB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "pip", none)
    index = named(doctor.examine(tmp_path / "runs"))["package index"]
    assert index == doctor.Finding("package index", "cannot be asked", None, "There is no pip; install it.")


def test_a_long_path_is_shown_to_its_end():
    path, shown = "/".join(["folder"] * 20), io.StringIO()
    Console(file=shown, width=60).print(doctor.table([doctor.Finding("cache", "cannot be written", False, path)]))
    cells = [line.split("│")[-2].strip() for line in shown.getvalue().splitlines() if "│" in line]
    assert "".join(cells) == path


def test_a_full_disk_and_little_memory_are_seen(no_network, tmp_path, monkeypatch):
    monkeypatch.setenv("MIPO_NB_CACHE", str(tmp_path / "cache"))
    usage = namedtuple("usage", "total used free")(10**12, 10**12, 10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    small = Hardware(2, 4 * 10**9, None, 0, False, "Linux x86_64")
    monkeypatch.setattr(doctor, "hardware", lambda: small)
    found = named(doctor.examine(tmp_path))
    assert found["disk at the cache"].good is False and found["disk at the runs"].good is False
    assert found["memory"].good is None and "8 GB" in found["memory"].mend


@pytest.mark.parametrize(
    "cuda, memory, told",
    [(None, 0, "needs a GPU of 8 GB; there is 0"), ("a card", 8 * 10**9, "needs a GPU of 8 GB; there is 7"),
     ("a card", 24 * 1024**3, "runs on a card")],
)  # fmt: skip
def test_each_profile_says_what_it_would_do_here(monkeypatch, cuda, memory, told):
    machine = Hardware(2, 16 * 10**9, cuda, memory, True, "Linux x86_64")
    monkeypatch.setattr(doctor, "hardware", lambda: machine)
    rows = {row["profile"]: row for row in doctor.profiles()}
    assert set(rows) == set(settings.profile_names())
    assert rows["gpu"]["here"] == told and rows["gpu"]["weights"] == "NF4"
    assert rows["paper"]["weights"] == "bfloat16" and rows["paper"]["here"].startswith("needs a GPU of 40 GB")
    assert rows["laptop"]["here"] == f"runs on {cuda or 'the CPU'}"
    assert rows["laptop"]["model"] == "embedded:smollm2-135m" and rows["laptop"]["weights"] == "bfloat16"
