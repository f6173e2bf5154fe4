"""Do to every long job what happens to machines, hundreds of times: kill it, cut the power of its disk, stop one rank.

    python bench/jobs.py --out broken --rounds 40

Each of build, export, extract, fetch, train and ddp (two processes over gloo) is done once in peace. Then, in turn, it
is met by a fault after a random time: kill -9, SIGTERM, and for ddp SIGSTOP, of one process; with root, a power cut on
ext4, XFS and btrfs: the job writes to a loop device, whose blocks are copied as they are at that moment, and the copy
is mounted. After each fault every file under a final name is that of the job in peace, or absent; after a power cut
each that was there before the last two is there; a run's checkpoints can be read, and are no older. Then the job goes
on to its end, which must be that of the job in peace: every byte, and of a run every weight. Needs Linux. Processes
are forked, without what starting Python and imports cost, so that hundreds take minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch

from matting_compose.composer import build, load_recipe
from matting_compose.composer.base.files import file_sha256
from matting_compose.composer.extraction.extract import extract
from matting_compose.composer.extraction.inputs import list_inputs
from matting_compose.composer.fetching.corpus import load_corpus
from matting_compose.composer.fetching.fetch import fetch
from matting_compose.composer.inspection.export import export
from matting_compose.trainer.networks.checkpoint import load_checkpoint
from matting_compose.trainer.training import loop
from matting_compose.trainer.training.config import load_config
from matting_compose.trainer.training.runtime import CONNECTING, open_runtime
from packages import write_corpus
from runs import TINY, same, state

SMALL = ["variants=4", "foregrounds.count=4", "shards.variants=2", "foregrounds.sides=[64,80]",
         "backgrounds.count=4", "backgrounds.sides=[64,80]", "split.validation=0.25"]  # fmt: skip
CHANGING = ("metrics.jsonl", "index.html", "extract.json", "extract.html")  # for people: of the last run
REWRITTEN = ("export.json", "plan.json", "report.csv", "report.html", "SHA256SUMS")  # say how far it is, or come last
SYSTEMS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}
RUNS = ("train", "ddp")
DEAF = CONNECTING + 30.0  # seconds that a stopped process may hold the other: forked, they are no neighbours


class Jobs:
    """What is done, in one process each but ddp; all read what lies in `given`."""

    def __init__(self, given: Path) -> None:
        self.given = given
        rng = np.random.default_rng(7)
        pixels = rng.integers(0, 256, (6, 90, 90, 4), dtype=np.uint8)
        for i, cutout in enumerate(pixels):
            (given / "cutouts").mkdir(parents=True, exist_ok=True)
            cutout[..., 3] = cv2.GaussianBlur(
                cv2.circle(np.zeros((90, 90), np.uint8), (45, 45), 30, 255, -1), (0, 0), 3
            )
            cv2.imwrite(str(given / "cutouts" / f"{i}.png"), cutout)
        pictures = {f"p{i}": {f"cutouts/{i}.png": (f"usr/{i}.png", bytes(rng.bytes(400_000)))} for i in range(6)}
        self.corpus = load_corpus(str(write_corpus(given, "s", pictures)))
        build(load_recipe("demo", SMALL), given / "dataset", jobs=1)

    def run(self, name: str, out: Path) -> None:
        """Do a job, or go on with it."""
        if name == "build":
            build(load_recipe("demo", SMALL), out, jobs=1)
        elif name == "export":
            export(self.given / "dataset", out, "webdataset" if "tar" in out.name else "png", jobs=1)
        elif name == "extract":
            extract(list_inputs([self.given / "cutouts"]), out, jobs=1)
        elif name == "fetch":
            fetch(self.corpus, out, [self.given / "debs"])
        else:
            batch = 1 if name == "ddp" else 2
            more = (f"stream.batch={batch}", "steps=6", "save_every=2", "validation.every=99", "processes.silence=5")
            resume = any((out / one).exists() for one in ("last.pt", "previous.pt"))
            with open_runtime("cpu") as runtime:
                loop.train(self.given / "dataset", out, load_config(None, (*TINY, *more)), runtime, resume=resume)


def start(jobs: Jobs, name: str, out: Path, log: Path) -> list[int]:
    """Fork the processes of a job."""
    world = 2 if name == "ddp" else 1
    port, pids = random.randrange(20000, 32768), []  # none that the system gives to those who connect
    for rank in range(world):
        if pid := os.fork():
            pids.append(pid)
            continue
        code = 1
        try:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            os.environ |= {"MASTER_PORT": str(port), "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
            jobs.run(name, out)
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return pids


def wait(pids: list[int], seconds: float = 300) -> list[int]:
    """Wait for processes; return their exit codes, and kill those that take too long."""
    codes, end = [], time.monotonic() + seconds
    for pid in pids:
        while not (found := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        codes.append(os.waitstatus_to_exitcode(found[1]))
    return codes


def digests(out: Path) -> dict[str, str]:
    """Hash what has a final name and stays."""
    return {p.relative_to(out).as_posix(): file_sha256(p) for p in out.rglob("*")
            if p.is_file() and not p.name.startswith(".") and p.name not in CHANGING}  # fmt: skip


def saved_step(out: Path) -> int:
    """Read the step of a run's last checkpoint, -1 where there is none yet."""
    return load_checkpoint(out / "last.pt")["step"] if (out / "last.pt").exists() else -1


def problems(name: str, out: Path, peace: Path, finished: bool) -> Iterator[str]:
    """Say what is not as in peace; what is not finished may lack files."""
    if name in RUNS:
        for path in out.glob("*.pt"):
            load_checkpoint(path)  # or raises
        if finished and not same(state(out / "last.pt"), state(peace / "last.pt")):
            yield "another network"
        return
    found, whole = digests(out), digests(peace)
    yield from (
        f"{one} differs"
        for one in found
        if one in whole and found[one] != whole[one] and (finished or one not in REWRITTEN)
    )
    yield from (f"{one} is missing" for one in whole if finished and one not in found)
    yield from (f"{one} is left over" for one in found if finished and one not in whole)


@contextmanager
def loop_disk(place: Path, system: str) -> Iterator[tuple[Path, Path]]:
    """Mount a new disk: yield its file and its folder."""
    disk, folder = place / f"{system}.disk", place / system
    disk.unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    with disk.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run([*SYSTEMS[system], str(disk)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(folder)], check=True)
    try:
        yield disk, folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def can_cut(place: Path, system: str) -> bool:
    """Tell whether such a disk can be made and mounted here."""
    try:
        with loop_disk(place, system):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def meet(jobs: Jobs, name: str, fault: str, place: Path, seconds: float, log: Path) -> Iterator[str]:
    """Let a fault meet a job, go on with it, and say what is wrong."""
    peace = place / "peace" / name
    if fault in SYSTEMS:
        yield from cut_power(jobs, name, fault, place, seconds, log)
        return
    out = place / name
    shutil.rmtree(out, ignore_errors=True)
    pids = start(jobs, name, out, log)
    time.sleep(random.uniform(0, seconds))
    victim = random.choice(pids)
    with suppress(ProcessLookupError):
        os.kill(victim, getattr(signal, fault))
    if fault == "SIGSTOP":
        (other,) = set(pids) - {victim}
        before = time.monotonic()
        wait([other], 2 * DEAF)
        if time.monotonic() - before > DEAF:
            yield "the other waited on"
        os.kill(victim, signal.SIGKILL)
        pids = [victim]
    wait(pids)
    if out.exists():
        yield from problems(name, out, peace, finished=False)
    yield from go_on(jobs, name, out, peace, log)


def go_on(jobs: Jobs, name: str, out: Path, peace: Path, log: Path) -> Iterator[str]:
    """Do the same again, to the end."""
    if any(wait(start(jobs, name, out, log))):
        yield f"does not go on: {log.read_text().strip()[-300:]}"
    else:
        yield from problems(name, out, peace, finished=True)


def cut_power(jobs: Jobs, name: str, system: str, place: Path, seconds: float, log: Path) -> Iterator[str]:
    """Copy a disk as it is while a job writes there; go on on the copy."""
    copy, after, peace = place / "copy.disk", place / "after", place / "peace" / name
    after.mkdir(exist_ok=True)
    with loop_disk(place, system) as (disk, folder):
        pids = start(jobs, name, folder / name, log)
        time.sleep(random.uniform(0, seconds))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        out = folder / name
        there = {} if not out.exists() or name in RUNS else digests(out)
        times = sorted(there, key=lambda one: (out / one).stat().st_mtime_ns)
        step = saved_step(out) if name in RUNS and out.exists() else -1
        subprocess.run(["cp", "--sparse=always", str(disk), str(copy)], check=True)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait(pids)
    options = "loop,nouuid" if system == "xfs" else "loop"
    subprocess.run(["mount", "-o", options, str(copy), str(after)], check=True)
    try:
        out = after / name
        yield from (
            f"{one} was there and is not" for one in times[:-2] if not (out / one).exists()
        )  # two: may be in the making
        if step > saved_step(out) + 2:  # that of the checkpoint before may be the last durable one
            yield f"step {step} was saved, {saved_step(out)} is"
        if out.exists():
            yield from problems(name, out, peace, finished=False)
        yield from go_on(jobs, name, out, peace, log)
    finally:
        subprocess.run(["umount", "--lazy", str(after)], check=True)


def main() -> int:
    """Meet all jobs with all faults, print the table, exit with 0 where nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for all of it; what is in it is deleted")
    parser.add_argument("--rounds", type=int, default=40, help="of each job with each fault")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--only", nargs="*", default=["build", "export", "extract", "fetch", "train", "ddp"])
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    random.seed(options.seed)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    shutil.rmtree(options.out, ignore_errors=True)
    place = options.out.absolute()
    log = place / "log.txt"
    place.mkdir(parents=True)
    jobs, seconds, begun = Jobs(place / "given"), {}, time.monotonic()
    for name in options.only:
        if name != "ddp":
            jobs.run(name, place / "warm" / name)  # in this process: what is forked from it imports nothing more
        before = time.monotonic()
        if any(wait(start(jobs, name, place / "peace" / name, log))):
            print(log.read_text(), file=sys.stderr)
            return 1
        seconds[name] = time.monotonic() - before
    cuts = [system for system in SYSTEMS if can_cut(place, system)]
    print(f"in peace: {seconds}; power cuts on {', '.join(cuts) or 'nothing: needs root and mkfs'}", flush=True)
    tried, wrong = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for number in range(options.rounds):
        for name in options.only:
            for fault in ["SIGKILL", "SIGTERM", *(["SIGSTOP"] if name == "ddp" else []), *cuts]:
                if time.monotonic() - begun > options.seconds:
                    continue
                log.write_text("")
                try:
                    found = list(meet(jobs, name, fault, place, seconds[name], log))
                except Exception as error:
                    found = [f"{type(error).__name__}: {error}"]
                tried[name, fault] += 1
                wrong[name, fault] += bool(found)
                if found:
                    print(f"{number} {name}, {fault}: {'; '.join(found)[:600]}", flush=True)
    print(f"\n{sum(tried.values()):,} faults, {sum(wrong.values()):,} went wrong, seed {options.seed}")
    print("\n| job | fault | times | went wrong |\n|---|---|---|---|")
    for name, fault in tried:
        print(f"| {name} | {fault} | {tried[name, fault]} | {wrong[name, fault]} |")
    return 1 if any(wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
