"""JupyterLab in a real browser: all cells of a notebook run, a progress bar moves, the comparison answers, pairs are rated."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time

import nbformat
import pytest

from mipo_nb.base.files import project_root
from mipo_nb.lab.notebooks import collection

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NAME = "12_measuring_personalization"
SETTINGS = {  # outputs of all cells in the page, not only of those in view; no pop-ups
    "notebook-extension/tracker": '{"windowingMode": "none"}',
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}

pytestmark = [
    pytest.mark.whole,
    pytest.mark.notebook,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine"),
]


@pytest.fixture
def lab(tmp_path):
    """A function that starts JupyterLab on a folder with one notebook and gives its address."""
    servers = []

    def start(notebook, name):
        (tmp_path / "lab").mkdir()
        nbformat.write(notebook, tmp_path / "lab" / f"{name}.ipynb")
        for setting, text in SETTINGS.items():
            file = tmp_path / "settings" / "@jupyterlab" / f"{setting}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        token = secrets.token_hex(16)
        environment = {
            **os.environ,
            **{f"JUPYTER_{k}_DIR": str(tmp_path / k.lower()) for k in ("CONFIG", "DATA", "RUNTIME")},
            "JUPYTER_PATH": os.path.join(sys.prefix, "share", "jupyter"),  # this Python's kernel, before any other
            "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
        }
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            f"--port={port}",
            "--ip=127.0.0.1",
        ]
        command += [
            f"--IdentityProvider.token={token}",
            f"--ServerApp.root_dir={tmp_path / 'lab'}",
            "--ServerApp.port_retries=0",
        ]
        with (tmp_path / "lab.log").open("w") as log:
            servers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path))
        until = time.time() + 60
        while time.time() < until and servers[0].poll() is None:
            with socket.socket() as knock:
                if not knock.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.2)
        return f"http://127.0.0.1:{port}/lab/tree/{name}.ipynb?token={token}"

    yield start
    for server in servers:
        server.terminate()
        server.wait(timeout=30)


def in_smoke(name, output_dir):
    """The notebook without outputs, set to `smoke`."""
    notebook = collection()[name].content
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace('PROFILE = "auto"', 'PROFILE = "smoke"')
            cell.source = cell.source.replace('OUTPUT_DIR = "runs"', f'OUTPUT_DIR = "{output_dir}"')
    return notebook


def run_all(page, started):
    """Run all cells, again until the kernel has heard it; the locators of the cells' prompts, and of those that wait."""
    prompts = page.locator(".jp-CodeCell .jp-InputArea-prompt")
    waiting = prompts.filter(has_text="[*]")
    while not waiting.count():  # a click before the kernel has connected is lost
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_timeout(5000)
        assert time.time() < started + 180, f"No cell ran. The page says: {page.inner_text('body')}"
    return prompts, waiting


def test_a_notebook_runs_in_a_browser(lab, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    shots, started = tmp_path / "shots", time.time()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1300, "height": 1000})
            page.goto(lab(in_smoke(NAME, tmp_path / "runs"), NAME))
            count = sum(c.cell_type == "code" for c in collection()[NAME].content.cells)
            expect(page.locator(".jp-CodeCell")).to_have_count(count, timeout=60_000)
            expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_attached(timeout=60_000)
            prompts, waiting = run_all(page, started)
            # A bar of a step that goes on, seen at two different places.
            seen = set()
            while len(seen) < 2 and waiting.count():
                for text in page.locator(".jp-OutputArea-output .widget-html-content").all_inner_texts():
                    if "it/s" in text or "s/it" in text:
                        seen.add(text)
                page.wait_for_timeout(50)
                assert time.time() < started + 900
            outputs = "\n".join(page.locator(".jp-OutputArea-output").all_inner_texts())
            assert len(seen) >= 2, f"Bars seen: {seen}. Outputs of the notebook: {outputs}"
            page.screenshot(path=shots / "running.png")
            expect(waiting).to_have_count(0, timeout=600_000)
            ran = [text for text in prompts.all_inner_texts() if text]  # collapsed cells show none
            assert ran[:3] == ["[1]:", "[2]:", "[3]:"] and len(ran) > count / 2 and "[ ]:" not in ran
            assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
            assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count() == 0
            figures = page.locator(".jp-OutputArea-output img").count()
            assert figures == len(list((project_root() / "figures").glob(f"{NAME[:2]}_*.png"))) > 0
            user = page.locator(".widget-dropdown select").first
            user.scroll_into_view_if_needed()
            user.select_option(index=1)
            page.get_by_role("button", name="answer").click()
            answer = page.locator(".widget-vbox .widget-html-content").last
            expect(answer).to_contain_text("base", timeout=120_000)
            expect(answer.locator("span").first).to_be_visible()  # a coloured token
            page.screenshot(path=shots / "comparison.png")
        finally:
            browser.close()
    assert all(shot.stat().st_size > 20_000 for shot in shots.iterdir()) and len(list(shots.iterdir())) == 2


RATING = """
from mipo_nb import blind
rows = [{"context": f"User {i}.", "prompt": f"What now, {i}?"} for i in range(2)]
sheet = blind.Sheet(blind.pairs(rows, ["plain", "bare"], ["own", "mine"], 2), "ratings.csv")
sheet.show()
"""


def test_the_blind_sheet_is_rated_in_a_browser(lab, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.cells = [nbformat.v4.new_code_cell(RATING.strip())]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page, started = browser.new_page(), time.time()
            page.goto(lab(notebook, "rating"))
            expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_attached(timeout=60_000)
            while not page.get_by_role("button", name="A is better").count():  # as in `run_all`; this cell is quick
                page.get_by_role("menuitem", name="Run", exact=True).click()
                page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
                page.wait_for_timeout(5000)
                assert time.time() < started + 180, f"No button. The page says: {page.inner_text('body')}"
            sheet = page.locator(".jp-OutputArea-output").last
            expect(sheet).to_contain_text("Pair 1 of 2")
            page.get_by_role("button", name="A is better").click()
            expect(sheet).to_contain_text("Pair 2 of 2")
            page.get_by_role("button", name="no difference").click()
            expect(sheet).to_contain_text("2 of 2 pairs rated.")
        finally:
            browser.close()
    lines = (tmp_path / "lab" / "ratings.csv").read_text().splitlines()
    assert lines[0] == "pair,verdict" and [line.split(",")[1] for line in lines[1:]] == ["A", "same"]
