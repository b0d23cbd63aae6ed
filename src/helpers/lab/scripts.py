"""The labs' scripts, written as modules in static/ and used as one text."""

import re
from pathlib import Path

STATIC = Path(__file__).with_name("static")
IMPORT = re.compile(r'^import \{[^{}]*\} from "\./([\w-]+\.js)";\n', re.M)


def joined(entry: str = "main.js") -> str:
    """A module of static/ after all that it imports, each once and without its lines of imports.

    Jupyter and Colab take a widget's script as one text, where pip has installed the package and
    there is no node to bundle it; a page loads one file sooner than a dozen, and its worker runs
    the file that started it. So both get this text. It means what the modules mean as long as no
    two have a name in common on their top level and no import gives another name; tests hold
    them to that.
    """
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        if name not in texts:
            text = (STATIC / name).read_text(encoding="utf-8")
            for needed in IMPORT.findall(text):
                add(needed)
            texts[name] = IMPORT.sub("", text)

    add(entry)
    return "\n".join(texts.values())
