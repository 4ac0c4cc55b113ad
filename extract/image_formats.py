"""Supported image formats, recognised by file name or by the first bytes of a file."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..features.image_names import IMAGE_SUFFIXES

# Formats that Pillow may decode. Other decoders are not safe: EPS, for instance, starts Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
# Their suffixes, in lower case.
SUFFIXES = IMAGE_SUFFIXES
# Suffixes of files that are not images and are not opened: tables, text, arrays, archives, video, audio.
OTHER_SUFFIXES = frozenset((
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".rst", ".html", ".htm",
    ".log", ".lst", ".list", ".ini", ".cfg", ".toml", ".py", ".ipynb", ".m", ".sh", ".mat", ".npy", ".npz",
    ".pkl", ".pickle", ".h5", ".hdf5", ".pt", ".pth", ".ckpt", ".onnx", ".safetensors", ".parquet",
    ".feather", ".arrow", ".db", ".sqlite", ".xls", ".xlsx", ".doc", ".docx", ".pdf", ".pts", ".obj", ".ply",
    ".cls", ".json5", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".mp4", ".avi",
    ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".m4v", ".flv", ".wav", ".mp3", ".flac", ".m4a",
    ".ogg", ".lnk", ".url",
))  # fmt: skip
# Number of bytes that identify a format; the longest signature below ends there.
HEAD = 32

_SYSTEM = frozenset((
    "__macosx", "_macosx", "__pycache__", "lost+found", "system volume information", "recycler", "recycled",
    "recycle bin", "node_modules", "network trash folder", "temporary items", "found.000", "thumbnails",
    "thumbs", "_thumbs",
))  # fmt: skip
# Files that operating systems create in folders, in lower case.
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", ".ds_store"})
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"mif1": "HEIC",
}
_IMAGES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"), (b"\xff\x4f\xff\x51", "JPEG2000"),
)  # fmt: skip
_OTHERS = (
    (b"version https://git-lfs", "Git LFS pointer"), (b"%!PS", "PostScript"), (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"), (b"8BPS", "Photoshop"), (b"PK\x03\x04", "zip"), (b"\x1f\x8b", "gzip"), (b"Rar!", "rar"),
    (b"7z\xbc\xaf", "7z"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x89HDF", "HDF5"), (b"\x93NUMPY", "NumPy"),
    (b"SQLite", "SQLite"), (b"\0\0\1\0", "icon"), (b"\0\5\x16\7", "AppleDouble"), (b"<svg", "SVG"),
)  # fmt: skip
_BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)}
_HTML = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)", re.IGNORECASE)
_PNM = re.compile(rb"P[1-7fF][\s#]")


def non_image_kind(name: str, head: Callable[[], bytes]) -> str:
    """Kind of a file that is not an image, by which such files are counted; empty for an image.

    Parameters
    ----------
    name : str
        File name; a known suffix decides.
    head : function that returns the first :data:`HEAD` bytes of the file
        Called only for an unknown suffix or a name without suffix.

    Examples
    --------
    >>> non_image_kind("a.jfif", bytes), non_image_kind("a.txt", bytes), non_image_kind("a", lambda: b"GIF89a")
    ('', '.txt', '')
    >>> non_image_kind("a.heic", lambda: b"\\0\\0\\0\\x18ftypheic")
    'HEIC'
    """
    suffix = _suffix(name)
    if suffix in SUFFIXES:
        return "" if not name.startswith(".") else "hidden image"
    if name.startswith(".") or suffix in OTHER_SUFFIXES:
        return suffix or "hidden file"
    content = head()
    if not content:
        return "empty file"
    return "" if image_format(content) else content_kind(content) or suffix or "unknown file"


def is_system_folder(name: str) -> bool:
    """Whether a folder is hidden or belongs to an operating system, a NAS or a tool, and so has no data.

    >>> is_system_folder("@eaDir"), is_system_folder("lost+found"), is_system_folder("happy")
    (True, True, False)
    """
    return name.startswith((".", "@", "#", "$", "~")) or name.lower() in _SYSTEM


def is_system_file(name: str) -> bool:
    """Whether an operating system creates files of this name in folders, such as ``._a.jpg`` of macOS."""
    return name.startswith("._") or name.lower() in _SYSTEM_FILES


def is_image_name(name: str) -> bool:
    """Whether a file name has an image suffix, in lower or upper case, and the file is not hidden."""
    return not name.startswith(".") and _suffix(name) in SUFFIXES


def _suffix(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def image_format(head: bytes) -> str:
    """Format in :data:`FORMATS` of a file that begins with ``head``; empty for other formats.

    >>> image_format(b"\\xff\\xd8\\xff\\xe0" + bytes(28))
    'JPEG'
    """
    name = next((name for mark, name in _IMAGES if head.startswith(mark)), "")
    if name:
        return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        # AVIF files often list another brand first
        brands = [head[8:12], *(head[start : start + 4] for start in range(16, HEAD, 4))]
        return "AVIF" if any(_BRANDS.get(brand) == "AVIF" for brand in brands) else ""
    if head[:2] == b"BM" and head[14:18] in _BMP_HEADERS:
        return "BMP"
    return "PPM" if _PNM.match(head) else ""


def content_kind(head: bytes) -> str:
    """Kind of a file that is not in :data:`FORMATS`, from its first bytes; empty if unknown.

    >>> content_kind(b"<!DOCTYPE html><html>")
    'HTML'
    """
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video")
    if _HTML.match(head):
        return "HTML"
    name = next((name for mark, name in _OTHERS if head.startswith(mark)), "")
    if name:
        return name
    return "only zeros" if head and not head.strip(b"\0") else ""
