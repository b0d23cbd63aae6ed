"""The stage: what a chapter lets the reader move stands under its question, and not where the text
comes to it."""

import re

# A map, which has a lab in it; the labs' elements; a figure with a slider, where its cell is tagged so.
MAP = re.compile(r"<creativity-map\b.*?</creativity-map>", re.S)
LAB = re.compile(r"<(denoise-lab|train-lab|patch-voters|eigen-shrinkage|flow-lab)\b.*?</\1>", re.S)
TAGGED = re.compile(
    r'<div class="cell[^"]*\btag_stage\b.*?(<figure class="plotly-lab">.*?</figure>)', re.S
)
# A chapter's title, the line of badges and the question, which is all bold or italic.
OPENING = re.compile(r"<h1>(?:(?!<h2).)*?<p><(strong|em)>(?:(?!</p>).)*</\1></p>", re.S)
SHEET = '<div id="stage" class="stage" role="region" aria-label="Stage"><div class="stage-sheet">{}</div></div>'
PLACE = (
    '<p class="stage-place">{what} stands <a href="#stage">on the stage, under the title</a>.</p>'
)
SKIP = "Skip to main content</a>"


def staged(html: str) -> str:
    """The page with the figure whose cell is tagged `stage`, its map or its first lab under its
    question; a word and a link where it stood. Pages without one are as they were."""
    if tagged := TAGGED.search(html):
        (begin, end), what = tagged.span(1), "This figure"
    elif lab := MAP.search(html) or LAB.search(html):
        (begin, end), what = lab.span(), "This map" if lab[0].startswith("<creat") else "This lab"
    else:
        return html
    opening = OPENING.search(html)
    if opening is None or opening.end() > begin:  # a page that is no chapter
        return html
    sheet, between = SHEET.format(html[begin:end]), html[opening.end() : begin]
    moved = "<h2" in between  # a page that begins with its lab keeps it there
    place = between + PLACE.format(what=what) if moved else ""
    before = html[: opening.end()] if moved else html[:begin]
    page = before + sheet + place + html[end:]
    return page.replace(SKIP, SKIP + '<a href="#stage">Skip to the stage</a>', 1)
