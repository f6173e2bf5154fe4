"""Loop: a dataset and a configuration in, a trained network out; stopped and gone on with at any step."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ...composer.base.errors import DatasetError, MattingComposeError, TrainingError
from ...composer.base.files import lock_exclusively
from ...composer.dataset.dataset import Dataset, Sample, open_dataset
from ..data.stream import REMEMBER, Batch, Stream, open_stream
from ..networks.checkpoint import save_checkpoint
from ..networks.mnet import MNet
from .config import Config, crops_a_step
from .learner import Learner, Step, learning_rate
from .run_folder import BEST, LAST, check_folder, previous_state, write_config
from .run_log import Display, Journal, Meter, write_page
from .runtime import Place, Stop, Stopped, stoppable
from .validate import guess_half, guess_ramp, panel, predict_whole, score, validation_samples

MOST_WORKERS = 8


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes
    ----------
    step, steps : done, of how many
    stopped : something is left to do, because it was asked to stop
    seconds : of training, over all its parts
    loss : of the last line, None where no step was taken
    best_step, best_sad : the best validation, None where there was none
    """

    step: int
    steps: int
    stopped: bool
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
    composites = _composites(opened)
    validated = len(validation_samples(opened, config.validation.limit))
    crops = crops_a_step(config, place)
    warnings = []
    if not validated:
        warnings.append("the dataset has no validation split: nothing will be scored, and there will be no best.pt")
    if opened.failures:
        warnings.append(f"{len(opened.failures):,} composites of the dataset are missing; see its index")
    if config.network.encoder == "random" and config.network.width == 1:
        warnings.append("training from random weights; network.encoder=download starts from VGG16's, as the papers do")
    network = config.network
    if (network.encoder, network.decoder, network.output) == ("random", "unpool", "clamp"):
        warnings.append("from random weights, unpool with clamp rarely learns: take network.output=sigmoid and"
                        " network.decoder=resize, or VGG16's encoder")  # fmt: skip
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
    check_folder(out, resume)
    opened = open_dataset(dataset, REMEMBER)
    try:
        with ExitStack() as stack:
            stop = stack.enter_context(stoppable())
            stack.enter_context(_explained(out))
            learner = Learner(config, place)  # before there is a folder: its encoder may be missing
            if place.leads:
                stack.enter_context(lock_exclusively(out, "training"))
            state = previous_state(out, opened, config, place) if resume else None
            run = _Run(opened, out, config, place, learner, state)
            place.barrier()  # all have looked at the folder before one of them changes it
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
        self._judged = -1  # the step of the last validation; at 0 guesses are judged
        self._best: tuple[int, float] | None = None
        self._loss: float | None = None
        self._failure = ""  # why this process has no more data
        self._unproven: Step | None = None  # its numbers are looked at a step later, when the device has long finished
        self._mended = state is not None and state["composites"] != _composites(dataset)
        if state is not None:
            learner.load(state, out / LAST)
            self._step, self._seconds, self._judged = state["step"], state["seconds"], state["judged"]
            self._best = None if state["best"] is None else (state["best"][0], state["best"][1])
        self._began = time.perf_counter() - self._seconds
        self._validated = validation_samples(dataset, config.validation.limit)

    def go(self, display: Display, stop: Stop) -> Outcome:
        """Train to the end, or until asked to stop."""
        if self._step == 0:
            self._begin()
        journal = None
        if self._place.leads:
            journal = Journal(self._out, self._step, self._judged, display, self._config.tensorboard)
        if journal is not None and self._mended:
            journal.say("warning: the dataset was mended since the last step; from here on the order is another")
        stream = self._open_stream()
        try:
            stopped = self._steps(stream, journal, stop)
        finally:
            stream.close()
            if journal is not None:
                journal.close()
        if self._place.leads:
            self._write_page("Stopped." if stopped else "Finished.")
        best_step, best_sad = self._best or (None, None)
        return Outcome(self._step, self._config.steps, stopped, self._elapsed(), self._loss, best_step, best_sad)

    def _begin(self) -> None:
        """Save before the first step: what cannot be written is found out now, and there is always a last.pt."""
        self._save(LAST)
        if self._place.leads:
            write_config(self._out, self._config)

    def _steps(self, stream: Stream, journal: Journal | None, stop: Stop) -> bool:
        """Take the steps; tell whether they were stopped short."""
        config = self._config
        pending = self._pending()
        stopping = not self._judge(journal, stop)
        if pending and not stopping:
            self._save(LAST)
        meter = Meter(self._place, config)
        data = self._agreed(iter(stream), meter, stop)
        while self._step < config.steps and not stopping:
            batches = next(data, [])
            if batches:
                step = self._learner.step(self._step, batches)
                self._prove()
                self._unproven = step
                meter.add(step)
                self._step += 1
            stopping = not batches
            if stopping or self._due(config.log_every, config.validation.every, config.save_every, config.keep_every):
                self._prove()
                if meter.steps and (stopping or self._due(config.log_every)):
                    self._tell(meter, journal)
                with meter.aside():
                    stopping = stopping or not self._judge(journal, stop)
                    if stopping or self._due(config.save_every):
                        self._save(LAST)
                    if self._due(config.keep_every):
                        self._save(f"step-{self._step:07d}.pt")
        if failure := self._place.first_of(self._failure):
            raise TrainingError(f"{failure}. Saved at step {self._step:,}: once it is mended, go on with --resume")
        return self._step < config.steps or self._pending()

    def _due(self, *every: int) -> bool:
        """Tell whether something that happens every so many steps, and after the last one, is to happen now."""
        return any(e and (self._step % e == 0 or self._step == self._config.steps) for e in every)

    def _agreed(self, batches: Iterator[Batch], meter: Meter, stop: Stop) -> Iterator[list[Batch]]:
        """Yield each step's batches once every process has its own; end where one has none, or wishes to stop.

        Several processes tell each other a step ahead, and listen while their devices take the step before: all end
        before the same step, and no device waits to hear of it.
        """
        late = int(self._place.world > 1)
        ahead: deque[tuple[list[Batch], torch.Tensor]] = deque()
        count = self._config.steps - self._step
        for number in range(count + late):
            if number < count:
                taken = self._take(batches, meter, stop)
                ahead.append((taken, self._place.any(not taken or (late > 0 and stop.asked))))
            if number >= late:
                taken, ends = ahead.popleft()
                if ends > 0:
                    return
                yield taken

    def _take(self, batches: Iterator[Batch], meter: Meter, stop: Stop) -> list[Batch]:
        """Wait for a step's batches; [] where the wish to stop came first, or where they cannot be read."""
        count = self._config.optimiser.accumulate
        try:
            with meter.waiting():
                if self._place.world > 1:  # the others would wait for this one's step
                    return list(islice(batches, count))
                with stop.at_once():
                    return list(islice(batches, count))
        except Stopped:
            pass
        except MattingComposeError as error:
            self._failure = str(error)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            if not stop.asked:  # else the same signal has ended the workers
                self._failure = (
                    f"a reading process died ({error}), perhaps for want of memory: take fewer stream.workers"
                )
        return []

    def _prove(self) -> None:
        """Stop where a step was not finite, before anything of it is saved."""
        step, self._unproven = self._unproven, None
        if step is not None and not bool(torch.isfinite(step.numbers).all()):
            keys = ", ".join(self._dataset.row(int(sample)).key for sample in step.samples)
            values = dict(zip(("sum", "gradient", *self._learner.losses), step.numbers.tolist(), strict=True))
            raise TrainingError(
                f"step {step.number + 1}: not finite: {values}. Its composites: {keys}. {self._out / LAST} is from"
                " before. Train anew with a lower optimiser.rate, with optimiser.clip=1.0 or precision=float32"
            )

    def _tell(self, meter: Meter, journal: Journal | None) -> None:
        rate = learning_rate(self._config.optimiser, self._step - 1, self._config.steps)
        line = meter.line(self._step, self._elapsed(), rate, self._learner.losses)
        self._loss = line.loss
        if journal is not None:
            journal.train(line)

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

    def _pending(self) -> bool:
        """Tell whether a validation is to be made at this step, and was not."""
        return bool(self._validated) and self._due(self._config.validation.every) and self._judged != self._step

    def _judge(self, journal: Journal | None, stop: Stop) -> bool:
        """Validate if it is time to; tell whether it was not asked to stop before the end."""
        if not self._pending():
            return True
        try:
            whole = self._judge_guesses(journal, stop) if self._step == 0 else self._validate(journal, stop)
        except DatasetError as error:  # to all processes alike
            self._failure = str(error)
            return False
        if whole:
            self._judged = self._step
        return whole

    def _judge_guesses(self, journal: Journal | None, stop: Stop) -> bool:
        """Score what a network must beat: no answer at all, and the best that the trimap alone allows."""
        for name, guess in (("unknown = 0.5", guess_half), ("trimap alone", guess_ramp)):
            scores = score(self._dataset, self._validated, guess, self._place, stop)
            if scores is None:
                return False
            if journal is not None:
                journal.validation(0, asdict(scores), name)
        return True

    def _validate(self, journal: Journal | None, stop: Stop) -> bool:
        """Score the network on whole composites, keep it if it is the best, and draw the panel."""
        settings, network = self._config.validation, self._learner.best_network
        network.eval()

        def predict(sample: Sample) -> Any:
            bf16 = self._config.precision == "bf16" and self._place.device.type == "cuda"
            return predict_whole(network, sample.image, sample.trimap, settings.max_side, bf16)

        scores = score(self._dataset, self._validated, predict, self._place, stop)
        if scores is None:
            return False
        if self._best is None or scores.sad < self._best[1]:
            self._best = (self._step, scores.sad)
            self._save(BEST)
        if journal is not None:
            journal.validation(self._step, asdict(scores))
            if settings.panel:
                self._show(journal, predict)
            self._write_page("Running.")
        return True

    def _show(self, journal: Journal, predict: Callable[[Sample], Any]) -> None:
        """Draw the panel. What cannot be read is said, and no more: other processes are back at work."""
        try:
            numbers = validation_samples(self._dataset, self._config.validation.panel)
            journal.panel(self._step, panel([(s, predict(s)) for s in (self._dataset[number] for number in numbers)]))
        except DatasetError as error:
            journal.say(f"warning: step {self._step:,} has no panel: {error}")

    def _save(self, name: str) -> None:
        if self._place.leads:
            state = self._learner.state() | {
                "step": self._step, "judged": self._judged, "seconds": self._elapsed(), "best": self._best,
                "config": self._config.model_dump(mode="json"), "plan_sha256": self._dataset.plan_sha256,
                "composites": _composites(self._dataset), "crops": crops_a_step(self._config, self._place),
            }  # fmt: skip
            save_checkpoint(self._out / name, state)

    def _write_page(self, state: str) -> None:
        write_page(self._out, self._out.resolve().name, self._config.model_dump_json(indent=1), state)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began


def _composites(dataset: Dataset) -> int:
    return len(dataset.numbers("train"))


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Say what to do about a device or a disk that is too small."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU's memory is too small ({str(error).splitlines()[0]}). Halve stream.batch and double"
            " optimiser.accumulate: a step sees as much; or take precision=bf16, a smaller network.width, or, if it"
            " happened in a validation, a smaller validation.max_side"
        ) from None
    except OSError as error:
        raise TrainingError(f"{out}: cannot be written ({error}); make room, then go on with --resume") from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
