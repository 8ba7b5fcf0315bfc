"""A real OpenAI-compatible server on this machine, for as long as it is needed: transformers' own, `transformers serve`."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from mipo_nb.base.errors import UserError
from mipo_nb.base.files import content_hash
from mipo_nb.engine.server import Server


class LocalServer(Server):
    """A `Server` of this machine, which a step knows by what it serves, weights and how it writes, not by its address."""

    def __init__(self, url, folder, dtype, device, template_options=()):
        how = {"through_proxy": False, "template_options": template_options}
        super().__init__(url, folder, timeout=600.0, at_once=1, **how)
        weights, texts = (sorted(Path(folder).glob(f"*.{ending}")) for ending in ("safetensors", "j*"))
        self._served = [content_hash([*weights, *texts]) if weights else folder, dtype, device]

    def close(self):
        self.client.close()

    def fingerprint(self):
        return ["transformers serve", *self._served, self.template_options]


@contextlib.contextmanager
def serving(folder, *, dtype="float32", device="cpu", seconds=180, template_options=()):
    """While it lasts, a `LocalServer` for the model in a folder, or of a name on the hub that is cached, with
    `template_options` as `Server` has them; the process is stopped at the end.

    It listens on this machine alone, on a free port. Raises `UserError` where it cannot be started here, or is not ready
    after so many seconds.
    """
    if missing := [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]:
        raise UserError(f"Serving needs {' and '.join(missing)}; install them by: pip install -e '.[serve]'")
    folder, port = str(Path(folder).resolve()) if Path(folder).is_dir() else str(folder), _free_port()
    command = [str(Path(sys.executable).parent / "transformers"), "serve", folder, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--device", device, "--dtype", dtype]
    with tempfile.TemporaryFile() as log:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
        process = _started(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}/health", log, seconds)
            with contextlib.closing(
                LocalServer(f"http://127.0.0.1:{port}/v1", folder, dtype, device, template_options)
            ) as server:
                yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _started(command, **how):
    try:
        return subprocess.Popen(command, **how)
    except OSError as e:
        raise UserError(
            f"{command[0]} cannot be started ({e.strerror}); install transformers where this Python is."
        ) from None


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _wait_until_ready(process, url, log, seconds):
    opener, end = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with opener.open(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    log.seek(0)
    said = log.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
    raise UserError(f"transformers serve did not start within {seconds} seconds: {said[-1]}")
