"""What an evaluation leaves behind: results.json, scores.json with its protocol, and a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.evaluation.retrieval import RetrievalOutcome
from src.training.output import write_atomically, write_json

COLUMNS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medianR": "median rank", "meanR": "mean rank"}
ROWS = {
    "text2video": "text to video",
    "text2video_vtc": "text to video, VTC only",
    "video2text": "video to text",
    "video2text_vtc": "video to text, VTC only",
}


def write_results(
    folder: Path, outcome: RetrievalOutcome, *, protocol: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Write ``results.json`` and ``scores.json`` in the original's shapes.

    Args:
        folder: of this evaluation.
        outcome: what it gave.
        protocol: how it was made; counts are added to it here.

    Returns:
        The metrics that were written.
    """
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


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write many records as JSON; a million take ujson, where it is there, a tenth of the time."""
    try:
        import ujson
    except ImportError:
        write_json(path, records)
        return
    text = ujson.dumps(records, indent=4, ensure_ascii=False, escape_forward_slashes=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def metrics_table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Both directions, re-ranked and by VTC alone, as a text table."""
    head = f"{'':26}" + "".join(f"{title:>13}" for title in COLUMNS.values())
    lines = [
        f"{title:26}" + "".join(f"{metrics[name][key]:13.1f}" for key in COLUMNS)
        for name, title in ROWS.items()
    ]
    return "\n".join([head, *lines])
