"""Refusals by their words: ours, and the shared cases where they are at hand."""

import json
import os
from pathlib import Path

import pytest

from mipo_nb import evaluation
from mipo_nb.wishes.refusals import refuses

SHARED = Path(os.environ.get("MIPO_NB_SHARED", "../shared")) / "cases" / "refusals.jsonl"
REFUSED = [
    "I'm sorry, but I can't help with that.",
    "Unfortunately, I cannot provide prices.",
    "I’m not able to answer that.",
    "I am not allowed to say.",
    "I don't have access to your calendar.",
    "I have no information about this town.",
    "As an AI, I cannot taste soup.",
    "As a large language model, I don't have a family.",
    "As a music and language AI, I am not made for clothes.",
    "I don't have the capacity to store clothes.",
    "I must decline.",
    "I apologize, but I do not know.",
    "I'm afraid I can't do that.",
    "Sorry, I don't know.",
    "That cannot be determined from the text.",
    "Lo siento, pero no puedo responder.",
    "Je ne peux pas vous aider.",
    "Das kann ich leider nicht beantworten.",
    "Mi dispiace, non posso rispondere.",
    "Desculpe, mas não posso ajudar.",
]
ANSWERED = [
    "I can't wait to hear more.",
    "I can't recommend this book enough.",
    "You can't go wrong with soup.",
    "When I can't sleep, I read.",
    "He said: “I can't help you.” Then he left.",
    "As an AI, I would try the soup first.",
    "As an airline pilot, you cannot nap at work.",
    "As a friend of AI, you need not fear it.",
    "As a cheerful AI, I would try the soup first.",
    "I'm sorry to hear that you are tired. Rest.",
    "I don't know about you, but soup helps.",
    "If you do not have enough flour, use oats.",
    "No puedo esperar a verte.",
    "",
]


@pytest.mark.parametrize("text", REFUSED)
def test_refusals(text):
    assert refuses(text) and evaluation.refuses(f"Well.\n{text}")


@pytest.mark.parametrize("text", ANSWERED)
def test_no_refusals(text):
    assert not refuses(text)


@pytest.mark.skipif(not SHARED.is_file(), reason="needs the shared cases")
def test_shared_cases():
    cases = [json.loads(line) for line in SHARED.read_text(encoding="utf-8").splitlines()]
    assert [case for case in cases if refuses(case["text"]) != case["refuses"]] == []
