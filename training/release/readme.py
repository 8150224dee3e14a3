"""python -m training.release.readme [runs/demo]: writes the demo's results into README.md.

They are also copied to training/mini/demo_results.json, from which a test renders the block again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.evaluation.corruptions import CORRUPTION_TITLES
from training.evaluation.results import Results
from training.run.command import OneLineParser, run_command
from training.run.record import RunError
from turkish_clip.atomic import write_json, write_text
from turkish_clip.metrics import METRIC_NAMES

README = Path(__file__).parents[2] / "README.md"
MEASURED = Path(__file__).parents[1] / "mini" / "demo_results.json"
BEGIN, END = "<!-- results: begin; written by python -m training.release.readme -->", "<!-- results: end -->"
ROWS = (
    ("Turkish text → image", "text_to_image"),
    ("image → Turkish text", "image_to_text"),
    ("English text → image, the small CLIP's own tower", "teacher_text_to_image"),
    ("image → English text, the small CLIP's own tower", "teacher_image_to_text"),
)


def main(argv: list[str]) -> str:
    """Rewrites the block in README.md and returns it."""
    parser = OneLineParser(prog="python -m training.release.readme", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="?", default="runs/demo", help="a finished run of the demo [runs/demo]")
    run = Path(parser.parse_args(argv).run)
    results = Results.read(run, "run make demo first").as_json()
    if "machine" not in results or any(key not in results for _, key in ROWS):
        raise RunError(f"expected results of the demo in {run}, got those of another run; run make demo first")
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise RunError(f"expected the marks {BEGIN!r} and {END!r} in {README}, got none; put them where the block goes")
    write_json(MEASURED, results)
    text = block(results)
    write_text(README, before + text + after, ours=True)
    return text


def block(results: dict[str, Any]) -> str:
    """Renders the results as Markdown, with the marks around them."""
    seconds, cores = sum(results["wall_seconds"].values()), results["machine"]["cores"]
    lines = [
        BEGIN,
        "",
        f"`make demo`, measured on {results['images']} images and {results['captions']} Turkish captions that training "
        f"never saw (with 95 % intervals over images; {seconds:.0f} seconds on {cores} cores):",
        "",
        "| | recall@1 | recall@5 | recall@10 |",
        "|---|---|---|---|",
    ]
    for title, key in ROWS:
        cells = []
        for metric in METRIC_NAMES[:3]:
            low, high = results[key]["ci95"][metric]
            cells.append(f"{results[key][metric]:.3f} ({low:.3f}–{high:.3f})")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", lowest_retention(results["robustness"]), "", END])


def lowest_retention(robustness: dict[str, dict[str, Any]]) -> str:
    """Returns a sentence about the corruption of captions that costs the most recall@1.

    Args:
        robustness: the corruption's name → its figures, as in results.json.
    """
    retained = {name: found["retention"]["value"] for name, found in robustness.items() if "retention" in found}
    lowest = min(retained, key=lambda name: retained[name])
    label = next(label for label, name in CORRUPTION_TITLES if name == lowest)
    return (
        f"Of {len(robustness)} ways to write the captions otherwise, the hardest ({label}) keeps "
        f"{100 * retained[lowest]:.1f} % of the text → image recall@1 of the captions that it changes; "
        "`report.html` lists all of them."
    )


if __name__ == "__main__":
    run_command(main)
