"""Cutting texts, and what is said when a server does not answer."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipo_nb import prompts
from mipo_nb.base.errors import UserError
from mipo_nb.engine.decoding import Sampling
from mipo_nb.engine.server import Server
from mipo_nb.generation import cut_to_sentence, sample, sample_draws
from mipo_nb.lab.steps import fingerprint


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Soup is good. Bread is", "Soup is good."),
        ("Soup is good! Is bread? Yes, and", "Soup is good! Is bread?"),
        ('He said "Soup." Then he', 'He said "Soup."'),
        ("Wait… what about", "Wait…"),
        ("Soup is good.", "Soup is good."),
        ("Soup costs 3.50 and bread", ""),
        ("no end in sight", ""),
        ("", ""),
        ("Ideas:\n- soup\n- bread and", "Ideas:\n- soup"),
        ("Ideas:\n1. Soup.\n2. Bread and", "Ideas:\n1. Soup."),
        ("Ideas:\n1. Soup\n2.", "Ideas:\n1. Soup"),
        ("Ideas:\n\n1) Soup\n2) Bread is", "Ideas:\n\n1) Soup"),
    ],
)
def test_a_text_is_cut_to_its_last_whole_sentence_or_line(text, expected):
    assert cut_to_sentence(text) == expected


@pytest.mark.parametrize("sentence", ["Bake it at 180.", "It costs $20.", "She was born in 1990."])
def test_a_sentence_may_end_in_a_number(sentence):
    assert cut_to_sentence(sentence + " Then let it") == sentence


def test_a_bold_sentence_keeps_its_marks():
    assert cut_to_sentence("**Soup is good.** Bread") == "**Soup is good.**"


def test_another_word_for_what_is_left_at_the_limit_is_explained():
    with pytest.raises(UserError, match="sentence"):
        Sampling(at_limit="sentences")


@given(st.text("ab .!?\n-", max_size=40))
def test_a_cut_text_is_an_opening_of_the_text_and_stays_as_it_is(text):
    cut = cut_to_sentence(text)
    assert text.startswith(cut)
    assert cut == cut.rstrip()
    assert cut_to_sentence(cut + "\n") == cut or cut.endswith(("-", " "))


@given(st.lists(st.sampled_from(["Soup is good.", "Is it?", "Eat!", "Tea, then."]), min_size=1, max_size=5))
def test_whole_sentences_survive_and_a_begun_one_goes(sentences):
    text = " ".join(sentences)
    assert cut_to_sentence(text) == text
    assert cut_to_sentence(text + " And then we") == text


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append({"path": self.path, "key": self.headers["Authorization"], **body})
        status, kind, text = self.server.answers[min(len(self.server.seen), len(self.server.answers)) - 1]
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def answer(content, reason="stop"):
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": reason}
    return 200, "application/json", json.dumps({"choices": [choice]})


@pytest.fixture
def server(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    local = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    local.seen, local.answers = [], [answer("Soup.")]
    local.url = f"http://127.0.0.1:{local.server_port}/v1"
    thread = threading.Thread(target=local.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield local
    local.shutdown()
    local.server_close()
    thread.join()


HELLO = [{"role": "user", "content": "What should I cook?"}]


def reply(url, *, retries=0, timeout=10.0, **options):
    client = Server(url, "tiny", timeout=timeout, retries=retries)
    try:
        return client.reply(HELLO, **options)
    finally:
        client.client.close()


def test_a_server_is_asked_in_the_openai_format(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "my-key")
    assert reply(server.url, temperature=0.5, max_tokens=9) == "Soup."
    [seen] = server.seen
    assert seen["path"] == "/v1/chat/completions" and seen["key"] == "Bearer my-key"
    assert (seen["model"], seen["messages"]) == ("tiny", HELLO)
    assert (seen["temperature"], seen["max_tokens"]) == (0.5, 9)


def test_no_key_is_needed_and_no_content_is_an_empty_text(server):
    server.answers = [answer(None)]
    assert reply(server.url) == ""


@pytest.mark.parametrize(
    "status, text, told",
    [
        (404, '{"error": {"message": "no such model"}}', "no such model"),
        (401, '{"error": {"message": "bad key"}}', "bad key"),
        (400, "not even JSON", "400"),
        (500, "boom", "500"),
    ],
)
def test_a_refusal_is_passed_on_with_what_to_check(server, status, text, told):
    server.answers = [(status, "application/json", text)]
    with pytest.raises(UserError, match="check that it runs, serves this model") as caught:
        reply(server.url)
    message = str(caught.value)
    assert told in message and "'tiny'" in message and server.url in message
    assert len(server.seen) == 1


def test_a_server_that_stumbles_once_is_asked_again(server):
    server.answers = [(503, "text/plain", "busy"), answer("Soup.")]
    assert reply(server.url, retries=1) == "Soup."
    assert len(server.seen) == 2


def test_a_server_samples_like_a_model_several_requests_at_a_time(server, tmp_path):
    server.answers = [answer("Soup. And then", "length")]
    client = Server(server.url, "tiny", retries=0)
    how = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=5, batch_size=4)
    rows = sample(client, None, [HELLO] * 9, how, seed=2, folder=tmp_path)
    assert rows["text"] == ["Soup."] * 9 and rows["finished"] == [False] * 9
    assert {(r["temperature"], r["top_p"], r["max_tokens"]) for r in server.seen} == {(0.7, 0.9, 5)}
    assert len({r["seed"] for r in server.seen}) == 9
    assert sample(client, None, [HELLO] * 9, how, seed=2, folder=tmp_path)["text"] == rows["text"]
    assert len(server.seen) == 9  # found, not asked for again
    assert fingerprint(client) == [f"{server.url}/", "tiny", {"enable_thinking": False}]
    client.client.close()


def test_answers_that_came_before_a_server_gave_up_are_kept(server, tmp_path):
    server.answers = [answer("Soup.")] * 3 + [(500, "text/plain", "boom")]
    client = Server(server.url, "tiny", retries=0)
    how = Sampling(batch_size=1)
    with pytest.raises(UserError, match="gave no usable answer"):
        sample(client, None, [HELLO] * 6, how, seed=0, folder=tmp_path)
    kept = len(list(tmp_path.glob("answer-*.json")))
    assert kept == 3
    asked = len(server.seen)
    server.answers = [answer("Bread.")]
    rows = sample(client, None, [HELLO] * 6, how, seed=0, folder=tmp_path)
    assert rows["text"] == ["Soup."] * 3 + ["Bread."] * 3 and len(server.seen) == asked + 3
    client.client.close()


def test_nobody_there_is_explained(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="gave no usable answer for model 'tiny'"):
        reply(server.url)


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(UserError, match="must start with http:// or https://, not 'localhost:8000/v1'"):
        Server("localhost:8000/v1", "tiny")


@pytest.mark.parametrize(
    "kind, text",
    [
        ("text/html", "<html>a web page</html>"),
        ("application/json", "{oops"),
        ("application/json", '{"error": "x"}'),
        ("application/json", '{"choices": []}'),
    ],
)
def test_an_answer_that_is_no_completion_is_explained(server, kind, text):
    server.answers = [(200, kind, text)]
    with pytest.raises(UserError):
        reply(server.url)


@pytest.mark.parametrize("url, key", [("http://localhost:port/v1", "k"), ("http://localhost:1/v1", "")])
def test_a_wrong_port_or_an_empty_key_is_explained(monkeypatch, url, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError):
        reply(url)


def test_several_draws_are_those_of_one_seed_after_another(model_and_tokenizer, tmp_path):
    asked = [prompts.messages(q) for q in ("What is soup?", "Name a bird.", "Where is Rome?")]
    how = Sampling(max_new_tokens=12, batch_size=4)  # nine rows: batches hold several draws of one conversation
    together = sample_draws(*model_and_tokenizer, asked, how, seeds=[3, 1, 2], folder=tmp_path)
    assert [list(draw["text"]) for draw in together] == [
        list(sample(*model_and_tokenizer, asked, how, seed=seed)["text"]) for seed in (3, 1, 2)
    ]
    assert len({text for draw in together for text in draw["text"]}) > len(asked)
    assert len(list(tmp_path.glob("batch-*.json"))) == 3
    again = sample_draws(*model_and_tokenizer, asked, how, seeds=[3, 1, 2], folder=tmp_path)
    assert [draw.to_list() for draw in again] == [draw.to_list() for draw in together]


def test_a_server_keeps_its_answers_to_every_draw(server, tmp_path):
    drawn = {"seeds": [5, 6], "folder": tmp_path}
    one, other = sample_draws(Server(server.url, "tiny"), None, [HELLO] * 2, Sampling(max_new_tokens=9), **drawn)
    assert len(one) == len(other) == 2 and len(list(tmp_path.glob("answer-*.json"))) == 4


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_nothing_is_drawn_of_no_conversation(model_and_tokenizer, seeds):
    drawn = sample_draws(*model_and_tokenizer, [], Sampling(), seeds=seeds)
    assert [len(draw) for draw in drawn] == [0] * len(seeds)
