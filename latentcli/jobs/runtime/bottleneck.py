"""Finds the stage that limits a job, and what would help, from how busy each stage was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from latentcli.jobs.runtime.advice import Limit, Setting, advice

IMAGE_STAGES = ("read", "decode_image", "preprocess")
MODEL_STAGES = ("encode", "decode")
TURNS = (*MODEL_STAGES, "metrics")
"""Stages that one thread does in turn, in every job that has them."""

SATURATED = 0.85
"""Share of its time that whoever limits a job is busy."""
OVERFULL = 1.25
"""Above this share more must run at once than was said, or the work is older than the interval."""
ENOUGH = 2.0
"""Seconds without which there is nothing to judge by."""


@dataclass(frozen=True, slots=True)
class ThreadGroup:
    """Threads or processes that share some stages; each does one stage at a time."""

    stages: tuple[str, ...]
    threads: int = 1
    """How many there are."""
    noun: str = "thread"


@dataclass(frozen=True, slots=True)
class Reading:
    """What the stages had done at a moment."""

    time: float
    """Seconds on the job's clock."""
    stages: Mapping[str, tuple[float, int]]
    """Stage to (seconds, items), summed over all threads, since the job began."""


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage in an interval of time."""

    name: str
    items: int
    """Since the job began."""
    rate: float
    """Items a second of wall time."""
    busy: float
    """How many of the threads were busy with this stage on average."""
    threads: int

    @property
    def share(self) -> float:
        """Share of the threads' time that this stage took, in [0, 1]."""
        return self.busy / self.threads


@dataclass(frozen=True, slots=True)
class Verdict:
    """The stage that limits a job, and what can be done about it."""

    stage: str
    busy: float
    """How many of the group of this stage were busy on average, with whatever stage."""
    of: int
    """How many there are."""
    idle: float | None
    """Share of the time that the model did nothing; None where there is no model."""
    figures: str
    advice: str
    """Empty where nothing is known to help."""

    @property
    def sentence(self) -> str:
        """All of it in words, without a full stop."""
        helps = f"; {self.advice} would help" if self.advice else ""
        return f"The slowest stage is {self.stage}: {self.figures}{helps}"


@dataclass(frozen=True, slots=True)
class Interval:
    """The stages between two readings."""

    before: Reading
    now: Reading
    groups: tuple[ThreadGroup, ...] = ()
    setting: Setting = field(default_factory=Setting)

    @property
    def span(self) -> float:
        """Seconds between the readings."""
        return self.now.time - self.before.time

    def load(self, stage: str) -> float:
        """Seconds spent in a stage per second of wall time; above its threads where they lag."""
        spent = seconds(self.now, stage) - seconds(self.before, stage)
        return spent / self.span if self.span > 0 else 0.0

    def views(self) -> tuple[StageView, ...]:
        """Every stage that has run, in the order in which they first did."""
        threads = {stage: group.threads for group in self.groups for stage in group.stages}
        found = []
        for name, (_, items) in self.now.stages.items():
            new = items - self.before.stages.get(name, (0.0, 0))[1]
            rate = new / self.span if self.span > 0 else 0.0
            of = threads.get(name, 1)
            found.append(StageView(name, items, rate, min(self.load(name), of), of))
        return tuple(found)

    def verdict(self) -> Verdict | None:
        """Who was busy nearly all the time; None where nobody was or the interval is too short."""
        if self.span < ENOUGH:
            return None
        loads = {group: sum(map(self.load, group.stages)) / group.threads for group in self.groups}
        full = [group for group, load in loads.items() if SATURATED <= load <= OVERFULL]
        if not full:
            return None
        # A model that is hardly ever idle is the limit, however full the others are besides. Those
        # a little above 1 are full, not fuller: what a queue held is counted when it leaves.
        group = max(full, key=lambda each: (has_model(each), min(loads[each], 1.0)))
        stage = max(group.stages, key=self.load)
        idle = None
        if any(name in self.now.stages for name in MODEL_STAGES):
            idle = max(1.0 - sum(map(self.load, MODEL_STAGES)), 0.0)
        return Verdict(
            stage,
            min(loads[group], 1.0) * group.threads,
            group.threads,
            idle,
            figures(self, group, stage, idle),
            advice(stage, Limit(group.threads, self.setting)),
        )


def has_model(group: ThreadGroup) -> bool:
    """Whether it runs the model."""
    return any(stage in MODEL_STAGES for stage in group.stages)


def seconds(reading: Reading, stage: str) -> float:
    """Seconds of a stage, 0 where it has not run."""
    return reading.stages.get(stage, (0.0, 0))[0]


def thread_groups(
    stages: Iterable[str], workers: int, threads: Mapping[str, int], groups: Iterable[ThreadGroup]
) -> tuple[ThreadGroup, ...]:
    """Who does which of `stages`: `groups` as given, then `threads`, then what is usual.

    Usual is one thread for the model's stages, `workers` processes for the image stages (with 0
    the model's thread does them too), and a thread for every other stage.
    """
    left = list(stages)
    found = []

    def take(group: ThreadGroup) -> None:
        mine = tuple(stage for stage in left if stage in group.stages)
        left[:] = [stage for stage in left if stage not in mine]
        if mine:
            found.append(ThreadGroup(mine, group.threads, group.noun))

    for group in groups:
        take(group)
    for stage, number in threads.items():
        take(ThreadGroup((stage,), number))
    if not workers:
        take(ThreadGroup((*TURNS, *IMAGE_STAGES)))
    take(ThreadGroup(TURNS))
    for stage in [stage for stage in left if stage not in IMAGE_STAGES]:
        take(ThreadGroup((stage,)))
    # A worker reads ahead in threads while it decodes.
    take(ThreadGroup(("read",), workers, "worker"))
    take(ThreadGroup(IMAGE_STAGES, workers, "worker"))
    return tuple(found)


def figures(interval: Interval, group: ThreadGroup, stage: str, idle: float | None) -> str:
    """How busy the group was and how idle the model."""
    rest = [name for name in group.stages if name != stage and name not in MODEL_STAGES]
    other = max(rest, key=interval.load, default=None)
    if stage in MODEL_STAGES and idle is not None:
        text = f"the model is busy {1 - idle:.0%} of the time"
        turns = other is not None and 1 - idle < SATURATED
        return f"{text} and takes turns with {other}" if turns else text
    if idle is not None and has_model(group):
        return f"it takes turns with the model, which is idle {idle:.0%}"
    busy = min(sum(map(interval.load, group.stages)), group.threads)
    text = f"busy {busy:.0%} of the time"
    if group.threads > 1 or (group.noun == "worker" and not interval.setting.clips):
        text = f"{busy:.1f} of {group.threads} {group.noun}{'s' * (group.threads > 1)} busy"
    return text if idle is None else f"{text}; the model is idle {idle:.0%}"
