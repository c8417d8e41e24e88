"""Packages that are absent or of no use, and files that come with the package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from alpro.configs.loading import load_config
from alpro.datasets.decoding import make_decoder
from alpro.datasets.decoding.image_files import MediaDecoder
from alpro.datasets.decoding.other_decoders import DecordDecoder
from alpro.errors import InputError
from alpro.installation import AbsentPackageError, has_package, import_optional, with_resources
from alpro.tasks.retrieval.config import RetrievalConfig

FAILURES = {
    "raise ImportError('libavdevice.so.60: cannot open')": "ImportError: libavdevice.so.60",
    "raise AttributeError('_ARRAY_API not found\\nsecond line')": "AttributeError: _ARRAY_API",
    "raise TypeError('Descriptors cannot be created directly')": "TypeError: Descriptors cannot",
    "raise OSError('libGL.so.1: cannot open shared object file')": "OSError: libGL.so.1",
    "raise SystemExit('needs Python 4')": "SystemExit: needs Python 4",
    "raise BaseException('panic')": "BaseException: panic",
    "import no_such_dependency": "ModuleNotFoundError: No module named 'no_such_dependency'",
    "1 / 0": "ZeroDivisionError: division by zero",
    "this is no Python": "SyntaxError: invalid syntax",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("source", FAILURES)
def test_a_package_that_fails_in_any_way_counts_as_absent(
    source: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "made_package.py").write_text(source)
    with pytest.raises(AbsentPackageError) as caught:
        import_optional("made_package")
    assert f"made_package cannot be imported ({FAILURES[source]}" in str(caught.value)
    assert "second line" not in str(caught.value)
    assert not has_package("made_package")
    assert FAILURES[source] in caplog.text


def test_a_package_that_is_not_installed_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AbsentPackageError, match="^made_package is not installed$"):
        import_optional("made_package.part")
    assert not has_package("made_package")
    assert caplog.text == ""


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "MemoryError"])
def test_what_is_no_fault_of_the_package_is_raised(error: str, folder: Path) -> None:
    (folder / "made_package.py").write_text(f"raise {error}")
    with pytest.raises((KeyboardInterrupt, MemoryError)):
        import_optional("made_package")


def test_a_package_behind_a_module_of_another_one(folder: Path) -> None:
    (folder / "made_bridge.py").write_text("import made_package")
    with pytest.raises(AbsentPackageError, match="^made_package is not installed$"):
        import_optional("made_bridge", package="made_package")


def test_what_works_is_imported() -> None:
    assert import_optional("json.decoder") is sys.modules["json.decoder"]
    assert has_package("json")


def test_a_decoder_whose_library_fails_is_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == "av"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "decord", ModuleType("decord"))
    (folder / "av.py").write_text("raise OSError('libavcodec.so.61: cannot open')")
    decoder = make_decoder("auto")
    assert isinstance(decoder, MediaDecoder)
    assert isinstance(decoder.videos, DecordDecoder)
    assert decoder.videos.check is None
    with pytest.raises(InputError, match="video_decoder 'pyav': .*fails .see the log"):
        make_decoder("pyav")


ROOT = Path(__file__).parents[1]


def test_paths_that_come_with_the_package_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("config_release/demo_ret.json", "ext/demo-tokenizer/", "./ext/demo-tokenizer"):
        assert Path(with_resources(path)) == ROOT / path
    for path in ("config_release/absent.json", "data/x", "/ext/demo-tokenizer", "extra"):
        assert with_resources(path) == path


def test_files_of_the_current_folder_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ext/demo-tokenizer").mkdir(parents=True)
    assert with_resources("ext/demo-tokenizer") == "ext/demo-tokenizer"


def test_shipped_configs_are_read_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--config", "config_release/demo_ret.json", "--output_dir", "run"]
    config = load_config(RetrievalConfig, arguments).config
    assert Path(config.tokenizer_dir) == ROOT / "ext/demo-tokenizer"
    assert config.train_datasets[0].img == "data/demo/videos"
