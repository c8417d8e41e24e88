"""Looking at single files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alpro.commands.check_data.probe import (
    SAMPLED,
    WHOLE_DIGEST_BYTES,
    Item,
    Probe,
    digest_of,
    probe_item,
)
from alpro.commands.check_data.sources import Sampling
from tests.commands.check_data.clips import write_noisy_clip
from tests.datasets.clips import write_clip, write_frames, write_image


def item_of(path: Path, *, is_image: bool = False) -> Item:
    return Item(str(path), path.name, path.parent, path, ".mp4", is_image)


def look(path: Path, *, full: bool = False, is_image: bool = False) -> Probe:
    sampling = Sampling(num_frames=4, decoder="pyav")
    return probe_item(item_of(path, is_image=is_image), sampling=sampling, full=full)


@pytest.mark.parametrize("full", [False, True])
def test_a_sound_video_is_measured(tmp_path: Path, full: bool) -> None:
    probe = look(write_clip(tmp_path / "a.mp4", num_frames=16, height=48), full=full)
    assert (probe.verdict, probe.reason, probe.trouble) == ("readable", "", "")
    assert (probe.codec, probe.width, probe.height, probe.rotation) == ("h264", 64, 48, 0)
    assert (probe.num_frames, probe.declared_frames) == (16, 16)
    assert (probe.seconds, probe.declared_seconds, probe.fps) == (2.0, 2.0, 8.0)
    assert probe.contrast == 0.0
    assert probe.change == pytest.approx(48, abs=2)  # frames 0, 4, 8, 12 are 12 grey levels apart
    assert probe.num_bytes == (tmp_path / "a.mp4").stat().st_size


def test_files_without_frames_say_why(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    assert look(tmp_path / "gone.mp4").verdict == "missing"
    assert look(tmp_path / "empty.mp4").verdict == "empty_file"
    text = look(tmp_path / "text.mp4")
    assert (text.verdict, text.reason) == (
        "unreadable", "no video: the file holds a text",
    )  # fmt: skip
    assert text.digest is not None


def test_a_file_cut_short_is_damaged_in_part(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    path = write_frames(tmp_path / "a.mkv", frames)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    probe = look(path, full=True)
    assert probe.verdict == "readable"
    assert probe.num_frames is not None
    assert 0 < probe.num_frames < 16


def test_bytes_of_a_storage_are_read_in_place(tmp_path: Path) -> None:
    write_noisy_clip(tmp_path / "a.mp4", seed=0)
    item = Item("key", "a", tmp_path, None, ".mp4", is_image=False)
    probe = probe_item(item, sampling=Sampling(num_frames=2), full=False)
    assert (probe.verdict, probe.num_frames) == ("readable", 6)


def test_digests_of_different_contents_differ(tmp_path: Path) -> None:
    content = b"x" * 100
    (tmp_path / "a").write_bytes(content)
    assert digest_of(tmp_path / "a", size=100) == digest_of(content, size=100)
    assert digest_of(b"y" * 100, size=100) != digest_of(content, size=100)


def test_large_files_are_hashed_in_parts_that_hold_both_ends() -> None:
    size = WHOLE_DIGEST_BYTES + 1000
    first, last = bytearray(size), bytearray(size)
    first[0] = last[-1] = 1
    digests = {digest_of(bytes(content), size=size) for content in (bytes(size), first, last)}
    assert len(digests) == 3
    assert all(digest.startswith(SAMPLED) for digest in digests)
    assert not digest_of(bytes(size), size=size, whole=True).startswith(SAMPLED)


def test_images_are_measured(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (40, 30), (10, 10, 10)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    probe = look(tmp_path / "a.png", is_image=True)
    assert (probe.verdict, probe.codec, probe.width, probe.height) == ("readable", "png", 40, 30)
    assert (probe.brightness, probe.contrast, probe.change) == (10.0, 0.0, None)
    assert look(tmp_path / "b.png", is_image=True).verdict == "unreadable"


@pytest.mark.parametrize("full", [False, True])
def test_folders_of_frames_are_measured(tmp_path: Path, full: bool) -> None:
    for number in range(16):
        write_image(tmp_path / f"v/{number}.png", number)
    probe = look(tmp_path / "v", full=full)
    assert (probe.verdict, probe.reason, probe.trouble) == ("readable", "", "")
    assert (probe.codec, probe.width, probe.height, probe.num_frames) == ("png", 40, 30, 16)
    assert (probe.change, probe.fps, probe.seconds) == (48.0, None, None)
    assert probe.num_bytes == sum(file.stat().st_size for file in (tmp_path / "v").iterdir())
    digest = probe.digest
    write_image(tmp_path / "v/3.png", 5, size=(80, 30))
    probe = look(tmp_path / "v", full=full)
    assert "frames of 2 sizes (40 x 30, 80 x 30)" in probe.trouble
    assert (probe.verdict, probe.width, probe.digest != digest) == ("readable", 40, True)


def test_damaged_frames_are_damage_in_part_unless_they_are_read(tmp_path: Path) -> None:
    for number in range(8):
        write_image(tmp_path / f"v/{number}.jpg", number, size=(400, 300))
    whole = (tmp_path / "v/3.jpg").read_bytes()
    (tmp_path / "v/3.jpg").write_bytes(whole[: len(whole) - 40])
    assert look(tmp_path / "v").trouble == ""
    assert (
        "1 damaged frame (3.jpg: Pillow: image file is trunc"
        in look(tmp_path / "v", full=True).trouble
    )
    (tmp_path / "v/3.jpg").write_bytes(b"")
    probe = look(tmp_path / "v")
    assert (probe.verdict, probe.trouble[:23]) == ("readable", "1 damaged frame (3.jpg:")
    (tmp_path / "v/2.jpg").write_bytes(b"")
    assert look(tmp_path / "v").reason.startswith("2.jpg: Pillow: cannot identify nothing")
    (tmp_path / "w").mkdir()
    probe = look(tmp_path / "w")
    assert (probe.verdict, probe.reason[:10]) == ("unreadable", "no frames:")


def test_large_folders_of_frames_are_hashed_in_parts(tmp_path: Path) -> None:
    for number in range(40):
        write_image(tmp_path / f"v/{number}.png", number % 8)
    folder, size = tmp_path / "v", WHOLE_DIGEST_BYTES + 1
    digests = {digest_of(folder, size=size), digest_of(folder, size=size, whole=True)}
    write_image(folder / "1.png", 9)
    digests |= {digest_of(folder, size=size), digest_of(folder, size=size, whole=True)}
    assert [digest.startswith(SAMPLED) for digest in sorted(digests)] == [False, False, True]
