"""Fixtures that several test files share. Both load the embedded model, once per session."""

import pytest
from hypothesis import settings

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
