"""Training: step after step until the planned steps or minutes are over, alone or with others under ``torchrun``.

Everything random follows from the seed and the number of the step, windows are prepared by a process beside, and the
state is checkpointed every few minutes; so a run that is killed at any moment goes on as if nothing had happened. How
many processes share the windows of a step changes nothing but the order in which gradients are summed.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nr_tracking.config import Config
from nr_tracking.data.cache import WindowCache
from nr_tracking.data.clip_cache import GeneratedWindows, open_windows
from nr_tracking.fields.weights import read_weights
from nr_tracking.training.allocation import keep_freed_memory
from nr_tracking.training.batches import TrainingBatch
from nr_tracking.training.checkpoints import (
    check_shards,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from nr_tracking.training.feed import draws_of_epoch, prepared
from nr_tracking.training.journal import Journal
from nr_tracking.training.networks import build_networks, export_weights
from nr_tracking.training.objective import frame_losses, window_losses
from nr_tracking.training.schedule import ScheduleName, Stage, gate_after, least_frames, stage_at
from nr_tracking.training.team import Team
from nr_tracking.training.validation import validate
from nr_tracking.types import InputError

_TELL_S = 10.0
_BARREN = (
    "their depth, as disturbed by training.noise, dropout and occluder, shows no subject, or the fields to deform have "
    "no surface; look at the contact sheet of the cache, and at the weights to start from"
)
_LEAST_BARREN = 64
"""Windows in a row from which nothing can be learnt, at least, before a run gives up."""


def train(
    config: Config,
    cache: Path | str,
    run_folder: Path | str,
    *,
    schedule: ScheduleName = "completion",
    steps: int | None = None,
    minutes: float | None = None,
    start: Path | str | None = None,
    validation: Path | str | None = None,
    report: Callable[[str], None] | None = None,
) -> Path:
    """Train, or go on with, the run in ``run_folder`` and return its weights file.

    ``cache`` is a folder of training windows, which may grow meanwhile, or a file of clips; ``validation`` a folder of
    held-out windows, which may come later. The
    plan is a number of ``steps`` (then a resumed run repeats an uninterrupted one to the bit) or of ``minutes``.
    ``start`` names weights to begin with; the ``deformation`` schedule needs them. ``report`` gets a line now and then.
    Under ``torchrun`` all processes call this alike; they need to see the same files.

    Raises:
        InputError: for a cache, weights or a checkpoint that cannot be used, for a plan that has no end, and
            ``no_surface`` where a whole epoch of windows teaches nothing.
        ValueError: unless exactly one of ``steps`` and ``minutes`` is given.
    """
    if (steps is None) == (minutes is None):
        raise ValueError("give either steps or minutes")
    for name, length in (("steps", steps), ("minutes", minutes)):
        if length is not None and not 0 < length < math.inf:
            raise InputError("bad_plan", f"{name} = {length}: a run takes more than 0 of them, and comes to an end")
    run = Run(config, Path(cache), Path(run_folder), schedule, Plan(steps, minutes), start, validation)
    run.resume()
    while not run.finished:
        for batches in run.windows_of_epoch():
            if run.step(batches) and report:
                run.tell(report)
            run.keep()
            if run.finished:
                break
    return run.finish()


class Plan(NamedTuple):
    """How long a run takes: in steps or in minutes of wall-clock time."""

    steps: int | None
    minutes: float | None

    def progress(self, step: int, seconds: float) -> float:
        """Share of the plan that is done; 1 and more is the end."""
        return step / self.steps if self.steps else seconds / (60.0 * (self.minutes or 1e-9))


class Run:
    """One training run: networks, optimiser, running average, and where in the data it stands."""

    def __init__(
        self,
        config: Config,
        cache: Path,
        folder: Path,
        schedule: ScheduleName,
        plan: Plan,
        start: Path | str | None,
        validation: Path | str | None,
    ) -> None:
        torch.manual_seed(config.training.seed)
        self.config, self.schedule, self.plan, self.folder = config, schedule, plan, folder
        self.team = Team(torch.device(config.device))
        self.device = self.team.device
        self.windows_per_step = max(config.training.windows_per_step, self.team.size)
        if self.windows_per_step % self.team.size:
            raise InputError(
                "uneven_team",
                f"training.windows_per_step = {self.windows_per_step} cannot be shared evenly by {self.team.size} "
                "processes",
            )
        keep_freed_memory()
        frames, least = config.training.window_frames, least_frames(schedule, config.training)
        if cache.is_file() and frames < least:
            raise InputError(
                "short_windows",
                f"training.window_frames is {frames}: frames are compared, and it takes {least} of them",
            )
        if schedule == "paper" and any(config.training.gates) and validation is None:
            raise InputError("no_validation", "training.gates are scores on validation windows: name some")
        self.cache = open_windows(
            cache,
            self.device,
            config.training.seed,
            config.training.subject_pixels,
            1 if schedule == "rays" else config.training.window_frames,
        )
        self.validation = validation
        self.start = None if start is None else read_weights(start).sha256
        self.networks = build_networks(config, schedule, start).to(self.device)
        check_shards(self.networks.state_dict())
        self.average = copy.deepcopy(self.networks).requires_grad_(False)
        learnt = [parameter for parameter in self.networks.parameters() if parameter.requires_grad]
        training = config.training
        self.optimizer = torch.optim.AdamW(
            learnt, lr=training.learning_rate, betas=training.betas, weight_decay=training.weight_decay, fused=True
        )
        self.journal = Journal(folder / "log.jsonl")
        self.step_count = self.epoch = self.position = self.epoch_windows = self.skipped = self.waited = 0
        self.seconds = self.checkpointed = self.validated = self._told = 0.0
        self.last_loss = 0.0
        self.barren = 0
        self._clock = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether the plan is fulfilled."""
        return self.plan.progress(self.step_count, self.seconds) >= 1.0

    def windows_of_epoch(self) -> Iterator[list[TrainingBatch]]:
        """Yield what is left of the current epoch, step by step, in its own order, then go to the next one.

        Each time, those of this process that show a subject. The windows of an epoch are those that the cache held when
        it began.
        """
        held = int(self.team.agreed(self.cache.refresh()))
        self.cache.refresh()  # where a process had looked before the first one did, and windows were added between
        if self.position == 0:
            self.epoch_windows = held
        if held < self.epoch_windows:
            raise InputError(
                "few_windows", f"the run had {self.epoch_windows} windows, {held} are there: complete them to go on"
            )
        if self.epoch_windows < self.windows_per_step:
            raise InputError(
                "few_windows", f"{self.epoch_windows} windows do not make a step of {self.windows_per_step}"
            )
        training, size = self.config.training, self.team.size
        draws = draws_of_epoch(
            training.seed,
            self.epoch,
            self.epoch_windows,
            self.position,
            self.windows_per_step,
            self.team.rank,
            size,
            training.echoes,
        )
        on_device = isinstance(self.cache, GeneratedWindows) and self.device.type == "cuda"
        workers = 0 if on_device else training.workers  # a forked process must not use CUDA
        windows = prepared(self.cache, self.config, draws, workers, single=self.schedule == "rays")
        for _ in range(len(draws) * size // self.windows_per_step):
            batches = [next(windows) for _ in range(self.windows_per_step // size)]
            self.position += self.windows_per_step
            yield [batch for batch in batches if batch is not None]
        self.epoch, self.position = self.epoch + 1, 0
        self.pass_gate()

    def step(self, batches: list[TrainingBatch]) -> bool:
        """Learn from the windows of this process together with those of the others; False if none teaches anything.

        That is so where the disturbed depth shows no subject, and where a field without a surface cannot be deformed.

        Raises:
            InputError: ``no_surface`` where this was so for as many windows in a row as an epoch has.
        """
        stage = self.stage()
        self.optimizer.zero_grad(set_to_none=True)
        rows: list[dict[str, float]] = []
        for part in self.losses(batches, stage):
            found = [losses for losses in part if losses]
            if found:
                torch.stack([value for losses in found for value in losses.values()]).sum().backward()
            for losses in found:
                row = {name: float(value.detach()) for name, value in losses.items()}
                rows.append({"loss": sum(row.values()), **row})
        rows = self.team.gathered(rows)
        self.skipped += self.windows_per_step - len(rows)
        self.tick()  # time passes, and a plan of minutes ends, whether or not there is something to learn
        self.barren = 0 if rows else self.barren + self.windows_per_step
        if not rows:
            if self.barren >= max(self.epoch_windows, _LEAST_BARREN):
                raise InputError("no_surface", f"{self.barren} windows in a row teach nothing: {_BARREN}")
            return False
        learnt = self.optimizer.param_groups[0]["params"]
        self.team.average_gradients(learnt, len(rows))
        norm = nn.utils.clip_grad_norm_(learnt, self.config.training.gradient_clip)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"step {self.step_count}: the gradient is {norm.item()}; lower the learning rate")
        for group in self.optimizer.param_groups:
            group["lr"] = stage.learning_rate
        self.optimizer.step()
        self.follow_average()
        values = {name: float(np.mean([row[name] for row in rows if name in row])) for name in rows[0]}
        self.last_loss = values.pop("loss")
        if self.team.leads:
            self.journal.write(
                "step",
                self.step_count,
                **{"loss": self.last_loss, **values},
                norm=float(norm),
                rate=stage.learning_rate,
                seconds=round(self.seconds, 3),
            )
        self.step_count += 1
        return True

    def stage(self) -> Stage:
        """What holds for the next step."""
        progress = self.plan.progress(self.step_count, self.seconds)
        epoch = self.epoch - self.waited
        return stage_at(self.schedule, self.config.training, step=self.step_count, epoch=epoch, progress=progress)

    def pass_gate(self) -> None:
        """Stay in a phase of the paper's schedule for one more epoch where its gate is not reached."""
        gate = (
            gate_after(self.epoch - 1 - self.waited, self.config.training.gates) if self.schedule == "paper" else None
        )
        if gate is None:
            return
        name, least = gate
        reached = self.validate().get(name, 0.0)
        if reached < least:
            self.waited += 1
            if self.team.leads:
                self.journal.write("gate", self.step_count, waits_for=name, least=least, reached=reached)

    def tell(self, report: Callable[[str], None]) -> None:
        """Say every ten seconds how far the run has come."""
        if not self.team.leads or self.seconds - self._told < _TELL_S:
            return
        self._told = self.seconds
        done = self.plan.progress(self.step_count, self.seconds)
        of = f" of {self.plan.steps}" if self.plan.steps else ""
        left = self.seconds * (1 - done) / max(done, 1e-9)
        report(f"step {self.step_count}{of}: loss {self.last_loss:.3g}, epoch {self.epoch}, {left:.0f} s left")

    def losses(self, batches: list[TrainingBatch], stage: Stage) -> Iterator[list[dict[str, Tensor]]]:
        """Run the networks on windows; yield the weighted losses of each, those together that were found at once."""
        if stage.weights.rays == 0:
            for batch in batches:
                yield [window_losses(self.networks, batch.to(self.device), stage, self.config, self.taught(stage))]
        elif batches:  # single frames are so small that they go through the network at once
            yield frame_losses(self.networks, [batch.to(self.device) for batch in batches], self.config.training)

    def taught(self, stage: Stage) -> bool:
        """Whether true refinement masks help in the next step."""
        return np.random.default_rng((self.config.training.seed, 1, self.step_count)).random() < stage.teacher

    @torch.no_grad()
    def follow_average(self) -> None:
        """Move the running average towards the weights; faster in the beginning, when it knows nothing."""
        decay = min(self.config.training.average, (1 + self.step_count) / (10 + self.step_count))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.networks.parameters()), 1.0 - decay)

    def keep(self) -> None:
        """Validate and checkpoint where it is time."""
        training = self.config.training
        if self.seconds - self.validated >= 60.0 * training.validation_minutes:
            self.validate()
        if self.seconds - self.checkpointed >= 60.0 * training.checkpoint_minutes:
            self.checkpoint()

    def validate(self) -> dict[str, float]:
        """Score the running average on held-out windows, log it, and draw the curve."""
        self.validated = self.seconds
        scores: dict[str, float] = {}
        if not self.team.leads:
            return self.team.agreed(scores)
        if self.validation is not None and (Path(self.validation) / "manifest.json").is_file():
            scores = validate(self.average.eval(), WindowCache(self.validation), self.config)
            self.journal.write("validation", self.step_count, **scores, seconds=round(self.seconds, 3))
        self.journal.plot(self.folder / "curve.png")
        return self.team.agreed(scores)

    def tick(self) -> None:
        """Add the time since the last call to the run's; the first process has the clock."""
        now = time.monotonic()
        self.seconds, self._clock = self.team.agreed(self.seconds + now - self._clock), now

    def checkpoint(self) -> None:
        """Write the whole state."""
        self.checkpointed = self.seconds
        if not self.team.leads:
            return
        tensors = {
            **_prefixed("networks", self.networks.state_dict()),
            **_prefixed("average", self.average.state_dict()),
            **_prefixed("optimizer", optimizer_tensors(self.optimizer)),
        }
        state = {**self.identity(), **self.place(), "logged": self.journal.size}
        save_checkpoint(self.folder / "checkpoint", tensors, state)

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one.

        Raises:
            InputError: ``other_run`` where the folder holds a run with other settings.
        """
        saved = load_checkpoint(self.folder / "checkpoint")
        if saved is None:
            if self.team.leads:
                self.journal.rewind(0)
            return
        for key, value in self.identity().items():
            if saved.state.get(key) != value:
                raise InputError("other_run", f"{self.folder} holds a run with another {key}: choose another folder")
        self.networks.load_state_dict(saved.part("networks"))
        self.average.load_state_dict(saved.part("average"))
        restore_optimizer(self.optimizer, saved.part("optimizer"))
        for key in self.place():
            setattr(self, key, saved.state[key])
        if self.team.leads:
            # A run that has come to its end scores itself again, one that is extended does not. Older checkpoints do
            # not say how much was logged before them: nearly always all that is there.
            self.journal.rewind(self.step_count, 0 if self.finished else saved.state.get("logged", math.inf))

    def place(self) -> dict[str, Any]:
        """Where in the plan and in the data the run stands."""
        counts = ("step_count", "epoch", "position", "epoch_windows", "skipped", "waited")
        names = (*counts, "seconds", "checkpointed", "validated")
        return {name: getattr(self, name) for name in names}

    def identity(self) -> dict[str, Any]:
        """What must not change when a run goes on."""
        parts = {"preset", "model", "tsdf", "volume", "deformation", "training"}
        config = self.config.model_dump(mode="json", include=parts)
        for name in ("workers", "checkpoint_minutes", "validation_minutes", "validation_windows"):
            del config["training"][name]
        came_from = {"cache": self.cache.digest(), "start": self.start}
        return {"schedule": self.schedule, "windows_per_step": self.windows_per_step, **came_from, **config}

    def finish(self) -> Path:
        """Checkpoint, validate and write the weights."""
        scores, path = self.validate(), self.folder / "weights.safetensors"
        if self.team.leads:
            if scores:
                noisy = validate(self.average, WindowCache(str(self.validation)), self.config, noisy=True)
                self.journal.write("noisy_validation", self.step_count, **noisy, seconds=round(self.seconds, 3))
            self.checkpoint()
            export_weights(self.config, self.folder, path, scores)
        return self.team.agreed(path)


def _prefixed(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in tensors.items()}
