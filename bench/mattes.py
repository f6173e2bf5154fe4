"""Compare ways of matting as docs/model-card.md does: errors, intervals of their differences, and seconds.

    python bench/mattes.py real composed --methods refined default closed-form knn learning-based --out mattes

A set of cases is a folder with image/, trimap/ and alpha/, whose pictures have the same names. Mattes are kept in --out
and made only where they are not there yet; seconds, the CPU's, are of those that are made (OMP_NUM_THREADS=1: of one
thread). The first method is compared with each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from matting_compose.composer.console.terminal import handle_errors
from matting_compose.composer.sources.image_io import read_image, write_picture
from matting_compose.composer.sources.mattes import read_trimap
from matting_compose.trainer.evaluation.cases import folder_cases
from matting_compose.trainer.evaluation.evaluate import Competitor, Score, compare, evaluate, summarise
from matting_compose.trainer.evaluation.metric_sets import TITLES
from matting_compose.trainer.inference.methods import METHODS, MatteOptions, make_matte, prepare, to_bytes

OPTIONS = MatteOptions(device="cpu")


def make_mattes(method: str, cases: Path, out: Path) -> float:
    """Make a method's mattes; return its CPU seconds a megapixel, 0 where all were there."""
    prepare(method, OPTIONS)
    seconds, pixels = 0.0, 0
    for path in sorted((cases / "image").iterdir()):
        matte = out / f"{path.stem}.png"
        if matte.exists():
            continue
        image = read_image(path)
        [hint] = (cases / "trimap").glob(f"{path.stem}.*")
        trimap, _ = read_trimap(hint, hint.name, image.shape[:2])
        start = time.process_time()
        alpha = make_matte(method, image, trimap, OPTIONS)
        seconds, pixels = seconds + time.process_time() - start, pixels + trimap.size
        write_picture(matte, to_bytes(alpha))
    return 1e6 * seconds / max(pixels, 1)


def table(scores: dict[str, Sequence[Score]], seconds: dict[str, float]) -> str:
    """Lay the scores out as Markdown: means, and how far the first method is from each."""
    first, *_ = scores
    names = list(scores[first][0].errors)
    title = " | ".join(TITLES[name] for name in names)
    lines = [f"| | {title} | `{first}` − it: {title} | s/MP |", "|---" * (2 * len(names) + 2) + "|"]
    for method, found in scores.items():
        means = [f"{interval.mean:.4g}" for interval in summarise(method, found).means.values()]
        differences = compare(found, scores[first]).differences.values()
        apart = [f"{d.mean:+.3g} [{d.low:+.3g}, {d.high:+.3g}]" if method != first else "" for d in differences]
        lines.append(f"| `{method}` | {' | '.join([*means, *apart])} | {seconds[method]:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Print a table for each set of cases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", type=Path, nargs="+")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["refined", "default", "closed-form", "knn"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for cases in options.cases:
        folders = [options.out / cases.name / method for method in options.methods]
        seconds = {m: make_mattes(m, cases, folder) for m, folder in zip(options.methods, folders, strict=True)}
        competitors = [Competitor(method, prediction=i) for i, method in enumerate(options.methods)]
        found = evaluate(
            folder_cases(cases / "alpha", trimaps=cases / "trimap", images=cases / "image", predictions=folders),
            competitors, OPTIONS, jobs=1,
        )  # fmt: skip
        print(f"{cases.name}: {found.metrics.legend()}\n")
        print(table({m: [s for s in found.scores if s.competitor == m] for m in options.methods}, seconds), flush=True)


if __name__ == "__main__":
    with handle_errors():
        main()
