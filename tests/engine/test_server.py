"""A server's habits, on a small one that has faults at will; and a real one, transformers' own, with the embedded model."""

import itertools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from mipo_nb.base.embedded import embedded_folder
from mipo_nb.base.errors import UserError
from mipo_nb.engine.decoding import Sampling
from mipo_nb.engine.local_server import serving
from mipo_nb.engine.server import Server
from mipo_nb.paper import judges


class Faulty(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)
        status, answer = self.server.respond(body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def said(content, reason="stop", *, read=None, **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": reason}
    usage = {"usage": {"prompt_tokens": read, "completion_tokens": 1, "total_tokens": read + 1}} if read else {}
    return 200, {"choices": [choice], **usage}


def refused(text):
    return 400, {"error": {"message": text, "type": "invalid_request_error"}}


@pytest.fixture
def no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def faulty(no_proxy):
    """A `Server` and the local one that it asks: `faulty.local.respond(body)` gives (status, answer)."""
    local = ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
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


def hello(text="What should I cook?"):
    return [{"role": "user", "content": text}]


# --- models that think first ---


def test_a_model_that_ran_out_of_tokens_while_thinking_gets_room_and_keeps_it(faulty):
    faulty.local.respond = lambda body: (
        said("4") if body["max_tokens"] > 1000 else said(None, "length", reasoning_content="Perhaps a 2, or")
    )
    assert faulty.reply(hello()) == "4"
    assert faulty.reply(hello(), max_tokens=20) == "4"
    assert [body["max_tokens"] for body in faulty.local.seen] == [16, 2064, 2068]


def test_thoughts_that_never_end_are_no_reply(faulty):
    faulty.local.respond = lambda body: said("", "length", reasoning_content="Rating: 2? Or")
    assert faulty.reply(hello()) == ""
    assert len(faulty.local.seen) == 2


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_an_answer_that_a_server_files_under_thoughts_is_the_reply(faulty, name):
    faulty.local.respond = lambda body: said("", **{name: "It is short.\nRating: 4"})
    assert faulty.reply(hello()) == "It is short.\nRating: 4"
    assert len(faulty.local.seen) == 1


def test_what_is_said_aloud_comes_before_thoughts(faulty):
    faulty.local.respond = lambda body: said("4", reasoning_content="Rating: 2? No.")
    assert faulty.reply(hello()) == "4"


def test_a_think_block_is_no_part_of_a_reply_or_a_sample(faulty):
    faulty.local.respond = lambda body: said("<think>\nSoup or bread?\n</think>\n\nSoup.")
    assert faulty.reply(hello()) == "Soup."
    [row] = faulty.sample([hello()], Sampling(max_new_tokens=9), seed=0)
    assert row == {"text": "Soup.", "finished": True}
    faulty.local.respond = lambda body: said("<think>\nSoup or", "length")
    [row] = faulty.sample([hello()], Sampling(max_new_tokens=9), seed=0)
    assert row == {"text": "", "finished": False}


# --- options that a server refuses ---


def modern(body):
    """As OpenAI's reasoning models answer."""
    if "max_tokens" in body:
        return refused("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.")
    if body.get("temperature") == 0:
        return refused("Unsupported value: 'temperature' does not support 0 with this model.")
    return said(f"{body['max_completion_tokens']}")


def test_refused_options_are_sent_otherwise_and_that_is_learnt_once(faulty, capsys):
    faulty.local.respond = modern
    assert faulty.reply(hello(), max_tokens=9) == "9"
    assert len(faulty.local.seen) == 3
    assert faulty.replies([hello()] * 5, max_tokens=7) == ["7"] * 5
    assert len(faulty.local.seen) == 8
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "takes no temperature" in told


def test_a_sample_is_asked_for_without_thoughts_and_a_server_that_takes_no_options_too(faulty, capsys):
    faulty.local.respond = lambda body: said("Soup.")
    drawn = {"sampling": Sampling(max_new_tokens=9), "seed": 0}
    faulty.sample([hello()], **drawn)
    assert faulty.local.seen[-1]["chat_template_kwargs"] == {"enable_thinking": False}
    faulty.reply(hello())
    assert "chat_template_kwargs" not in faulty.local.seen[-1]

    def strict(body):
        known = "chat_template_kwargs" not in body
        return said("Soup.") if known else refused("Unrecognized request argument supplied: chat_template_kwargs")

    faulty.local.respond = strict
    assert [row["text"] for row in faulty.sample([hello()] * 3, **drawn)] == ["Soup."] * 3
    told = capsys.readouterr().out
    assert told.count("takes no chat_template_kwargs; where it thinks aloud, tell the server not to.") == 1
    assert Server("http://a/v1", "b", template_options={"level": 3}).template_options == {
        "enable_thinking": False,
        "level": 3,
    }
    keys = [Server("http://a/v1", "b", template_options=some).fingerprint() for some in ({}, {"enable_thinking": True})]
    assert keys[0] != keys[1]


def test_many_requests_at_once_may_all_meet_the_refusal(faulty):
    meeting = threading.Barrier(8)

    def respond(body):
        if "max_tokens" in body:
            meeting.wait(timeout=10)
        return modern(body)

    faulty.local.respond = respond
    assert faulty.replies([hello()] * 8, max_tokens=7) == ["7"] * 8


def test_a_temperature_that_samples_is_never_left_out(faulty):
    faulty.local.respond = lambda body: refused("Unsupported value: 'temperature' does not support 0.7.")
    with pytest.raises(UserError, match="temperature"):
        faulty.sample([hello()], Sampling(temperature=0.7), seed=0)
    assert len(faulty.local.seen) == 1


def test_any_other_refusal_is_told_at_once(faulty):
    faulty.local.respond = lambda body: refused("no such model")
    with pytest.raises(UserError, match="no such model"):
        faulty.reply(hello())
    assert len(faulty.local.seen) == 1


# --- prompts that were cut, and requests at a time ---


@pytest.mark.parametrize(
    "text, read, told",
    [
        ("soup " * 6000, 4096, True),
        ("soup " * 3000, 3200, False),
        ("\u6c64" * 9000, 2048, True),
        ("\u6c64" * 3000, 2048, False),
        ("soup " * 6000, None, False),
    ],
)
def test_a_prompt_that_was_cut_is_told_once(faulty, capsys, text, read, told):
    faulty.local.respond = lambda body: said("4", read=read)
    faulty.replies([hello(text)] * 3)
    out = capsys.readouterr().out
    assert out.count("\n") == int(told) and ("cut the prompt" in out) == told


@pytest.mark.parametrize("at_once", [2, 8])
def test_so_many_requests_are_open_at_a_time_and_no_more(faulty, at_once):
    asked = Server(str(faulty.client.base_url), "tiny", timeout=10.0, retries=0, at_once=at_once)
    lock, now, most = threading.Lock(), [0], [0]

    def respond(body):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return said("Soup.")

    faulty.local.respond = respond
    asked.sample([hello()] * 24, Sampling(batch_size=128), seed=0)
    asked.replies([hello()] * 24)
    asked.client.close()
    assert 1 < most[0] <= at_once


def test_less_than_one_request_at_a_time_is_refused():
    with pytest.raises(UserError, match="set at_once to 1 or more"):
        Server("http://127.0.0.1:1/v1", "tiny", at_once=0)


def test_a_429_late_on_loses_no_reply(faulty, tmp_path):
    order = itertools.count()

    def respond(body):
        return said("Soup.") if next(order) < 200 else (429, {"error": {"message": "rate limit"}})

    faulty.local.respond = respond
    rows = [hello(f"Question {k}") for k in range(220)]
    with pytest.raises(UserError, match="rate limit"):
        faulty.replies(rows, folder=tmp_path)
    assert len(list(tmp_path.glob("reply-*.json"))) == 200
    faulty.local.respond, faulty.local.seen = (lambda body: said("Bread.")), []
    assert sorted(faulty.replies(rows, folder=tmp_path)) == ["Bread."] * 20 + ["Soup."] * 200
    assert len(faulty.local.seen) == 20


# --- a real server ---


ROWS = [
    {"prompt": prompt, "context": "Ada keeps bees.", "preferences": [{"text": wish, "kind": None}]}
    for prompt, wish in [
        ("What should I cook?", "likes soup"),
        ("Name a gift.", "wants it short"),
        ("How do I rest?", "is old"),
    ]
]
ANSWERS = ["Make a soup of leeks.", "A book.", "Sleep more, and walk by the sea in the morning."]


def greedy(content):
    return [{"role": "user", "content": content}]


@pytest.mark.model
@pytest.mark.whole
def test_a_real_server_is_read_to_the_last_token(no_proxy, model_and_tokenizer, tmp_path, capsys):
    with serving(embedded_folder("smollm2-135m")) as real:
        asked = Server(str(real.client.base_url), real.model, timeout=300.0, retries=1, at_once=2)
        ratings, wins = _served_answers(asked, model_and_tokenizer, tmp_path, capsys)
    # It stopped in mid-work: what came is kept, what did not come is told.
    np.testing.assert_array_equal(judges.rate(asked, ROWS, ANSWERS, folder=tmp_path), ratings)
    np.testing.assert_array_equal(judges.compare(asked, ROWS, ANSWERS, ANSWERS[::-1], folder=tmp_path), wins)
    with pytest.raises(UserError, match="check that it runs"):
        judges.rate(asked, ROWS, ANSWERS)
    asked.client.close()


def _served_answers(asked, model_and_tokenizer, tmp_path, capsys):
    # The same weights in this process reply alike, and the server counts the tokens that were sent.
    questions = [greedy(f"What is the capital of {c}? Reply with one word.") for c in ("France", "Italy")]
    local = judges.LocalJudge(*model_and_tokenizer)
    assert asked.replies(questions, max_tokens=12) == local.replies(questions, max_tokens=12)
    sent = model_and_tokenizer[1].apply_chat_template(questions[0], add_generation_prompt=True, return_dict=False)
    answer = asked._completion(questions[0], {"temperature": 0.0, "max_tokens": 4})
    assert answer.usage.prompt_tokens == len(sent) and answer.choices[0].finish_reason == "length"

    drawn = asked.sample(
        questions, Sampling(temperature=0.7, top_p=0.9, max_new_tokens=6), seed=1, folder=tmp_path / "s"
    )
    assert all(row["text"] for row in drawn) and {row["finished"] for row in drawn} <= {True, False}

    ratings = judges.rate(asked, ROWS, ANSWERS, folder=tmp_path)
    wins = judges.compare(asked, ROWS, ANSWERS, ANSWERS[::-1], folder=tmp_path)
    assert ratings.shape == wins.shape == (3,) and not np.isnan(ratings).all() and not np.isnan(wins).all()
    assert all(1 <= r <= 5 for r in ratings[~np.isnan(ratings)]) and set(wins[~np.isnan(wins)]) <= {0, 0.5, 1}
    assert "cut the prompt" not in capsys.readouterr().out
    return ratings, wins
