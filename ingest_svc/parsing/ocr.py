"""Scanned pages: the words on the image of a page, as tesseract reads them where it is installed."""

import ctypes
import os
import shutil
import signal
import subprocess

import pypdfium2

_PROGRAM = "tesseract"
_DPI = 300
# A larger page is rendered coarser: its image stays within this many bytes.
_MAX_PIXELS = 25_000_000
# What is left of the parser's time when no further page is begun.
_RESERVE_S = 3.0
_PR_SET_PDEATHSIG = 1


class OcrFailedError(Exception):
    """Tesseract did not read a page; says why."""


class OutOfTimeError(OcrFailedError):
    """The parser's time ends before another page could be read."""


def is_installed() -> bool:
    """Whether there is a tesseract on the PATH."""
    return shutil.which(_PROGRAM) is not None


def read(page: pypdfium2.PdfPage, languages: str) -> list[str]:
    """The paragraphs on the page's image; raises OcrFailedError, one OutOfTimeError when the parser's time runs out."""
    left_s = _time_left_s()
    if left_s <= 0:
        raise OutOfTimeError("no time is left")
    command = [_PROGRAM, "stdin", "stdout", "-l", languages, "--dpi", str(_DPI)]
    environment = {key: os.environ[key] for key in ("PATH", "TESSDATA_PREFIX") if key in os.environ}
    try:
        done = subprocess.run(  # noqa: S603 - our own words, and a setting of the server's
            command,
            input=_image(page),
            capture_output=True,
            timeout=left_s,
            env=environment | {"OMP_THREAD_LIMIT": "1", "LANG": "C.UTF-8"},
            preexec_fn=_die_with_parent,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OutOfTimeError("the page took too long") from error
    except OSError as error:
        raise OcrFailedError(str(error)) from error
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").split("\n")[0]
        raise OcrFailedError(words or f"tesseract ended with {done.returncode}")
    text = done.stdout.decode("utf-8", "replace").replace("\f", "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip()]


def _time_left_s() -> float:
    """Seconds until the kernel ends this parser, less a reserve; a minute where nothing ends it."""
    left_s, _ = signal.getitimer(signal.ITIMER_REAL)
    return left_s - _RESERVE_S if left_s else 60.0


def _image(page: pypdfium2.PdfPage) -> bytes:
    """The page in grey as PGM, which tesseract reads without a library of ours."""
    width, height = page.get_size()
    scale = min(_DPI / 72, (_MAX_PIXELS / max(width * height, 1)) ** 0.5)
    bitmap = page.render(scale=scale, grayscale=True)
    try:
        rows = memoryview(bitmap.buffer).cast("B")
        lines = (rows[row * bitmap.stride : row * bitmap.stride + bitmap.width] for row in range(bitmap.height))
        return b"P5 %d %d 255\n" % (bitmap.width, bitmap.height) + b"".join(lines)
    finally:
        bitmap.close()


def _die_with_parent() -> None:
    """Have the kernel end tesseract when its parser is ended, which has no time to do so."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
