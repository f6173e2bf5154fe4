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
from ..data.mix import Datasets, Mix, open_mix
from ..networks.checkpoint import save_checkpoint
from .batches import StepBatches, open_training_stream
from .config import Config, crops_per_step, load_config
from .learner import Learner, StepResult, learning_rate
from .run_folder import (
    BEST,
    LAST,
    begun_config,
    check_folder,
    describe_datasets,
    previous_state,
    save_last,
    write_config,
)  # fmt: skip
from .run_log import Meter, RunLog
from .runtime import Runtime, StopRequest, open_runtime, stop_on_signals
from .trackers import Trackers, find_trackers
from .validate import Validation, open_validation_sets

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
        runtime = runtime or stack.enter_context(open_runtime())
        mix = stack.enter_context(closing(open_mix(datasets)))
        sets = open_validation_sets(mix, config)
        stop = stack.enter_context(stop_on_signals())
        stack.enter_context(_with_advice(out))
        learner = Learner(config, runtime, resume)  # before there is a folder: its encoder may be missing
        if runtime.leads:
            stack.enter_context(lock_exclusively(out, "training"))
        validation = Validation(sets, config, runtime, stop)
        training = _Training(mix, validation, out, config, runtime, learner, stop)
        if resume:
            training.resume(previous_state(out, mix, config, runtime))
        runtime.barrier()  # all have looked at the folder before one of them changes it
        return training.run(on_progress)


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
        self._retuned: list[str] = []  # what a run that went on has changed
        self._failure = ""  # why this process cannot go on
        self._warnings: list[str] = []
        self._run_log: RunLog | None = None  # the leading process's
        self._unchecked: StepResult | None = None  # its numbers are looked at a step later, when the device is done
        self._began = time.perf_counter()

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._learner.load(state, self._out / LAST)
        if self._runtime.leads:
            logger.info("resuming after step %s of %s", f"{state['step']:,}", f"{self._config.steps:,}")
        self._step, self._validated = state["step"], state["judged"]
        if state["best"] is not None and state.get("decided_by", self._decided_by) == self._decided_by:
            self._best, self._worse = (state["best"][0], state["best"][1]), state.get("worse", 0)
        elif state["best"] is not None:
            self._warnings.append("another score than before decides: the best network is sought anew from here on")
        self._began = time.perf_counter() - state["seconds"]
        self._retuned = state["retuned"]
        self._warnings += self._retuned
        if [one["composites"] for one in state["datasets"]] != [
            one["composites"] for one in describe_datasets(self._mix)
        ]:
            self._warnings.append("a dataset was mended since the last step; from here on the order is another")

    def run(self, on_progress: OnProgress) -> TrainResult:
        """Train to the end, or until asked to stop."""
        if self._step == 0:
            self._save(LAST)  # what cannot be written is found out now, and there is always a checkpoint
        if self._runtime.leads:
            write_config(self._out, self._config)
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
        best_step, best_score = self._best or (None, None)
        return TrainResult(
            self._step, self._config.steps, not finished, self._elapsed(), self._loss, best_step, best_score
        )

    def _train(self) -> bool:
        """Take the steps; tell whether nothing is left to do."""
        config = self._config
        with closing(open_training_stream(self._mix, config, self._runtime, self._step)) as stream:
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
            keys = ", ".join(self._mix.datasets[dataset].row(number).key for dataset, number in result.names.T.tolist())
            values = dict(zip(("sum", "gradient", *self._learner.losses), result.numbers.tolist(), strict=True))
            raise TrainingError(
                f"step {result.number + 1}: not finite: {values}. Its composites: {keys}. {self._out / LAST} is from"
                " before: go on from it with --resume and a lower optimiser.rate, or optimiser.clip=1.0, or"
                " precision=float32, by --set; the run keeps a record of it"
            )

    def _log(self, meter: Meter) -> None:
        rate = learning_rate(self._config.optimiser, self._step - 1, self._config.steps)
        line = meter.line(self._step, self._elapsed(), rate, self._learner.losses)
        self._loss = line.loss
        if self._run_log is not None:
            self._run_log.train(line)

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
            self._save(LAST)
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
            self._save(BEST)
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
        if not going or self._due(self._config.save_every):
            self._save(LAST)
        if self._due(self._config.keep_every):
            self._save(f"step-{self._step:07d}.pt")

    def _save(self, name: str) -> None:
        if self._runtime.leads:
            state = self._learner.state() | {
                "step": self._step, "judged": self._validated, "seconds": self._elapsed(), "best": self._best,
                "worse": self._worse, "decided_by": self._decided_by,
                "config": self._config.model_dump(mode="json"), "datasets": describe_datasets(self._mix),
                "crops": crops_per_step(self._config, self._runtime), "retuned": self._retuned,
            }  # fmt: skip
            if name == LAST:
                save_last(self._out, state)
            else:
                save_checkpoint(self._out / name, state)

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
