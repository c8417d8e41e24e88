"""Result files of an evaluation, scores.json with its protocol, and a table for the log."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alpro.evaluation.question_answering import QaOutcome
from alpro.evaluation.retrieval import RetrievalOutcome
from alpro.installation import has_package
from alpro.training.atomic_io import write_json, write_text

COLUMNS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medianR": "median rank", "meanR": "mean rank"}
ROWS = {
    "text2video": "text to video",
    "text2video_vtc": "text to video, VTC only",
    "video2text": "video to text",
    "video2text_vtc": "video to text, VTC only",
    "text2video_dsl": "text to video, DSL*",
    "video2text_dsl": "video to text, DSL*",
}
ANSWER_COLUMNS = ("questions", "share %", "majority %", "accuracy %")
LOST_QUESTIONS = {
    "num_unanswerable_questions": "could not be right, their answers are not in the map",
    "num_left_out_questions": "left out, their videos cannot be read",
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


def write_answers(
    folder: Path, outcome: QaOutcome, *, protocol: Mapping[str, Any]
) -> dict[str, Any]:
    """Write ``results_all.json`` and ``scores.json`` in the original's shapes; return the latter.

    Counts are added to the protocol, which says how the outcome was obtained.
    """
    counts = {
        "num_questions": len(outcome.rows),
        "num_videos": len({row.video_id for row in outcome.rows}),
        "num_unanswerable_questions": outcome.num_unanswerable,
        "num_unreadable_videos": len(outcome.unreadable),
        "num_left_out_questions": outcome.num_left_out,
    }
    scores = {**outcome.scores(), "protocol": {**counts, **protocol}}
    write_records(folder / "results_all.json", outcome.results())
    write_json(folder / "scores.json", scores)
    return scores


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write many records as JSON, by ujson if it is installed: a tenth of the time."""
    if not has_package("ujson"):
        write_json(path, records)
        return
    # Optional packages are imported where they are used.
    import ujson

    text = ujson.dumps(records, indent=4, ensure_ascii=False, escape_forward_slashes=False) + "\n"
    write_text(path, text)


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


def answers_table(scores: Mapping[str, Any]) -> str:
    """The scores of :func:`write_answers` as a text table by answer type."""
    # A row per answer type, all questions last.
    counts, majority = scores["counts"], scores["majority"]
    width = max(len(kind) for kind in (*counts, "answer type"))
    lines = [f"{'answer type':{width}}" + "".join(f"{title:>11}" for title in ANSWER_COLUMNS)]
    for kind, (_, total) in sorted(counts.items(), key=lambda item: item[0] == "overall"):
        share = 100.0 * total / counts["overall"][1]
        numbers = (share, majority[f"{kind}_acc"], scores[f"{kind}_acc"])
        lines.append(f"{kind:{width}}{total:11d}" + "".join(f"{n:11.2f}" for n in numbers))
    # Top-5 accuracy, and questions that could not be answered.
    lines.append(f"right answer among the five best: {scores['top5_acc']:.2f} %")
    for key, meaning in LOST_QUESTIONS.items():
        if num_lost := scores["protocol"][key]:
            noun = "question" if num_lost == 1 else "questions"
            lines.append(f"{meaning}: {num_lost} {noun}")
    return "\n".join(lines)
