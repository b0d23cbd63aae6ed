"""Downloads go on where they were interrupted, are checked, and appear whole or not at all."""

import hashlib
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pooch
import pytest

from helpers.data import download

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Hands out CONTENT and breaks the connection after each `breaks_after` bytes; keeps what it was asked for."""

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
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.continues else 0
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
        monkeypatch.setattr(download, "SECURE", address)  # in place of https://, for which a test has no certificate
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setattr(download, "PART", 1000)
        return servers[-1], address

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def retrieve(address, folder, checksum=SHA256):
    return pooch.retrieve(f"{address}/file", f"sha256:{checksum}", "file", folder, downloader=download.resumed)


def test_a_broken_download_goes_on_where_it_ended(serve, tmp_path):
    server, address = serve(breaks_after=100_000)
    for there in (100_000, 200_000):
        with pytest.raises(OSError):
            retrieve(address, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".file.part"], "nothing that looks whole"
        assert (tmp_path / ".file.part").read_bytes() == CONTENT[:there]
    retrieve(address, tmp_path)
    assert (tmp_path / "file").read_bytes() == CONTENT and [path.name for path in tmp_path.iterdir()] == ["file"]
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
    with pytest.raises(ValueError, match="elsewhere leads to http://localhost:.*, which is not secure"):
        download.resumed(f"{address}/elsewhere", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
