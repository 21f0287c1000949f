"""`latentcli budget`: a table for people, a document for scripts."""

from __future__ import annotations

from pathlib import Path

from clikit import Run

from latentcli.core.types import STORE_DTYPES


def test_a_table_and_a_document(cli: Run, pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ("budget", pictures, "--model", tiny_model, "--device", "cpu", "--samples", "2")
    shown = cli(*words)
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == list(STORE_DTYPES)
    assert lines[6].startswith("source files") and "1 M pictures" in lines[0]
    assert "2 pictures encoded and decoded" in shown.out
    assert lines == [line.rstrip() for line in lines]
    document = cli(*words, "--json", "--quiet").document
    assert [row["store_dtype"] for row in document["rows"]] == list(STORE_DTYPES)
    encoded = ("encode", pictures, "--model", tiny_model, "-o", tmp_path / "store")
    cli(*encoded, "--device", "cpu", "--no-self-check", "--store-dtype", "int8")
    assert "which is in int8." in cli("budget", tmp_path / "store", "--samples", "1").out
    assert "int8, with a scale per channel" in cli("inspect", tmp_path / "store").out


def test_what_is_wrong_is_said(cli: Run, pictures: Path) -> None:
    assert cli("budget").code == 2
    refused = cli("encode", pictures, "--store-dtype", "int4")
    assert refused.code == 2 and "bf16, fp16, fp8, int8" in refused.err
