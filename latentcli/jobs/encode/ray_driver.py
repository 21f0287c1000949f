"""Runs an encode job on a Ray cluster, whose actors Ray restarts where they die."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.captions import texts_of
from latentcli.jobs.encode.plan import (
    check_decode_on,
    plan_encode,
    store_of,
    stored_batch_size,
    stored_spec,
    with_model_defaults,
    with_stored,
)
from latentcli.jobs.encode.ray_actor import (
    LOOK,
    EncodeActor,
    Ledger,
    resource_of,
    try_model,
    wanted_actors,
)
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.share import assignment, lead, totals_before
from latentcli.jobs.encode.worklist import Work
from latentcli.jobs.inference.accelerator import ACCELERATORS, Cpu, kind_on_cluster
from latentcli.jobs.inference.batch_size import default_batch_size
from latentcli.jobs.inference.engine import Engine, engine_of
from latentcli.jobs.loader.find_media import check_clip_options, media_of
from latentcli.jobs.loader.packed_options import check_packed_options
from latentcli.jobs.loader.sizes import preprocess_spec
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.runtime.signals import StopRequest, stop_on_signals
from latentcli.models.presets import preset_names
from latentcli.shards.storage.atomic_write import remove_temporary

CONNECT = 10.0
"""Seconds for the cluster to answer."""
GRACE = 60.0
"""Seconds that actors get to finish their batch when the job is stopped."""
MOST_DEATHS = 10
"""Actors that may die without anything encoded in between: then the job is at fault."""


@dataclass(slots=True)
class Actors:
    """The actors that are at work."""

    make: Callable[[], Any]
    ledger: Any
    units: int
    """To do, of the whole job."""
    working: dict[Any, tuple[str, Any, int]] = field(default_factory=dict)
    """By the future of its work: the actor's name, the actor, and what was done at its start."""
    started: int = 0
    restarts: int = 0

    def start(self, done: int, name: str | None = None) -> None:
        """Starts one more, or one anew; it works as soon as the cluster has room for it."""
        if name is None:
            name = f"actor-{self.started}"
            self.started += 1
        actor = self.make()
        future = actor.work.remote(name, self.ledger, self.units)
        self.working[future] = (name, actor, done)


def run_ray(job: EncodeJob, reporter: Reporter) -> dict[str, Any]:
    """Encodes on the cluster that RAY_ADDRESS names, or on one of this machine alone.

    The --json document is that of `encode`. UsageError where Ray is not installed; otherwise as
    `run_encode`.
    """
    ray = ray_at_hand()
    began = time.perf_counter()
    with stop_on_signals("Run the same command again to finish the rest.") as stop:
        with stop.at_once():
            found = media_of(job, reporter, job.allow_pipe, texts_of(job))
        check_clip_options(job, found.media)
        check_packed_options(job, found, reporter)
        check_decode_on(job, found.media)
        ours = not ray.is_initialized()
        if ours:
            reporter.status("Joining the Ray cluster")
            join_cluster(ray)
        try:
            stop.listen()  # Ray's own handler of SIGTERM aborts the process
            stop.check()
            there = stored_spec(store_of(job))
            job = settled_on(with_stored(job, there), ray.cluster_resources())
            with stop.at_once():
                reporter.status("Loading the model")
                engine = engine_of(on_driver(job))
            job = with_batch_size(with_model_defaults(job, engine), engine, there)
            plan = plan_encode(job, engine, found.media, found.kind, there=there)
            if not there and job.max_memory is not None:
                reporter.status("Trying --max-memory on a device of the cluster")
                try_on_cluster(ray, job, stop)
            encode = partial(encode_on_actors, ray)
            return lead(job, engine, plan, found, Team(), stop, reporter, encode, began)
        finally:
            if ours:
                ray.shutdown()


def ray_at_hand() -> Any:
    """The ray package; UsageError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray needs Ray: pip install 'latentcli[ray]'.") from None
    return ray


def join_cluster(ray: Any) -> None:
    """Connects to the cluster, or starts one of this machine; LatentCliError where that fails."""
    address = os.environ.get("RAY_ADDRESS")
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    try:
        if port.isdecimal():  # Ray itself tries for minutes, with a line of noise every second
            socket.create_connection((host, int(port)), timeout=CONNECT).close()
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="error")
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        what = f"The Ray cluster at {address} (RAY_ADDRESS)" if address else "Ray on this machine"
        verb = "reached" if address else "started"
        raise LatentCliError(f"{what} could not be {verb}: {first_line(error)}") from error


def settled_on(job: EncodeJob, resources: dict[str, float]) -> EncodeJob:
    """The job with the device and dtype that its actors will have.

    Of processors, the driver's own says what auto means, and the actors have the same.
    """
    kind = kind_on_cluster(job.device, resources.get("GPU", 0))
    dtype = kind.auto_dtype() if job.dtype == "auto" else job.dtype
    output = job.output and (job.output if "://" in job.output else str(Path(job.output).resolve()))
    weights = job.weights and str(Path(job.weights).resolve())
    # The machines of a cluster may differ, and one alone decides.
    compile = "off" if job.compile == "auto" else job.compile
    return replace(
        job, device=kind.name, dtype=dtype, compile=compile, output=output, weights=weights
    )


def on_driver(job: EncodeJob) -> EncodeJob:
    """A settled job as the driver runs it to check the model: on its CPU, in what suits that.

    --max-memory is of the actors' devices, and each of them keeps below it.
    """
    return replace(job, device=Cpu.name, dtype="auto", compile="off", max_memory=None)


def try_on_cluster(ray: Any, job: EncodeJob, stop: StopRequest) -> None:
    """Has a device of the cluster load the model; its errors, such as of too small a --max-memory.

    So they come before there is a store, which would then keep what cannot be.
    """
    task = ray.remote(max_calls=1, **resources_of(job))(try_model)
    future = task.remote(replace(job, model=absolute(job.model)))
    try:
        while not ray.wait([future], timeout=LOOK)[0]:
            stop.check()
        ray.get(future)
    except ray.exceptions.RayTaskError as error:
        raise reason_of(error) from error
    except ray.exceptions.RayError as error:
        stop.check()
        raise cluster_lost(error) from error


def with_batch_size(job: EncodeJob, engine: Engine, there: Mapping[str, Any]) -> EncodeJob:
    """The job with the batch size of its actors' devices; the model here is on a CPU.

    `there` is as of `plan_encode`.
    """
    given = job.batch_size or stored_batch_size(there)
    preprocess = preprocess_spec(job, engine.model.spec.size_divisor)
    default = default_batch_size(ACCELERATORS[job.device], preprocess)
    return replace(job, batch_size=given or default)


def encode_on_actors(ray: Any, run: EncodeRun, work: Work) -> None:
    """Gives the units out, sees them done whoever dies, and tells how far the whole job is."""
    job, plan = run.job, run.plan
    if not work.todo:
        return
    units = deque(range(len(work.todo)))
    ledger = ray.remote(num_cpus=0)(Ledger).remote(
        units, assignment(plan, work), totals=totals_before(work)
    )
    made = ray.remote(
        max_restarts=MOST_DEATHS - 1,
        max_task_retries=-1,
        # Each reckons with as many beside it as a node has of the cluster.
        scheduling_strategy="SPREAD",
        **resources_of(job),
    )(EncodeActor)
    theirs = replace(job, model=absolute(job.model))
    # Nobody here sees when an actor gets its first batch, so the rate counts their start-up too.
    run.meter.begin()
    actors = Actors(lambda: made.remote(theirs), ledger, len(work.todo))
    try:
        while watch(ray, actors, run):
            run.stop.check()
            run.sink.check()
    except BaseException as error:
        dismiss(ray, actors)
        remove_temporary(plan.store)  # an actor that did not get to its end left them
        if isinstance(error, ray.exceptions.RayError):
            # A signal that all processes got has ended Ray's own at once.
            run.stop.check()
            raise cluster_lost(error) from error
        raise


def resources_of(job: EncodeJob) -> dict[str, int]:
    """What Ray is asked for an actor."""
    return {f"num_{resource_of(job).lower()}s": 1}


def absolute(model: str) -> str:
    """A model's path in full, as actors have another working folder; names stay what they are."""
    path = Path(model).expanduser()
    return str(path.resolve()) if model not in preset_names() and path.exists() else model


def cluster_lost(error: Exception) -> LatentCliError:
    """What is told where Ray itself fails, and not one of the actors that encode."""
    return LatentCliError(
        f"The Ray cluster, or the actor that gives out the units, is gone: {first_line(error)}"
        " What is committed stays; run the same command again to finish the rest."
    )


def first_line(error: Exception) -> str:
    """The first line of an error of Ray, as a sentence; the rest is for those who debug Ray."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0].rstrip(' .:')}."


def watch(ray: Any, actors: Actors, run: EncodeRun) -> bool:
    """One look at the actors: starts those that are wanted; false at the end.

    LatentCliError as an actor raised it, and where they die one after the other.
    """
    left, totals, restarts = ray.get(actors.ledger.state.remote())
    for text in ray.get(actors.ledger.hear.remote()):
        run.team.tell(text)
    run.hear()
    done, bad = totals.get("done", 0), totals.get("bad", 0)
    for name, total in totals.items():
        run.team.add(name, total - run.team.total(name))
    if done > run.meter.done:
        run.meter.advance(done - run.meter.done, bad - run.meter.failed)
    if restarts > actors.restarts:
        actors.restarts = restarts
        run.reporter.note(
            "A Ray actor died and was started again; its last units are encoded again."
        )
    wanted = wanted_actors(run.job, ray.cluster_resources(), actors.units)
    if left and len(actors.working) < wanted:
        actors.start(done)
    if not actors.working:
        return bool(left)
    ready, _ = ray.wait(list(actors.working), num_returns=1, timeout=LOOK)
    for future in ready:
        name, actor, before = actors.working.pop(future)
        try:
            for stage, spent in ray.get(future).items():
                run.meter.add(stage, spent["seconds"], spent["items"])
        except ray.exceptions.RayActorError as error:
            # Ray restarts an actor so often and no more; a job that gets on may have it again.
            if done == before:
                raise LatentCliError(
                    f"{MOST_DEATHS} actors died in a row, the last one because of:"
                    f" {first_line(error)} What is committed stays; run the same command again to"
                    " finish the rest."
                ) from error
            actors.start(done, name)
        except ray.exceptions.RayTaskError as error:
            raise reason_of(error) from error
        # Idle, it would keep the room from an actor that waits to be started again.
        ray.kill(actor)
    return True


def reason_of(error: Any) -> Exception:
    """What an actor raised, as this process would have."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, LatentCliError):
        return cause
    return LatentCliError(f"An actor failed: {cause}")


def dismiss(ray: Any, actors: Actors) -> None:
    """Lets the actors finish their batch, then ends them; if Ray is gone, so are they."""
    with suppress(ray.exceptions.RayError):
        ray.get(actors.ledger.stop.remote(), timeout=GRACE)
        ray.wait(list(actors.working), num_returns=max(len(actors.working), 1), timeout=GRACE)
        for _, actor, _ in actors.working.values():
            ray.kill(actor)
