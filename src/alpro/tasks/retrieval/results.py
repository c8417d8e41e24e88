"""Result files of retrieval, scores.json with its protocol, and a table for the log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alpro.tasks.retrieval.evaluation import RetrievalOutcome
from alpro.training.atomic_io import write_json, write_records

COLUMNS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medianR": "median rank", "meanR": "mean rank"}


ROWS = {
    "text2video": "text to video",
    "text2video_vtc": "text to video, VTC only",
    "video2text": "video to text",
    "video2text_vtc": "video to text, VTC only",
    "text2video_dsl": "text to video, DSL*",
    "video2text_dsl": "video to text, DSL*",
}


def write_results(
    folder: Path, outcome: RetrievalOutcome, *, protocol: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Write ``results.json`` and ``scores.json`` in the original's shapes, and return the metrics.

    Counts are added to the protocol, which says how the outcome was obtained.
    """
    # The protocol also counts what the numbers are about.
    metrics = outcome.metrics()
    counts = {
        "num_captions": len(outcome.caption_ids),
        "num_videos": len(outcome.video_ids),
        "num_unreadable_videos": len(outcome.unreadable),
        "num_scored_pairs": int(outcome.scored.sum()),
    }
    write_records(folder / "results.json", outcome.results())
    write_json(folder / "scores.json", {**metrics, "protocol": {**counts, **protocol}})
    return metrics


def metrics_table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Both directions, re-ranked and by VTC alone, as a text table."""
    head = f"{'':26}" + "".join(f"{title:>13}" for title in COLUMNS.values())
    lines = [
        f"{title:26}" + "".join(f"{metrics[name][key]:13.1f}" for key in COLUMNS)
        for name, title in ROWS.items()
        if name in metrics
    ]
    if "text2video_dsl" in metrics:
        lines.append("* dual softmax is transductive: it uses all queries of the set at once")
    return "\n".join([head, *lines])
