"""The built pages: complete, self-contained, described in words, and alive in a browser."""

import gzip
import html
import json
import re
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs, unquote, urldefrag, urlsplit

import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from press_fixtures import BOOK, PAGES, PREFIXES, SITE, serious_faults

from press.chapters import read_notebook

pytestmark = pytest.mark.site
# bytes, gzip: what a page loads before the reader scrolls; pictures, its content, are not counted
WEIGHT = 800_000
TEXTS = {Path("book/teach.md"): (ROOT / "book/teach.md").read_text("utf-8")} | {
    chapter: "\n".join(
        cell.source for cell in read_notebook(ROOT / chapter).cells if cell.cell_type == "markdown"
    )
    for chapter in BOOK.chapters
}
STATES = [  # of labs, as the teaching page and chapters link to them
    (page.parent / html.unescape(link)).as_posix()
    for page, text in TEXTS.items()
    for link in re.findall(r'<a href="([^"]*\?lab=[^"]*)"', text)
]
TEX = re.compile(r"\$\$|\\(begin|end|frac|sigma|hat|mathbb|mathbf|operatorname|left|label|eqref)\b")


def test_every_page_of_the_contents_is_there(fresh_site):
    assert [page for page in ["index.html", *PAGES] if not (SITE / page).is_file()] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_page_loads_anything_from_elsewhere(soup, page):
    loads = [tag.get("src") for tag in soup[page].find_all(src=True)]
    links = soup[page].find_all("link", href=True)  # of which one says where the page is published
    loads += [tag["href"] for tag in links if tag["rel"] != ["canonical"]]
    assert [url for url in loads if re.match(r"(https?:)?//", url)] == []
    # nor leads to the root of a domain, of which the book may be a part
    leads = [tag["href"] for tag in soup[page].find_all("a", href=True)]
    assert [url for url in loads + leads if url.startswith("/")] == []


def test_no_style_loads_anything_from_elsewhere(fresh_site):
    styles = {
        file.name: file.read_text(encoding="utf-8") for file in (SITE / "_static").rglob("*.css")
    }
    outside = re.compile(r"(url\(\s*['\"]?|@import\s+['\"])(https?:)?//")
    assert [name for name, text in styles.items() if outside.search(text)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_is_described_and_captioned(soup, page):
    article = soup[page].find("article") or soup[page]
    for image in article.find_all("img"):
        alt = image.get("alt", "").strip()
        assert alt and alt != image["src"] and not re.search(r"\.(png|svg|jpe?g)$|_images/", alt), (
            image
        )
    for image in article.select(".cell_output img"):
        assert image.find_parent("figure") and image.find_parent("figure").find("figcaption"), image
    for figure in article.select("figure.plotly-lab"):
        assert (
            figure.select_one("[aria-label]")["aria-label"].strip()
            and figure.find("figcaption").text.strip()
        )


@pytest.mark.parametrize("page", PAGES)
def test_no_tex_is_left_in_the_text(soup, page):
    article = BeautifulSoup(str(soup[page].find("article")), "html.parser")
    for tag in article.select("pre, code, script, style, .math"):
        tag.decompose()
    assert [text for text in article.find_all(string=TEX)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_internal_link_leads_somewhere(soup, page):
    broken = []
    for link in soup[page].find_all("a", href=True):
        path, anchor = urldefrag(unquote(link["href"]))
        path = path.partition("?")[0]  # the state of a lab
        if re.match(r"[a-z]+:|//", path):
            continue
        target = (SITE / page).parent / path if path else SITE / page
        inside = target.resolve().is_relative_to(SITE.resolve()) and target.is_file()
        name = target.resolve().relative_to(SITE.resolve()).as_posix() if inside else ""
        known = (
            not anchor
            or name not in soup
            or soup[name].find(id=anchor)
            or soup[name].find(attrs={"name": anchor})
        )
        if not inside or not known:
            broken.append(link["href"])
    assert broken == []


# In a browser -------------------------------------------------------------------------------------


def assert_accessible(tab):
    for theme in ("light", "dark"):
        serious = serious_faults(tab, theme)
        assert not serious, "\n".join([theme, *serious])


# All scripts run in one of these: where one asks for a file by a wrong address, it is missed here.
FEW = [
    p
    for p in PAGES
    if p.endswith(("intro.html", "08_projection.html", "13_ablations.html", "ledger.html"))
]


@pytest.mark.parametrize(
    "page, prefix", [*((page, "") for page in PAGES), *((page, PREFIXES[1]) for page in FEW)]
)
def test_page_in_a_browser(opened, address, page, prefix):
    tab = opened(page, prefix)
    # nor Plotly, where it draws the stage: a race whether it has come by now
    staged = "plotly.min.js" if tab.locator("#stage .plotly-lab").count() else "no such file"
    loaded = [
        response
        for response in list(tab.received)
        if response.request.resource_type != "image" and staged not in response.url
    ]
    weight = sum(len(gzip.compress(response.body())) for response in loaded)
    formulas, typeset = (
        tab.locator(".math:not(.nohighlight .math)").count(),
        tab.locator("mjx-container").count(),
    )
    assert typeset >= formulas, f"{formulas} formulas, {typeset} typeset"
    assert tab.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert tab.locator("mjx-assistive-mml").count() == typeset, (
        "a formula that a screen reader cannot read"
    )
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "moves sideways"
    # what does not depend on the address is tried once, on the page that is open already
    if not prefix:
        assert_accessible(tab)

    for lab in tab.locator(".plotly-lab").all():
        lab.scroll_into_view_if_needed()
        lab.locator(".main-svg").first.wait_for()
        rail = lab.locator(".slider-rail-touch-rect")
        if rail.count():
            traces = lab.locator(".cartesianlayer").first
            before, box = traces.inner_html(), rail.first.bounding_box()
            moved = lab.locator(".plotly-target").evaluate(
                "target => target.layout.sliders[0].active > 0"
            )
            rail.first.click(
                position={"x": 2 if moved else box["width"] - 2, "y": box["height"] / 2}, force=True
            )
            tab.wait_for_timeout(500)
            assert traces.inner_html() != before, "the slider moves nothing"
    for image in tab.locator("article img").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("async i => { await i.decode(); return i.naturalWidth }") > 0

    assert [
        url
        for url in tab.requested
        if not url.startswith((f"{address}{prefix}/", "data:", "blob:"))
    ] == []
    assert tab.problems == []
    assert weight < WEIGHT, f"{page} loads {weight} bytes"


@pytest.mark.parametrize("page", sorted({link.partition("?")[0] for link in STATES}))
def test_a_lab_opens_in_the_state_that_a_link_names(opened, page):
    """The first link to each lab opens the page; the others are followed on it."""
    panel = before = None
    for link in sorted(link for link in STATES if link.partition("?")[0] == page):
        query = urlsplit(link).query
        asked = {key: values[0].replace("~", ",") for key, values in parse_qs(query).items()}
        name = asked.pop("lab")
        if name == before:
            panel.evaluate("(lab, search) => { lab.panel.go(search) }", f"?{query}")
        else:
            panel, before = opened(link).locator(f"#lab-{name}"), name
            panel.locator(".lab-panel, .atlas-cells").locator("visible=true").first.wait_for()
        state = panel.evaluate("lab => lab.panel.state")
        assert {key: str(value) for key, value in asked.items()} == {
            key: ",".join(state[key]) if isinstance(state[key], list) else str(state[key])
            for key in asked
        }, link
        assert panel.locator(".lab-status[data-bad]").count() == 0, link


@pytest.mark.parametrize("page", ["search.html?q=bottleneck", "genindex.html"])
def test_search_and_index_are_accessible(opened, page):
    assert_accessible(opened(page))


def test_every_chapter_says_how_its_claims_fared(soup):
    for chapter in BOOK.chapters:
        claims = BOOK.results / "claims" / f"{chapter.stem}.json"
        article = soup[chapter.with_suffix(".html").as_posix()].find("article")
        badge = article.select_one("p a:has([class^=verdict])")
        assert bool(badge) == claims.is_file()
        if badge:
            verdicts = Counter(
                claim["verdict"]
                for claim in json.loads(claims.read_text(encoding="utf-8"))["claims"]
            )
            shown = {
                words: int(number)
                for number, words in re.findall(r"(\d+) (\D+?)(?:, |$)", badge.get_text())
            }
            assert shown == {"claims": verdicts.total(), **verdicts}
            assert badge["href"].endswith(f"ledger.html?chapter={int(chapter.stem[:2])}")


def test_the_glossary_can_be_linked_and_searched(soup):
    terms = soup["book/notation.html"].select("dl.glossary dt[id^=term-]")
    names = [term.find(string=True).strip() for term in terms]
    assert len(names) > 30 and names == sorted(names, key=str.casefold)
    assert all(term.find_next_sibling("dd").get_text(strip=True) for term in terms)
    index = (SITE / "searchindex.js").read_text(encoding="utf-8")
    assert all(f"term-{name.replace(' ', '-')}" in index for name in ("Local-machine", "Verdict"))
