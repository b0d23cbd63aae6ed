"""The built site as one zip that opens by a double click: no server, and no network."""

import base64
import io
import os
import re
import zipfile
from pathlib import Path

from helpers.files import write_atomically

SHIM = Path(__file__).with_name("archive.js")
# what no page asks for: for the build, for other sites, for the tests, other languages of the theme
LEFT = re.compile(
    r"\.buildinfo|built|objects\.inv|_static/locales/.*|_static/labs/[^/]+/check\.json"
)
# what scripts fetch; pictures are elements of the page, which may be files
FETCHED = re.compile(r"_static/(labs|ort)/.*(?<!\.webp)(?<!\.png)")
MODULE = re.compile(r'<script type="module" src="([^"?]*)[^"]*">')
IMPORT = re.compile(r"^\s*(?:import|export)\b.*", re.M)
# Sphinx would fetch each page that it finds for the sentence around the word.
SUMMARY = "SHOW_SEARCH_SUMMARY: true", "SHOW_SEARCH_SUMMARY: false"
# A file's worker, and the ONNX runtime in it, come from texts, and the page's policy is theirs too.
RULES = {
    "script-src 'self'": "script-src 'self' blob: 'wasm-unsafe-eval'",
    "worker-src 'self'": "worker-src blob:",
}
THEN = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip knows: equal sites are equal bytes


def classic(module: str, name: str = "module") -> str:
    """A module that imports nothing, as a script for `carry` of archive.js.

    Raises ValueError where a line of it still imports or exports: `name` says of which file."""
    text = re.sub(r"^export default ", "void ", module, flags=re.M)
    text = re.sub(r"^export (?=(?:async |const |let |class |function))", "", text, flags=re.M)
    text = text.replace("import.meta.url", "here").replace("import(", "load(")
    if line := IMPORT.search(text):
        raise ValueError(f"{name} is no module that stands alone: {line[0].strip()!r}")
    return f'carry(function (here, fetch, load, Worker) {{\n"use strict";\n{text}\n}});\n'


def carried(site: Path) -> dict[str, bytes]:
    """The files of the archive of a built `site`, by their names in it.

    Raises ValueError where the site is not built, or has what cannot be carried."""
    if not (site / "index.html").is_file():
        raise ValueError(f"no site in {site}; run `python -m press build` first")
    found = sorted(file for file in site.rglob("*") if file.is_file())
    files = {file.relative_to(site).as_posix(): file.read_bytes() for file in found}
    files = {name: data for name, data in files.items() if not LEFT.fullmatch(name)}
    modules = {"_static/" + SHIM.name: SHIM.read_bytes()}
    for name in [name for name in files if name.endswith(".html")]:
        html = files[name].decode()
        for rule, more in RULES.items():
            html = html.replace(rule, more, 1)
        for address in dict.fromkeys(MODULE.findall(html)):
            path = os.path.normpath(Path(name).parent / address)
            path = Path(path).as_posix()
            modules[path] = classic(files[path].decode(), path).encode()
        if first := MODULE.search(html):
            shim = os.path.relpath("_static/" + SHIM.name, Path(name).parent)
            before = f'<script defer src="{Path(shim).as_posix()}"></script>\n    '
            html = html[: first.start()] + before + html[first.start() :]
        files[name] = MODULE.sub(r'<script defer src="\1">', html).encode()
    options = "_static/documentation_options.js"
    files[options] = files[options].decode().replace(*SUMMARY).encode()
    for name in [name for name in files if FETCHED.fullmatch(name)]:
        data = base64.b64encode(files.pop(name)).decode()
        files[f"{name}.js"] = f'carried = "{data}";\n'.encode()
    return files | modules


def pack(site: Path, target: Path) -> None:
    """Writes the archive of a built `site` to `target`: one folder, named as the file is."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(carried(site).items()):
            entry = zipfile.ZipInfo(f"{target.stem}/{name}", THEN)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    write_atomically(target, data.getvalue())
