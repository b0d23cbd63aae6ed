"""Downloads that go on where they were interrupted."""

import os
from pathlib import Path
from typing import Any

SECURE = "https://"
PART = 2**20  # bytes


def resumed(url: str, output_file: str, pooch: Any = None) -> None:
    """A downloader for `pooch.retrieve`, which checks what has come and puts it in its place in one
    step.

    What has come is kept in a hidden file beside it until it is whole. A server that does not
    continue files begins again. Raises ValueError for an address, also one to which a server sends
    us on, that is not https; OSError when
    the connection breaks: then call it again.
    """
    import requests

    part = Path(output_file).with_name(f".{url.rsplit('/', 1)[-1]}.part")
    there = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={there}-"} if there else {})}
    if not url.startswith(SECURE):
        raise ValueError(f"{url} is not secure: take an address that begins with {SECURE}")
    with requests.get(url, headers=headers, stream=True, timeout=60) as answer:
        if not answer.url.startswith(SECURE):
            raise ValueError(
                f"{url} leads to {answer.url}, which is not secure: try again elsewhere"
            )
        if answer.status_code != requests.codes.range_not_satisfiable:  # else it is all there
            answer.raise_for_status()
            with open(
                part, "ab" if answer.status_code == requests.codes.partial_content else "wb"
            ) as file:
                for chunk in answer.iter_content(PART):
                    file.write(chunk)
    os.replace(part, output_file)
