"""Fuzz what reads untrusted bytes: pictures, recipes, a dataset's files, checkpoints, packages, names.

    python bench/fuzz.py picture shard --seconds 300 --out fuzzed

Without names: all targets (see targets.py). With atheris (pip install ".[fuzz]") mutations are guided by
the Python lines they reach, each target in a process of its own; without it, they are blind. A finding (an error that
is no MattingComposeError, a crash, too much memory or time) is written to OUT/findings, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import random
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

MEMORY = {"checkpoint": 1200, "recipe": 1200, "records": 1200}  # MB; what imports torch begins with some 400
MEMORY |= {"picture": 400, "matte": 400}  # pictures are small here: one that takes more takes far more than its share
MOST_MEMORY = 800
MOST_SECONDS = 10  # for one input
MOST_RUNS = 100_000  # of one process: atheris keeps what instrumented comparisons give, 5 kB an input of `trimap`
HOMES = {"picture": "target_pictures", "matte": "target_pictures"}  # to instrument all takes longer than to begin
INSTRUMENTED = ["matting_compose", "PIL", "tarfile", "tomllib", "torch.serialization", "torch._weights_only_unpickler"]


def attempt(run: Callable[[bytes], None], data: bytes, findings: Path, target: str) -> None:
    """Run a target; note an error that it should not raise, once for each place it comes from."""
    from matting_compose.composer.base.errors import MattingComposeError

    try:
        run(data)
    except MattingComposeError:
        pass
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/bench/" not in f.filename]
        place = f"{Path(frames[-1].filename).stem}-{frames[-1].lineno}" if frames else "target"
        name = findings / f"{target}-{type(error).__name__}-{place}"
        if not name.with_suffix(".bin").exists():
            findings.mkdir(parents=True, exist_ok=True)
            name.with_suffix(".txt").write_text(traceback.format_exc(), errors="replace")
            name.with_suffix(".bin").write_bytes(data)


def guided(target: str, corpus: Path, findings: Path, seconds: int, runs: int) -> None:
    """Fuzz one target by libFuzzer; never returns."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        module = import_module(HOMES.get(target, "targets"))

        chosen = module.TARGETS[target]
        attempt(chosen.run, b"", findings, target)  # what is imported late, is imported now

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        return chosen.repair(atheris.Mutate(data, size))[:size]

    options = [f"-max_total_time={seconds}", f"-runs={runs}", "-max_len=20000", f"-timeout={MOST_SECONDS}"]
    options += [f"-rss_limit_mb={MEMORY.get(target, MOST_MEMORY)}", "-print_final_stats=1"]
    options.append(f"-artifact_prefix={findings}/{target}-killed-")
    atheris.Setup(
        ["fuzz", *options, str(corpus)],
        lambda data: attempt(chosen.run, data, findings, target),
        custom_mutator=mutate,
    )
    atheris.Fuzz()


def inputs(target: str, seed: int = 1) -> Iterator[bytes]:
    """Yield a target's seeds, then mutations of them without end."""
    import targets

    chosen, rng = targets.TARGETS[target], random.Random(seed)
    seeds = list(chosen.seeds())
    yield from seeds
    for original in itertools.cycle(seeds):
        data = bytearray(original)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(4):
                case 0:
                    del data[at : at + rng.randint(1, 40)]
                case 1:
                    data[at:at] = rng.randbytes(rng.randint(1, 9))
                case 2:
                    data[at : at + 4] = rng.choice((b"\xff\xff\xff\x7f", b"\0\0\0\0", b"9999", b"-1e9"))
                case _ if data:
                    data[at % len(data)] ^= 1 << rng.randrange(8)
        yield chosen.repair(bytes(data))


def blind(target: str, findings: Path, seconds: float) -> int:
    """Fuzz one target without guidance, in this process; return how many inputs were tried."""
    import targets

    count, end = 0, time.monotonic() + seconds
    for data in inputs(target):
        attempt(targets.TARGETS[target].run, data, findings, target)
        count += 1
        if time.monotonic() > end:
            break
    return count


def campaign(target: str, out: Path, seconds: int, runs: int) -> dict[str, int]:
    """Fuzz a target in processes of its own, one after the other, until the time or the inputs are up."""
    corpus, findings = out / "corpus" / target, out / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    import targets

    for data in targets.TARGETS[target].seeds():
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    totals = {"runs": 0, "edges": 0, "deaths": 0, "memory": 0}
    end = time.monotonic() + seconds
    while (left := int(end - time.monotonic())) > 2 and totals["runs"] < runs:
        command = [sys.executable, __file__, "--guided", target, "--out", str(out), "--seconds", str(left)]
        command += ["--runs", str(min(runs - totals["runs"], MOST_RUNS))]
        said = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        lines = re.findall(r"#(\d+)\t.*cov: (\d+)", said.stderr)
        done = re.findall(r"number_of_executed_units: (\d+)", said.stderr) or [line[0] for line in lines]
        totals["runs"] += int(done[-1]) if done else 0
        totals["edges"] = max([totals["edges"], *(int(line[1]) for line in lines)])
        totals["memory"] = max([totals["memory"], *map(int, re.findall(r"rss: (\d+)Mb", said.stderr))])
        if said.returncode:
            totals["deaths"] += 1
            (findings / f"{target}-death-{totals['deaths']}.txt").write_text(said.stderr[-8000:])
            if not lines:
                break  # it does not even begin
    return totals


def main() -> int:
    """Fuzz; print a line for each target; exit with 1 where there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, default=2**40, help="inputs for each target, at most; guided only")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--blind", action="store_true", help="without atheris")
    parser.add_argument("--guided", metavar="TARGET", help=argparse.SUPPRESS)
    options = parser.parse_args()
    findings = options.out / "findings"
    if options.guided:
        guided(options.guided, options.out / "corpus" / options.guided, findings, options.seconds, options.runs)
    import targets

    if unknown := set(options.names) - set(targets.TARGETS):
        parser.error(f"no target is called {', '.join(sorted(unknown))}; there are {', '.join(targets.TARGETS)}")
    for name in options.names or targets.TARGETS:
        if options.blind or find_spec("atheris") is None:
            told = f"{blind(name, findings, options.seconds):,} inputs, blindly"
        else:
            totals = campaign(name, options.out, options.seconds, options.runs)
            told = f"{totals['runs']:,} inputs, {totals['edges']:,} edges, {totals['deaths']} processes died,"
            told += f" {totals['memory']} MB at most"
        found = len(list(findings.glob(f"{name}-*.bin")) + list(findings.glob(f"{name}-killed-*")))
        print(f"{name:14} {told}; {found} findings", flush=True)
    return 1 if any(findings.glob("*")) else 0


if __name__ == "__main__":
    sys.exit(main())
