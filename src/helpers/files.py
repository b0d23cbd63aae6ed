"""Writing files so that nothing is ever half there."""

import errno
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESULTS = "CREATIVE_DENOISER_RESULTS"  # environment variable: the folder of results, else ./results
REFUSALS = {  # to write, which are the user's to mend
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
    errno.EISDIR,
}  # fmt: skip


def cache_folder() -> Path:
    """Where what can be made again is kept: creative-denoiser in $XDG_CACHE_HOME, else in ~/.cache.

    Where that may not be written, or the system knows no home, a folder of this user's among the
    temporary files. Raises ValueError where that may not be written either.
    """
    try:
        folder = (
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "creative-denoiser"
        )
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # RuntimeError: no home
        pass
    try:
        # on Windows each user has a folder anyway
        user = os.getuid() if hasattr(os, "getuid") else 0
        folder = Path(tempfile.gettempdir()) / f"creative-denoiser-{user}"
        folder.mkdir(exist_ok=True, mode=0o700)
        status = folder.lstat()  # whoever else had made it could leave there what is run
        if stat.S_ISDIR(status.st_mode) and status.st_uid == user and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    raise ValueError(
        "nothing may be written in $XDG_CACHE_HOME, in ~/.cache and among the temporary files: "
        "set XDG_CACHE_HOME to a folder that may be written"
    )


def results_folder() -> Path:
    """Where results are written: $CREATIVE_DENOISER_RESULTS, or ./results."""
    return Path(os.environ.get(RESULTS, "results"))


def refuse_bomb(archive: zipfile.ZipFile, most: int) -> None:
    """Raises ValueError where an entry of a .zip unpacks to more than `most` bytes by what the
    archive says of itself.

    Readers stop at the size that is said. Other packings than deflate have no such brake.
    """
    for entry in archive.infolist():
        if entry.file_size > most or entry.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise ValueError(
                f"{entry.filename} in {archive.filename} unpacks to {entry.file_size} bytes by method "
                f"{entry.compress_type}: at most {most}, stored or deflated, belong there; download the archive again"
            )


@contextmanager
def refusals_named(path: Path | None = None) -> Iterator[None]:
    """Turns what the system says of a full disk, or of a place where nothing may be written, into a
    ValueError.

    Its message names `path`, or else the file that the system names.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        named = path or error.filename2 or error.filename
        raise ValueError(
            f"{named} could not be written ({error.strerror}): make room, or make it a place that may be written, and "
            "run again; a file that was there before is still whole"
        ) from error


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write beside the target and rename, so that a reader or a kill meets the old file or the new,
    never a part.

    Raises ValueError where the disk is full or nothing may be written.
    """
    with refusals_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
        )
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
            # mkstemp's 0600 would follow the file into git and onto a server
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def folder_atomically(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` at the end of the block; nothing is left of it after
    an error.

    What a killed run left is removed first: hold a lock where several processes may make the same
    folder.
    """
    with refusals_named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(
            tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp")
        )
        try:
            yield temporary
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
