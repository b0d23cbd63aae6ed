"""What the built pages may run and load, that their buttons and search work under it, and that an
address is data."""

import re

import pytest
from conftest import ROOT
from fontTools.ttLib import TTFont
from press_fixtures import PAGES, SITE

pytestmark = pytest.mark.site
LAB_PAGE = next(page for page in PAGES if "04_polynomial" in page)
INJECTED = """<script>ran("inline script")</script><img src="data:," onerror="ran('handler')">
<script>setTimeout("ran('eval')")</script><script src="data:text/javascript,ran('data script')"></script>
<a id="link" href="javascript:ran('link')">link</a>"""
MARKUP = "%3Cimg%20src%3D%22data%3A%2C%22%20onerror%3D%22ran('address')%22%3E%3Cb%20id%3Dgrown%3E"


@pytest.fixture
def watched(opened):
    """Opens a page and tells which foreign scripts `ran` on it and which parts of the policy were
    violated."""

    def go(page, body="", policy=True):
        def change(route):
            html = (found := route.fetch()).text().replace("</body>", f"{body}</body>")
            route.fulfill(
                response=found, body=html if policy else re.sub(r"<meta http-equiv[^>]*>", "", html)
            )

        tab = opened(PAGES[0])
        tab.add_init_script("""
            window.found = []; window.violated = []; window.ran = (what) => found.push(what);
            addEventListener("securitypolicyviolation", (e) => violated.push(e.effectiveDirective));
        """)
        tab.context.route(f"**/{page.partition('?')[0]}*", change)
        return opened(page)

    return go


def test_every_page_has_the_policy_and_no_script_in_an_attribute(fresh_site):
    for page in SITE.rglob("*.html"):
        # parts of the theme, and a line that forwards
        if "_static" in page.parts or page == SITE / "index.html":
            continue
        html = page.read_text(encoding="utf-8")
        assert 'rel="next"' not in html  # which Firefox fetches unasked, against the policy
        policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)"', html)
        assert (
            policy
            and policy.start() < html.index("<script")
            and policy.start() < html.index("<link")
        )
        scripts = next(part for part in policy[1].split("; ") if part.startswith("script-src"))
        assert (
            "unsafe" not in policy[1].replace("style-src 'self' 'unsafe-inline'", "")
            and "http" not in scripts
        )
        assert re.findall(r"<\w[^<>]*\son\w+\s*=", html) == [], page


def test_an_injected_script_does_not_run(watched):
    tab = watched(LAB_PAGE, INJECTED)
    tab.locator("#link").click()
    tab.wait_for_function("violated.length >= 4")
    assert tab.evaluate("found") == [] and {"script-src-elem", "script-src-attr"} <= set(
        tab.evaluate("violated")
    )


def test_the_injected_scripts_would_run_without_the_policy(watched):
    tab = watched(LAB_PAGE, INJECTED, policy=False)
    tab.locator("#link").click()
    tab.wait_for_function("found.length >= 5")
    assert set(tab.evaluate("found")) == {"inline script", "handler", "eval", "data script", "link"}


def test_nothing_is_fetched_from_or_sent_to_another_server(watched):
    tab = watched(LAB_PAGE)
    assert (
        tab.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')")
        == "refused"
    )
    assert tab.evaluate("violated") == ["connect-src"]


def test_our_scripts_make_no_code_from_text():
    files = [
        file
        for folder in ("book/assets", "src/helpers/lab/static")
        for file in (ROOT / folder).glob("*.js")
    ]
    scripts = {file.name: file.read_text(encoding="utf-8") for file in files}
    assert {"main.js", "buttons.js"} <= set(scripts)
    made = re.compile(
        r"\beval\s*\(|\bFunction\s*\(|document\.write|set(Timeout|Interval)\(\s*['\"`]"
    )
    assert [name for name, text in scripts.items() if made.search(text)] == []


@pytest.mark.parametrize("page", [f"{LAB_PAGE}?lab=polynomial&target={MARKUP}&left={MARKUP}&seed={MARKUP}",
                                  f"search.html?q={MARKUP}", f"{LAB_PAGE}?highlight={MARKUP}"])  # fmt: skip
def test_markup_in_the_address_is_text(watched, page):
    tab = watched(page, policy=False)  # the policy would stop the script, but not the element
    tab.wait_for_timeout(500)
    assert tab.evaluate("found") == [] and tab.locator("#grown").count() == 0
    if "lab=" in page:
        assert "<img src=" in tab.locator("#lab-polynomial .lab-status").inner_text()


def test_the_buttons_of_the_theme_work(opened):
    tab = opened(LAB_PAGE)
    html = tab.locator("html")
    before = html.get_attribute("data-mode")
    tab.locator(".theme-switch-button:visible").click()
    assert html.get_attribute("data-mode") != before
    sidebar = tab.locator("#pst-primary-sidebar")
    tab.locator(".primary-toggle:visible").click()
    sidebar.wait_for(state="hidden")
    tab.locator(".primary-toggle:visible").click()
    sidebar.wait_for(state="visible")
    tab.evaluate("""() => {
        window.found = [];
        window.print = () => found.push("print");
        document.documentElement.requestFullscreen = () => found.push("full");
    }""")
    tab.locator("[data-call=toggleFullScreen]").click()
    tab.locator("[data-call=print]").dispatch_event("click")
    assert tab.evaluate("found") == ["full", "print"]
    tab.locator(".search-button__button:visible").first.click()
    tab.locator("#pst-search-dialog input").fill("bottleneck")
    tab.locator("#pst-search-dialog input").press("Enter")
    tab.wait_for_url("**/search.html?q=bottleneck")
    assert tab.problems == []


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_search_finds_a_chapter_with_and_without_a_server(opened, address, browser, scheme):
    if scheme == "http":
        tab = opened("search.html?q=bottleneck")
    else:
        tab = browser.new_page()
        tab.goto(f"{SITE.as_uri()}/search.html?q=bottleneck")
    results = tab.locator("#search-results ul.search li a")
    results.first.wait_for()
    assert any(
        "05_bottleneck.html" in link
        for link in results.evaluate_all("links => links.map(a => a.href)")
    )
    if scheme == "http":
        tab.locator("#search-results p.context").first.wait_for()
        assert tab.problems == []
    results.first.click()
    tab.locator("article h1").wait_for()
    if scheme == "file":
        tab.close()


def test_every_icon_on_a_page_is_left_in_the_fonts(opened):
    fonts = [
        TTFont(file).getBestCmap()
        for file in (SITE / "_static/vendor/fontawesome/webfonts").iterdir()
    ]
    shown = opened(LAB_PAGE).evaluate("""() => [...document.querySelectorAll("*")].flatMap((element) =>
        ["::before", "::after"].map((part) => getComputedStyle(element, part))
        .filter((style) => style.fontFamily.includes("Font Awesome") && /^"."$/.test(style.content))
        .map((style) => style.content.codePointAt(1)))""")
    assert (
        len(set(shown)) > 8
        and [hex(sign) for sign in shown if not any(sign in font for font in fonts)] == []
    )
