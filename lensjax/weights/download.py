"""Downloads official pretrained weights to the user's cache folder."""

import dataclasses
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import platformdirs
from filelock import FileLock, Timeout

import lensjax
from lensjax.errors import UserError
from lensjax.weights.torch_files import detect_format, file_sha256

CHUNK = 1 << 20
MB = 1_000_000


@dataclasses.dataclass(frozen=True)
class OfficialFile:
    """A weight file published by its authors.

    Attributes:
      url: address of the file.
      sha256: published first digits of its SHA-256; "" if there are none.
    """

    url: str
    sha256: str


OFFICIAL_FILES = {
    # File names of PyTorch's hub end with the first eight digits of the SHA-256.
    "resnet18": OfficialFile("https://download.pytorch.org/models/resnet18-f37072fd.pth", sha256="f37072fd"),
    # Published without a hash.
    "dino_vits16": OfficialFile(
        "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
        sha256="",
    ),
}


def weights_folder() -> Path:
    """Folder of downloaded files, inside $LENSJAX_CACHE or the user's default cache folder."""
    given = os.environ.get("LENSJAX_CACHE")
    root = Path(given).expanduser() if given else platformdirs.user_cache_path("lensjax")
    return root / "weights"


def fetch(
    official: OfficialFile,
    folder: str | os.PathLike[str],
    *,
    sha256: str = "",
    report: Callable[[int, int], object] = lambda done, total: None,
    https_only: bool = True,
    timeout: float = 30.0,
) -> tuple[Path, str]:
    """Downloads a file, or returns it from `folder` if it was downloaded before.

    An interrupted download leaves a .part file. The next call resumes the download if the server still has
    the same file. The file gets its final name only after its SHA-256 is verified.

    Args:
      official: the file to download.
      folder: destination folder; created if needed.
      sha256: first digits of the expected SHA-256, in addition to the published ones.
      report: called with the number of downloaded bytes and the size of the file in bytes, 0 if unknown.
      https_only: whether to reject schemes other than https, including after redirects.
      timeout: maximum time to wait for data from the server, seconds.

    Returns:
      The file and its SHA-256.

    Raises:
      UserError: if the server cannot be reached or does not have the file, the connection is lost, the file
        has a different SHA-256 or is not a weight file, it cannot be written, or another process is
        downloading it.
    """
    folder = Path(folder)
    target = folder / Path(urlsplit(official.url).path).name
    expected = [digits.lower() for digits in (official.sha256, sha256) if digits]
    if target.exists():
        digest = file_sha256(target)
        if not all(map(digest.startswith, expected)):
            raise UserError(
                f"{target} has SHA-256 {digest}, expected {' and '.join(expected)}: a different or damaged "
                "file; remove it and rerun the command"
            )
        return target, digest
    part = target.with_name(f"{target.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{part}.lock").acquire(blocking=False):
            _transfer(official.url, part, target, report, https_only, timeout)
            digest = file_sha256(part)
            if not all(map(digest.startswith, expected)):
                _remove(part)
                raise UserError(
                    f"{official.url} has SHA-256 {digest}, expected {' and '.join(expected)}; the "
                    "download was deleted"
                )
            try:
                detect_format(part)
            except UserError:
                _remove(part)
                raise
            part.replace(target)
            _remove(part)
    except Timeout:
        raise UserError(f"{target} is being downloaded by another process; wait for it") from None
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: cannot write: {error.strerror or error}; set LENSJAX_CACHE to "
            "another folder"
        ) from None
    return target, digest


def _transfer(
    url: str, part: Path, target: Path, report: Callable[[int, int], object], https_only: bool, timeout: float
) -> None:
    """Downloads into `part`, and resumes at its end if the server supports this.

    Raises:
      UserError: if the network fails.
      OSError: if the file cannot be written.
    """
    with _open(url, part, target, https_only, timeout) as response:
        done = part.stat().st_size if _is_continuation(response, part) else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else 0
        if not done:
            _store_tag(part, response)
        with part.open("ab" if done else "wb") as stream:
            while True:
                report(done, total)
                try:
                    chunk = response.read(CHUNK)
                except (OSError, http.client.HTTPException):
                    raise _connection_error(url, done, total) from None
                if not chunk:
                    break
                stream.write(chunk)
                done += len(chunk)
        if done < total:
            raise _connection_error(url, done, total)


def _open(url: str, part: Path, target: Path, https_only: bool, timeout: float) -> Any:
    """Requests the file, or the rest of it, and returns the server's response."""
    if https_only:
        _check_https(url)
    request = urllib.request.Request(url)
    request.add_header("User-Agent", f"lensjax/{lensjax.__version__}")
    tag = _tag_file(part)
    if part.exists() and part.stat().st_size and tag.exists():
        request.add_header("Range", f"bytes={part.stat().st_size}-")
        request.add_header("If-Range", tag.read_text())
    opener = urllib.request.build_opener(_Redirects(https_only))
    try:
        return opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.exists():
            _remove(part)
            return _open(url, part, target, https_only, timeout)
        raise UserError(
            f"{url}: the server responded {error.code} {error.reason}; if the file has moved, download it "
            f"from its new address and save it as {target}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{url}: cannot connect ({reason}); download it on another machine, save it as {target}, and "
            "rerun the command"
        ) from None


def _is_continuation(response: Any, part: Path) -> bool:
    """Returns whether the response is the rest of the file after the end of `part`."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT or not part.exists():
        return False
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != part.stat().st_size:
        raise UserError("the server sent a different part of the file than requested; try again later")
    return True


def _store_tag(part: Path, response: Any) -> None:
    """Stores the response's tag, which identifies the version of the file when the download resumes."""
    tag = response.headers.get("ETag", "")
    if not tag or tag.startswith("W/"):
        tag = response.headers.get("Last-Modified", "")
    _remove(part)
    if tag:
        _tag_file(part).write_text(tag)


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _connection_error(url: str, done: int, total: int) -> UserError:
    of_all = f" of {total / MB:.1f}" if total else ""
    return UserError(
        f"{url}: connection lost after {done / MB:.1f}{of_all} MB; rerun the command to resume, or to "
        "restart if the server cannot resume"
    )


def _check_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise UserError(f"{url}: not https; weights are downloaded only over https")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; optionally rejects those to schemes other than https."""

    def __init__(self, https_only: bool) -> None:
        self._https_only = https_only

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Returns the request for the new address."""
        if self._https_only:
            _check_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
