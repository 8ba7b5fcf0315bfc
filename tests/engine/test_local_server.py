"""A real server on this machine: it answers as the model in this process does, and its end is the end of the process."""

import pytest
from psutil import pid_exists

from mipo_nb import generation, prompts
from mipo_nb.base.embedded import embedded_folder
from mipo_nb.base.errors import UserError
from mipo_nb.engine import local_server
from mipo_nb.lab.steps import key


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
