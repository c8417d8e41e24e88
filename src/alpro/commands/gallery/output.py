"""Files of galleries: a picture, or a page where the file's name ends in .html."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from alpro.commands.cli import exit_code_of
from alpro.commands.gallery.cards import Gallery
from alpro.commands.gallery.page import render_page
from alpro.commands.gallery.picture import draw_gallery
from alpro.errors import InputError
from alpro.training.atomic_io import write_text
from alpro.training.writable import check_output_file

PAGE_ENDING = ".html"


def run_gallery_command(
    flags: argparse.Namespace, *, make: Callable[[argparse.Namespace], Gallery], picture: str
) -> int:
    """Make and write a gallery; returns the exit code.

    Args:
        flags: of the command, with those of `add_result_flags`.
        make: makes the gallery.
        picture: name of the file, unless the flags have one.
    """
    path = flags.picture or flags.output_dir / picture

    def work() -> None:
        check_picture(path)
        write_gallery(make(flags), path, named_by="--picture")
        print(f"picture: {path}")

    return exit_code_of(work)


def check_picture(path: Path) -> None:
    """Check, before it is drawn, that a gallery can be written where ``--picture`` says.

    Raises:
        InputError: if it cannot.
    """
    check_output_file(path, named_by="--picture")
    ending = path.suffix.lower()
    if ending != PAGE_ENDING and Image.registered_extensions().get(ending) not in Image.SAVE:
        raise InputError(
            f"cannot write {path}: pictures end in .png, pages in {PAGE_ENDING};"
            " give another --picture"
        )


def write_gallery(gallery: Gallery, path: Path, *, named_by: str, is_page: bool = False) -> None:
    """Write a picture, or a page.

    Args:
        gallery: with at least one card.
        path: the file.
        named_by: the flag that names it.
        is_page: even if the file's name has another ending.

    Raises:
        InputError: if it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_page or path.suffix.lower() == PAGE_ENDING:
            write_text(path, render_page("gallery.html", title=gallery.title, gallery=gallery))
        else:
            draw_gallery(gallery).save(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}; give another {named_by}") from error
