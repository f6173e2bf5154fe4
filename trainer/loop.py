"""Loop: a dataset and a configuration in, a trained network out; stopped and gone on with at any step."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..composer.dataset import Dataset, Sample, open_dataset
from ..composer.errors import TrainingError
from .checkpoint import load_checkpoint, save_checkpoint
from .config import Config, differences
from .journal import Display, Journal, Line, write_page
from .learner import Learner, Step, learning_rate
from .mnet import MNet
from .place import Place
from .stream import REMEMBER, Stream, open_stream
from .validate import guess_half, guess_ramp, panel, predict_whole, score, validation_samples

LAST, BEST, CONFIG = "last.pt", "best.pt", "config.json"
MOST_WORKERS = 8


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes
    ----------
    step, steps : done, of how many; fewer where it was asked to stop
    seconds : of training, over all its parts
    loss : of the last line
    best_step, best_sad : the best validation, None where there was none
    """

    step: int
    steps: int
    seconds: float
    loss: float | None
    best_step: int | None
    best_sad: float | None


@dataclass(frozen=True)
class Outlook:
    """What a training is going to be.

    Attributes
    ----------
    composites : that train; validated : that are scored, each time
    parameters : of the network
    crops : a step; steps; epochs : how often each composite is seen
    processes, device
    warnings : what may waste a week, a line each
    """

    composites: int
    validated: int
    parameters: int
    crops: int
    steps: int
    epochs: float
    processes: int
    device: str
    warnings: list[str]

    def __str__(self) -> str:
        lines = [
            f"{self.parameters:,} parameters on {self.processes} × {self.device};"
            f" {self.steps:,} steps of {self.crops} crops: {self.epochs:.1f} epochs of {self.composites:,} composites",
            *(f"warning: {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)


def outlook(dataset: str | Path, config: Config, place: Place) -> Outlook:
    """Say what a training is going to be, without beginning it.

    Raises
    ------
    DatasetError : as `open_stream`
    """
    opened = open_dataset(dataset)
    table = config.stream
    open_stream(opened, crop=table.crop, sizes=table.sizes, colours=config.composes)  # raises where it cannot be
    composites = sum(shard.composites for shard in opened.shards if shard.split == "train")
    validated = len(validation_samples(opened, config.validation.limit))
    crops = _crops_a_step(config, place)
    warnings = []
    if not validated:
        warnings.append("the dataset has no validation split: nothing will be scored, and there will be no best.pt")
    if opened.document["failures"]:
        warnings.append(f"{len(opened.document['failures']):,} composites of the dataset are missing; see its index")
    if config.network.encoder == "random" and config.network.width == 1:
        warnings.append("training from random weights; network.encoder=download starts from VGG16's, as the papers do")
    if place.device.type == "cpu" and config.network.width > 0.5:
        warnings.append("a network of this width takes seconds a crop on a CPU; --config cpu-small is made for it")
    with torch.device("meta"):
        parameters = sum(p.numel() for p in MNet(**config.network.model_dump(exclude={"encoder"})).parameters())
    return Outlook(
        composites, validated, parameters, crops, config.steps, config.steps * crops / composites, place.world,
        str(place.device), warnings,
    )  # fmt: skip


def train(dataset: str | Path, out: Path, config: Config, place: Place, display: Display, resume: bool) -> Outcome:
    """Train a network.

    Parameters
    ----------
    dataset : its folder
    out : the run's folder: config.json, metrics.jsonl, last.pt, best.pt, panels/, curves.png, index.html
    config : how
    place : on what
    display : where progress is shown
    resume : go on from last.pt. The steps that follow are those of a run that never stopped: bit for bit on a CPU,
        with any number of workers

    Raises
    ------
    DatasetError, TrainingError : with the way out; what was saved before stays
    """
    opened = open_dataset(dataset, REMEMBER)
    state = _open_run(out, opened, config, place, resume)
    learner = Learner(config, place)
    run = _Run(opened, out, config, place, learner, state)
    try:
        with _explained_memory(), _stoppable() as stop:
            return run.go(display, stop)
    finally:
        opened.close()


class _Run:
    """One training between its start and its end, or the next stop."""

    def __init__(
        self,
        dataset: Dataset,
        out: Path,
        config: Config,
        place: Place,
        learner: Learner,
        state: Mapping[str, Any] | None,
    ) -> None:
        self._dataset, self._out, self._config, self._place, self._learner = dataset, out, config, place, learner
        self._step, self._seconds = 0, 0.0
        self._best: tuple[int, float] | None = None
        self._loss: float | None = None
        if state is not None:
            learner.load(state, out / LAST)
            self._step, self._seconds = state["step"], state["seconds"]
            self._best = None if state["best"] is None else (state["best"][0], state["best"][1])
        self._began = time.perf_counter() - self._seconds
        self._validated = validation_samples(dataset, config.validation.limit)

    def go(self, display: Display, stop: _Stop) -> Outcome:
        """Train to the end, or until asked to stop."""
        config = self._config
        journal = Journal(self._out, self._step, display, config.tensorboard) if self._place.leads else None
        stream = self._open_stream()
        try:
            if self._step == 0:
                self._judge_guesses(journal)
            stopped = self._steps(stream, journal, stop)
        finally:
            stream.close()
            if journal is not None:
                journal.close()
        if self._place.leads:
            self._write_page(stopped)
        best_step, best_sad = self._best or (None, None)
        return Outcome(self._step, config.steps, self._elapsed(), self._loss, best_step, best_sad)

    def _steps(self, stream: Stream, journal: Journal | None, stop: _Stop) -> bool:
        """Take the steps; tell whether they were stopped short."""
        config = self._config
        batches = iter(stream)
        meter = _Meter(self._place, config)
        unproven: Step | None = None  # its numbers are looked at one step later, when the device has long finished
        while self._step < config.steps:
            with meter.waiting():
                taken = list(islice(batches, config.optimiser.accumulate))
            step = self._learner.step(self._step, taken)
            if unproven is not None:
                self._prove(unproven, self._step - 1)
            meter.add(step)
            unproven = step
            self._step += 1
            done = self._step == config.steps
            stopping = self._place.any(stop.asked)
            due = {every: every and self._step % every == 0 for every in
                   (config.log_every, config.validation.every, config.save_every, config.keep_every)}  # fmt: skip
            if not (done or stopping or any(due.values())):
                continue
            self._prove(step, self._step - 1)
            unproven = None
            if due[config.log_every] or done or stopping:
                rate = learning_rate(config.optimiser, self._step - 1, config.steps)
                line = meter.line(self._step, self._elapsed(), rate, self._learner.losses)
                self._loss = line.loss
                if journal is not None:
                    journal.train(line)
            with meter.aside():
                if (due[config.validation.every] or done) and self._validated and not stopping:
                    self._validate(journal)
                if due[config.save_every] or done or stopping:
                    self._save(LAST)
                if due[config.keep_every]:
                    self._save(f"step-{self._step:07d}.pt")
            if stopping and not done:
                return True
        return False

    def _prove(self, step: Step, number: int) -> None:
        """Stop where a step was not finite, before anything of it is saved."""
        if not bool(torch.isfinite(step.numbers).all()):
            keys = ", ".join(self._dataset.row(int(sample)).key for sample in step.samples)
            values = dict(zip(("sum", "gradient", *self._learner.losses), step.numbers.tolist(), strict=True))
            raise TrainingError(
                f"step {number + 1}: not finite: {values}. Its composites: {keys}. {self._out / LAST} is from before."
                " Take a lower optimiser.rate, optimiser.clip=1.0 or precision=float32, and go on with --resume if only"
                " what may change has changed"
            )

    def _open_stream(self) -> Stream:
        config, place, table = self._config, self._place, self._config.stream
        workers = table.workers
        if workers is None:
            workers = min(MOST_WORKERS, max(1, _cores() // place.world))
        return open_stream(
            self._dataset, batch=table.batch, crop=table.crop, sizes=table.sizes, seed=config.seed,
            start=self._step * config.optimiser.accumulate, rank=place.rank, world=place.world, augment=table.augment,
            colours=config.composes, open_shards=table.open_shards, workers=workers, prefetch=table.prefetch,
            pin=place.device.type == "cuda",
        )  # fmt: skip

    def _judge_guesses(self, journal: Journal | None) -> None:
        """Score what a network must beat: no answer at all, and the best that the trimap alone allows."""
        for name, guess in (("unknown = 0.5", guess_half), ("trimap alone", guess_ramp)):
            if self._validated:
                scores = score(self._dataset, self._validated, guess, self._place)
                if journal is not None:
                    journal.validation(0, asdict(scores), name)

    def _validate(self, journal: Journal | None) -> None:
        """Score the network on whole composites, keep it if it is the best, and draw the panel."""
        settings, network = self._config.validation, self._learner.best_network
        network.eval()

        def predict(sample: Sample) -> Any:
            bf16 = self._config.precision == "bf16" and self._place.device.type == "cuda"
            return predict_whole(network, sample.image, sample.trimap, settings.max_side, bf16)

        scores = score(self._dataset, self._validated, predict, self._place)
        if self._best is None or scores.sad < self._best[1]:
            self._best = (self._step, scores.sad)
            self._save(BEST)
        if journal is not None:
            journal.validation(self._step, asdict(scores))
            if settings.panel:
                shown = validation_samples(self._dataset, settings.panel)
                samples = [self._dataset[number] for number in shown]
                journal.panel(self._step, panel([(sample, predict(sample)) for sample in samples]))
            self._write_page(stopped=False)

    def _save(self, name: str) -> None:
        if self._place.leads:
            state = self._learner.state() | {
                "step": self._step, "seconds": self._elapsed(), "best": self._best,
                "config": self._config.model_dump(mode="json"), "plan_sha256": self._dataset.document["plan_sha256"],
                "crops": _crops_a_step(self._config, self._place),
            }  # fmt: skip
            save_checkpoint(self._out / name, state)
        self._place.barrier()

    def _write_page(self, stopped: bool) -> None:
        state = "Stopped." if stopped else "Finished." if self._step == self._config.steps else "Running."
        write_page(self._out, self._out.name, self._config.model_dump_json(indent=1), state)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began


class _Meter:
    """Add up what happens between two lines."""

    def __init__(self, place: Place, config: Config) -> None:
        self._place, self._config = place, config
        self._sums: torch.Tensor | None = None
        self._steps, self._waited, self._aside = 0, 0.0, 0.0
        self._began = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time within as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the time within out: it is not training."""
        start = time.perf_counter()
        yield
        self._aside += time.perf_counter() - start

    def add(self, step: Step) -> None:
        """Count a step."""
        self._sums = step.numbers if self._sums is None else self._sums + step.numbers
        self._steps += 1

    def line(self, step: int, seconds: float, rate: float, losses: Sequence[str]) -> Line:
        """Sum up, and begin anew."""
        assert self._sums is not None
        total, gradient, *parts = (self._sums / self._steps).tolist()  # waits for the device
        spent = max(time.perf_counter() - self._began - self._aside, 1e-9)
        steps = self._config.steps
        line = Line(
            step=step,
            steps=steps,
            loss=total,
            losses=dict(zip(losses, parts, strict=True)),
            gradient=gradient,
            rate=rate,
            crops_per_second=self._steps * _crops_a_step(self._config, self._place) / spent,
            waiting=min(1.0, self._waited / spent),
            memory=_peak_memory(self._place),
            seconds=seconds,
            left=(steps - step) * spent / self._steps,
        )
        self._sums = None
        self._steps, self._waited, self._aside = 0, 0.0, 0.0
        self._began = time.perf_counter()
        return line


def _crops_a_step(config: Config, place: Place) -> int:
    return config.stream.batch * config.optimiser.accumulate * place.world


def _open_run(out: Path, dataset: Dataset, config: Config, place: Place, resume: bool) -> Mapping[str, Any] | None:
    """Begin a run's folder, or check that the run in it is the one to go on with; return its last state."""
    last = out / LAST
    if not resume:
        if last.exists() or (out / CONFIG).exists():
            raise TrainingError(f"{out}: already holds a run; go on with it by --resume, or take another --out")
        if place.leads:
            try:
                out.mkdir(parents=True, exist_ok=True)
                (out / CONFIG).write_text(json.dumps(config.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
            except OSError as error:
                raise TrainingError(f"{out}: cannot be written ({error.strerror})") from None
        place.barrier()
        return None
    if not last.exists() and (out / CONFIG).exists():  # it was stopped before anything was saved
        return None
    state = load_checkpoint(last)
    if state["plan_sha256"] != dataset.document["plan_sha256"]:
        raise TrainingError(f"{last}: was trained on another dataset than {dataset.path}; go on with that one")
    changed = differences(state["config"], config.model_dump(mode="json"))
    if state["crops"] != _crops_a_step(config, place):
        changed.append(f"crops a step were {state['crops']}, are {_crops_a_step(config, place)}")
    if changed:
        raise TrainingError(f"{out}: belongs to another configuration: {'; '.join(changed)}. Take another --out")
    return state


class _Stop:
    """Whether somebody asked to stop."""

    asked = False


@contextmanager
def _stoppable() -> Iterator[_Stop]:
    """Take Ctrl-C and SIGTERM as a wish to save and stop after this step; the second one is obeyed at once."""
    stop = _Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: object) -> None:
        stop.asked = True
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _explained_memory() -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU's memory is too small ({str(error).splitlines()[0]}). Halve stream.batch and double"
            " optimiser.accumulate: the steps stay the same; or take precision=bf16, or a smaller network.width"
        ) from None


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _peak_memory(place: Place) -> int:
    if place.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(place.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
