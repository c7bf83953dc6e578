"""Training: one window a step until the planned steps or minutes are over.

Everything random follows from the seed and the number of the step, windows are prepared by a process beside, and the
state is checkpointed every few minutes; so a run that is killed at any moment goes on as if nothing had happened.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from nr_tracking.config import Config
from nr_tracking.data.cache import WindowCache
from nr_tracking.data.clip_cache import GeneratedWindows, open_windows
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.weights import load_weights, save_weights
from nr_tracking.training.batches import TrainingBatch, prepare
from nr_tracking.training.checkpoints import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from nr_tracking.training.journal import Journal
from nr_tracking.training.motion import motion_losses
from nr_tracking.training.objective import field_losses
from nr_tracking.training.schedule import ScheduleName, Stage, stage_at
from nr_tracking.training.validation import validate
from nr_tracking.types import InputError


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
) -> Path:
    """Train, or go on with, the run in ``run_folder`` and return its weights file.

    ``cache`` is a folder of training windows, which may grow meanwhile; ``validation`` one of held-out windows, which
    may come later. The
    plan is a number of ``steps`` (then a resumed run repeats an uninterrupted one to the bit) or of ``minutes``.
    ``start`` names weights to begin with; the ``deformation`` schedule needs them.

    Raises:
        InputError: for a cache, weights or a checkpoint that cannot be used.
        ValueError: unless exactly one of ``steps`` and ``minutes`` is given.
    """
    if (steps is None) == (minutes is None):
        raise ValueError("give either steps or minutes")
    run = Run(config, Path(cache), Path(run_folder), schedule, Plan(steps, minutes), start, validation)
    run.resume()
    while not run.finished:
        for batch in run.windows_of_epoch():
            run.step(batch)
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
        self.device = torch.device(config.device)
        self.cache = open_windows(cache, self.device, config.training.seed)
        self.validation = validation
        self.networks = build_networks(config, schedule, start).to(self.device)
        self.average = copy.deepcopy(self.networks).requires_grad_(False)
        learnt = [parameter for parameter in self.networks.parameters() if parameter.requires_grad]
        training = config.training
        self.optimizer = torch.optim.AdamW(
            learnt, lr=training.learning_rate, betas=training.betas, weight_decay=training.weight_decay
        )
        self.journal = Journal(folder / "log.jsonl")
        self.step_count = self.epoch = self.position = self.epoch_windows = self.skipped = 0
        self.seconds = self.checkpointed = self.validated = 0.0
        self._clock = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether the plan is fulfilled."""
        return self.plan.progress(self.step_count, self.seconds) >= 1.0

    def windows_of_epoch(self) -> Iterator[TrainingBatch]:
        """Yield what is left of the current epoch, in its own order, then go to the next one.

        The windows of an epoch are those that the cache held when it began.
        """
        if self.position == 0:
            self.epoch_windows = self.cache.refresh()
        else:
            self.cache.refresh()
        order = np.random.default_rng((self.config.training.seed, self.epoch)).permutation(self.epoch_windows)
        draws = [Draw(self.epoch, place, int(order[place])) for place in range(self.position, self.epoch_windows)]
        on_device = isinstance(self.cache, GeneratedWindows) and self.device.type == "cuda"
        workers = 0 if on_device else self.config.training.workers  # a forked process must not use CUDA
        loader = DataLoader(
            PreparedWindows(self.cache, self.config),
            batch_size=None,
            sampler=draws,  # type: ignore[arg-type]
            num_workers=workers,
            worker_init_fn=_modest_worker if workers else None,
            prefetch_factor=4 if workers else None,
        )
        for batch in loader:
            self.position += 1
            if batch is None:
                self.skipped += 1
            else:
                yield batch
        self.epoch, self.position = self.epoch + 1, 0

    def step(self, batch: TrainingBatch) -> None:
        """Learn from one window."""
        stage = self.stage()
        batch = batch.to(self.device)
        losses = self.losses(batch, stage)
        if not losses:  # nothing to learn from: a field without a surface cannot be deformed
            self.skipped += 1
            return
        total = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        learnt = self.optimizer.param_groups[0]["params"]
        norm = nn.utils.clip_grad_norm_(learnt, self.config.training.gradient_clip)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"step {self.step_count}: the gradient is {norm.item()}; lower the learning rate")
        for group in self.optimizer.param_groups:
            group["lr"] = stage.learning_rate
        self.optimizer.step()
        self.follow_average()
        self.tick()
        values = {name: float(value.detach()) for name, value in losses.items()}
        self.journal.write(
            "step",
            self.step_count,
            loss=float(total.detach()),
            **values,
            norm=float(norm),
            rate=stage.learning_rate,
            seconds=round(self.seconds, 3),
        )
        self.step_count += 1

    def stage(self) -> Stage:
        """What holds for the next step."""
        progress = self.plan.progress(self.step_count, self.seconds)
        return stage_at(self.schedule, self.config.training, step=self.step_count, epoch=self.epoch, progress=progress)

    def losses(self, batch: TrainingBatch, stage: Stage) -> dict[str, Tensor]:
        """Run the networks on one window and return the weighted losses."""
        taught = np.random.default_rng((self.config.training.seed, 1, self.step_count)).random() < stage.teacher
        completion = self.networks["completion"]
        frozen = not any(parameter.requires_grad for parameter in completion.parameters())
        with torch.set_grad_enabled(not frozen):
            field = completion(batch.window, batch.teacher if taught else None)
        losses = field_losses(field, batch, stage, self.config.training)
        if stage.weights.associates or stage.weights.deforms:
            decoder = self.networks["deformation"] if stage.weights.deforms else None
            losses |= motion_losses(field, decoder, batch, stage.weights, self.config)
        return losses

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
        if self.validation is not None and (Path(self.validation) / "manifest.json").is_file():
            scores = validate(self.average["completion"].eval(), WindowCache(self.validation), self.config)
            self.journal.write("validation", self.step_count, **scores, seconds=round(self.seconds, 3))
        self.journal.plot(self.folder / "curve.png")
        self.tick()
        return scores

    def tick(self) -> None:
        """Add the time since the last call to the run's."""
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now

    def checkpoint(self) -> None:
        """Write the whole state."""
        self.checkpointed = self.seconds
        tensors = {
            **_prefixed("networks", self.networks.state_dict()),
            **_prefixed("average", self.average.state_dict()),
            **_prefixed("optimizer", optimizer_tensors(self.optimizer)),
        }
        save_checkpoint(self.folder / "checkpoint", tensors, {**self.identity(), **self.place()})

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one.

        Raises:
            InputError: ``other_run`` where the folder holds a run with other settings.
        """
        saved = load_checkpoint(self.folder / "checkpoint")
        if saved is None:
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
        self.journal.rewind(self.step_count)

    def place(self) -> dict[str, Any]:
        """Where in the plan and in the data the run stands."""
        names = ("step_count", "epoch", "position", "epoch_windows", "skipped", "seconds", "checkpointed", "validated")
        return {name: getattr(self, name) for name in names}

    def identity(self) -> dict[str, Any]:
        """What must not change when a run goes on."""
        config = self.config.model_dump(mode="json", include={"preset", "model", "tsdf", "volume", "training"})
        for name in ("workers", "checkpoint_minutes", "validation_minutes", "validation_windows"):
            del config["training"][name]
        return {"schedule": self.schedule, **config}

    def finish(self) -> Path:
        """Checkpoint, validate and write the weights."""
        scores = self.validate()
        if scores:
            noisy = validate(self.average["completion"], WindowCache(str(self.validation)), self.config, noisy=True)
            self.journal.write("noisy_validation", self.step_count, **noisy, seconds=round(self.seconds, 3))
        self.checkpoint()
        return export_weights(self.config, self.folder, self.folder / "weights.safetensors", scores)


def build_networks(config: Config, schedule: ScheduleName, start: Path | str | None) -> nn.ModuleDict:
    """Make the networks that a schedule trains, from scratch or from weights.

    Under ``deformation`` the completion network is frozen. The deformation decoder is new unless ``start`` has one.
    """
    if schedule == "deformation" and start is None:
        raise InputError(
            "no_weights", "the deformation schedule trains on finished fields: give the weights to start from"
        )
    cap = min(config.model.active_cap, config.training.active_cap)
    completion = CompletionNetwork(config.model.model_copy(update={"active_cap": cap}))
    completion.mixed_precision = config.training.bfloat16
    networks = nn.ModuleDict({"completion": completion})
    if schedule != "completion":
        networks["deformation"] = DeformationDecoder(config.model)
    if start is not None:
        load_weights(start, {"completion": networks["completion"]}, preset=config.preset, model=config.model)
    if schedule == "deformation":
        networks["completion"].requires_grad_(False)
    return networks


def export_weights(config: Config, run_folder: Path, path: Path, notes: dict[str, Any] | None = None) -> Path:
    """Write the running average of a run's last checkpoint as a weights file; the run may still be going on.

    Raises:
        InputError: ``no_checkpoint`` where there is none yet.
    """
    saved = load_checkpoint(Path(run_folder) / "checkpoint")
    if saved is None:
        raise InputError("no_checkpoint", f"{run_folder} has no checkpoint yet")
    average = saved.part("average")
    parts = {name: _without(name, average) for name in sorted({key.split(".", 1)[0] for key in average})}
    about = {"steps": saved.state["step_count"], "minutes": round(saved.state["seconds"] / 60, 1), **(notes or {})}
    save_weights(
        path, parts, preset=config.preset, model=config.model, notes={key: str(value) for key, value in about.items()}
    )
    return Path(path)


class Draw(NamedTuple):
    """The window of one step: its number in the cache, and the epoch and place that seed its augmentation."""

    epoch: int
    place: int
    window: int


class PreparedWindows(Dataset[TrainingBatch | None]):
    """Windows ready for a step, by :class:`Draw`; None for one whose disturbed depth shows no subject any more."""

    def __init__(self, cache: WindowCache | GeneratedWindows, config: Config) -> None:
        self.cache, self.config = cache, config

    def __getitem__(self, draw: Draw) -> TrainingBatch | None:
        """Read and prepare one window."""
        rng = np.random.default_rng((self.config.training.seed, 2, draw.epoch, draw.place))
        try:
            return prepare(self.cache.drawn(draw.window, draw.epoch), self.config, rng)
        except InputError as error:
            if error.reason != "no_subject":
                raise
            return None


def _modest_worker(_: int) -> None:
    """One thread, and behind the training itself."""
    torch.set_num_threads(1)
    os.nice(5)


def _prefixed(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in tensors.items()}


def _without(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}
