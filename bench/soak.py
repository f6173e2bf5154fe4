"""Stop a build again and again, let it go on, and compare what comes out with a build in peace.

    python bench/soak.py --reference dataset --out soaked --stops 6 -- --foregrounds cutouts/ --backgrounds photos/

The reference is a finished dataset of the same arguments. Stops come in turn: kill -9 of every process, of the parent,
of one worker, and SIGTERM, each after a random time. Needs Linux (/proc).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = Path(sys.executable).parent / "matting-compose"


def stop(build: subprocess.Popen[bytes], how: str) -> None:
    """Stop a build in one of the ways that builds are stopped."""
    if how == "everything":
        os.killpg(build.pid, signal.SIGKILL)
    elif how == "parent":
        build.kill()
    elif how == "worker":
        children = Path(f"/proc/{build.pid}/task/{build.pid}/children").read_text().split()
        workers = [pid for pid in children if "LokyProcess" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(int(workers[0]), signal.SIGKILL)
    else:
        build.terminate()
    build.wait()


def digests(dataset: Path) -> dict[str, str]:
    """Hash every shard and the index."""
    files = [*sorted((dataset / "shards").glob("shard-*.h5")), dataset / "dataset.json"]
    return {path.name: hashlib.file_digest(path.open("rb"), "sha256").hexdigest() for path in files}


def main() -> int:
    """Stop, go on, compare; exit with 0 where the bytes are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stops", type=int, default=6)
    parser.add_argument("--after", type=float, nargs=2, default=(25, 55), metavar=("FROM", "TO"), help="seconds")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("arguments", nargs="*", help="of the build, after --")
    options = parser.parse_args()
    command = [str(COMMAND), "build", *options.arguments, "--out", str(options.out)]
    rng = random.Random(options.seed)
    for number in range(options.stops):
        how = ("everything", "parent", "worker", "term")[number % 4]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        build = subprocess.Popen(command, start_new_session=True, **silent)
        time.sleep(rng.uniform(*options.after))
        if build.poll() is None:
            stop(build, how)
        finished = len(list((options.out / "shards").glob("shard-*.json")))
        print(f"{number + 1}: {how}, exit {build.returncode}, {finished} shards finished", flush=True)
    code = subprocess.run(command, check=False).returncode
    same = code == 0 and digests(options.out) == digests(options.reference)
    print(f"exit {code}, {'byte for byte the same' if same else 'NOT THE SAME'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
