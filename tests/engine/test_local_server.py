"""A real server on this machine: it answers as the model in this process does, and its end is the end of the process."""

import pytest
from psutil import pid_exists

from mipo_nb import generation, models, prompts
from mipo_nb.base.embedded import embedded_folder
from mipo_nb.base.errors import UserError
from mipo_nb.command import random_models
from mipo_nb.engine import local_server
from mipo_nb.lab.steps import key

THINKING = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: "
    "{% if enable_thinking is defined and not enable_thinking %}(no thoughts) {% endif %}{% endif %}"
)


@pytest.mark.model
@pytest.mark.whole
def test_a_served_model_answers_as_it_does_here_and_is_known_by_its_weights(model_and_tokenizer, monkeypatch):
    started = []

    class Watched(local_server.subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(local_server.subprocess, "Popen", Watched)
    asked, keys = [prompts.messages("Name a bird.", "Ada likes the sea.")], []
    for _ in range(2):
        with local_server.serving(embedded_folder("smollm2-135m")) as server:
            keys.append(key(generation.sample, (server, None, asked, generation.Sampling()), {"seed": 0}))
            assert (
                server.reply(asked[0], max_tokens=8) == generation.replies(*model_and_tokenizer, asked, max_tokens=8)[0]
            )
    assert keys[0] == keys[1]  # at another port
    names = [
        local_server.LocalServer("http://127.0.0.1:9/v1", name, "float32", "cpu") for name in ("Org/One", "Org/Two")
    ]
    assert names[0].fingerprint() != names[1].fingerprint() != server.fingerprint()
    assert all(process.poll() is not None and not pid_exists(process.pid) for process in started)


def test_a_server_is_known_by_its_weights_and_by_its_template(tmp_path):
    def fingerprint():
        return local_server.LocalServer("http://127.0.0.1:9/v1", tmp_path, "float32", "cpu").fingerprint()

    for name in ("model.safetensors", "chat_template.jinja", "tokenizer.json"):
        (tmp_path / name).write_text("one")
    found = [fingerprint()]
    for name in ("model.safetensors", "chat_template.jinja", "tokenizer.json"):
        assert fingerprint() == found[-1]
        (tmp_path / name).write_text("two")
        found.append(fingerprint())
    assert len({str(each) for each in found}) == 4


@pytest.mark.whole
def test_a_served_template_that_thinks_is_told_not_to(tmp_path):
    """The server reads as many tokens of a prompt as a settled template gives, and more where it lets the model think."""
    folder = random_models.write(tmp_path / "model", "tiny")
    (tmp_path / "model" / "chat_template.jinja").write_text(THINKING)
    asked = prompts.messages("Name a bird.", "Ada likes the sea.")
    with local_server.serving(folder) as server:
        read = {}
        for thinks in (False, True):
            body = {"chat_template_kwargs": {**server.template_options, "enable_thinking": thinks}}
            answer = server._completion(asked, {"temperature": 0.0, "max_tokens": 2, "extra_body": body})
            read[thinks] = answer.usage.prompt_tokens
    assert read[False] == len(prompts.prompt_ids(models.load_tokenizer(str(folder)), asked)) > read[True]


def test_what_cannot_be_served_ends_in_a_sentence(tmp_path):
    (tmp_path / "config.json").write_text("no model")
    with (
        pytest.raises(UserError, match="transformers serve did not start within"),
        local_server.serving(tmp_path, seconds=60),
    ):
        pass


def test_without_the_extra_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(local_server.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '.\[serve\]'"), local_server.serving(tmp_path):
        pass
