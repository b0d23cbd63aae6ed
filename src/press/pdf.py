"""The book as one PDF: Chromium prints each built page, pypdf joins them."""

import io
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urldefrag, urlsplit

import yaml
from playwright.sync_api import Playwright, Route, ViewportSize, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import (
    ArrayObject,
    DictionaryObject,
    FloatObject,
    NameObject,
    NullObject,
    TextStringObject,
)

from helpers.files import write_atomically
from press.chapters import Book
from press.tags import Tags

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()
COLUMN: ViewportSize = {
    "width": 665,
    "height": 900,
}  # pixels between the margins of an A4 page, so that figures are drawn to fit
# where Chromium believes the pages to be; nothing leaves this machine
SITE = "https://book.invalid/"
TIMEOUT = 300_000  # milliseconds: a loaded machine is slow, not wrong

# Chromium notes the place of an id only where a link of the page leads to it; other pages lead
# there too.
NAME_PLACES = """() => document.body.append(...[...document.querySelectorAll("article [id]")].map(
    (place) => Object.assign(document.createElement("a"), { href: "#" + place.id, hidden: true })))"""
DRAW = """async () => {
    dispatchEvent(new Event("beforeprint"));
    if (window.MathJax) await MathJax.startup.promise;
    await document.fonts.ready;
    // but for stills, whose figures are about to be drawn
    for (const image of [...document.images].filter((i) => !i.closest(".plotly-target"))) {
        image.loading = "eager"; // what is lazy and far down never comes
        await image.decode();
    }
}"""
DRAWN = '() => [...document.querySelectorAll(".plotly-target")].every((target) => target.querySelector(".main-svg"))'
# Tags are for a picture with its description, not for each stroke of a drawing, nor for the frame
# around a picture a second time; and Chromium knows code by its role alone.
DESCRIBE = """async () => {
    for (const drawing of document.querySelectorAll(".plotly-target")) {
        const { offsetWidth: width, offsetHeight: height, ariaLabel: alt } = drawing;
        const src = await Plotly.toImage(drawing, { format: "svg", width, height });
        const picture = Object.assign(new Image(), { src, width, height, alt });
        await picture.decode();
        drawing.replaceChildren(picture);
    }
    for (const frame of document.querySelectorAll("figure:not([aria-label])")) frame.role = "group";
    for (const code of document.querySelectorAll("pre")) code.role = "code";
}"""


def chromium(playwright: Playwright) -> str | None:
    """The path of a Chromium: $CHROMIUM, one on the PATH, or playwright's own; None where there is
    none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = [
        os.environ.get("CHROMIUM"),
        *map(shutil.which, names),
        playwright.chromium.executable_path,
    ]
    return next((path for path in found if path and Path(path).is_file()), None)


class Printer:
    """Prints pages of a built site, numbered from first to last: `with Printer(site) as printer`.

    Raises ValueError where there is no Chromium."""

    def __init__(self, site: Path):
        self.site = site

    def __enter__(self) -> "Printer":
        self.playwright = sync_playwright().start()
        path = chromium(self.playwright)
        if path is None:
            self.__exit__()
            raise ValueError(
                "no Chromium to print with: install one, or set CHROMIUM to the path of its program"
            )
        self.tab = self.playwright.chromium.launch(executable_path=path, args=FLAGS).new_page(
            viewport=COLUMN
        )
        self.tab.set_default_timeout(TIMEOUT)
        self.tab.emulate_media(media="print", reduced_motion="reduce")
        self.tab.route("**/*", self.fulfil)
        return self

    def __exit__(self, *error: Any) -> None:
        self.playwright.stop()

    def fulfil(self, route: Route) -> None:
        """Answers with a file of the site, and with nothing else."""
        path = self.site / unquote(urlsplit(route.request.url).path).lstrip("/")
        if route.request.url.startswith(SITE) and path.is_file():
            route.fulfill(path=path)
        else:
            route.abort()

    def print(self, page: str, before: int) -> PdfReader:
        """A page as PDF, on which `before` printed pages follow; its links are addresses of the
        site."""
        self.tab.goto(SITE + page)
        self.tab.evaluate(DRAW)
        self.tab.wait_for_function(DRAWN)
        self.tab.evaluate(DESCRIBE)
        self.tab.evaluate(NAME_PLACES)
        self.tab.add_style_tag(content=f"html {{ counter-reset: page {before} }}")
        reader = PdfReader(io.BytesIO(self.tab.pdf(prefer_css_page_size=True, tagged=True)))
        for link in links(reader.pages):
            if "/Dest" in link:
                address = TextStringObject(
                    f"{SITE}{page}#{str(link.pop(NameObject('/Dest'))).lstrip('/')}"
                )
                link[NameObject("/A")] = DictionaryObject(
                    {NameObject("/S"): NameObject("/URI"), NameObject("/URI"): address}
                )
        return reader


def links(pages: Iterable[Any]) -> list[Any]:
    found = [note.get_object() for page in pages for note in page.get("/Annots", [])]
    return [note for note in found if note["/Subtype"] == "/Link"]


def parts(book: Book) -> dict[str, str]:
    """The caption of the part in which a page of `_toc.yml` stands, for pages that stand in one."""
    toc = yaml.safe_load((book.root / "_toc.yml").read_text(encoding="utf-8"))
    return {
        entry["file"]: part["caption"]
        for part in toc.get("parts", [])
        for entry in part["chapters"]
    }


def bind(book: Book, pages: list[Path], target: Path) -> int:
    """Writes the built `pages` of the book to `target` as one PDF with bookmarks; returns the
    number of its pages.

    Raises ValueError where the site is not built or there is no Chromium."""
    site, captions = book.root / "build" / "site", parts(book)
    missing = [page.stem for page in pages if not (site / page.with_suffix(".html")).is_file()]
    if missing:
        raise ValueError(f"not built yet: {', '.join(missing)}; run `python -m press build` first")
    writer, part, parent = PdfWriter(), None, None
    tags = Tags(writer, str(book.config.get("sphinx", {}).get("config", {}).get("language", "en")))
    places: dict[str, tuple[int, float | None]] = {}  # address -> number of its page, height on it
    with Printer(site) as printer:
        for page in pages:
            first, name = len(writer.pages), page.with_suffix(".html").as_posix()
            reader = printer.print(quote(name), first)
            places[name] = first, None
            for anchor, place in reader.named_destinations.items():
                number = reader.get_destination_page_number(place)
                if number is not None:
                    places[f"{name}#{unquote(anchor.lstrip('/'))}"] = first + number, place.top
            title = str(reader.metadata.title if reader.metadata else page.stem).rsplit(" — ", 1)[0]
            writer.append(reader, import_outline=False)
            tags.add(reader, first, title)
            if part != (part := captions.get(page.with_suffix("").as_posix())):
                parent = writer.add_outline_item(title=part, page_number=first) if part else None
            writer.add_outline_item(title=title, page_number=first, parent=parent)
        lead(writer, places)
    tags.close()
    for names in ("/Names", "/Dests"):  # equal on many pages; every link now says the place itself
        writer.root_object.pop(NameObject(names), None)
    writer.add_metadata({"/Title": book.config["title"], "/Author": book.config["author"]})
    writer.compress_identical_objects(remove_duplicates=True, remove_unreferenced=True)
    data = io.BytesIO()
    writer.write(data)
    write_atomically(target, data.getvalue())
    return len(writer.pages)


def lead(writer: PdfWriter, places: dict[str, tuple[int, float | None]]) -> None:
    """Makes links between pages of the site links within the document; those to pages that are not
    in it go."""
    for link in links(writer.pages):
        uri = str(link["/A"]["/URI"])
        if not uri.startswith(SITE):
            continue
        name = unquote(uri.removeprefix(SITE))
        del link["/A"]
        place = places.get(name) or places.get(urldefrag(name)[0].partition("?")[0])
        if place:
            height = NullObject() if place[1] is None else FloatObject(place[1])
            page = writer.pages[place[0]].indirect_reference
            link[NameObject("/Dest")] = ArrayObject(
                [page, NameObject("/XYZ"), NullObject(), height, NullObject()]
            )
