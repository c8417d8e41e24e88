"""Subcommands of ``alpro``, in the groups of its help; a module is imported when it is called."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand."""

    module: str
    """Below ``alpro.commands``."""
    summary: str
    function: str = "main"
    """Takes the arguments of the subcommand and returns the exit code."""


GROUPS: dict[str, dict[str, Command]] = {
    "Train and evaluate": {
        "retrieval": Command("train", "text-video retrieval: finetune, or evaluate", "retrieval"),
        "question-answering": Command(
            "train", "video question answering: finetune, or evaluate", "question_answering"
        ),
        "pretrain-prompter": Command("train", "pretraining, stage 1: the prompter", "prompter"),
        "pretrain": Command("train", "pretraining, stage 2: video and language", "pretrain"),
    },
    "Prepare data": {
        "demo-data": Command("demo.command", "render a small synthetic dataset"),
        "convert-annotations": Command("convert.command", "published annotations to JSON lines"),
        "split-annotations": Command("split_annotations", "one file into train, val and test"),
        "check-data": Command("check_data.command", "check annotations and videos"),
        "prepare-videos": Command("transcode.command", "transcode videos for fast reading"),
        "videos-to-lmdb": Command("videos_to_lmdb", "a folder of videos to an LMDB"),
        "extract-entities": Command("extract_entities", "frequent nouns, for the prompter"),
    },
    "Look at results": {
        "show-results": Command("show_results", "tables of evaluated runs"),
        "compare-runs": Command("compare_runs", "compare kinds of runs over the same seeds"),
        "contact-sheet": Command("gallery.contact_sheet", "picture of queries and their clips"),
        "answer-sheet": Command("gallery.answer_sheet", "picture of questions and answers"),
        "show-entities": Command("show_entities", "page of the prompter's entities in regions"),
        "replay-batch": Command("replay_batch", "repeat an update with non-finite values"),
    },
    "Use a model": {
        "export-model": Command("export_model", "a run's model as a folder of its own"),
        "index": Command("index", "index one's own videos for search"),
        "search": Command("search", "find moments of indexed videos"),
        "serve": Command("serve", "page to search indexed videos"),
        "export-features": Command("export_features", "vectors of an index, to Parquet or NumPy"),
    },
    "Measure and set up": {
        "bench": Command("bench.command", "speed of decoding, loading and training"),
        "completion": Command("completion", "script that completes commands in a shell"),
        "docs-reference": Command("docs_reference", "write the reference pages of the docs"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
