"""Downloads go on where they were interrupted, are checked, and appear whole or not at all."""

import hashlib
import io
import random
import sys
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pooch
import pytest
from faces import JPEGS

from helpers.data import celeba_download, download, download_celeba, load

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Hands out CONTENT and breaks the connection after each `breaks_after` bytes; keeps what it
    was asked for."""

    def __init__(self, continues: bool, breaks_after: int):
        self.continues, self.breaks_after, self.asked = continues, breaks_after, []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/file")
            return self.end_headers()
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = (
            int(wanted.removeprefix("bytes=").rstrip("-"))
            if wanted and self.server.continues
            else 0
        )
        status = 416 if start >= len(CONTENT) else 206 if start else 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        if status != 416:
            self.wfile.write(CONTENT[start:][: self.server.breaks_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    servers = []

    def start(continues=True, breaks_after=1_000_000):
        servers.append(Server(continues, breaks_after))
        address = f"http://127.0.0.1:{servers[-1].server_port}"
        # in place of https://, for which a test has no certificate
        monkeypatch.setattr(download, "SECURE", address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setattr(download, "PART", 1000)
        return servers[-1], address

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def retrieve(address, folder, checksum=SHA256):
    return pooch.retrieve(
        f"{address}/file", f"sha256:{checksum}", "file", folder, downloader=download.resumed
    )


def test_a_broken_download_goes_on_where_it_ended(serve, tmp_path):
    server, address = serve(breaks_after=100_000)
    for there in (100_000, 200_000):
        with pytest.raises(OSError):
            retrieve(address, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".file.part"], (
            "nothing that looks whole"
        )
        assert (tmp_path / ".file.part").read_bytes() == CONTENT[:there]
    retrieve(address, tmp_path)
    assert (tmp_path / "file").read_bytes() == CONTENT and [
        path.name for path in tmp_path.iterdir()
    ] == ["file"]
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]
    retrieve(address, tmp_path)
    assert len(server.asked) == 3, "it is there"


def test_a_server_that_does_not_continue_files_begins_again(serve, tmp_path):
    _, address = serve(continues=False)
    (tmp_path / ".file.part").write_bytes(CONTENT[:50_000])
    retrieve(address, tmp_path)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_what_was_whole_but_not_in_its_place_is_taken(serve, tmp_path):
    _, address = serve()
    (tmp_path / ".file.part").write_bytes(CONTENT)
    retrieve(address, tmp_path)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_another_content_is_refused_and_the_next_call_begins_again(serve, tmp_path):
    server, address = serve()
    (tmp_path / ".file.part").write_bytes(bytes(50_000))
    with pytest.raises(ValueError, match="hash"):
        retrieve(address, tmp_path)
    assert list(tmp_path.iterdir()) == []
    retrieve(address, tmp_path)
    assert server.asked == ["bytes=50000-", None]


def test_only_secure_addresses_are_asked(serve, tmp_path):
    server, address = serve()
    for url in ("http://example.org/file", "ftp://example.org/file", "file:///etc/passwd"):
        with pytest.raises(ValueError, match="is not secure: take an address that begins with"):
            download.resumed(url, tmp_path / "file")
    with pytest.raises(
        ValueError, match="elsewhere leads to http://localhost:.*, which is not secure"
    ):
        download.resumed(f"{address}/elsewhere", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


# CelebA -------------------------------------------------------------------------------------------


@pytest.fixture
def drive(tmp_path, monkeypatch):
    """A server on this machine in place of Google's, and what it hands out."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number in (1, 2, 182_638):
            archive.writestr(f"img_align_celeba/{number:06d}.jpg", JPEGS[number % 12])
    (tmp_path / "server").mkdir()
    (tmp_path / "server/celeba").write_bytes(content.getvalue())
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "server")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(
        celeba_download, "DRIVE", f"http://127.0.0.1:{server.server_port}/celeba?id=1"
    )
    monkeypatch.setattr(celeba_download, "MD5", hashlib.md5(content.getvalue()).hexdigest())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CELEBA_ROOT", str(tmp_path / "faces"))
    yield tmp_path / "server/celeba"
    server.shutdown()
    server.server_close()


def test_faces_come_after_the_terms_are_accepted(drive, tmp_path):
    pytest.importorskip("gdown", reason="pip install 'creative-denoiser[celeba]'")
    for accepted in ({}, {"accept_terms": False}):
        with pytest.raises(
            ValueError, match="non-commercial research only .* pass accept_terms=True"
        ):
            download_celeba(tmp_path / "faces", **accepted)
    assert not (tmp_path / "faces").exists()
    download_celeba(tmp_path / "faces", accept_terms=True)
    assert (len(load("celeba")), len(load("celeba", "test"))) == (2, 1)
    drive.unlink()
    download_celeba(tmp_path / "faces", accept_terms=True)  # they are there


@pytest.mark.parametrize(
    "fault", ["absent", "another file", "no library", "library that does not fit"]
)
def test_what_goes_wrong_with_faces_names_the_ways_left(fault, drive, tmp_path, monkeypatch):
    said = f"put img_align_celeba.zip from https://mmlab.* into {tmp_path / 'faces'} by hand, .*CELEBA_ROOT .*dataset="
    if "library" in fault:
        (tmp_path / "gdown.py").write_text(
            "raise RuntimeError('operator torchvision::nms does not exist')"
        )
        monkeypatch.delitem(sys.modules, "gdown", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        if fault == "no library":
            monkeypatch.setitem(sys.modules, "gdown", None)
        said = f"gdown cannot be imported .*: pip install 'creative-denoiser.celeba.'; .*{said}"
    else:
        pytest.importorskip("gdown", reason="pip install 'creative-denoiser[celeba]'")
        drive.unlink() if fault == "absent" else drive.write_text(
            "<html>too many have asked for this file</html>"
        )
    with pytest.raises(ValueError, match=said):
        download_celeba(tmp_path / "faces", accept_terms=True)
    assert not list((tmp_path / "faces").glob("img*"))


def test_faces_from_a_data_set_of_the_hub(drive, tmp_path):
    datasets = pytest.importorskip("datasets", reason="pip install 'creative-denoiser[celeba]'")
    import pyarrow.parquet  # comes with datasets

    splits, folder = {"train": [0, 1, 2], "valid": [3], "test": [4, 5]}, tmp_path / "hub/data"
    folder.mkdir(parents=True)
    for split, numbers in splits.items():
        rows = {"label": numbers, "face": [{"bytes": JPEGS[i], "path": None} for i in numbers]}
        kinds = datasets.Features({"label": datasets.Value("int64"), "face": datasets.Image()})
        table = pyarrow.Table.from_pydict(rows, kinds.arrow_schema)
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
    download_celeba(tmp_path / "faces", accept_terms=True, dataset=str(tmp_path / "hub"))
    assert (len(load("celeba")), len(load("celeba", "test"))) == (4, 2)
    (folder / "test.parquet").unlink()
    for other in (tmp_path / "hub", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=f"{other} did not arrive .*: try again, or put"):
            download_celeba(tmp_path / "more", accept_terms=True, dataset=str(other))
