"""The static site: built without a warning, whole without a network, and every link inside it leads somewhere."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from mipo_nb import MODULES
from mipo_nb.base.files import project_root
from mipo_nb.lab.notebooks import collection

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.whole


class Page(HTMLParser):
    """The links, ids, loaded files and pictures of a page."""

    def __init__(self, file):
        super().__init__()
        self.links, self.ids, self.loads, self.pictures = [], set(), [], []
        self.text = file.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[k] for k in ("id", "name") if found.get(k)}
        if tag == "img":
            self.pictures.append(found.get("alt", ""))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get("src") or (tag == "link" and found.get("rel") != "canonical"):
            self.loads.append(found.get("src") or found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """{path: Page} of the site, built as `make site` does."""
    out = tmp_path_factory.mktemp("site")
    target = (project_root() / "Makefile").read_text(encoding="utf-8").partition("sphinx-build ")[2].splitlines()[0]
    assert "--fail-on-warning" in target and target.endswith(" . site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *target.split()[:-1], out], cwd=project_root(), capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return {file: Page(file) for file in sorted(out.rglob("*.html")) if "_static" not in file.parts}


def test_every_notebook_document_and_module_has_its_page(site):
    names = {file.stem for file in site}
    assert {*collection(), "index", "glossary", "instructor", "api", "RESULTS", "search"} <= names
    api = next(page for file, page in site.items() if file.stem == "api")
    assert {f"module-mipo_nb.{place}" for place in MODULES.values()} <= api.ids
    assert "mipo_nb.information.pointwise_mutual_information" in api.ids


def test_the_first_page_is_picture_result_and_routes(site):
    [page] = [page for file, page in site.items() if file.match("docs/index.html")]
    article = page.text.partition("<article")[2].partition("</article>")[0]
    places = [
        article.index(part)
        for part in ("pair.svg", "wishes of new people", "12_headline.png", "Understand", "Use", "Teach")
    ]
    assert places == sorted(places) and len(re.findall("<h[1-6]", article)) == 1
    assert article.count("<a ") < 30  # no list of all headings


def test_every_picture_is_said_in_words(site):
    for file, page in site.items():
        assert all(len(alt.split()) >= 8 for alt in page.pictures), (file.name, page.pictures)


def test_something_stands_in_for_every_widget(site):
    for file, page in site.items():
        assert "widget-view" not in page.text and not re.search(r"Box\(children|interactive\(children", page.text), (
            file.name
        )


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine")
def test_a_table_is_sorted_and_no_page_is_wider_than_a_phone(site):
    from playwright.sync_api import sync_playwright

    pages = {file.stem: file for file in site if file.parent.name in ("docs", "notebooks") or file.stem == "RESULTS"}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 375, "height": 800})
            for name, file in pages.items():
                page.goto(file.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= 375, name
            page.goto(pages["running"].as_uri())
            table = page.locator("table", has=page.locator("th", has_text="memory")).first
            for _ in range(2):
                table.locator("th", has_text="minutes").click()
            minutes = table.locator("tbody tr td:nth-child(3)").all_inner_texts()
            assert len(minutes) == len(collection()) and "under" in minutes[-1]
            assert [float(m) for m in minutes[:-1]] == sorted(map(float, minutes[:-1]), reverse=True)
        finally:
            browser.close()


def test_links_inside_the_site_lead_somewhere(site):
    broken, checked = [], 0
    for file, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            checked += 1
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            there = target in site or (target.is_file() and not parts.fragment)
            if not there or (parts.fragment and unquote(parts.fragment) not in site[target].ids | {""}):
                broken.append((file.name, link))
    assert checked > 300 and not broken


def test_nothing_is_loaded_from_elsewhere(site):
    for file, page in site.items():
        for load in page.loads:
            parts = urlsplit(load)
            assert not parts.netloc and parts.scheme in ("", "data"), (file.name, load[:80])
            assert parts.scheme or (file.parent / unquote(parts.path)).exists(), (file.name, load)


def test_formulas_are_numbered_and_drawn_without_a_script(site):
    for file, page in site.items():
        if file.parent.name == "notebooks":
            equations = [identity for identity in page.ids if identity.startswith("eq-")]
            assert page.text.count('class="eqno"') >= len(equations), file.name
            assert page.text.count("<math ") >= len(equations) and "$$" not in page.text


def test_notebooks_refer_to_each_other(site):
    for file, page in site.items():
        if file.parent.name == "notebooks":
            said = page.text.partition("<article")[2].partition("</article>")[0]
            named = {Path(urlsplit(link).path).stem for link in re.findall('href="([^"]+)"', said)} - {file.stem}
            assert named & set(collection()), file.name


def test_a_page_says_what_changed_since_its_run(site):
    for file, page in site.items():
        if file.parent.name == "notebooks":
            assert collection()[file.stem].changed_since in page.text


def test_the_search_knows_words_of_notebooks_and_docstrings(site):
    index = next(iter(site)).parent / "searchindex.js"
    words = index.read_text(encoding="utf-8")
    assert all(word in words for word in ("surpris", "bradley", "nat"))
