"""What the built pages need beside Sphinx: less weight, and a policy of what each of them may run
and load."""

import base64
import hashlib
import os
import re
from pathlib import Path

from fontTools import subset

from press.reading import number
from press.stage import staged
from press.still import stilled

# Font Awesome's script redraws the icons that its fonts have drawn, and the index is needed where a
# search is answered.
REDRAW = re.compile(r"\s*<script[^>]*/fontawesome\.js[^>]*></script>")
INDEX = re.compile(r"\s*<script[^>]*\b(?:searchtools|language_data|searchindex)\.js[^>]*></script>")
# Firefox fetches the page that this names before it is asked for, which the policy forbids.
NEXT = re.compile(r'\s*<link\b[^>]*\brel="next"[^>]*>')
# The bar that book.css hides has the sidebars' buttons a first time, and the theme's scripts know
# only the first.
BAR = re.compile(r'(<header id="pst-header"[^>]*>).*?(?=</header>)', re.S)
# The theme's fold has a name that hides what its line says, and its contents lose their place in
# long sections: ours, in reading.js, find the list under another name.
FOLD = re.compile(
    r'<details class="admonition hide above-input">\s*<summary[^>]*>\s*<p[^>]*>(.*?)</p>.*?</summary>',
    re.S,
)
# What opens all folds stands behind a chapter's badges from the start, so that nothing moves.
BADGES = re.compile(r"(<h1>(?:(?!<h2).)*?<p>(?:(?!</p>).)*)</p>", re.S)
SHOW = r'\1 <button type="button" class="show-code">Show all code</button></p>'
CONTENTS = 'id="pst-page-toc-nav"', 'id="page-contents"'
# The contents come after the text in the page: it leaves them their room from the start.
BESIDE = 'class="bd-main"', 'class="bd-main with-contents"'
# Pictures of 50 kB and more in a page are files: they may come after it.
PICTURE = re.compile(r'(?<=src=")data:image/png;base64,([A-Za-z0-9+/=]{70000,})(?=")')
# A chapter's badge leads to its own rows.
LEDGER = re.compile(r'(href="[^"#?]*ledger\.html)("[^>]*>(?:<[^>]*>)*Ledger: )')
ICON = re.compile(r"\.fa-([a-z0-9-]+)::?before")
INLINE = re.compile(r"<script(?![^>]*(?:\ssrc=|application/json))[^>]*>(.*?)</script>", re.S)
HANDLER = re.compile(r'\sonclick="(?:window\.)?(\w+)\(\)"')

# A static site sends no headers, so that the policy stands in the page. Inline scripts run only
# with their hash; styles are free, because MathJax and Plotly write them as they draw. Nothing
# comes from or goes to
# another server.
POLICY = (
    "default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'"
)


def finish(site: Path) -> None:
    """Finishes the pages that Sphinx has left in `site`."""
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        html = staged(BAR.sub(r"\1", NEXT.sub("", REDRAW.sub("", html))))
        if page.name != "search.html":
            html = INDEX.sub("", html)
        html, folds = FOLD.subn(r'<details class="fold"><summary>\1</summary>', html)
        if folds:
            html = BADGES.sub(SHOW, html, count=1)
        html = html.replace(*CONTENTS)
        if "bd-sidebar-secondary" in html:
            html = html.replace(*BESIDE, 1)
        if chapter := number(page):
            html = LEDGER.sub(rf"\1?chapter={chapter}\2", html)

        def keep(picture: bytes, kind: str = "webp", page: Path = page) -> str:
            file = site / "_images" / f"{hashlib.sha256(picture).hexdigest()[:20]}.{kind}"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(picture)
            return Path(os.path.relpath(file, page.parent)).as_posix()

        html = stilled(html, keep)
        for data in set(PICTURE.findall(html)):
            there = keep(base64.b64decode(data), "png")
            html = html.replace(f"data:image/png;base64,{data}", there)
        page.write_text(guarded(html), encoding="utf-8")
    for file in {*site.glob("_static/scripts/fontawesome.js*"), *site.glob("_static/**/*.map")}:
        file.unlink()
    keep_used_icons(site)


def guarded(html: str) -> str:
    """The page with its policy, and without handlers in attributes, which no hash can allow:
    buttons.js has them."""
    html = HANDLER.sub(r' data-call="\1"', html)
    digests = {hashlib.sha256(script.encode()).digest() for script in INLINE.findall(html)}
    hashes = " ".join(sorted(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests))
    policy = (
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY.format(hashes=hashes)}" />'
    )
    return html.replace('<meta charset="utf-8" />', f'<meta charset="utf-8" />\n    {policy}', 1)


def keep_used_icons(site: Path) -> None:
    """Leaves in the icon fonts, 275 kB on every page, the few signs that pages, scripts or styles
    name."""
    texts = [
        file.read_text(encoding="utf-8")
        for pattern in ("*.html", "*.js")
        for file in site.rglob(pattern)
    ]
    used = {name for text in texts for name in re.findall(r"\bfa-([a-z0-9-]+)", text)}
    signs = set[int]()
    for style in site.rglob("*.css"):
        for selector, body in re.findall(
            r"([^{}]*)\{([^{}]*)\}", style.read_text(encoding="utf-8")
        ):
            names = set(ICON.findall(selector))
            if not names or names & used:
                signs |= {int(code, 16) for code in re.findall(r"\\([ef][0-9a-f]{3})\b", body)}
                signs |= {ord(sign) for sign in re.findall("[\ue000-\uf8ff]", body)}
    for font in site.glob("_static/vendor/fontawesome/webfonts/*.ttf"):
        options = subset.Options()
        with subset.load_font(str(font), options) as loaded:
            few = subset.Subsetter(options)
            few.populate(unicodes=signs)
            few.subset(loaded)
            subset.save_font(loaded, str(font), options)
        font.with_suffix(".woff2").unlink()
    for style in site.glob("_static/styles/pydata-sphinx-theme.css"):
        css = style.read_text(encoding="utf-8")
        style.write_text(
            re.sub(r'url\([^)]*\.woff2\) format\("woff2"\),', "", css), encoding="utf-8"
        )
