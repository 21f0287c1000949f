"""Measures how much faster jobs run the networks than plain PyTorch does, on this machine's CPU.

Every row takes turns: the published network in float32, each step from there to what a job does
(its fast form, then --dtype auto), a picture on each core throughout; and the machine's own rate of
matrix products. The last row is diffusers' FLUX.2, eager, in the dtype that the machine multiplies
in. Weights are random.

    python scripts/speed_table.py --json cpu.json
    python scripts/speed_table.py --from cpu.json --write    puts it into its page
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turns import in_turns, machine, ratio, told

from latentcli.jobs.bench.ceilings import ceilings_of, share
from latentcli.jobs.bench.operations import count_operators
from latentcli.jobs.inference.encode_batch import encode_on_device
from latentcli.jobs.inference.engine import Engine, decode_on_device, load_engine
from latentcli.jobs.settings.model import DecodeSettings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "internals" / "performance.md"
BEGIN = "<!-- cpu: written by scripts/speed_table.py --write -->"
END = "<!-- end of cpu -->"

PLAIN, FORM, JOB = "published network, float32", "fast form, float32", "as the job runs it"
WAYS = {PLAIN: ("fp32", True), FORM: ("fp32", False), JOB: ("auto", False)}
"""Step -> dtype, and whether it is the published network. Each is measured against the one before;
where auto is float32, the second is the third."""
MACHINE = "products of matrices"


@dataclass(frozen=True, slots=True)
class Row:
    """Something that a job does."""

    model: str
    op: str
    side: int
    batch: int

    def __str__(self) -> str:
        return f"{self.model} {self.op} {self.side}x{self.side}, batch {self.batch}"


ROWS = (
    Row("full_capacitor", "encode", 256, 8),
    Row("dinac_ae_d2", "encode", 256, 8),
    Row("capacitor_decoder", "decode", 512, 1),
)
FLUX = "flux2"
SMALL = (Row("fcdm_nano", "encode", 32, 2), Row("fcdm_nano", "decode", 32, 1))
SMALL_FLUX = "taesd"


def loaded(model: str, dtype: str, plain: bool) -> Engine:
    """The model with random weights on the CPU."""
    return load_engine(model, device="cpu", dtype=dtype, random_weights=True, plain=plain)


def job_of(engine: Engine, row: Row) -> Callable[[], Tensor]:
    """One batch as a job gives it to the device."""
    spec, chance = engine.model.spec, torch.Generator().manual_seed(0)
    keys = [str(number) for number in range(row.batch)]
    if row.op == "encode":
        sides = (row.batch, 3, row.side, row.side)
        pixels = torch.randint(0, 256, sides, dtype=torch.uint8, generator=chance)
        encode = partial(encode_on_device, engine, pixels, keys, spec.state, store_dtype="bf16")
        return lambda: encode()["latent"]
    cells = spec.latent_size(row.side, row.side)
    latents = torch.randn(row.batch, spec.channels, *cells, generator=chance)
    return partial(decode_on_device, engine, latents, keys, DecodeSettings())


def eager_encode(engine: Engine, row: Row) -> Callable[[], Tensor]:
    """One batch as a person gives it to a network."""
    images = torch.rand(row.batch, 3, row.side, row.side) * 2 - 1

    @torch.inference_mode()
    def call() -> Tensor:
        return engine.model.encode(images)

    return call


def flop_of(engine: Engine, row: Row) -> int:
    """Of one batch: a picture is counted, in this thread alone, where all operators are seen."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        single = Row(row.model, row.op, row.side, 1)
        operators = count_operators(job_of(engine, single))
    finally:
        torch.set_num_threads(threads)
    return row.batch * sum(operator.flop for operator in operators)


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def timed(
    calls: Mapping[str, Callable[[], object]],
    turns: int,
    more: Mapping[str, Callable[[], float]] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each call in each turn, after one that is not timed; and what `more` gives."""
    for call in calls.values():
        call()
    ways = {name: partial(seconds, call) for name, call in calls.items()}
    return in_turns({**ways, **(more or {})}, turns)


def measure_row(row: Row, turns: int) -> dict[str, Any]:
    """The steps in turns, and the share of the machine's matrix rate that the job reaches."""
    engines = {name: loaded(row.model, *options) for name, options in WAYS.items()}
    job = engines[JOB]
    if job.dtype == "fp32":
        del engines[FORM]
    ceiling = next(c for c in ceilings_of(job.accelerator, job.dtype) if c.name == job.dtype)

    def rate() -> float:
        ceiling.measure(job.accelerator)
        return ceiling.rates[-1]

    calls = {name: job_of(engine, row) for name, engine in engines.items()}
    found = timed(calls, turns, {MACHINE: rate})
    rates, flop = found.pop(MACHINE), flop_of(engines[PLAIN], row)
    return {
        "row": str(row),
        "dtype": job.dtype,
        "steps": steps_of(found, {name: engine.dtype for name, engine in engines.items()}),
        "gflop": round(flop / 1e9, 2),
        "machine_gflop_per_second": round(statistics.median(rates) / 1e9, 1),
        "matrix_share": share(flop, found[JOB], rates),
    }


def measure_flux(row: Row, flux: str, turns: int) -> dict[str, Any]:
    """The job's way against diffusers' network, both in the dtype that the job takes."""
    job = loaded(row.model, "auto", False)
    other = loaded(flux, job.dtype, True)
    eager = f"{flux}, eager"
    found = timed({eager: eager_encode(other, row), JOB: job_of(job, row)}, turns)
    return {
        "row": str(row),
        "dtype": job.dtype,
        "steps": steps_of(found, {eager: other.dtype, JOB: job.dtype}),
    }


def steps_of(
    found: Mapping[str, Sequence[float]], dtypes: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Milliseconds of each step, and its ratio to the one before and to the first, turn by turn."""
    names = list(found)
    return [
        {
            "step": name,
            "dtype": dtypes[name],
            "ms": round(1000 * statistics.median(found[name]), 2),
            "of_the_last": round(ratio(found[before], found[name]), 3),
            "of_the_first": round(ratio(found[names[0]], found[name]), 3),
        }
        for before, name in zip(names[:1] + names, names, strict=False)
    ]


def page_of(document: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    features = ", ".join(document["features"])
    lines = [
        f"{document['cpu']} ({features}), {document['threads']} threads, torch"
        f" {document['torch']}, load {document['load']}; medians of {document['turns']} turns.",
        "",
        "| | step | dtype | ms a batch | against the step before | against the first"
        " | share of the matrix rate |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for row in document["rows"]:
        for number, step in enumerate(row["steps"]):
            name, share_of_it = "" if number else row["row"], ""
            if step["step"] == JOB and "matrix_share" in row:
                share_of_it = f"{row['matrix_share']:.2f}"
            ratios = [f"{step[key]:.2f}x" for key in ("of_the_last", "of_the_first")]
            cells = (name, step["step"], step["dtype"], f"{step['ms']:,.1f}", *ratios, share_of_it)
            lines.append(f"| {' | '.join(cells)} |")
    rates = {row["dtype"]: row for row in document["rows"] if "matrix_share" in row}
    lines += [
        "",
        *(
            f"Products of matrices in {dtype}, all cores:"
            f" {row['machine_gflop_per_second']:,.0f} GFLOP/s."
            for dtype, row in rates.items()
        ),
    ]
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Puts the figures between the page's markers."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{page} has no lines {BEGIN} and {END}.")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def measure(words: argparse.Namespace) -> dict[str, Any]:
    """The document."""
    torch.set_num_threads(words.threads or torch.get_num_threads())
    rows, flux = (SMALL, SMALL_FLUX) if words.small else (ROWS, FLUX)
    facts = machine()
    found = [measure_row(row, words.turns) for row in rows]
    found.append(measure_flux(rows[0], flux, words.flux_turns))
    return {**facts, "turns": words.turns, "flux_turns": words.flux_turns, "rows": found}


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--flux-turns", type=int, default=3, help="FLUX.2 takes seconds a picture")
    parser.add_argument("--threads", type=int, help="of torch; its own choice")
    parser.add_argument("--small", action="store_true", help="other models and sizes, in seconds")
    parser.add_argument("--json", type=Path, help="write the figures into this file too")
    parser.add_argument("--from", dest="given", type=Path, help="show those of this file instead")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    words = parser.parse_args()
    document = json.loads(words.given.read_text()) if words.given else measure(words)
    told(document, words.json)
    text = page_of(document)
    print(text)
    if words.write:
        write(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
