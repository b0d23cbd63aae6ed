"""The glossary where its words are used: a Sphinx extension that puts, at the first use of a term
in each numbered chapter, its meaning behind the word, shown on hover, on focus and on a tap."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes

from press.reading import number

# words in which a term of the glossary is no term
SKIPPED = ("solution_node", "pending_xref", "reference")


def forms(term: str) -> str:
    """A pattern of a term as it stands in a sentence: "Copy" is also copies, and "Harmonic basis,
    geometry-adaptive" is said the other way round."""
    words = " ".join(reversed(term.split(", ")))
    if words.isupper():  # an abbreviation
        return re.escape(words)
    start, end = words[:-1], words[-1]
    last = "(?:y|ies)" if end == "y" else re.escape(end) + "(?:s|es)?"
    initial = f"[{start[0].upper()}{start[0].lower()}]"
    return initial + re.escape(start[1:]).replace(r"\ ", r"\s+") + last


def meanings(document: nodes.document) -> dict[str, tuple[str, list[nodes.Node]]]:
    """The terms of a page's glossary: for each the anchor of its entry, and its first paragraph."""
    found = {}
    for item in document.findall(nodes.definition_list_item):
        for term in item.findall(nodes.term):
            paragraph = next(item.findall(nodes.paragraph), None)
            if term["ids"] and paragraph is not None:
                found[term.astext()] = term["ids"][0], paragraph.children
    return found


def explained(
    text: str, unused: dict[str, tuple[str, list[nodes.Node]]], page: str
) -> Iterator[nodes.Node]:
    """A sentence's nodes, with the meaning behind each term that is still unused."""
    while unused:
        longest = sorted(unused, key=len, reverse=True)
        pattern = "|".join(f"({forms(term)})" for term in longest)
        match = re.search(rf"(?<![\w-])(?:{pattern})(?![\w-])", text)
        if match is None:
            break
        anchor, words = unused.pop(longest[(match.lastindex or 1) - 1])
        name = f"meaning-{anchor}"
        yield nodes.Text(text[: match.start()])
        opening = f'<a class="term" href="{page}#{anchor}" aria-describedby="{name}">'
        yield nodes.raw("", opening, format="html")
        yield nodes.Text(match[0])
        tip = f'</a><span class="meaning" role="tooltip" id="{name}">'
        yield nodes.raw("", tip, format="html")
        yield from (node.deepcopy() for node in words)
        yield nodes.raw("", "</span>", format="html")
        text = text[match.end() :]
    yield nodes.Text(text)


def setup(app: Any) -> dict[str, bool]:
    """Connects the glossary to Sphinx's pages."""

    def explain(app: Any, document: nodes.document, name: str) -> None:
        terms = app.env.domaindata["std"]["terms"].values()
        pages = {page for page, _ in terms}
        if not pages or not number(Path(name)):
            return
        page = min(pages)
        unused = meanings(app.env.get_doctree(page))
        address = app.builder.get_relative_uri(name, page)
        for paragraph in list(document.findall(nodes.paragraph)):
            above, node = set(), paragraph
            while node.parent is not None:
                node = node.parent
                above.add(node.tagname)
            if above & set(SKIPPED) or {"caption", "legend", "table"} & above:
                continue
            for text in [child for child in paragraph.children if isinstance(child, nodes.Text)]:
                paragraph.replace(text, list(explained(text.astext(), unused, address)))

    app.connect("doctree-resolved", explain)
    return {"parallel_read_safe": True}
