"""The same pages by Sphinx alone, so that the book outlives its builder."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from press.chapters import Book
from press.finish import finish

# the second is there only because the first sets its options
BUILDER = {"jupyter_book", "sphinx_comments"}


def configuration(book: Book) -> dict[str, Any]:
    """Sphinx's settings, from `_config.yml`: those that it has for Sphinx, and what Jupyter Book
    makes of the rest."""
    config = book.config
    settings, html, repository = config["sphinx"]["config"], config["html"], config["repository"]
    return settings | {
        "project": config["title"],
        "html_title": config["title"],
        "author": config["author"],
        "copyright": config["copyright"],
        "exclude_patterns": config["exclude_patterns"],
        "extensions": [name for name in settings["extensions"] if name not in BUILDER],
        "external_toc_exclude_missing": config["only_build_toc_files"],
        "myst_enable_extensions": config["parse"]["myst_enable_extensions"],
        "nb_execution_mode": config["execute"]["execute_notebooks"],
        "nb_output_stderr": config["execute"]["stderr_output"],
        "numfig": True,
        "html_theme": "sphinx_book_theme",
        "html_baseurl": html["baseurl"],
        "html_favicon": html["favicon"],
        "html_theme_options": {
            "launch_buttons": config["launch_buttons"],
            "repository_url": repository["url"],
            "repository_branch": repository["branch"],
            "use_repository_button": html["use_repository_button"],
            "use_issues_button": html["use_issues_button"],
            "extra_footer": html["extra_footer"],
            "home_page_in_toc": True,
        },
    }


def build(book: Book, source: Path, target: Path) -> Path:
    """Builds the pages of an assembled `source` into `target` and returns the first of them.

    Raises ValueError where Sphinx has any warning."""
    text = "".join(f"{name} = {value!r}\n" for name, value in configuration(book).items())
    (source / "conf.py").write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-n",
        "-W",
        "--keep-going",
        "-q",
        str(source),
        str(target),
    ]
    status = subprocess.run(command).returncode
    if status:
        raise ValueError(
            f"sphinx ended with {status}: its warnings are above, and each of them is an error"
        )
    finish(target)
    return target / "index.html"
