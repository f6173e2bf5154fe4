"""Do to a build what happens to builds, hundreds of times, and compare what comes out with a build in peace.

    python bench/soak.py --out soaked --kills 15 --forks 200 --disks 20 --memories 10

A build in peace comes first; then the same one into other folders, each time met by one fault after the other until it
is finished: kill -9 of a worker, of the parent, of all processes, and SIGTERM, after random times, the files' times set
anywhere between 1970 and 2100 in between; a disk that is full at a random size (needs root: a small tmpfs); a worker
whose memory ends at a random size; a second build in the same folder. After each fault every file under a final name is
that of the build in peace or absent, and at the end all of them are. Further arguments, after --, are the build's.
Needs Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

COMMAND = Path(sys.executable).parent / "matting-compose"
SMALL = ["demo", "--variants", "6", "--set", "foregrounds.count=16", "--set", "shards.variants=3", "-j", "2"]
SMALL += ["--set", "foregrounds.sides=[180,240]", "--set", "backgrounds.sides=[180,240]"]
YEARS = 4_102_444_800  # seconds from 1970 to 2100
OWN = (".lock", ".progress")  # of builds at work, or killed


@dataclass
class Build:
    """The command, what it makes in peace, and how long that takes."""

    arguments: list[str]
    log: Path
    files: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0

    def start(self, out: Path) -> subprocess.Popen[str]:
        """Start it; what it prints goes to a file, since an orphan would hold a pipe open."""
        command = [str(COMMAND), "build", *self.arguments, "--out", str(out)]
        self.log.unlink(missing_ok=True)
        with self.log.open("w") as log:
            return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log, text=True)

    @property
    def output(self) -> str:
        """What the last build printed."""
        return self.log.read_text(errors="replace")

    def problems(self, out: Path, *, finished: bool) -> list[str]:
        """Say which files are not what they are in peace; those of an unfinished build may be absent."""
        found = digests(out)
        wrong = [f"{name} differs" for name, digest in found.items() if self.files.get(name) not in (None, digest)]
        wrong += [
            f"{name} is left over" for name in found if name not in self.files and (finished or name[-4:] != ".tmp")
        ]
        return wrong + [f"{name} is missing" for name in self.files if finished and name not in found]


@dataclass
class Tally:
    """What came of one kind of fault: how often it was tried, how often it met a build at work, what went wrong."""

    tried: int = 0
    met: int = 0
    wrong: list[str] = field(default_factory=list)


def digests(out: Path) -> dict[str, str]:
    """Hash every file of a dataset."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and not path.name.startswith(OWN)]
    found = {}
    for path in paths:
        with suppress(FileNotFoundError):  # an orphan's temporary file, that went
            found[path.relative_to(out).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def workers(build: subprocess.Popen[str]) -> list[int]:
    """Return the worker processes of a build."""
    with suppress(OSError):
        children = Path(f"/proc/{build.pid}/task/{build.pid}/children").read_text().split()
        return [int(pid) for pid in children if "LokyProcess" in Path(f"/proc/{pid}/cmdline").read_text()]
    return []


Fault = Callable[["subprocess.Popen[str]", random.Random], None]  # raises IndexError where there is no worker yet


def kill_worker(build: subprocess.Popen[str], rng: random.Random) -> None:
    """Kill a worker."""
    os.kill(rng.choice(workers(build)), signal.SIGKILL)


def starve_worker(build: subprocess.Popen[str], rng: random.Random) -> None:
    """Let a worker have but a little more memory than it has."""
    pid = rng.choice(workers(build))
    now = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    limit = now + rng.randrange(4_000_000)
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))


KILLS: dict[str, Fault] = {
    "kill -9, a worker": kill_worker,
    "kill -9, the parent": lambda build, _: build.kill(),
    "kill -9, all": lambda build, _: os.killpg(build.pid, signal.SIGKILL),
    "SIGTERM": lambda build, _: build.terminate(),
}
MEMORY, DISK, FORK = "a worker's memory ends", "the disk is full", "kill -9, a build in one process"
EXPECTED = {
    "kill -9, a worker": ("a worker process was killed",),
    "SIGTERM": ("run the same command again",),
    MEMORY: ("memory", "a worker process was killed"),
    DISK: ("the disk is full",),
}


def outcome(code: int, text: str, fault: str) -> Iterator[str]:
    """Say what is wrong with how a build that was met by a fault ended, and with what it said."""
    expected = EXPECTED.get(fault, ())
    if "Traceback" in text and fault != MEMORY:  # a worker without memory says so in its own way
        yield f"a traceback: {text.strip()[-300:]!r}"
    if expected and code not in (0, 1, 130, -signal.SIGTERM):
        yield f"exit code {code}"
    # SIGTERM ends a process at once that has not begun to work, or has done its work.
    if expected and code > 0 and not any(words in text for words in expected):
        yield f"it said: {text.strip()[-300:]!r}"


def shuffle_times(out: Path, rng: random.Random) -> None:
    """Set all files' times to anything."""
    for path in out.rglob("*"):
        with suppress(FileNotFoundError):
            os.utime(path, (rng.randrange(YEARS), rng.randrange(YEARS)))


def soak_kills(build: Build, out: Path, faults: dict[str, Tally], count: int, rng: random.Random) -> None:
    """Stop builds `count` times in turn, whenever; go on with each until it is finished, then begin anew."""
    act = {**KILLS, MEMORY: starve_worker}
    order = [name for name, tally in faults.items() for _ in range(count)]
    rng.shuffle(order)
    shutil.rmtree(out, ignore_errors=True)
    while order:
        name = order.pop()
        tally = faults[name]
        running = build.start(out)
        time.sleep(rng.uniform(0.3, build.seconds))
        tally.tried += 1
        if running.poll() is None:
            with suppress(IndexError, OSError):
                act[name](running, rng)
                tally.met += 1
        running.wait(timeout=600)
        tally.wrong += outcome(running.returncode, build.output, name)
        tally.wrong += build.problems(out, finished=running.returncode == 0)
        if running.returncode == 0:
            shutil.rmtree(out)
        elif out.exists():
            shuffle_times(out, rng)
        print(f"{len(order):4} to go: {name}, exit {running.returncode} {'; '.join(tally.wrong)}", flush=True)
        if not order:
            finish(build, out, tally)


def soak_forks(build: Build, out: Path, tally: Tally, count: int, rng: random.Random) -> None:
    """Kill builds that render in one process, forked from this one: without what starting costs, hundreds take minutes.

    A third of the kills come in the first tenth of a second after a file has got its name.
    """
    from matting_compose.cli import compose

    for module in (
        "building.build",
        "recipe",
        "building.dry_run",
        "sources.drawn.foregrounds",
    ):
        import_module(f"matting_compose.composer.{module}")
    seconds = [1.0]
    shutil.rmtree(out, ignore_errors=True)
    while tally.met < count or out.exists():
        start, before = time.monotonic(), len(list(out.glob("**/shard-*.json")))
        child = os.fork()
        if not child:
            with build.log.open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            try:
                compose(["build", *build.arguments, "-j", "1", "--out", str(out)])
            except SystemExit as ended:
                os._exit(int(ended.code or 0))
        if tally.met < count:
            if rng.random() < 1 / 3:
                while len(list(out.glob("**/shard-*.json"))) == before and time.monotonic() - start < max(seconds):
                    time.sleep(0.002)
                time.sleep(rng.uniform(0, 0.1))
            else:
                time.sleep(rng.uniform(0, max(seconds)))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        tally.tried += 1
        tally.met += killed
        if not killed and os.WEXITSTATUS(status):
            tally.wrong.append(f"exit {os.WEXITSTATUS(status)}: {build.output[-300:]!r}")
        tally.wrong += build.problems(out, finished=not killed)
        if not killed:
            seconds.append(time.monotonic() - start)
            shutil.rmtree(out)
        print(f"{count - tally.met:4} to go: {FORK} {'; '.join(tally.wrong)}", flush=True)


def finish(build: Build, out: Path, tally: Tally) -> None:
    """Go on to the end, and compare."""
    last = build.start(out)
    if last.wait(timeout=600):
        tally.wrong.append(f"going on: exit {last.returncode}: {build.output[-300:]!r}")
    tally.wrong += build.problems(out, finished=True)


def soak_disks(build: Build, out: Path, tally: Tally, count: int, rng: random.Random) -> None:
    """Build on a disk that is full at a random size; make room; go on."""
    for number in range(count):
        size = rng.randrange(4096, build.bytes) if number % 2 else build.bytes - rng.randrange(300_000)
        with small_disk(out, size) as remount:
            folder = out / "dataset"
            full = build.start(folder)
            full.wait(timeout=600)
            tally.tried += 1
            tally.met += full.returncode != 0
            tally.wrong += outcome(full.returncode, build.output, DISK)
            if folder.exists():
                tally.wrong += build.problems(folder, finished=full.returncode == 0)
            remount(4 * build.bytes)
            finish(build, folder, tally)
        print(f"a disk of {size:,} bytes: exit {full.returncode} {'; '.join(tally.wrong)}", flush=True)


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Callable[[int], None]]:
    """Mount a tmpfs of some bytes; what is yielded changes its size."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield lambda more: subprocess.run(["mount", "-o", f"remount,size={more}", str(place)], check=True) and None
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # helpers of the build may still end


def soak_second(build: Build, out: Path, tally: Tally, count: int) -> None:
    """Start a second build in the folder of a running one: it is refused, and the first one is not disturbed."""
    for _ in range(count):
        shutil.rmtree(out, ignore_errors=True)
        first = build.start(out)
        while not (out / "shards").exists() and first.poll() is None:
            time.sleep(0.01)
        command = [str(COMMAND), "build", *build.arguments, "--out", str(out)]
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        tally.tried += 1
        tally.met += second.returncode != 0
        if second.returncode and "another build is running" not in second.stderr:
            tally.wrong.append(second.stderr[-200:])
        first.wait(timeout=600)
        tally.wrong += build.problems(out, finished=True)


def main() -> int:
    """Soak, print the table, exit with 0 where nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for all of it; what is in it is deleted")
    parser.add_argument("--kills", type=int, default=15, help="of each of the four kinds")
    parser.add_argument("--forks", type=int, default=200, help="kills of builds in one process")
    parser.add_argument("--disks", type=int, default=20)
    parser.add_argument("--memories", type=int, default=10)
    parser.add_argument("--twice", type=int, default=5, help="second builds in the folder of a running one")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("arguments", nargs="*", help="of the build, after --")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    build, rng = Build(options.arguments or SMALL, options.out / "output.txt"), random.Random(options.seed)
    start = time.monotonic()
    peace = options.out / "peace"
    if build.start(peace).wait(timeout=3600):
        print(build.output, file=sys.stderr)
        return 1
    build.seconds, build.files = time.monotonic() - start, digests(peace)
    build.bytes = sum((peace / name).stat().st_size for name in build.files)
    print(f"in peace: {len(build.files)} files, {build.bytes:,} bytes, {build.seconds:.1f} s", flush=True)
    faults = {name: Tally() for name in KILLS}
    soak_kills(build, options.out / "killed", faults, options.kills, rng)
    faults[FORK] = Tally()
    soak_forks(build, options.out / "forked", faults[FORK], options.forks, rng)
    starved = {MEMORY: Tally()}
    soak_kills(build, options.out / "starved", starved, options.memories, rng)
    faults |= starved
    faults[DISK] = disks = Tally()
    if os.geteuid() == 0:
        soak_disks(build, options.out / "disk", disks, options.disks, rng)
    faults["a second build"] = second = Tally()
    soak_second(build, options.out / "second", second, options.twice)
    print("\n| fault | times | met a build at work | went wrong |\n|---|---|---|---|")
    for name, tally in faults.items():
        print(f"| {name} | {tally.tried} | {tally.met} | {len(tally.wrong)} |")
    return 1 if any(tally.wrong for tally in faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
