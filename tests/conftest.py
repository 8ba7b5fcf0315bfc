"""Fixtures that several test files share, with the embedded model loaded once, and the minutes that notebooks took."""

import os

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

    return models.load("embedded:smollm2-135m", dtype="float32")


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


def pytest_collection_modifyitems(items):
    """Whole notebooks first, each by itself, the other tests file by file: so both processes are busy to the end."""
    for item in items:
        alone = item.path.name == "test_smoke.py"
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")
        group = (TOGETHER[0] if name in (None, *TOGETHER) else name) if alone else item.path.name
        item.add_marker(pytest.mark.xdist_group(str(group)))
    items.sort(key=lambda item: item.path.name != "test_smoke.py")


def pytest_terminal_summary(terminalreporter):
    """After all tests: what each whole notebook took."""
    ran = [value for r in terminalreporter.getreports("passed") for name, value in r.user_properties if name == "ran"]
    if ran:
        terminalreporter.section("notebooks")
        for line in ran:
            terminalreporter.write_line(line)
