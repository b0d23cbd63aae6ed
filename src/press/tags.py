"""The tags of a PDF, which say to a screen reader what is a heading, a list, a table, a figure:
those of printed pages, as one tree."""

from typing import Any

from pypdf import PdfReader, PdfWriter
from pypdf.generic import (
    ArrayObject,
    BooleanObject,
    DictionaryObject,
    NameObject,
    NullObject,
    NumberObject,
    TextStringObject,
)

SAID = "/Alt", "/ActualText", "/Lang"


def dictionary(**items: Any) -> DictionaryObject:
    return DictionaryObject({NameObject(f"/{key}"): value for key, value in items.items()})


def number(owner: Any, key: str, value: int) -> None:
    owner[NameObject(key)] = NumberObject(value)


def telling(fact: Any) -> bool:
    """Whether an attribute says something: that a cell is one cell it need not, and the scope of a
    head says of which cells it is one."""
    return "/Headers" not in fact and 1 not in (fact.get("/RowSpan"), fact.get("/ColSpan"))


def kids(element: Any) -> list[Any]:
    found = element.get("/K", [])
    found = found.get_object()
    return list(found) if isinstance(found, list) else [found]


class Tags:
    """One tree for all pages of `writer`, to which `add` brings those of a printed document.

    Chromium tags each letter of a formula with an element that means nothing, /NonStruct; its
    content becomes its parent's, or the tree would weigh more than the book."""

    def __init__(self, writer: PdfWriter, language: str):
        self.writer, self.owners = writer, list[Any]()  # for each key, who owns what has it
        span = NameObject("/Span")  # which readers that are older than the other two know
        roles = dictionary(Em=span, Strong=span)
        self.root = dictionary(Type=NameObject("/StructTreeRoot"), RoleMap=roles)
        root = writer._add_object(self.root)
        self.document = self.element("/Document", root, {})
        self.root[NameObject("/K")] = self.document
        writer.root_object.update(
            dictionary(
                StructTreeRoot=root,
                MarkInfo=dictionary(Marked=BooleanObject(True)),
                Lang=TextStringObject(language),
                ViewerPreferences=dictionary(DisplayDocTitle=BooleanObject(True)),
            )
        )

    def element(self, kind: str, parent: Any, source: Any) -> Any:
        """A reference to a new element with the words of its source and no content yet."""
        made = dictionary(S=NameObject(kind), P=parent, K=ArrayObject())
        made.update({NameObject(key): source[key] for key in SAID if key in source})
        facts = source["/A"].get_object() if "/A" in source else []
        facts = facts if isinstance(facts, list) else [facts]  # the standard allows both
        if worth := [fact.clone(self.writer) for fact in facts if telling(fact)]:
            made[NameObject("/A")] = ArrayObject(worth)
        return self.writer._add_object(made)

    def key(self, owner: Any) -> int:
        self.owners.append(owner)
        return len(self.owners) - 1

    def add(self, reader: PdfReader, first: int, title: str) -> None:
        """Brings the tags of a document whose pages stand in the writer from page `first` on."""
        pages, notes = {}, {}  # by number in the reader: page of the writer; its annotation
        both: Any = zip(reader.pages, self.writer.pages[first:], strict=True)
        for old, new in both:
            owned = ArrayObject()
            pages[old.indirect_reference.idnum] = new.indirect_reference, owned
            number(new, "/StructParents", self.key(self.writer._add_object(owned)))
            for note, ours in zip(old.get("/Annots", []), new.get("/Annots", []), strict=True):
                notes[note.idnum] = ours

        def bring(item: Any, parent: Any, page: Any) -> None:
            """Puts an item and all below it into an element; `page` is where marks lie."""
            element, item = parent.get_object(), item.get_object()
            content = element["/K"]
            if isinstance(item, int):
                place, owned = page
                mark: Any = NumberObject(item)
                if "/Pg" not in element:
                    element[NameObject("/Pg")] = place
                if element.raw_get("/Pg") != place:  # it goes on on another page
                    mark = dictionary(Type=NameObject("/MCR"), Pg=place, MCID=mark)
                content.append(mark)
                owned.extend([NullObject()] * (item + 1 - len(owned)))
                owned[item] = parent
                return
            page = pages[item.raw_get("/Pg").idnum] if "/Pg" in item else page
            if item.get("/Type") == "/MCR":
                bring(item["/MCID"], parent, page)
            elif item.get("/Type") == "/OBJR":
                note = notes[item.raw_get("/Obj").idnum]
                number(note.get_object(), "/StructParent", self.key(parent))
                content.append(dictionary(Type=NameObject("/OBJR"), Obj=note, Pg=page[0]))
            else:
                plain = item["/S"] == "/NonStruct" and not any(key in item for key in SAID)
                inside = parent if plain else self.element(item["/S"], parent, item)
                for kid in kids(item):
                    bring(kid, inside, page)
                if not plain:
                    content.append(inside)

        part = self.element("/Part", self.document, dictionary())
        part.get_object()[NameObject("/T")] = TextStringObject(title)
        self.document.get_object()["/K"].append(part)
        for whole in kids(reader.root_object["/StructTreeRoot"]):
            for kid in kids(whole.get_object()):
                bring(kid, part, None)

    def close(self) -> None:
        """Writes down who owns what, once all is added."""
        pairs = (x for key, owner in enumerate(self.owners) for x in (NumberObject(key), owner))
        self.root[NameObject("/ParentTree")] = dictionary(Nums=ArrayObject(pairs))
        number(self.root, "/ParentTreeNextKey", len(self.owners))
