"""Convert published annotations: ``alpro convert-annotations NAME ...``.

Reads the published files of a data set and writes the JSON lines that training and
evaluation read. Counts are compared with the published ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from alpro.commands.cli import exit_code_of, not_negative, path_flag
from alpro.commands.convert.conversion import Conversion, finish
from alpro.commands.convert.msrvtt import SPLITS, convert_msrvtt
from alpro.commands.convert.msvd import IDS, convert_msvd
from alpro.commands.convert.paragraphs import ORDERS, convert_activitynet, convert_didemo
from alpro.commands.convert.sources import Sources
from alpro.commands.convert.webdataset import convert_webdataset
from alpro.training.writable import check_output_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    return exit_code_of(lambda: convert(flags))


def convert(flags: argparse.Namespace) -> None:
    """Convert the data set that flags name.

    Raises:
        InputError: files are missing or of another format, or would be replaced.
    """
    check_output_folder(flags.output, named_by="--output")
    # Shards are streamed; all other sources are read as a whole.
    if flags.name == "webdataset":
        convert_webdataset(
            flags.source, flags.output, name=flags.split, may_overwrite=flags.overwrite
        )
        return
    conversion = _conversion(Sources(flags.source), flags)
    finish(conversion, flags.output, is_strict=flags.strict, may_overwrite=flags.overwrite)


def _conversion(sources: Sources, flags: argparse.Namespace) -> Conversion:
    from alpro.commands.convert.lists import convert_lists  # loads torch
    from alpro.commands.convert.questions import convert_msrvtt_qa, convert_msvd_qa

    match flags.name:
        case "msrvtt":
            return convert_msrvtt(sources, split=flags.split, num_val=flags.num_val)
        case "msrvtt_qa":
            return convert_msrvtt_qa(sources, num_answers=flags.num_answers)
        case "msvd":
            return convert_msvd(sources, ids=flags.ids)
        case "msvd_qa":
            return convert_msvd_qa(sources, num_answers=flags.num_answers, ids=flags.ids)
        case "lists":
            return convert_lists(
                sources, split=flags.split, text_key=flags.text_key, video_key=flags.video_key
            )
        case "didemo":
            return convert_didemo(sources, order=flags.order)
        case _:
            return convert_activitynet(sources, order=flags.order)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro convert-annotations",
        description="Convert published annotations to JSON lines; see NAME --help.",
        allow_abbrev=False,
    )
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True)

    def dataset(name: str, files: str, help_text: str) -> argparse.ArgumentParser:
        own = names.add_parser(
            name, help=help_text, description=f"{help_text}.", allow_abbrev=False
        )
        add = own.add_argument
        add("--source", type=path_flag, nargs="+", required=True, metavar="PATH", help=files)
        add(
            "--output",
            type=path_flag,
            required=True,
            metavar="DIR",
            help="folder to write to",
        )
        add("--overwrite", action="store_true", help="replace files with other content")
        if name != "webdataset":
            add(
                "--strict",
                action="store_true",
                help="fail if counts differ from the published ones",
            )
        return own

    add_msrvtt(dataset)
    add_msvd(dataset)
    for name, title, files in (
        ("didemo", "DiDeMo", "{train,val,test}_data.json"),
        ("activitynet", "ActivityNet Captions", "train.json, val_1.json and perhaps val_2.json"),
    ):
        own = dataset(name, _files(files), f"{title}: one paragraph per video")
        own.add_argument(
            "--order", choices=ORDERS, default="file", help="of descriptions (default: file)"
        )
    webdataset = dataset(
        "webdataset", "shards, or folders of them", "WebDataset: captions in tar shards"
    )
    lists = dataset("lists", _files("JSON"), "Any other JSON of captions or questions")
    for own in (webdataset, lists):
        own.add_argument(
            "--split", default="train", metavar="NAME", help="write NAME.jsonl (default: train)"
        )
    lists.add_argument("--text_key", metavar="KEY", help="of captions, else as training reads them")
    lists.add_argument(
        "--video_key", metavar="KEY", help="of videos' ids or files, else as training reads them"
    )
    return parser


def add_msrvtt(dataset: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """Add the flags of MSR-VTT and of its questions."""
    files = _files("MSRVTT_data.json or {train_val,test}_videodatainfo.json, MSRVTT_*.csv")
    own = dataset("msrvtt", files, "MSR-VTT: captions")
    own.add_argument(
        "--split",
        choices=SPLITS,
        default="7k",
        help="7k: as ClipBERT (default); 9k, also called 1k-A: as CLIP4Clip; full: the publishers'",
    )
    own.add_argument(
        "--num_val",
        type=not_negative,
        help="videos of val.jsonl: of 7k unused test videos (default: 1000), of 9k taken out of"
        " training (default: 0)",
    )
    own = dataset("msrvtt_qa", _files("{train,val,test}_qa.json"), "MSRVTT-QA: questions")
    own.add_argument(
        "--num_answers",
        type=not_negative,
        help="most frequent training answers that get a label, 0 for all (default: 1500)",
    )


def add_msvd(dataset: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """Add the flags of MSVD and of its questions."""
    splits = "{train,val,test}_list.txt or youtube_mapping.txt"
    files = _files(f"captions in any published form, and {splits}")
    captions = dataset("msvd", files, "MSVD: captions")
    files = _files("{train,val,test}_qa.json and youtube_mapping.txt")
    questions = dataset("msvd_qa", files, "MSVD-QA: questions")
    questions.add_argument(
        "--num_answers",
        type=not_negative,
        help="most frequent training answers that get a label, 0 for all (default: all answers of"
        " the three splits, as the published list)",
    )
    for own in (captions, questions):
        own.add_argument(
            "--ids", choices=IDS, default="youtube", help="ids of clips (default: youtube)"
        )


def _files(names: str) -> str:
    return f"files, folders or zip archives with {names}"
