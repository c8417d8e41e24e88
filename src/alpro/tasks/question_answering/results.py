"""Result files of question answering, and a table of accuracies for the log."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alpro.errors import pluralize
from alpro.tasks.question_answering.evaluation import QaOutcome
from alpro.training.atomic_io import write_json, write_records

ANSWER_COLUMNS = ("questions", "share %", "majority %", "accuracy %")


LOST_QUESTIONS = {
    "num_unanswerable_questions": "could not be right, their answers are not in the map",
    "num_left_out_questions": "left out, their videos cannot be read",
}


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
            lines.append(f"{meaning}: {pluralize(num_lost, 'question')}")
    return "\n".join(lines)
