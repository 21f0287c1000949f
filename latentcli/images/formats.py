"""Lists the formats of pictures: by suffix, by first bytes, and which package reads each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from latentcli.images.tiff_head import MAGIC, first_directory

HEAD_BYTES = 4096
"""Bytes of a file's beginning that are enough for `picture_by_bytes`."""

EXTRAS: Mapping[str, str] = {"heif": "pillow_heif", "jxl": "pillow_jxl", "raw": "rawpy"}
"""Extra of the package -> the module that it brings, by which its formats are read."""


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """One format, or one family of formats that are read alike."""

    name: str
    """As a sentence names it, without an article."""
    suffixes: tuple[str, ...]
    """In lower case; the first one stands for the format."""
    reader: str = "always"
    """always, an extra of EXTRAS, or never."""

    @property
    def suffix(self) -> str:
        """The suffix that stands for the format."""
        return self.suffixes[0]

    @property
    def is_read(self) -> bool:
        """Whether such files can be read here and now."""
        return self.reader == "always" or (self.reader in EXTRAS and is_installed(self.reader))


# fmt: off
FORMATS = (
    PictureFormat("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo")),
    PictureFormat("PNG", (".png", ".apng")),
    PictureFormat("WebP", (".webp",)),
    PictureFormat("AVIF", (".avif", ".avifs")),
    PictureFormat("GIF", (".gif",)),
    PictureFormat("BMP", (".bmp",)),
    PictureFormat("TIFF", (".tif", ".tiff")),
    PictureFormat("JPEG 2000", (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")),
    PictureFormat("PNM", (".ppm", ".pgm", ".pbm", ".pnm")),
    PictureFormat("TGA", (".tga",)),
    PictureFormat("HEIC", (".heic", ".heif", ".hif", ".heics", ".heifs"), "heif"),
    PictureFormat("JPEG XL", (".jxl",), "jxl"),
    PictureFormat("camera RAW", (
        ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf",
        ".rw2", ".rwl", ".pef", ".srw", ".raw", ".3fr", ".fff", ".iiq", ".mos", ".mef", ".mrw",
        ".dcr", ".kdc", ".erf", ".x3f",
    ), "raw"),
    PictureFormat("SVG", (".svg", ".svgz"), "never"),
    PictureFormat("Photoshop", (".psd", ".psb"), "never"),
    PictureFormat("OpenEXR", (".exr",), "never"),
    PictureFormat("Radiance HDR", (".hdr", ".rgbe"), "never"),
    PictureFormat("float map", (".pfm",), "never"),
    PictureFormat("GIMP", (".xcf",), "never"),
    PictureFormat("Illustrator or PostScript", (".ai", ".eps", ".ps"), "never"),
    PictureFormat("Krita or OpenRaster", (".kra", ".ora"), "never"),
    PictureFormat("Clip Studio", (".clip",), "never"),
    PictureFormat("paint program", (".sai", ".sai2", ".pdn", ".procreate", ".afphoto"), "never"),
    PictureFormat("drawing", (".afdesign", ".sketch", ".cdr", ".wmf", ".emf"), "never"),
    PictureFormat("icon", (".ico", ".icns", ".cur"), "never"),
    PictureFormat("DDS", (".dds",), "never"),
    PictureFormat("KTX", (".ktx", ".ktx2"), "never"),
    PictureFormat("QOI", (".qoi",), "never"),
    PictureFormat("JPEG XR", (".jxr", ".wdp", ".hdp"), "never"),
    PictureFormat("JPEG-LS", (".jls",), "never"),
    PictureFormat("BPG", (".bpg",), "never"),
    PictureFormat("FLIF", (".flif",), "never"),
    PictureFormat("PCX", (".pcx",), "never"),
    PictureFormat("DIB", (".dib",), "never"),
    PictureFormat("SGI", (".sgi",), "never"),
    PictureFormat("Sun raster", (".ras",), "never"),
    PictureFormat("X bitmap", (".xbm", ".xpm"), "never"),
    PictureFormat("PICT", (".pict", ".pct"), "never"),
    PictureFormat("farbfeld", (".ff",), "never"),
    PictureFormat("DPX or Cineon", (".dpx", ".cin"), "never"),
    PictureFormat("DICOM", (".dcm", ".dicom"), "never"),
    PictureFormat("FITS", (".fits", ".fit"), "never"),
    PictureFormat("DjVu", (".djvu", ".djv"), "never"),
)
# fmt: on
"""Every format that is known to hold a still picture."""

_BY_SUFFIX = {suffix: row for row in FORMATS for suffix in row.suffixes}

IMAGE_SUFFIXES = frozenset(suffix for suffix, row in _BY_SUFFIX.items() if row.reader == "always")
"""Suffixes of the pictures that are read without an extra."""

_BRANDS: Mapping[str, tuple[bytes, ...]] = {
    ".avif": (b"avif", b"avis"),
    ".dng": (b"crx ",),
    ".heic": (
        *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"heif"),
        *(b"mif1", b"mif2", b"msf1"),
    ),
}
"""Brands of the ISO container that hold pictures; videos have others."""

_TIFF_PHOTOMETRIC, _TIFF_SUBFILE, _TIFF_SUB_IFDS, _DNG_VERSION = 262, 254, 330, 50706
_SENSOR_DATA = (32803, 34892)

_SIGNATURES: tuple[tuple[str, str], ...] = (
    (r"\xff\xd8\xff\xf7", ".jls"),
    (r"\xff\xd8\xff", ".jpg"),
    (r"\x89PNG\r\n\x1a\n", ".png"),
    (r"RIFF.{4}WEBP", ".webp"),
    (r"GIF8[79]a", ".gif"),
    # Two letters may begin any text, so the size of the second header must be one that exists.
    (r"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", ".bmp"),
    (r"\x00\x00\x00\x0cjP  \r\n\x87\n", ".jp2"),
    (r"\xff\x4f\xff\x51\x00", ".jp2"),
    (r"P[1-6](?:\s|#[^\n]*\n)+\d", ".ppm"),
    (r"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n", ".jxl"),
    (r"II\*\x00.{4}CR|FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\x00|II.{4}HEAPCCDR", ".dng"),
    (r"FOVb|\x00MRM", ".dng"),
    (r"(?:\xef\xbb\xbf)?\s*(?:<\?xml.{0,2048}|<!--.{0,2048})?<svg\b", ".svg"),
    (r"8BPS\x00[\x01\x02]", ".psd"),
    (r"\x76\x2f\x31\x01", ".exr"),
    (r"#\?(?:RADIANCE|RGBE)", ".hdr"),
    (r"P[Ff]\n", ".pfm"),
    (r"gimp xcf ", ".xcf"),
    (r"%!PS-Adobe|\xc5\xd0\xd3\xc6", ".ai"),
    (r"PK\x03\x04.{26}mimetype(?:application/x-krita|image/openraster)", ".kra"),
    (r"CSFCHUNK", ".clip"),
    (r"PDN3", ".pdn"),
    (r"\x00\x00[\x01\x02]\x00[^\x00]\x00.{3}\x00|icns", ".ico"),
    (r"DDS \x7c\x00\x00\x00", ".dds"),
    (r"\xabKTX (?:11|20)\xbb", ".ktx"),
    (r"qoif", ".qoi"),
    (r"II\xbc[\x00\x01]", ".jxr"),
    (r"BPG\xfb", ".bpg"),
    (r"FLIF", ".flif"),
    (r"\x01\xda[\x00\x01][\x01\x02]", ".sgi"),
    (r"\x59\xa6\x6a\x95", ".ras"),
    (r"farbfeld", ".ff"),
    (r"SDPX|XPDS", ".dpx"),
    (r".{128}DICM", ".dcm"),
    (r"SIMPLE  =", ".fits"),
    (r"AT&TFORM", ".djvu"),
)


def format_of(suffix: str) -> PictureFormat | None:
    """The row of FORMATS with this suffix (".jpg", in any case), or None."""
    return _BY_SUFFIX.get(suffix.lower())


def readable_suffixes() -> frozenset[str]:
    """Suffixes of the pictures that can be read here, with the extras that are installed."""
    return frozenset(suffix for row in FORMATS if row.is_read for suffix in row.suffixes)


def is_installed(extra: str) -> bool:
    """Whether an extra of EXTRAS is there; its module is looked for, not loaded."""
    return find_spec(EXTRAS[extra]) is not None


def picture_by_bytes(head: bytes) -> str | None:
    """The suffix that stands for a picture's format, told by the first HEAD_BYTES of a file.

    None for what is no picture that is known, videos among it, and for TGA, which has no
    signature. Camera RAW is ".dng" whoever made the camera. More bytes do no harm.
    """
    start = head[:HEAD_BYTES]
    if start[4:8] == b"ftyp" and head[:4] not in MAGIC:
        return _by_brand(start)
    for pattern, suffix in _signatures():
        if pattern.match(start):
            return suffix
    if head[:4] in MAGIC:
        return ".dng" if _is_raw(head) else ".tif"
    return None


@cache
def _signatures() -> tuple[tuple[re.Pattern[bytes], str], ...]:
    # Latin-1 makes each character the byte of the same number.
    return tuple(
        (re.compile(text.encode("latin-1"), re.DOTALL), suffix) for text, suffix in _SIGNATURES
    )


def _by_brand(head: bytes) -> str | None:
    """By the brands of an ISO container: 4 bytes each from 8 on, but for the version at 12."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[at : at + 4] for at in (8, *range(16, size - 3, 4))}
    for suffix, known in _BRANDS.items():
        if brands.intersection(known):
            return suffix
    return None


def _is_raw(head: bytes) -> bool:
    """Whether a TIFF file is a camera's: its first directory describes a sensor, or a preview.

    A preview is marked as a reduced picture, and its directory names others that hold the rest.
    """
    tags = first_directory(head)
    is_preview = tags.get(_TIFF_SUBFILE) == 1 and _TIFF_SUB_IFDS in tags
    return is_preview or _DNG_VERSION in tags or tags.get(_TIFF_PHOTOMETRIC) in _SENSOR_DATA
