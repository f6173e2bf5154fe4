"""Training on a GPU in figures, in under eight minutes: what a card takes, and how many cores it takes to feed it.

    python bench/gpu.py
    python bench/gpu.py --foregrounds cutouts/ --backgrounds photos/ --out gpu
    python bench/gpu.py --device cpu --networks mnet:width=0.03 --crops 64 --batches 2 --cores 1 --seconds 0

steps   each network, crop, precision and batch, on one batch of noise that lies on the card: crops a second and the
        most memory that torch had of it; then some compiled ones, for as long as there is time
feeds   the same step on crops that come from a dataset, and from the same composites in other forms, as `loaders` has
        them: crops a second; the share of the time in which the step had to wait for its batch; how many crops a second
        come without any step. This process and those that read share so many cores.

Each case has a box of time, and each kind of case a process of its own, which is ended where it takes longer, dies or
fails; the next case gets a new one. What did not fit into memory, failed or came too late is told in the table. What is
found is written as it comes: ``gpu.json`` and ``gpu.md`` in the folder of --out. Without folders of pictures it draws
some. Needs Linux.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from build import drawn_pictures
from loaders import RIVALS, Wanted, quiet
from matting_compose.composer.base.files import write_text
from matting_compose.composer.building.build import build
from matting_compose.composer.building.make_plan import make_plan
from matting_compose.composer.dataset.dataset import open_dataset
from matting_compose.composer.recipe import load_recipe
from matting_compose.trainer.data.stream import Batch, open_stream
from matting_compose.trainer.training.learner import Learner, StepResult
from matting_compose.trainer.training.measure import _noise
from matting_compose.trainer.training.runtime import Runtime, open_runtime
from networks import configure

OURS = "`delta`"
FORMS = {form.name: form for form in RIVALS[:2]}  # the PNG folder, and composing in the loader
WARM = 3  # steps before the clock: kernels are chosen and compiled, memory is got
MOST = 200  # steps that are timed
START = 40.0  # seconds that a process's start may take: torch's import, the card's context


@dataclass(frozen=True)
class Case:
    """One line of the table: a step alone, or one that `form` feeds by so many cores."""

    network: str
    crop: int
    batch: int
    precision: str = "float32"
    compiled: bool = False
    form: str = ""
    cores: int = 0

    @property
    def title(self) -> str:
        how = f"{self.precision}{', compiled' if self.compiled else ''}"
        fed = f", {self.form} by {self.cores} cores" if self.form else ""
        return f"{self.network}, {self.batch} crops of {self.crop} px, {how}{fed}"


@dataclass(frozen=True)
class Found:
    """What was measured of a case; `failure` says why nothing was.

    `crops` and `alone` are crops a second, with the step and without; `waiting` a share, 0..1; `memory` bytes.
    """

    crops: float = 0.0
    memory: int = 0
    waiting: float = 0.0
    alone: float = 0.0
    seconds: float = 0.0
    failure: str = ""


@dataclass
class Helper:
    """A process that measures cases, one at a time, until it fails or is too slow."""

    context: Any
    cores: int
    options: argparse.Namespace
    process: Any = None
    pipe: Any = None
    fresh: bool = field(default=False)

    def measure(self, case: Case, box: float) -> Found:
        """Measure a case within so many seconds, the process's start not counted."""
        start = time.perf_counter()
        if self.process is None:
            self.pipe, there = multiprocessing.Pipe()
            self.process = self.context.Process(target=serve, args=(there, self.cores, self.options))
            self.process.start()
            there.close()
        try:
            if not self.fresh:
                if not self.pipe.poll(START):
                    raise TimeoutError(f"did not start within {START:.0f} s")
                self.pipe.recv()
                self.fresh = True
            self.pipe.send(case)
            if not self.pipe.poll(box):
                raise TimeoutError(f"took more than {box:.0f} s")
            found: Found = self.pipe.recv()
        except (TimeoutError, EOFError, OSError) as error:
            self.end()
            words = str(error) if isinstance(error, TimeoutError) else "its process died"
            return Found(seconds=time.perf_counter() - start, failure=words)
        if found.failure and not found.failure.startswith(FULL):
            self.end()  # after an error of the driver's nothing works in that process any more
        return found

    def end(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
        self.process, self.fresh = None, False


FULL = "out of memory"


def serve(pipe: Connection, cores: int, options: argparse.Namespace) -> None:
    """Measure the cases that come through a pipe."""
    quiet()
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        torch.set_num_threads(cores)
    multiprocessing.set_forkserver_preload(["loaders", "matting_compose.trainer.data.stream"])
    with open_runtime(options.device) as runtime:
        torch.zeros(1, device=runtime.device)  # the card's context
        pipe.send(None)
        while True:
            try:
                case = pipe.recv()
            except EOFError:
                return
            pipe.send(attempt(case, runtime, options))


def attempt(case: Case, runtime: Runtime, options: argparse.Namespace) -> Found:
    """Measure a case; say what went wrong in its stead."""
    start = time.perf_counter()
    try:
        found = measure_feed(case, runtime, options) if case.form else measure_step(case, runtime, options)
    except Exception as error:  # whatever a compiler or a driver raises: told, and the next case is tried
        full = isinstance(error, torch.OutOfMemoryError) or FULL in str(error).lower()
        if not full:
            traceback.print_exc()
        words = FULL if full else f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}"
        found = Found(failure=words[:120])
    if case.compiled:
        torch.compiler.reset()
    gc.collect()  # what the last case had of the card's memory
    return replace(found, seconds=time.perf_counter() - start)


def learner_of(case: Case, runtime: Runtime) -> Learner:
    """Build a network, its optimiser and its losses."""
    config = configure(case.network, case.crop, case.batch)
    if runtime.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(runtime.device)
    return Learner(config.model_copy(update={"precision": case.precision, "compile": case.compiled}), runtime, True)


def wait(result: StepResult) -> None:
    """Wait for the device: the numbers are its last work."""
    result.numbers.tolist()


def measure_step(case: Case, runtime: Runtime, options: argparse.Namespace) -> Found:
    """Time steps on one batch."""
    learner = learner_of(case, runtime)
    batch = _noise(case.batch, case.crop, False).to(runtime.device)
    for _ in range(WARM):
        wait(learner.step(0, [batch]))
    start = time.perf_counter()
    wait(learner.step(0, [batch]))
    steps = max(1, min(MOST, round(options.seconds / (time.perf_counter() - start))))
    start = time.perf_counter()
    for _ in range(steps):
        result = learner.step(0, [batch])
    wait(result)
    return Found(case.batch * steps / (time.perf_counter() - start), runtime.peak_memory())


def measure_feed(case: Case, runtime: Runtime, options: argparse.Namespace) -> Found:
    """Time steps on what a dataset gives, then the dataset alone."""
    learner = learner_of(case, runtime)
    with closing(open_form(case, runtime, options)) as batches:
        for _ in range(WARM):
            wait(learner.step(0, [next(batches)]))
        for _ in range(2 * WARM):  # what was read ahead while kernels were chosen
            last = learner.step(0, [next(batches)])
        taken, waited, start = 0, 0.0, time.perf_counter()
        while time.perf_counter() - start < options.seconds or not taken:
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            now = learner.step(0, [batch])
            wait(last)  # a step later, as training looks at its numbers: the device has work meanwhile
            last, taken = now, taken + 1
        wait(last)
        seconds = time.perf_counter() - start
        alone = count_batches(batches, options.seconds) * case.batch
    return Found(taken * case.batch / seconds, runtime.peak_memory(), waited / seconds, alone)


def count_batches(batches: Iterator[Batch], seconds: float) -> float:
    """Take batches for a while, and after what was read ahead; return how many came in a second."""
    start, taken, since = time.perf_counter(), 0, 0.0
    while time.perf_counter() - start < 2 * seconds or not taken:
        next(batches)
        if not since and time.perf_counter() - start > seconds:
            since = time.perf_counter()
        elif since:
            taken += 1
    return taken / (time.perf_counter() - since)


def open_form(case: Case, runtime: Runtime, options: argparse.Namespace) -> Generator[Batch, None, None]:
    """Open the composites in one of their forms; closed, its workers end."""
    sizes = (case.crop,)
    if case.form != OURS:
        wanted = Wanted(sizes, case.crop, case.batch, case.cores)
        yield from map(as_batch, FORMS[case.form].batches(options.scratch / case.form, wanted))
    pin, folder = runtime.device.type == "cuda", options.scratch / "dataset"
    stream = open_stream(folder, batch=case.batch, crop=case.crop, sizes=sizes, workers=case.cores, pin=pin)
    with closing(stream):
        yield from stream


def as_batch(parts: Any) -> Batch:
    """Take a rival's batch as one of ours."""
    image, trimap, alpha = parts
    nobody = torch.zeros(len(image), dtype=torch.int64).numpy()
    return Batch(image.permute(0, 3, 1, 2), trimap, alpha[:, None], None, None, nobody, nobody)


def prepare(options: argparse.Namespace) -> None:
    """Build the dataset, and write its composites in the other forms."""
    folders = options.foregrounds, options.backgrounds
    if folders == (None, None):
        folders = drawn_pictures(options.scratch)
    recipe = load_recipe(
        None,
        [f"variants={options.variants}", "split.validation=0.0", "shards.megabytes=32",
         f"foregrounds.enlarge_to={max(options.crops)}", "fit.enlarge=always"],
        foregrounds=folders[0], backgrounds=folders[1],
    )  # fmt: skip
    plan = make_plan(recipe)
    build(recipe, options.scratch / "dataset")
    with closing(open_dataset(options.scratch / "dataset")) as dataset:
        for form in FORMS.values():
            (options.scratch / form.name).mkdir()
            form.write(dataset, plan, options.scratch / form.name)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Say what is measured, in the order of its worth: what time does not allow comes last."""
    kinds = list(itertools.product(options.networks, options.crops))
    middle = options.batches[len(options.batches) // 2]
    for precision, (network, crop) in itertools.product(("bf16", "float32"), kinds):
        yield from (Case(network, crop, batch, precision) for batch in options.batches)
    here = sorted({min(cores, len(os.sched_getaffinity(0))) for cores in options.cores})
    for cores, (network, crop) in itertools.product(here, kinds):
        yield Case(network, crop, middle, "bf16", form=OURS, cores=cores)
    small = options.networks[-1], options.crops[0]
    for cores, form in itertools.product(here, FORMS):
        yield Case(*small, middle, "bf16", form=form, cores=cores)
    for batch in sorted(options.batches, key=lambda size: size != middle):
        for precision, (network, crop) in itertools.product(("bf16", "float32"), kinds):
            if options.compile_box:
                yield Case(network, crop, batch, precision, compiled=True)


def measure_all(options: argparse.Namespace, machine: dict[str, Any]) -> list[tuple[Case, Found]]:
    """Measure case after case until the time is over, and write down what there is after each."""
    helpers: dict[int, Helper] = {}
    context = multiprocessing.get_context("spawn")
    table: list[tuple[Case, Found]] = []
    for case in cases(options):
        left = options.minutes * 60 - (time.perf_counter() - options.began)
        box = min(options.compile_box if case.compiled else options.box, left)
        if smaller := too_large(case, table):
            found = Found(failure=f"{FULL}, as with {smaller} crops")
        elif left < options.box / 4:
            found = Found(failure="no time left")
        else:
            for other in [cores for cores in helpers if cores != case.cores]:
                helpers.pop(other).end()  # what it holds of the card's memory is free again
            helper = helpers.setdefault(case.cores, Helper(context, case.cores, options))
            found = helper.measure(case, box)
            told = found.failure or f"{found.crops:,.3g} crops/s"
            print(f"{case.title}: {told} ({found.seconds:.0f} s)", file=sys.stderr)
        table.append((case, found))
        write(options, machine, table)
    for helper in helpers.values():
        helper.end()
    return table


def too_large(case: Case, table: Iterable[tuple[Case, Found]]) -> int:
    """Return the smaller batch that did not fit already, 0 if none."""
    alike = (
        before.batch
        for before, found in table
        if found.failure == FULL
        and before.batch < case.batch
        and (before.network, before.crop, before.precision, before.compiled)
        == (case.network, case.crop, case.precision, case.compiled)
    )
    return min(alike, default=0)


def write(options: argparse.Namespace, machine: dict[str, Any], table: list[tuple[Case, Found]]) -> None:
    """Write what was found so far."""
    lines = [{**asdict(case), **asdict(found)} for case, found in table]
    write_text(options.out / "gpu.json", json.dumps({"machine": machine, "cases": lines}, indent=1))
    write_text(options.out / "gpu.md", as_markdown(machine, table))


def as_markdown(machine: dict[str, Any], table: list[tuple[Case, Found]]) -> str:
    """Lay the figures out."""
    alone, fed = "network | crop | batch | precision | crops/s | memory, GB", "network | crop | batch | from | cores"
    steps = [f"| {alone} |", "|---" * 6 + "|"]
    feeds = [f"| {fed} | crops/s | waiting | crops/s without the step |", "|---" * 8 + "|"]
    for case, found in table:
        if case.form:
            figures = f"{found.crops:,.3g} | {found.waiting:.0%} | {found.alone:,.3g}"
            row = [case.network, case.crop, case.batch, case.form, case.cores]
            feeds.append(f"| {' | '.join(map(str, row))} | {f'{found.failure} | |' if found.failure else figures} |")
        elif found.failure != "no time left":
            how = f"{case.precision}{', compiled' if case.compiled else ''}"
            figures = found.failure + " |" if found.failure else f"{found.crops:,.3g} | {found.memory / 1e9:.1f}"
            steps.append(f"| {case.network} | {case.crop} | {case.batch} | {how} | {figures} |")
    title = ", ".join(f"{value}" if key == "device" else f"{key} {value}" for key, value in machine.items())
    return "\n".join([title, "", *steps, "", *feeds, ""])


def describe_machine(device: str) -> dict[str, Any]:
    """Name the card, or the processor, and what drives it."""
    found: dict[str, Any] = {"device": platform.machine()}
    if device != "cpu":
        properties = torch.cuda.get_device_properties(device)
        found = {
            "device": f"{properties.name} ({properties.total_memory / 1e9:.0f} GB)",
            "CUDA": torch.version.cuda,
            "cuDNN": torch.backends.cudnn.version(),
        }
    return found | {"torch": torch.__version__, "cores": len(os.sched_getaffinity(0))}


def main() -> None:
    """Measure, and print the table."""
    options = parse()
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU that torch sees; --device cpu tries the program out, with what is said above")
    quiet()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        options.scratch = Path(scratch)
        prepare(options)
        # The card is looked at by other processes alone: a context here would take memory from them.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            machine = pool.apply(describe_machine, (options.device,))
        measure_all(options, machine)
    print((options.out / "gpu.md").read_text(encoding="utf-8"))


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--foregrounds", type=Path)
    parser.add_argument("--backgrounds", type=Path)
    parser.add_argument("--variants", type=int, default=8)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--networks", nargs="+", default=["mnet", "colournet"], help="as bench/networks.py has them")
    parser.add_argument("--crops", type=int, nargs="+", default=[320, 512], help="px")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--box", type=float, default=30, help="seconds that a case may take")
    parser.add_argument("--compile-box", type=float, default=75, help="seconds that a compiled one may take; 0: none")
    parser.add_argument("--minutes", type=float, default=7.5, help="that all of it may take")
    parser.add_argument("--scratch", type=Path, help="a folder on the disk that is to be measured")
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    options = parser.parse_args()
    options.began = time.perf_counter()
    return options


if __name__ == "__main__":
    main()
