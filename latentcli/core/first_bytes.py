"""Says what a file looks like by its first bytes, where it is not what it should be."""

from __future__ import annotations

_MARGIN = b"\xef\xbb\xbf \t\r\n"
"""What may stand in front of a text: the mark of UTF-8, and white space."""

# In lower case: texts are written either way, and no signature differs from another in that alone.
_LOOKS_LIKE: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"<error>", "an XML document"),
    (b"version https://git-lfs", "a Git LFS pointer, whose real file was not fetched"),
    (b"{", "a JSON document"),
    (b"%pdf", "a PDF document"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"rar!\x1a\x07", "a RAR archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"bzh", "a bzip2 file"),
    (b"\xfd7zxz", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"8bps", "a Photoshop document"),
    (b"riff", "a RIFF file such as WAV or AVI"),
    (b"\x89hdf", "an HDF5 file"),
    (b"par1", "a Parquet file"),
)


def looks_like(data: bytes) -> str | None:
    """The kind of file that begins with these bytes, with its article; None for one not known."""
    head = data[:512].lstrip(_MARGIN).lower()
    return next((kind for prefix, kind in _LOOKS_LIKE if head.startswith(prefix)), None)


def described(data: bytes) -> str:
    """What can be said of these bytes, as a clause: "it looks like an HTML page"."""
    kind = looks_like(data)
    if kind is not None:
        return f"it looks like {kind}"
    if data[4:8] == b"ftyp":
        return f"it looks like a video ({data[8:12]!r})"
    if not any(data[:4096]):
        return "it begins with zero bytes only"
    if is_text(data[:64]):
        return f"it looks like text ({data[:32].decode()!r})"
    return f"it begins with the bytes {data[:8].hex(' ')}"


def is_text(data: bytes) -> bool:
    """Whether bytes are printable ASCII, line ends apart."""
    return data.isascii() and data.decode().replace("\n", " ").replace("\r", " ").isprintable()
