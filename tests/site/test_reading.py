"""How a chapter reads: what of its code is folded, its number and its time, words explained,
contents and progress."""

import re
from pathlib import Path

import pytest
from docutils import nodes
from nbformat import v4
from press_fixtures import BOOK, PAGES, SITE, serious_faults

from press.chapters import own_cells, read_notebook
from press.glossary import explained, forms
from press.reading import OPTIONAL, fold, minutes, number, sections

CHAPTERS = [page for page in PAGES if re.search(r"/\d\d_", page)]
LONG = next(page for page in PAGES if "13_ablations" in page)


def code(source, *outputs, tags=()):
    """A code cell that has shown pictures, HTML or text."""
    shown = [
        v4.new_output("display_data", {"image/png" if o == "png" else "text/html": o})
        for o in outputs
    ]
    return v4.new_code_cell(source, outputs=shown, metadata={"tags": list(tags)})


def test_what_only_sets_up_draws_or_records_is_folded():
    text = v4.new_markdown_cell("Text.")
    cells = [
        code('profile = "quick"\nseed = 0', tags=["parameters"]),
        code(
            "import math\nfrom helpers import plots\nfrom helpers.experiments.ledger import record"
        ),
        text,
        code("def teach(x):\n    return x\n\n\nprint(teach(1))"),
        code("plots.images(plots.panels(1), [])", "png"),
        code("plots.images(axes, [])", "png", tags=["open"]),
        code("def twice(x):\n    return 2 * x\n\n\nplots.images(twice(1))", "png"),
        text,
        code("plots.Slider([])", '<figure class="plotly-lab">'),
        code("Lab()", "<denoise-lab>"),
        code('Guess("?", 1)', "<reader-guess>"),
        code("for x in y:", "a cell that is no Python by itself"),
        text,
        code("errors = [math.pi]"),
        code('record("01", errors)', '<table class="ledger">'),
    ]
    assert [(cells.index(cell), line) for cell, line in fold(cells)] == [
        (0, "Set-up, 2 lines; chooses profile, seed"),
        (1, "Set-up, 3 lines"),
        (4, "Code of this figure, 1 line; calls plots.images, plots.panels"),
        (8, "Code of this slider, 1 line; calls plots.Slider"),
        (9, "Code of this lab, 1 line"),
        (10, "Code of this question, 1 line"),
        (13, "What the claims need, 1 line"),
        (14, "The claims of this chapter as code, 1 line"),
    ]


def test_every_chapter_folds_its_claims_and_keeps_definitions_open():
    for chapter in (page for page in BOOK.chapters if number(page)):
        cells = own_cells(read_notebook(BOOK.root / chapter))
        found = {line.split(",")[0]: cell for cell, line in fold(cells)}
        assert "record(" in found["The claims of this chapter as code"].source, chapter
        assert "Set-up" in found and "Code of this figure" in found, chapter
        drawn = [cell.source for cell, line in fold(cells) if line.startswith("Code of this fig")]
        assert not any(re.search(r"^(def|class) ", source, re.M) for source in drawn), chapter


def test_reading_takes_its_words_and_its_figures():
    words = v4.new_markdown_cell("word " * 440)
    assert minutes([words]) == (2, 0)
    figures = [code("draw()", "png")] * 6
    assert minutes([words, *figures]) == (4, 0)
    formula = "$$ " + "x " * 2000 + "$$\n\n:::{prf:theorem}\n:label: thm-x\n:::\n"
    assert minutes([words, v4.new_markdown_cell(formula)]) == (2, 0)


def test_what_is_optional_is_counted_apart():
    words, figures = "word " * 440, [code("draw()", "png")] * 3
    heads = ["", "## A\n\n", f"### B\n\n{OPTIONAL}C.*\n\n", "#### C\n\n", "## D\n\n"]
    parts = [v4.new_markdown_cell(head + words) for head in heads]
    told = [optional for _, _, optional in sections(parts)]
    assert told == [False, False, True, True, False]
    assert minutes([*parts[:3], *figures, *parts[3:]]) == (6, 5)
    one = v4.new_markdown_cell("\n\n".join(part.source for part in parts))
    assert minutes([one, *figures]) == (7, 4)
    assert minutes([v4.new_markdown_cell(f"## A\n\nword\n\n{OPTIONAL}late.*" + words)]) == (2, 0)


def test_no_chapter_asks_for_more_than_25_minutes_and_what_is_optional_is_not_needed():
    spare = {}  # labels that stand in optional sections, and where
    for chapter in (page for page in BOOK.chapters if number(page)):
        cells = own_cells(read_notebook(BOOK.root / chapter))
        assert minutes(cells)[0] <= 25, chapter
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        heads = rf"^##+ .*\n\n{re.escape(OPTIONAL)}[^*\n]*\byou would miss\b[^*\n]*\*$"
        assert len(re.findall(heads, text, re.M)) == text.count(OPTIONAL.strip()), chapter
        for cell, part, optional in sections(cells):
            if cell.cell_type == "markdown":
                # a table may list what is optional beside the rest
                told = re.sub(r"^\|.*$", "", part, flags=re.M)
                cited = set() if optional else set(re.findall(r"ref\}`([\w-]+)`", told))
                assert not cited & spare.keys(), (chapter, cell.id)
                spare |= dict.fromkeys(
                    re.findall(r"^:label: (\S+)", part, re.M) * optional, chapter
                )
    assert spare


def test_a_term_is_found_as_it_stands_in_a_sentence():
    def found(term, text):
        return bool(re.fullmatch(forms(term), text))

    assert found("Copy", "copies") and found("Copy", "Copy") and not found("Copy", "copying")
    assert found("Noise level", "noise\nlevels") and not found("PSNR", "psnr")
    assert found("Harmonic basis, geometry-adaptive", "geometry-adaptive Harmonic basis")


def test_a_term_is_explained_once_and_the_longest_first():
    unused = {
        "Denoiser": ("term-Denoiser", [nodes.Text("A map.")]),
        "Blind denoiser": ("term-Blind-denoiser", [nodes.Text("Not told.")]),
    }
    text = "Two blind denoisers and a denoiser; denoisers again, undenoisered."
    made = "".join(node.astext() for node in explained(text, unused, "notation.html"))
    assert unused == {} and re.sub(r"<a[^>]*>|</a><span.*?</span>", "", made) == text
    assert re.findall(r"#(\S+)\" .*?>([^<]+)</a><span[^>]*>([^<]+)<", made) == [
        ("term-Blind-denoiser", "blind denoisers", "Not told."),
        ("term-Denoiser", "denoiser", "A map."),
    ]


# On the pages -------------------------------------------------------------------------------------


@pytest.mark.site
def test_a_chapter_has_its_number_wherever_it_is_named(soup):
    for page, after in zip(CHAPTERS, CHAPTERS[1:], strict=False):
        told, mark = f"{number(Path(page))}. ", page.rsplit("/", 1)[1]
        assert soup[page].select_one("article h1").text.startswith(told)
        assert soup[page].title.text.strip().startswith(told)
        names = soup["book/ledger.html"].select(f"#pst-primary-sidebar a[href$='{mark}']")
        assert names and all(name.text.strip().startswith(told) for name in names)
        before = soup[after].select_one("a.left-prev .prev-next-title")
        assert before.text.startswith(told)
        told = soup[page].select_one("article").text
        assert re.search(r"Reading: \d+ minutes?(, and \d+ that (is|are) optional)?\.", told)


@pytest.mark.site
def test_statements_and_figures_keep_their_numbers(soup):
    shown = [soup[page].select(".proof.theorem .caption-number") for page in CHAPTERS]
    numbers = [tag.text.strip() for tags in shown for tag in tags]
    assert numbers and all(re.fullmatch(r"Theorem \d+", text) for text in numbers)


@pytest.mark.site
def test_all_code_opens_at_a_press_and_stays_open_on_the_next_page(opened):
    tab = opened(LONG)
    folds = tab.locator("details.fold")
    assert folds.count() > 5 and tab.locator("details.fold[open]").count() == 0
    summary = folds.first.locator("summary")
    summary.focus()
    tab.keyboard.press("Enter")
    assert tab.locator("details.fold[open] pre:visible").count() == 1
    button = tab.locator(".show-code")
    button.click()
    assert tab.locator("details.fold[open]").count() == folds.count()
    assert button.get_attribute("aria-pressed") == "true"
    assert not serious_faults(tab, "light") and not serious_faults(tab, "dark")
    tab = opened(CHAPTERS[0])
    assert tab.locator("details.fold:not([open])").count() == 0
    tab.locator(".show-code").click()
    assert opened(LONG).locator("details.fold[open]").count() == 0


@pytest.mark.site
def test_folded_code_is_found_by_a_link_and_printed(opened):
    tab = opened(LONG)
    tab.evaluate("document.querySelectorAll('details.fold pre')[3].id = 'within'")
    tab.evaluate("location.hash = 'within'")
    tab.locator("#within").wait_for(state="visible")
    assert tab.locator("details.fold[open]").count() == 1
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details.fold:not([open])").count() == 0
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details.fold[open]").count() == 1


@pytest.mark.site
@pytest.mark.parametrize("width", [1280, 390])
def test_no_code_is_clipped_and_a_line_of_88_columns_fits_a_laptop(opened, width):
    tab = opened(LONG)
    tab.set_viewport_size({"width": width, "height": 900})
    tab.locator(".show-code").click()
    shown = tab.locator("div.cell_input pre").evaluate_all("""all => all.map((pre) => {
        const style = getComputedStyle(pre), draw = document.createElement("canvas").getContext("2d");
        draw.font = style.font;
        const inner = pre.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
        return [inner / draw.measureText("x").width, pre.scrollWidth - pre.clientWidth];
    })""")
    assert all(over <= 0 for _, over in shown)
    assert width < 1280 or all(columns >= 88 for columns, _ in shown)


@pytest.mark.site
def test_contents_name_the_section_that_is_read(opened):
    tab = opened(LONG)
    stops = tab.evaluate("""async () => {
        const heads = [...document.querySelectorAll("article h2")], found = [];
        const pause = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        for (let y = 0; y < document.body.scrollHeight - 2 * innerHeight; y += 400) {
            scrollTo(0, y);
            await pause(); await pause();
            const above = heads.filter((h) => h.getBoundingClientRect().top < innerHeight / 3);
            const marked = [...document.querySelectorAll("#page-contents [aria-current]")];
            found.push([above.at(-1)?.parentElement.id, marked.map((a) => a.hash.slice(1))]);
        }
        return found;
    }""")
    assert len({section for section, _ in stops}) > 5
    assert [stop for stop in stops if stop[1] != ([stop[0]] if stop[0] else [])] == []


@pytest.mark.site
def test_the_drawer_closes_when_a_section_is_chosen(opened):
    tab = opened(LONG)
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.locator(".secondary-toggle").click()
    link = tab.locator("#pst-secondary-sidebar-modal a").nth(2)
    link.click()
    tab.locator("#pst-secondary-sidebar-modal[open]").wait_for(state="detached")
    assert "#" in tab.url


@pytest.mark.site
def test_a_wide_numbered_formula_begins_at_its_beginning(opened):
    tab = opened(CHAPTERS[0])
    tab.set_viewport_size({"width": 390, "height": 800})
    left = tab.locator("div.math:has(mjx-labels)").evaluate_all("""all => all.map((formula) => {
        const { left } = formula.getBoundingClientRect();
        return formula.querySelector("mjx-mtable").getBoundingClientRect().left - left;
    })""")
    assert left and min(left) >= 0


@pytest.mark.site
def test_a_meaning_is_shown_on_hover_and_focus_and_goes_with_escape(opened):
    tab = opened(CHAPTERS[0])
    term = tab.locator("a.term", has_text="score").first
    meaning = tab.locator(f"#{term.get_attribute('aria-describedby')}")
    assert not meaning.is_visible()
    term.hover()
    meaning.wait_for(state="visible")
    assert meaning.get_attribute("role") == "tooltip" and meaning.locator("mjx-container").count()
    assert not serious_faults(tab, "light", ".meaning, a.term")
    tab.keyboard.press("Escape")
    assert not meaning.is_visible()
    tab.mouse.move(0, 0)
    term.focus()
    meaning.wait_for(state="visible")
    used = tab.locator("a.term").evaluate_all("all => all.map((term) => term.hash)")
    assert len(used) > 5 and len(set(used)) == len(used)


@pytest.mark.site
def test_a_finger_sees_the_meaning_before_it_follows_the_link(browser, address):
    context = browser.new_context(has_touch=True, is_mobile=True)
    tab = context.new_page()
    tab.goto(f"{address}/{CHAPTERS[0]}")
    term = tab.locator("a.term").first
    term.tap()
    tab.locator(".meaning:visible").wait_for()
    assert tab.url.endswith(CHAPTERS[0])
    term.tap()
    tab.wait_for_url("**/notation.html#term-*")
    context.close()


@pytest.mark.site
def test_what_was_read_is_marked_and_can_be_forgotten(opened):
    tab = opened(LONG)
    marks = tab.locator("#pst-primary-sidebar .progress-mark")
    assert marks.count() == 0 and tab.locator(".progress-line").is_hidden()
    tab.evaluate("scrollTo(0, 2 * innerHeight)")
    marks.first.wait_for()
    assert marks.first.get_attribute("aria-label") == "begun"
    tab.evaluate("scrollTo(0, document.body.scrollHeight)")
    tab.locator(".progress-mark[aria-label=finished]").wait_for()
    tab = opened(CHAPTERS[0])
    mark = tab.locator(f"#pst-primary-sidebar a[href$='{LONG.rsplit('/', 1)[1]}'] .progress-mark")
    assert mark.get_attribute("aria-label") == "finished"
    assert tab.locator(".progress-line").inner_text().startswith(f"1 of {len(CHAPTERS)} chapters")
    assert not serious_faults(tab, "dark", "#pst-primary-sidebar")
    tab.locator(".progress-line button").click()
    assert marks.count() == 0
    assert opened(LONG).locator(".progress-mark").count() == 0


@pytest.mark.site
def test_a_browser_that_remembers_nothing_shows_the_pages_all_the_same(opened):
    tab = opened("book/notation.html")
    tab.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('blocked') } })"
    )
    tab.goto(tab.url.replace("book/notation.html", LONG), wait_until="load")
    tab.locator(".show-code").click()
    assert tab.locator("details.fold:not([open])").count() == 0


@pytest.mark.site
def test_the_ledger_is_filtered_and_fits_a_phone(opened):
    tab = opened("book/ledger.html")
    tab.set_viewport_size({"width": 390, "height": 800})
    form = tab.locator(".ledger-filters").last
    table, count = form.locator("xpath=following::table[1]"), form.locator("output")
    whole = int(count.inner_text().split()[-2])
    assert whole == table.locator("tbody tr").count() > 100
    assert tab.evaluate("document.documentElement.scrollHeight") < 40_000
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    form.get_by_label("chapter").select_option("13")
    form.get_by_label("verdict").select_option("reproduced")
    name = form.get_by_label("chapter").locator("option:checked").inner_text()
    assert name.startswith("13. Small changes")
    shown = table.locator("tbody tr:visible")
    rows = shown.evaluate_all(
        "rows => rows.map((r) => [...r.cells].map((cell) => cell.textContent))"
    )
    assert rows and all(row[0].startswith("13.") and "reproduced" in row for row in rows)
    form.get_by_label("chapter").select_option("")
    before = shown.count()
    form.locator("xpath=following::button[1]").click()
    assert shown.count() > before
    # a chapter's badge leads to its own rows
    page = (SITE / "book/part2_samplers/07_samplers.html").read_text("utf-8")
    assert page.count("ledger.html?chapter=7") == 1
    tab.goto(tab.url.split("?")[0] + "?chapter=7")
    assert form.get_by_label("chapter").input_value() == "7"
    assert 0 < int(count.inner_text().split()[0]) < whole
    # the theme lets the keyboard into what scrolls a moment after the window has changed
    tab.wait_for_function(
        "() => [...document.querySelectorAll('.text_html')]"
        ".every((part) => part.scrollWidth <= part.clientWidth || part.tabIndex === 0)"
    )
    assert not serious_faults(tab, "light", "article") and not serious_faults(
        tab, "dark", "article"
    )
