"""An export that is killed is finished by the same command."""

from __future__ import annotations

import pytest
from harness.scale_export import killed, make_store

from latentcli.jobs.export.job import run_export
from latentcli.jobs.export.options import ExportJob


@pytest.mark.parametrize(
    "to, more", [("kohya", ()), ("lightningdit", ("--samples-per-file", "100"))]
)
def test_a_killed_export_is_finished_by_the_same_command(to, more, tmp_path):
    store = make_store(tmp_path / "s.latents", 2500, side=8)
    out = tmp_path / "out"
    noted = killed(store, to, out, 2, *more)
    step = int(more[1]) if more else None
    job = ExportJob(store=str(store), to=to, output=str(out), samples_per_file=step)
    finished = run_export(job)
    assert noted <= finished["steps_done_before"] < finished["steps"]
    assert finished["samples"] == 2500
    assert run_export(ExportJob(store=str(store), check=str(out)))["wrong"] == {}
    assert not [*out.rglob(".tmp-*")]
