"""Lists suffixes of files that are no pictures, so that nobody opens them to see."""

from __future__ import annotations

_TEXTS = """
    txt text md markdown rst caption captions tag tags prompt json jsonl ndjson json5 geojson csv
    tsv xml xsl yaml yml toml ini cfg conf properties log html htm xhtml mhtml css scss map rss pdf
    doc docx odt rtf tex bib xls xlsx ods ppt pptx odp epub mobi srt vtt ass ssa lrc nfo diz info
    url webloc lnk desktop eml vcf ics po pot tpl lst list todo sub
"""
_PROGRAMS = """
    py pyc pyi pyx ipynb js mjs ts tsx jsx c h cc cpp cxx hpp cu cuh rs go java kt scala rb php pl
    pm lua sh bash zsh fish bat cmd ps1 sql r jl swift vue svelte cmake mk gradle lock sum mod exe
    dll so dylib o a lib obj class jar war whl egg wasm elf apk ipa msi deb rpm app
"""
_DATA = """
    npy npz pt pth ckpt safetensors gguf onnx pb pbtxt tflite h5 hdf5 mat pkl pickle joblib parquet
    arrow feather orc avro lmdb mdb db sqlite sqlite3 db-wal db-shm tfrecord tfrecords rec idx index
    mp pack rdb dat-journal ttf otf woff woff2 eot mtl stl ply glb gltf fbx blend usd usdz dae pcd
    las laz shp dbf prj
"""
_SOUND = "mp3 wav flac ogg oga opus m4a m4b aac wma aif aiff ape mid midi amr au"
_FILMS = """
    mp4 m4v mov mkv webm avi mpg mpeg mpe m1v m2v wmv asf flv f4v m2ts mts vob ogv 3gp 3g2 mxf rm
    rmvb divx h264 h265 hevc y4m lrv insv
"""
_SIDE_FILES = """
    xmp aae thm pp3 dop cos lrtemplate lrcat lrprev md5 sha1 sha256 sha512 sfv crc sig asc gpg pem
    key crt torrent metalink part partial crdownload download aria2 filepart tmp temp swp swo bak
    old orig rej cache
"""
_ARCHIVES = """
    zip zipx 7z rar tar tgz tbz tbz2 txz tlz tzst tar.gz tar.bz2 tar.xz tar.zst tar.lz tar.lz4
    tar.lzma tar.lzo tar.br tar.z cbz cbr cb7 iso img dmg cab lha lzh arj ace
"""
_PACKED = "gz bz2 xz zst lz lz4 lzma lzo br z 001"

ARCHIVES = frozenset(f".{word}" for word in _ARCHIVES.split())
"""Of files that may hold pictures once they are unpacked."""
OTHER_SUFFIXES = ARCHIVES | {
    f".{word}"
    for words in (_TEXTS, _PROGRAMS, _DATA, _SOUND, _FILMS, _SIDE_FILES, _PACKED)
    for word in words.split()
}
"""Of files that are known to be no pictures. Lower case, with the dot."""
