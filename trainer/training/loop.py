"""Loop: datasets and a configuration in, a trained network out; stopped and resumed at any step."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...composer.base.errors import DatasetError, TrainingError
from ...composer.base.files import lock_exclusively
from ...composer.base.progress import OnProgress, ignore_progress
from ...composer.dataset.card import write_card
from ..data.mix import Datasets, Mix, open_mix
from ..data.stream import Stream
from ..networks.checkpoint import save_checkpoint
from .batches import StepBatches, open_training_stream
from .config import Config, crops_per_step, load_config
from .learner import Learner, StepResult, learning_rate
from .not_finite import report_step
from .records import read_records
from .run_card import run_card
from .run_folder import (
    BEST,
    LAST,
    begun_config,
    check_folder,
    describe_datasets,
    previous_state,
    rescue_last,
    save_first,
    save_last,
    set_last_aside,
    write_notes,
)  # fmt: skip
from .run_log import Meter, RunLog
from .run_page import warn_only
from .runtime import Runtime, StopRequest, open_runtime, settle_precision, stop_on_signals
from .trackers import Trackers, find_trackers
from .validate import Validation, open_validation_sets
from .watch import LostProcessError, watch_processes

__all__ = ["TrainResult", "train"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Attributes
    ----------
    step, steps : int
        Taken, of how many; fewer where `validation.patience` has ended it.
    stopped : bool
        Something is left to do, because it was asked to stop.
    seconds : float
        Of training, over all its parts.
    loss : float or None
        Of the last line, None where no step was taken.
    best_step : int or None
    best_score : float or None
        The best validation, by `validation.best`; None where there was none.
    """

    step: int
    steps: int
    stopped: bool
    seconds: float
    loss: float | None
    best_step: int | None
    best_score: float | None


def train(
    datasets: Datasets,
    out: str | Path,
    config: Config | str | Path | None = None,
    runtime: Runtime | None = None,
    on_progress: OnProgress = ignore_progress,
    resume: bool = False,
) -> TrainResult:
    """Train a network.

    Parameters
    ----------
    datasets : str, Path, Dataset, or a list of them and of pairs of one and its weight
        What to train on; see `open_stream`. What to validate on is said by `config.validation.datasets`.
    out : str or Path
        The run's folder: config.json, metrics.jsonl, last.pt, best.pt, panels/, index.html.
    config : Config, str, Path or None
        How: a configuration, or one that `load_config` finds. None is ``modern``, or with `resume` what the run was
        begun with.
    runtime : Runtime, optional
        On what; by default the GPU, if there is one.
    on_progress : OnProgress
        Called each `log_every` steps, by the leading process.
    resume : bool
        Go on from last.pt. The steps that follow are those of a run that never stopped: bit for bit on a CPU, with any
        number of workers.

    Raises
    ------
    DatasetError, TrainingError
        With the way out; what was saved before stays.
    RecipeError
        The configuration cannot be used.

    Examples
    --------
    >>> from matting_compose.composer import build, load_recipe
    >>> small = ["foregrounds.count=2", "foregrounds.sides=[64,80]", "backgrounds.count=2", "variants=2"]
    >>> _ = build(load_recipe("demo", [*small, "split.validation=0"]), "small", jobs=1)
    >>> from matting_compose.trainer.training.config import load_config
    >>> config = load_config("demo", ["steps=1", "network.width=0.03", "stream.crop=32", "stream.workers=0"])
    >>> result = train("small", "run", config)
    >>> result.step, result.stopped
    (1, False)
    """
    out = Path(out)
    check_folder(out, resume)
    if not isinstance(config, Config):
        config = begun_config(out) if resume and config is None else load_config(config or "modern")
    find_trackers(config.trackers)  # before there is a folder: their packages may be missing
    with ExitStack() as stack:
        runtime = runtime or stack.enter_context(
            open_runtime(wait=config.processes.wait, silence=config.processes.silence)
        )
        if config.precision == "auto":  # settled once: a run goes on as it was begun, on any machine
            settled = begun_config(out).precision if resume else settle_precision(runtime.device, "auto")
            config = config.model_copy(update={"precision": settled})
        mix = stack.enter_context(closing(open_mix(datasets)))
        sets = open_validation_sets(mix, config)
        stop = stack.enter_context(stop_on_signals())
        stack.enter_context(_with_advice(out))
        training: _Training | None = None
        try:
            with watch_processes(runtime, config.processes.silence, stop):
                learner = Learner(config, runtime, resume)  # before there is a folder: its encoder may be missing
                if runtime.leads:
                    stack.enter_context(lock_exclusively(out, "training"))
                validation = Validation(sets, config, runtime, stop)
                training = _Training(mix, validation, out, config, runtime, learner, stop)
                if resume:
                    training.resume(previous_state(out, mix, config, runtime))
                runtime.barrier()  # all have looked at the folder before one of them changes it
                return training.run(on_progress)
        except LostProcessError as lost:
            saved = "Nothing was trained" if training is None else training.rescue()
            raise TrainingError(f"{lost}. {saved}: go on with --resume") from lost


class _Training:
    """One training between its start and its end, or the next stop.

    `_step`, `_validated` (the step of the last validation; at 0 guesses are scored), `_best`, `_worse` (validations
    since that one) and `_seconds` are kept in checkpoints, beside the learner's state.
    """

    def __init__(
        self, mix: Mix, validation: Validation, out: Path, config: Config, runtime: Runtime, learner: Learner,
        stop: StopRequest,
    ) -> None:  # fmt: skip
        self._mix, self._validation = mix, validation
        self._out, self._config, self._runtime, self._learner, self._stop = out, config, runtime, learner, stop
        self._step, self._validated = 0, -1
        self._best: tuple[int, float] | None = None
        self._worse = 0
        self._loss: float | None = None
        self._source = LAST  # the checkpoint that a run goes on from
        self._retuned: list[str] = []  # what a run that went on has changed
        self._failure = ""  # why this process cannot go on
        self._warnings: list[str] = []
        self._run_log: RunLog | None = None  # the leading process's
        self._stream: Stream | None = None
        self._unsaved = False  # a checkpoint is due that could not be written
        self._unchecked: StepResult | None = None  # its numbers are looked at a step later, when the device is done
        self._began = time.perf_counter()

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._learner.load(state, self._out / LAST)
        if self._runtime.leads:
            logger.info("resuming after step %s of %s", f"{state['step']:,}", f"{self._config.steps:,}")
        self._step, self._validated, self._source = state["step"], state["judged"], state["file"]
        if state["best"] is not None and state.get("decided_by", self._decided_by) == self._decided_by:
            self._best, self._worse = (state["best"][0], state["best"][1]), state.get("worse", 0)
        elif state["best"] is not None:
            self._warnings.append("another score than before decides: the best network is sought anew from here on")
        self._began = time.perf_counter() - state["seconds"]
        self._retuned = state["retuned"]
        self._warnings += self._retuned
        for old, new in zip(state["datasets"], describe_datasets(self._mix), strict=True):
            if old["composites"] != new["composites"]:
                self._warnings.append("a dataset was mended since the last step; from here on the order is another")
            elif old.get("sha256", new["sha256"]) != new["sha256"]:
                self._warnings.append("of a dataset other versions than before are on record, for the same pixels")

    def run(self, on_progress: OnProgress) -> TrainResult:
        """Train to the end, or until asked to stop."""
        if self._runtime.leads:
            if self._source != LAST:
                set_last_aside(self._out)
            if self._step == 0:  # what cannot be written is found out now
                save_first(self._out, self._state(), self._learner.optimiser_bytes * 9 // 8)
            write_notes(self._out, self._config, self._mix)
        with ExitStack() as stack:
            if self._runtime.leads:
                config = self._config.model_dump(mode="json")
                tracker = Trackers(self._config.trackers, self._out, self._step, config)
                run_log = RunLog(
                    self._out, self._step, self._validated, on_progress, self._config.model_dump_json(indent=1), tracker
                )
                self._run_log = stack.enter_context(closing(run_log))
                for warning in self._warnings:
                    logger.warning(warning)
            finished = self._train()
            if self._run_log is not None:
                self._run_log.page("Finished." if finished else "Stopped.")
                with warn_only():
                    write_card(self._out, run_card(self._out.resolve().name, config, read_records(self._out)))
        best_step, best_score = self._best or (None, None)
        return TrainResult(
            self._step, self._config.steps, not finished, self._elapsed(), self._loss, best_step, best_score
        )

    def rescue(self) -> str:
        """Save what was trained without the other processes, and say what was.

        Not from a GPU, where what waits for them cannot be told from what is done.
        """
        if self._runtime.device.type == "cuda":
            return f"{LAST} is from before"
        self._check_finite()
        rescue_last(self._out, self._state(), self._runtime)
        return f"Saved at step {self._step:,}"

    def _train(self) -> bool:
        """Take the steps; tell whether nothing is left to do."""
        config = self._config
        with closing(open_training_stream(self._mix, config, self._runtime, self._step)) as stream:
            self._stream = stream
            going = self._validate_first()
            meter = Meter(self._runtime, config)
            source = StepBatches(stream, config, self._runtime, self._stop, meter)
            batches = source.steps(config.steps - self._step)
            while going and self._step < config.steps:
                taken = next(batches, [])
                going = bool(taken)
                if going:
                    result = self._learner.step(self._step, taken)  # forward, backward, update
                    self._check_finite()
                    self._unchecked = result
                    meter.add(result)
                    self._step += 1
                if not going or self._due(
                    config.log_every, config.validation.every, config.save_every, config.keep_every
                ):
                    self._check_finite()
                    if meter.steps and (not going or self._due(config.log_every)):
                        self._log(meter)
                    with meter.aside():
                        going = going and self._validate()
                        self._checkpoint(going)
        if failure := self._runtime.first_of(self._failure or source.failure):
            raise TrainingError(f"{failure}. Saved at step {self._step:,}: once it is mended, go on with --resume")
        return (self._step == config.steps or self._out_of_patience) and not self._validation_due()

    @property
    def _decided_by(self) -> list[str] | None:
        """What says which network is the best, as checkpoints keep it: the dataset, by its plan, and the error."""
        if not self._validation.sets:
            return None
        chosen, metric = self._validation.decided_by
        return [chosen.dataset.plan_sha256, metric]

    @property
    def _out_of_patience(self) -> bool:
        """Whether so many validations in a row have brought nothing better that training ends."""
        return 0 < self._config.validation.patience <= self._worse

    def _due(self, *every: int) -> bool:
        """Tell whether something that happens every so many steps, and after the last one, is to happen now."""
        return any(e and (self._step % e == 0 or self._step == self._config.steps) for e in every)

    def _check_finite(self) -> None:
        """Stop where a step was not finite, before anything of it is saved."""
        result, self._unchecked = self._unchecked, None
        if result is not None and not bool(torch.isfinite(result.numbers).all()):
            assert self._stream is not None
            values = dict(zip(("sum", "gradient", *self._learner.losses), result.numbers.tolist(), strict=True))
            raise report_step(
                self._out, result.number + 1, values, self._stream, self._mix, self._config, self._runtime
            )

    def _log(self, meter: Meter) -> None:
        rate = learning_rate(self._config.optimiser, self._step - 1, self._config.steps)
        line = meter.line(self._step, self._elapsed(), rate, self._learner.losses)
        self._loss = line.loss
        if self._run_log is not None:
            was_broken = self._run_log.broken
            self._run_log.train(line)
            self._unsaved = self._unsaved or (self._run_log.broken and not was_broken)

    def _validation_due(self) -> bool:
        """Tell whether a validation is to be made at this step, and was not."""
        return (
            bool(self._validation.sets) and self._due(self._config.validation.every) and self._validated != self._step
        )

    def _validate_first(self) -> bool:
        """Make the validation that is due before the next step: of guesses, or one that a stop had cut short."""
        due = self._validation_due()
        going = self._validate()
        if due and self._validated == self._step:
            self._unsaved = not self._try_to_save(LAST)
        return going

    def _validate(self) -> bool:
        """Validate if it is due; tell whether the training is to go on."""
        if not self._validation_due():
            return not self._out_of_patience
        try:
            complete = self._score_guesses() if self._step == 0 else self._score_network()
        except DatasetError as error:  # to all processes alike
            self._failure = str(error)
            return False
        if complete:
            self._validated = self._step
        return complete and not self._out_of_patience

    def _score_guesses(self) -> bool:
        """Score what a network must beat; tell whether no stop came in between."""
        for name, scores in self._validation.score_guesses():
            if scores is None:
                return False
            if self._run_log is not None:
                self._run_log.validation(0, scores, name)
        return True

    def _score_network(self) -> bool:
        """Score the network, keep it if it is the best, and draw the panel; tell whether no stop came in between."""
        network = self._learner.best_network.eval()
        scores = self._validation.score_network(network)
        if scores is None:
            return False
        chosen, metric = self._validation.decided_by
        score = scores[chosen.name][metric]
        better = self._best is None or score < self._best[1]
        if better:
            self._best, self._worse = (self._step, score), 0
            self._try_to_save(BEST)
        else:
            self._worse += 1
        if self._run_log is not None:
            self._run_log.validation(self._step, scores, best=chosen.name if better else None)
            if self._config.validation.panel:
                try:
                    self._run_log.panel(self._step, self._validation.draw_panel(network))
                except DatasetError as error:  # other processes are back at work
                    logger.warning("step %s has no panel: %s", f"{self._step:,}", error)
            self._run_log.page("Running.")
        return True

    def _checkpoint(self, going: bool) -> None:
        """Save what is due; where the records cannot be written, at once, and again until it can be."""
        if not going or self._step == self._config.steps:
            self._save(LAST)
        elif self._due(self._config.save_every) or self._unsaved:
            self._unsaved = not self._try_to_save(LAST)
        if self._due(self._config.keep_every):
            self._try_to_save(f"step-{self._step:07d}.pt")

    def _try_to_save(self, name: str) -> bool:
        """Save, and tell whether that was possible: the training goes on either way."""
        try:
            self._save(name)
        except TrainingError as error:
            logger.warning("%s. The training goes on", error)
            return False
        return True

    def _save(self, name: str) -> None:
        if not self._runtime.leads:
            return
        if name == LAST and self._step == 0:
            save_first(self._out, self._state(), self._learner.optimiser_bytes)
        elif name == LAST:
            save_last(self._out, self._state())
        else:
            save_checkpoint(self._out / name, self._state())

    def _state(self) -> dict[str, Any]:
        return self._learner.state() | {
            "step": self._step, "judged": self._validated, "seconds": self._elapsed(), "best": self._best,
            "worse": self._worse, "decided_by": self._decided_by,
            "config": self._config.model_dump(mode="json"), "datasets": describe_datasets(self._mix),
            "crops": crops_per_step(self._config, self._runtime), "retuned": self._retuned,
        }  # fmt: skip

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began


@contextmanager
def _with_advice(out: Path) -> Iterator[None]:
    """Say what to do about a device or a disk that is too small."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU's memory is too small ({str(error).splitlines()[0]}). Halve stream.batch and double"
            " optimiser.accumulate: a step sees as much; or take network.checkpointing=true, precision=bf16, a smaller"
            " network.width, or, if it happened in a validation, a smaller validation.max_side"
        ) from None
    except OSError as error:
        raise TrainingError(f"{out}: cannot be written ({error}); make room, then go on with --resume") from None
