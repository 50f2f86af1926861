"""Downloads from a local HTTP server: complete, resumed, and with every kind of failure."""

import functools
import hashlib
import http.client
import http.server
import threading

import pytest

from lensjax.errors import UserError
from lensjax.weights import download
from lensjax.weights.download import OfficialFile

# Starts like a checkpoint and is larger than one chunk.
CONTENT = b"PK\x03\x04" + bytes(range(256)) * 10_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
fetch = functools.partial(download.fetch, https_only=False, timeout=5)


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        if server.redirect_to and self.path != "/moved/net.pth":
            self.send_response(302)
            self.send_header("Location", server.redirect_to)
            self.end_headers()
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        start = 0
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, server.tag)
        if asked and server.ranges and same:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            total = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(body[: server.drop_after])


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.content, running.tag, running.ranges = CONTENT, '"one"', True
        running.status, running.drop_after, running.redirect_to = 200, None, None
        running.requests = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.url = f"http://127.0.0.1:{running.server_address[1]}/net.pth"
        yield running
        running.shutdown()
        thread.join()


def drop(server, folder, after=1_500_000):
    """Downloads from a server that closes the connection halfway."""
    server.drop_after = after
    with pytest.raises(UserError, match=r"connection lost after 1\.5 of 2\.6 MB"):
        fetch(OfficialFile(server.url, DIGEST[:8]), folder)
    server.drop_after = None


def temporary_files(folder):
    return {path.name for path in folder.iterdir()} - {"net.pth", "net.pth.part.lock"}


def test_download_returns_hash_and_reports_progress(server, tmp_path):
    seen = []
    file, digest = fetch(
        OfficialFile(server.url, DIGEST[:8]),
        tmp_path / "new",
        sha256=DIGEST.upper(),
        report=lambda *pair: seen.append(pair),
    )
    assert file.read_bytes() == CONTENT
    assert digest == DIGEST
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert not temporary_files(tmp_path / "new")


def test_existing_file_is_not_downloaded_again(server, tmp_path):
    official = OfficialFile(server.url, DIGEST[:8])
    fetch(official, tmp_path)
    assert fetch(official, tmp_path)[1] == DIGEST
    assert len(server.requests) == 1
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=r"expected \w{8}: a different or damaged file; remove"):
        fetch(official, tmp_path)


def test_interrupted_download_is_resumed(server, tmp_path):
    drop(server, tmp_path)
    file, _ = fetch(OfficialFile(server.url, DIGEST[:8]), tmp_path)
    assert file.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=1500000-"]
    assert not temporary_files(tmp_path)


@pytest.mark.parametrize("change", ["no ranges", "another version", "no tag"])
def test_download_restarts_if_it_cannot_resume(server, tmp_path, change):
    if change == "no tag":
        server.tag = None
    drop(server, tmp_path)
    if change == "no ranges":
        server.ranges = False
    if change == "another version":
        server.tag, server.content = '"two"', CONTENT[::-1].replace(b"\xff", b"PK\x03\x04", 1)
    file, _ = fetch(OfficialFile(server.url, ""), tmp_path)
    assert file.read_bytes() == server.content
    assert not temporary_files(tmp_path)


def test_complete_part_file_is_downloaded_again(server, tmp_path):
    drop(server, tmp_path)
    (tmp_path / "net.pth.part").write_bytes(CONTENT)
    assert fetch(OfficialFile(server.url, ""), tmp_path)[1] == DIGEST
    # The server has nothing after the end of the part file, and the file is requested again from its start.
    assert [asked for _, asked in server.requests] == [None, f"bytes={len(CONTENT)}-", None]


@pytest.mark.parametrize(("published", "given"), [("00000000", ""), ("", "0")])
def test_file_with_wrong_hash_is_deleted(server, tmp_path, published, given):
    with pytest.raises(UserError, match=rf"has SHA-256 {DIGEST}, expected 0+; .* deleted"):
        fetch(OfficialFile(server.url, published), tmp_path, sha256=given)
    assert not (tmp_path / "net.pth").exists()
    assert not temporary_files(tmp_path)


def test_web_page_instead_of_file_is_deleted(server, tmp_path):
    server.content = b"<html>Please log in</html>"
    with pytest.raises(UserError, match="is a web page"):
        fetch(OfficialFile(server.url, ""), tmp_path)
    assert not (tmp_path / "net.pth").exists()
    assert not temporary_files(tmp_path)


@pytest.mark.parametrize("status", [404, 503])
def test_server_error_has_path_for_manual_download(server, tmp_path, status):
    server.status = status
    place = tmp_path / "net.pth"
    with pytest.raises(UserError, match=rf"{server.url}: the server responded {status} .* {place}"):
        fetch(OfficialFile(server.url, ""), tmp_path)


def test_network_error_has_url_and_path(server, tmp_path):
    url = server.url
    server.server_close()
    place = tmp_path / "net.pth"
    with pytest.raises(UserError, match=rf"^{url}: cannot connect .* save it as {place}, and rerun"):
        fetch(OfficialFile(url, ""), tmp_path)
    assert not temporary_files(tmp_path)


def test_url_without_https_is_rejected(server, tmp_path):
    with pytest.raises(UserError, match=f"{server.url}: not https"):
        download.fetch(OfficialFile(server.url, ""), tmp_path)
    assert not server.requests


@pytest.fixture
def https_server(server, monkeypatch):
    """The server under an https address; connections are not encrypted."""
    monkeypatch.setattr(http.client.HTTPSConnection, "connect", http.client.HTTPConnection.connect)
    server.url = server.url.replace("http:", "https:")
    return server


def test_redirect_within_https_is_followed(https_server, tmp_path):
    https_server.redirect_to = "/moved/net.pth"
    assert download.fetch(OfficialFile(https_server.url, ""), tmp_path)[1] == DIGEST
    assert [path for path, _ in https_server.requests] == ["/net.pth", "/moved/net.pth"]


def test_redirect_away_from_https_is_rejected(https_server, tmp_path):
    https_server.redirect_to = "http://127.0.0.1:9/moved/net.pth"
    with pytest.raises(UserError, match=r"^http://127\.0\.0\.1:9/moved/net\.pth: not https"):
        download.fetch(OfficialFile(https_server.url, ""), tmp_path)
    assert [path for path, _ in https_server.requests] == ["/net.pth"]
    assert not temporary_files(tmp_path)


def test_concurrent_download_of_a_file_is_rejected(server, tmp_path):
    lock = download.FileLock(tmp_path / "net.pth.part.lock")
    with lock, pytest.raises(UserError, match="is being downloaded by another process"):
        fetch(OfficialFile(server.url, ""), tmp_path)


def test_unwritable_folder_is_reported(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*: cannot write: .*; set LENSJAX_CACHE"):
        fetch(OfficialFile(server.url, ""), tmp_path / "file" / "weights")


def test_official_urls_are_https_and_resnet18_has_hash():
    assert all(official.url.startswith("https://") for official in download.OFFICIAL_FILES.values())
    resnet18 = download.OFFICIAL_FILES["resnet18"]
    assert resnet18.url.endswith(f"resnet18-{resnet18.sha256}.pth")


def test_LENSJAX_CACHE_sets_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LENSJAX_CACHE", str(tmp_path))
    assert download.weights_folder() == tmp_path / "weights"
    monkeypatch.delenv("LENSJAX_CACHE")
    assert download.weights_folder().parts[-2:] == ("lensjax", "weights")
