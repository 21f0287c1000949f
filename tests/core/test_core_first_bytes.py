"""First bytes are told in words that a person knows."""

from __future__ import annotations

import pytest

from latentcli.core.first_bytes import described, looks_like


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "it looks like an HTML page"),
        (b"\xef\xbb\xbf\n <HTML>moved", "it looks like an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey", "it looks like an XML document"),
        (b"<Error><Code>AccessDenied</Code></Error>", "it looks like an XML document"),
        (b'{"message": "Not Found"}', "it looks like a JSON document"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it looks like a Git LFS pointer"),
        (b"\x1f\x8b\x08\x00", "it looks like a gzip file"),
        (b"\x28\xb5\x2f\xfd\x04", "it looks like a zstd file"),
        (b"Repository not found\r\n", "it looks like text ('Repository not found"),
        (bytes(600), "it begins with zero bytes only"),
        (b"\x93NUMPY\x01\x00v", "it begins with the bytes 93 4e 55 4d 50 59 01 00"),
    ],
)
def test_what_a_file_looks_like(data, words):
    assert described(data).startswith(words)


def test_what_is_not_known_has_no_name():
    assert looks_like(b"0001.jpg\0") is None and looks_like(b"") is None
