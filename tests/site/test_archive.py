"""The archive: the pages from files, by a double click, in Chromium and in Firefox."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import zipfile
from html import unescape
from posixpath import dirname, join, normpath
from urllib.parse import unquote

import pytest
from press_fixtures import PAGES, SITE

from press.archive import classic, pack

pytestmark = pytest.mark.site
NAME, WEIGHT = "the-creative-denoiser", 60_000_000  # bytes
INTRO, PLANE, IMAGES = (
    next(page for page in PAGES if stem in page)
    for stem in ("book/intro", "04_polynomial", "13_ablations")
)
# Functions of a page, the same for both browsers: each waits, and says what it has seen.
WAIT = """const until = async (ready) => {
    for (let i = 0; i < 1000; i++) { if (ready()) return; await new Promise((r) => setTimeout(r, 100)); }
    throw new Error(`never: ${ready}`);
};"""
RUN = f"""async (name) => {{ {WAIT}
    const lab = () => document.getElementById(`lab-${{name}}`), there = () => lab()?.panel;
    await until(there);
    const {{ panel }} = lab(), {{ press, status }} = panel;
    const over = () => !panel.soon && !press.disabled
        && (panel.results || status.hasAttribute("data-bad"));
    lab().scrollIntoView();
    if (!panel.results && !press.disabled) press.click();
    await until(over);
    const slider = lab().querySelector(".lab-timeline input, input[type=range]");
    const drawn = () => [...lab().querySelectorAll("canvas")].map((c) => c.toDataURL()).join();
    const numbers = lab().innerText, before = drawn();
    slider.value = slider.max;
    slider.dispatchEvent(new Event("input", {{ bubbles: true }}));
    await until(() => drawn() !== before);
    const select = lab().querySelector("select");
    select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
    select.dispatchEvent(new Event("change", {{ bubbles: true }}));
    await until(() => location.search);
    await until(over);
    return [numbers, status.hasAttribute("data-bad") ? status.textContent : "", location.search];
}}"""
TRAIN = f"""async () => {{ {WAIT}
    const shown = () => document.getElementById("lab-hero")?.innerText ?? "";
    await until(() => /step [1-9]/.test(shown()));
    return shown();
}}"""
SEARCH = f"""async () => {{ {WAIT}
    await until(() => document.querySelector("#search-results li a"));
    return [...document.querySelectorAll("#search-results li a")].map((a) => a.href);
}}"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory, fresh_site):
    target = tmp_path_factory.mktemp("archive") / f"{NAME}.zip"
    pack(SITE, target)
    return target


@pytest.fixture(scope="module")
def folder(archive, tmp_path_factory):
    """Where a reader unpacks it: a path with spaces and letters that no address has as they are."""
    place = tmp_path_factory.mktemp("home") / "Mes cours" / "été 1 #2"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(place)
    return place / NAME


def test_it_is_light_and_has_all_that_its_pages_link_to(archive):
    with zipfile.ZipFile(archive) as packed:
        names = {name.removeprefix(f"{NAME}/") for name in packed.namelist()}
        pages = {n: packed.read(f"{NAME}/{n}").decode() for n in names if n.endswith(".html")}
    assert archive.stat().st_size <= WEIGHT
    assert set(PAGES) <= set(pages) and f"url={INTRO}" in pages["index.html"]
    missing = {
        (name, path)
        for name, html in pages.items()
        if not name.startswith("_static/")
        for address in re.findall(r'<[^>]*\s(?:href|src)="([^"#?:]+)["#?]', html)
        if (path := normpath(join(dirname(name), unquote(unescape(address))))) not in names
    }
    assert missing == set()
    assert not [name for name, html in pages.items() if 'type="module"' in html]


def toy(site):
    for name, text in {
        "index.html": '<script type="module" src="_static/lab.js?v=1"></script>',
        "_static/lab.js": "export const one = 1;",
        "_static/documentation_options.js": "",
        "_static/labs/toy/manifest.json": "{}",
        "_static/labs/toy/check.json": "{}",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    return site


def test_equal_sites_are_equal_bytes(tmp_path):
    for name in "ab":
        pack(toy(tmp_path / name), tmp_path / name / f"{NAME}.zip")
        os.utime(tmp_path / name / "index.html", (1, 1))
        (tmp_path / name / f"{NAME}.zip").rename(tmp_path / f"{name}.zip")
    first, again = ((tmp_path / f"{name}.zip").read_bytes() for name in "ab")
    assert first == again
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        names = [name.removeprefix(f"{NAME}/") for name in packed.namelist()]
    assert names == [
        "_static/archive.js", "_static/documentation_options.js", "_static/lab.js",
        "_static/labs/toy/manifest.json.js", "index.html",
    ]  # fmt: skip


def test_what_it_cannot_carry_it_names(tmp_path):
    assert "load(import_)" in classic("const import_ = 1;\nexport default { a: import(import_) };")
    for text in ('import { a } from "./a.js";', "const a = 1;\nexport { a };"):
        with pytest.raises(ValueError, match=r"stage\.js is no module that stands alone: "):
            classic(text, "stage.js")
    with pytest.raises(ValueError, match="python -m press build"):
        pack(tmp_path, tmp_path / "a.zip")


class Chromium:
    def __init__(self, browser):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.tab, self.problems = self.context.new_page(), list[str]()
        add = self.problems.append
        self.tab.set_default_timeout(120_000)
        self.tab.on("pageerror", lambda error: add(str(error)))
        self.tab.on("console", lambda m: add(m.text) if m.type == "error" else None)
        self.tab.on("requestfailed", lambda r: add(f"failed: {r.url}"))
        self.tab.on(
            "request",
            lambda r: None if r.url.startswith(("file:", "blob:", "data:")) else add(r.url),
        )

    def go(self, address):
        self.tab.goto(address)

    def ask(self, function, *arguments):
        return self.tab.evaluate(function, *arguments)

    def close(self):
        self.context.close()


class Firefox:
    """Driven by Marionette, the protocol that it speaks itself."""

    problems = ()  # it tells of none

    def __init__(self, program, profile):
        (profile / "user.js").write_text('user_pref("marionette.port", 0);\n')
        command = [program, "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process, port = subprocess.Popen(command, **quiet), profile / "MarionetteActivePort"
        for _ in range(600):
            if port.is_file() and port.read_text():
                break
            time.sleep(0.1)
        else:
            self.process.kill()
            raise TimeoutError("Firefox has named no port in a minute")
        self.socket = socket.create_connection(("127.0.0.1", int(port.read_text())), timeout=120)
        self.file = self.socket.makefile("rb")
        self.answer()  # its greeting
        self("NewSession")
        self("SetTimeouts", script=110_000, pageLoad=110_000)

    def answer(self):
        length = b""
        while (digit := self.file.read(1)) != b":":
            length += digit
        return json.loads(self.file.read(int(length)))

    def __call__(self, command, **parameters):
        data = json.dumps([0, 1, f"WebDriver:{command}", parameters]).encode()
        self.socket.sendall(b"%d:%b" % (len(data), data))
        error, result = self.answer()[2:]
        assert not error, error
        return result["value"] if "value" in result else result

    def go(self, address):
        self("Navigate", url=address)

    def ask(self, function, *arguments):
        script = f"return ({function})(...arguments)"
        return self("ExecuteScript", script=script, args=list(arguments))

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(params=["chromium", "firefox"])
def reader(request, tmp_path):
    if request.param == "chromium":
        made = Chromium(request.getfixturevalue("browser"))
    elif program := shutil.which("firefox") or shutil.which("firefox-esr"):
        made = Firefox(program, tmp_path)
    else:
        pytest.skip("no Firefox on the PATH: the archive was not opened in it")
    yield made
    made.close()


def test_labs_training_search_and_links_work_from_files(folder, reader):
    def go(page, query=""):
        reader.go((folder / page).as_uri() + query)

    go(INTRO)
    assert re.search(r"step [1-9]", reader.ask(TRAIN)), "the first page trains by itself"
    found = reader.ask("() => document.querySelector(\"nav a[href*='04_polynomial']\").href")
    assert found == (folder / PLANE).as_uri()
    for page, name in ((PLANE, "polynomial"), (IMAGES, "ablations")):
        go(page)
        numbers, fault, query = reader.ask(RUN, name)
        assert not fault and re.search(r"distance to .*\n[\d.]+", numbers), (fault, numbers)
        assert f"lab={name}" in query, "the address is a link to the state"
    assert reader.ask("() => document.fonts.check('1em MJXTEX-I', 'x')"), (
        "mathematics has its fonts"
    )
    go("search.html", "?q=wiener")
    assert any("03_linear.html" in address for address in reader.ask(SEARCH))
    assert list(reader.problems) == []
