"""Fixtures that several test files share, with the embedded model loaded once, and the minutes that notebooks took."""

import ast
import json
import os
from pathlib import Path

import pytest
from hypothesis import settings

# `make test` runs two files at a time. Each has its share of the cores, and so have the kernels that it starts.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))

# Derandomized, so that a failure in CI is the same failure at home.
settings.register_profile("mipo", max_examples=30, deadline=None, derandomize=True, database=None)
settings.load_profile("mipo")


@pytest.fixture(scope="session")
def tokenizer():
    from mipo_nb import models

    return models.load_tokenizer("embedded:smollm2-135m")


@pytest.fixture(scope="session")
def model_and_tokenizer():
    from mipo_nb import models
    from mipo_nb.engine import routes

    model, tokenizer = models.load("embedded:smollm2-135m", dtype="float32")
    assert routes.enable_packing(model)
    return model, tokenizer


@pytest.fixture
def model_of(tmp_path):
    """Writes a tiny random model of a family to a folder, whose path it returns."""
    from mipo_nb.command import random_models

    size = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 259,
    }  # fmt: skip
    own = {  # windows shorter than the sequences, normed queries and keys, a head of its own
        "gemma3_text": {"head_dim": 16, "sliding_window": 48, "tie_word_embeddings": True},
        "qwen3": {"head_dim": 16, "tie_word_embeddings": False},
        "phi3": {"sliding_window": 24, "tie_word_embeddings": False},
    }
    return lambda name: random_models.write(tmp_path / name, {"model_type": name, **size, **own[name]})


@pytest.fixture(scope="session")
def some_pairs(tokenizer):
    """Six short pairs."""
    from mipo_nb import pairs

    users = ["Ana keeps bees. She wants answers in Spanish.", "Ben drives a bus at night. He wants a numbered list."]
    rows = [
        {"prompt": p, "context": users[i % 2], "user_id": f"u{i % 2}"}
        for i, p in enumerate(
            ["What now?", "Name a gift.", "How do I rest?", "Plan my day.", "Cook what?", "Go where?"]
        )
    ]
    chosen = [
        "Sí, claro.",
        "1. A book.\n2. A pen.",
        "Duerme más.",
        "1. Walk.\n2. Read.",
        "Una sopa.",
        "1. To the sea, by train.",
    ]
    rejected = [
        "I do not know.",
        "A gift is nice for everybody.",
        "Rest.",
        "You could do a lot of things today.",
        "Rice",
        "Out",
    ]
    data, _ = pairs.build(rows, chosen, rejected, tokenizer, negative="random_context", max_length=256)
    return data


# Notebooks that find one another's steps, and so run in one process.
TOGETHER = ("11_qlora_mipo", "12_measuring_personalization", "22_steering_at_inference")
# Whose model tests `make test` runs: the method and what makes it fast. Of the other folders only `make test-all` does.
CORE = ("tests", "engine", "lab", "base", "notebooks")
# For each notebook, what it was when its smoke run last passed; committed, so that only what changed is run again.
PASSED = Path(__file__).parent / "notebooks" / "passed.json"


def pytest_addoption(parser):
    parser.addoption(
        "--changed", action="store_true", help="only smoke runs of notebooks that changed since they passed"
    )


def fingerprints():
    """{name: hash of a notebook's code, of every module that it imports, of its smoke numbers, the data and the pins}."""
    from mipo_nb.base.files import digest, project_root
    from mipo_nb.lab import notebooks, settings, steps

    root = project_root()
    shared = [f.read_text(encoding="utf-8") for f in (*sorted(root.glob("data/*.jsonl")), root / "constraints.txt")]
    hashes = {}
    for name, notebook in notebooks.collection().items():
        nodes = [node for cell in notebook.code_cells for node in ast.walk(ast.parse(cell.source))]
        modules = {m for node in nodes if isinstance(node, ast.ImportFrom) for m in steps.imported_modules(node)}
        version = steps.version_of_modules(*sorted(modules), without=())
        hashes[name] = digest([notebook.code, version, settings.profile_numbers("smoke", name), shared])[:16]
    return hashes


def passed():
    """What `PASSED` holds."""
    return json.loads(PASSED.read_text(encoding="utf-8")) if PASSED.exists() else {}


def smoked(nodeid):
    """The notebook whose smoke run a test is, or None; xdist adds the group to a test's name, "...[name]@group"."""
    return nodeid.partition("test_notebook_runs[")[2].partition("]")[0] or None


def pytest_configure(config):
    config.smoke = fingerprints()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config, items):
    """Whole notebooks first, each by itself, the other tests file by file: so both processes are busy to the end."""
    for item in items:
        alone = item.path.name == "test_smoke.py"
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")
        group = (TOGETHER[0] if name in (None, *TOGETHER) else name) if alone else item.path.name
        item.add_marker(pytest.mark.xdist_group(str(group)))
        if item.get_closest_marker("model") and item.path.parent.name not in CORE:
            item.add_marker(pytest.mark.whole)
    items.sort(key=lambda item: item.path.name != "test_smoke.py")
    if config.getoption("--changed"):
        before, now = passed(), config.smoke
        changed = [item for item in items if (name := smoked(item.nodeid)) and before.get(name) != now[name]]
        changed += [item for item in items if item.name.startswith("test_the_record_")]
        config.hook.pytest_deselected(items=[item for item in items if item not in changed])
        items[:] = changed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call" and report.passed and (name := smoked(item.nodeid)):
        report.user_properties.append(("smoked", name))
    return report


def pytest_terminal_summary(terminalreporter):
    """After all tests: what each whole notebook took."""
    ran = [value for r in terminalreporter.getreports("passed") for name, value in r.user_properties if name == "ran"]
    if ran:
        terminalreporter.section("notebooks")
        for line in ran:
            terminalreporter.write_line(line)


def pytest_sessionfinish(session, exitstatus):
    """Write down which notebooks passed as they are. With `--changed` that must then be true of all of them."""
    config = session.config
    if hasattr(config, "workerinput"):  # one of xdist's processes: the one above them hears of all
        return
    reports = config.pluginmanager.get_plugin("terminalreporter").getreports("passed")
    names = {value for report in reports for name, value in report.user_properties if name == "smoked"}
    now = config.smoke
    entries = {**passed(), **{name: now[name] for name in names}}
    entries = {name: entries[name] for name in now if name in entries}
    if names and entries != passed():
        PASSED.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    if config.getoption("--changed"):
        stale = [name for name in now if entries.get(name) != now[name]]
        session.exitstatus = 1 if stale else exitstatus
        print(f"\nNot passed as it is: {', '.join(stale)}." if stale else "\nEvery notebook has passed as it is.")
