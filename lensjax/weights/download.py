"""The official files of pretrained weights, fetched into the user's cache folder."""

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
from lensjax.weights.torch_files import kind_of, sha256_of

CHUNK = 1 << 20
MB = 1_000_000


@dataclasses.dataclass(frozen=True)
class Official:
    """A file that its authors publish.

    Attributes:
      url: where it lies.
      sha256: the first digits of its SHA-256, as far as they are published; "" where none are.
    """

    url: str
    sha256: str


OFFICIAL = {
    # PyTorch's hub ends the names of its files in the first eight digits of their SHA-256.
    "resnet18": Official(
        "https://download.pytorch.org/models/resnet18-f37072fd.pth", sha256="f37072fd"
    ),
    # Published without a hash.
    "dino_vits16": Official(
        "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
        sha256="",
    ),
}


def weights_folder() -> Path:
    """Where fetched files are kept: in the folder LENSJAX_CACHE names, or in the user's cache folder."""
    named = os.environ.get("LENSJAX_CACHE")
    folder = Path(named).expanduser() if named else platformdirs.user_cache_path("lensjax")
    return folder / "weights"


def fetch(
    official: Official,
    folder: Path,
    *,
    sha256: str = "",
    report: Callable[[int, int], object] = lambda done, total: None,
    https_only: bool = True,
    timeout: float = 30.0,
) -> tuple[Path, str]:
    """A file from the network, or from `folder` if it was fetched before.

    An interrupted transfer leaves a .part file, and the next call goes on from there if the server still
    has the same file. The file gets its name once its SHA-256 has been compared.

    Args:
      official: what to fetch.
      folder: where the file goes; made if it is not there.
      sha256: digits that its SHA-256 has to start with, beside the published ones.
      report: called with the bytes there are and the bytes of the whole file, 0 where unknown.
      https_only: whether any other scheme is refused, after redirections too.
      timeout: how long the server may be silent, seconds.

    Returns:
      The file and its SHA-256.

    Raises:
      UserError: the server cannot be reached or has no such file, the connection broke, the file has
        another SHA-256, or it cannot be written.
    """
    target = folder / Path(urlsplit(official.url).path).name
    expected = [digits.lower() for digits in (official.sha256, sha256) if digits]
    if target.exists():
        digest = sha256_of(target)
        if not all(map(digest.startswith, expected)):
            raise UserError(
                f"{target} has SHA-256 {digest}, expected {' and '.join(expected)}: another file, or a "
                "damaged one; remove it and give the same command again"
            )
        return target, digest
    part = target.with_name(f"{target.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{part}.lock").acquire(blocking=False):
            _transfer(official.url, part, target, report, https_only, timeout)
            digest = sha256_of(part)
            if not all(map(digest.startswith, expected)):
                _forget(part)
                raise UserError(
                    f"{official.url} came with SHA-256 {digest}, expected {' and '.join(expected)}; what was "
                    "fetched is deleted"
                )
            try:
                kind_of(part)
            except UserError:
                _forget(part)
                raise
            part.replace(target)
            _forget(part)
    except Timeout:
        raise UserError(f"{target} is being fetched by another process; wait for it") from None
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}; LENSJAX_CACHE may "
            "name another folder"
        ) from None
    return target, digest


def _transfer(
    url: str,
    part: Path,
    target: Path,
    report: Callable[[int, int], object],
    https_only: bool,
    timeout: float,
) -> None:
    """Fetches into `part`, from its end on where the server agrees.

    Raises:
      UserError: of the network.
      OSError: of the disk.
    """
    with _open(url, part, target, https_only, timeout) as response:
        done = part.stat().st_size if _goes_on(response, part) else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else 0
        if not done:
            _remember(part, response)
        with part.open("ab" if done else "wb") as stream:
            while True:
                report(done, total)
                try:
                    chunk = response.read(CHUNK)
                except (OSError, http.client.HTTPException):
                    raise _dropped(url, done, total) from None
                if not chunk:
                    break
                stream.write(chunk)
                done += len(chunk)
        if done < total:
            raise _dropped(url, done, total)


def _open(url: str, part: Path, target: Path, https_only: bool, timeout: float) -> Any:
    """The server's answer to a request for the file, or for the rest of it."""
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
            _forget(part)
            return _open(url, part, target, https_only, timeout)
        raise UserError(
            f"{url}: the server answers {error.code} {error.reason}; if the file has moved, fetch it from "
            f"its new place and put it at {target}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{url} cannot be reached ({reason}); fetch it on a machine that can, put it at {target}, and "
            "give the same command again"
        ) from None


def _goes_on(response: Any, part: Path) -> bool:
    """Whether the answer is the rest of the file from the end of `part` on."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT or not part.exists():
        return False
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != part.stat().st_size:
        raise UserError("the server sent another part of the file than asked for; try again later")
    return True


def _remember(part: Path, response: Any) -> None:
    """Keeps what tells this version of the file from another, for the request for the rest."""
    tag = response.headers.get("ETag", "")
    if not tag or tag.startswith("W/"):
        tag = response.headers.get("Last-Modified", "")
    _forget(part)
    if tag:
        _tag_file(part).write_text(tag)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _dropped(url: str, done: int, total: int) -> UserError:
    of_all = f" of {total / MB:.1f}" if total else ""
    return UserError(
        f"{url}: the connection broke after {done / MB:.1f}{of_all} MB; the same command goes on "
        "from there, or starts again where the server cannot"
    )


def _check_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise UserError(f"{url} is not https; weights are fetched over https only")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, away from https only if that is allowed."""

    def __init__(self, https_only: bool) -> None:
        self._https_only = https_only

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request to the new place."""
        if self._https_only:
            _check_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
