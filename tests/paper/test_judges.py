"""Judges against a local server whose verdict depends on what it reads, and once with the embedded model."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from mipo_nb.base.errors import UserError
from mipo_nb.engine.server import Server
from mipo_nb.paper import judges


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        self.server.seen.append(text)
        message = {"role": "assistant", "content": self.server.verdict(text)}
        data = json.dumps({"choices": [{"index": 0, "message": message}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def judge(monkeypatch):
    """A `Server` that asks a real local one; `judge.local.verdict` decides, `judge.local.seen` keeps what it read."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    local = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    local.seen = []
    thread = threading.Thread(target=local.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    asked = Server(f"http://127.0.0.1:{local.server_port}/v1", "tiny", timeout=10.0, retries=0)
    asked.local = local
    yield asked
    asked.client.close()
    local.shutdown()
    local.server_close()
    thread.join()


def row(*wishes, prompt="What should I cook?", context="Ada keeps bees."):
    return {"prompt": prompt, "context": context, "preferences": [{"text": w, "kind": None} for w in wishes]}


def part(text, start, end):
    return re.search(rf"{start}(.*?){end}", text, re.DOTALL).group(1)


def likes_soup(text):
    return "5" if "soup" in part(text, "Answer: ", "This person") else "2"


def soup_wins(text):
    return "A" if "soup" in part(text, "Answer A: ", "Answer B: ") else "B"


# --- one response at a time ---


def test_ratings_follow_the_answer(judge):
    judge.local.verdict = likes_soup
    ratings = judges.rate(judge, [row("likes soup")] * 3, ["Make soup.", "Make bread.", "A soup, again."])
    np.testing.assert_array_equal(ratings, [5, 2, 5])


def test_a_rating_is_the_mean_over_the_stated_wishes(judge):
    judge.local.verdict = lambda text: "5" if "wants it short" in text else "2" if "likes bees" in text else "1"
    rows = [row("wants it short", "likes bees"), row("wants it short", "likes bees", "hates rain"), row("hates rain")]
    ratings = judges.rate(judge, rows, ["Soup."] * 3)
    assert ratings.tolist() == pytest.approx([3.5, 8 / 3, 1])
    assert len(judge.local.seen) == 6  # one question for each wish


def test_the_judge_reads_question_answer_and_wish(judge):
    judge.local.verdict = lambda text: "3"
    judges.rate(judge, [row("wants it short", prompt="Why is {this} blue?")], ["Because {x}."])
    [text] = judge.local.seen
    assert "Question: Why is {this} blue?" in text and "Answer: Because {x}." in text
    assert "This person wants it short." in text and "Ada keeps bees" not in text


def test_without_wishes_the_description_is_judged(judge):
    judge.local.verdict = lambda text: "4" if "Ada keeps bees." in text else "1"
    assert judges.rate(judge, [row()], ["Soup."]).tolist() == [4]


@pytest.mark.parametrize("reply", ["", "good", "0", "7", "55", "five"])
def test_a_reply_without_a_rating_is_nan(judge, reply):
    judge.local.verdict = lambda text: reply if "bread" in text else "4"
    ratings = judges.rate(judge, [row("likes it"), row("likes it")], ["Make bread.", "Make soup."])
    np.testing.assert_array_equal(ratings, [np.nan, 4])


def test_unreadable_wishes_are_left_out_of_the_mean(judge):
    judge.local.verdict = lambda text: "hm" if "likes bees" in text else "4"
    assert judges.rate(judge, [row("wants it short", "likes bees")], ["Soup."]).tolist() == [4]


@pytest.mark.parametrize("reply, rating", [("4", 4), (" 4.\n", 4), ("Rating: 2", 2), ("3/5", 3), ("**1**", 1)])
def test_a_digit_is_found_in_the_usual_wrappings(judge, reply, rating):
    judge.local.verdict = lambda text: reply
    assert judges.rate(judge, [row("likes it")], ["Soup."]).tolist() == [rating]


# --- two responses in both orders ---


def test_the_better_response_wins_in_both_orders(judge):
    judge.local.verdict = soup_wins
    soup, bread = "Make soup.", "Make bread."
    wins = judges.compare(judge, [row("likes soup")] * 2, [soup, bread], [bread, soup])
    np.testing.assert_array_equal(wins, [1, 0])
    assert len(judge.local.seen) == 4
    # Requests go out together and come in any order.
    shown = [tuple(part(t, f"Answer {k}: ", "\n") for k in "AB") for t in judge.local.seen]
    assert sorted(shown) == sorted([(soup, bread), (bread, soup)] * 2)
    assert all("About this person: Ada keeps bees." in t and "What should I cook?" in t for t in judge.local.seen)


@pytest.mark.parametrize("letter", ["A", "B"])
def test_a_judge_that_only_sees_the_place_is_undecided_everywhere(judge, letter):
    judge.local.verdict = lambda text: letter
    wins = judges.compare(judge, [row()] * 3, ["soup", "bread", "tea"], ["bread", "soup", "tea"])
    np.testing.assert_array_equal(wins, [0.5, 0.5, 0.5])


def test_a_comparison_is_nan_when_either_order_has_no_letter(judge):
    judge.local.verdict = lambda text: "neither" if "tea" in part(text, "Answer A: ", "Answer B: ") else soup_wins(text)
    wins = judges.compare(judge, [row()] * 3, ["soup", "tea", "soup"], ["tea", "tea", "bread"])
    np.testing.assert_array_equal(wins, [np.nan, np.nan, 1])


@pytest.mark.parametrize(
    "wrapping", ["{}", "Answer {}", "**{}**", "{}.", "I choose {}.", "Answer: {}\n", "{}, clearly."]
)
def test_a_letter_is_found_in_the_usual_wrappings(judge, wrapping):
    judge.local.verdict = lambda text: wrapping.format(soup_wins(text))
    assert judges.compare(judge, [row()], ["soup"], ["bread"]).tolist() == [1]


def test_a_scale_that_is_repeated_is_not_the_rating(judge):
    judge.local.verdict = lambda text: "On a scale from 1 to 5 I give it 4."
    assert judges.rate(judge, [row()], ["soup"]).tolist() == [4]


# --- trouble ---


def test_a_server_that_is_down_is_explained(judge):
    judge.local.shutdown()
    judge.local.server_close()
    with pytest.raises(UserError, match="model 'tiny'.*check that it runs"):
        judges.rate(judge, [row("likes it")], ["soup"])
    with pytest.raises(UserError, match="model 'tiny'.*check that it runs"):
        judges.compare(judge, [row()], ["soup"], ["bread"])


def test_rows_and_responses_must_go_together(judge):
    judge.local.verdict = lambda text: "A 3"
    with pytest.raises(ValueError):
        judges.rate(judge, [row("likes it")] * 2, ["soup"])
    with pytest.raises(ValueError):
        judges.compare(judge, [row()] * 2, ["soup"] * 2, ["bread"])


CAPITAL = [{"role": "user", "content": "What is the capital of France? Reply with one word and nothing else."}]


@pytest.mark.model
def test_a_verdict_in_an_unfinished_reply_is_not_lost(model_and_tokenizer):
    # "The capital of France is Paris", 6 tokens, without its full stop
    assert "Paris" in judges.LocalJudge(*model_and_tokenizer).replies([CAPITAL], max_tokens=6)[0]


@pytest.mark.model
def test_the_embedded_model_can_be_asked(model_and_tokenizer):
    local = judges.LocalJudge(*model_and_tokenizer)
    rome = [{"role": "user", "content": CAPITAL[0]["content"].replace("France", "Italy")}]
    first, second = local.replies([CAPITAL, rome])  # together as apart
    assert "Paris" in first and "Rome" in second and [second] == local.replies([rome])
    [rating] = judges.rate(local, [row("likes soup")], ["Make soup."])
    assert np.isnan(rating) or 1 <= rating <= 5
    [win] = judges.compare(local, [row()], ["Make soup."], ["Make bread."])
    assert np.isnan(win) or win in (0, 0.5, 1)
