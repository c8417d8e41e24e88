"""The report's histograms and page."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from alpro.commands.check_data.annotations import AnnotatedText, ReadSet
from alpro.commands.check_data.findings import Finding, Findings
from alpro.commands.check_data.media import Media
from alpro.commands.check_data.page import NUM_LISTED, report_page
from alpro.commands.check_data.probe import Item, Probe
from alpro.commands.check_data.probe_pool import Probed
from alpro.commands.check_data.report import Checked, as_tsv, histograms
from alpro.commands.check_data.sources import CheckedSet, Sampling, Task, TextLimits

SOURCE = CheckedSet("train_datasets.0", "a<b", "train", Path("a.jsonl"), "captions", Path("videos"))


def checked(*probes: Probe, findings: Findings, lengths: Counter[int]) -> Checked:
    items = [
        Item(f"videos/{number}", str(number), Path("videos"), None, ".mp4", is_image=False)
        for number in range(len(probes))
    ]
    limits = TextLimits(
        tokenizer_dir=Path("tokenizer"), family="alpro", architecture={}, max_length=6
    )
    return Checked(
        task=Task(title="config.json", sets=[SOURCE], sampling=Sampling(), texts=limits),
        full=False,
        when="today",
        sets=[ReadSet(SOURCE, [AnnotatedText("0", "a dog")], 0, 0)],
        media=Media(),
        videos=[Probed(item, probe) for item, probe in zip(items, probes, strict=True)],
        findings=findings,
        token_lengths={SOURCE.key: lengths},
    )


def test_histograms_begin_and_end_with_what_there_is() -> None:
    probes = [
        Probe("readable", num_frames=frames, seconds=seconds, codec="h264", num_bytes=150_000)
        for frames, seconds in [(1, 0.5), (3, 3.0), (3, 8.0)]
    ]
    data = checked(*probes, findings=Findings(), lengths=Counter({4: 2, 7: 1, 9: 1}))
    bars = {one.title: one.bars for one in histograms(data)}
    assert bars["Duration"] == [
        *(("below 1 s", 1), ("1 to 2 s", 0), ("2 to 5 s", 1), ("5 to 10 s", 1))
    ]
    assert bars["Frames"] == [("1", 1), ("2 to 3", 2)]
    assert bars["Size"] == [("to 200 kB", 3)]
    assert bars["Format"] == [("h264", 3)]
    assert "Shorter side" not in bars


def test_texts_that_are_cut_have_bars_of_their_own() -> None:
    data = checked(findings=Findings(), lengths=Counter({4: 2, 7: 1, 9: 1}))
    (tokens,) = histograms(data)
    assert tokens.bars == [("4", 2), ("5", 0), ("6", 0), ("7", 1), ("8", 0), ("9", 1)]
    assert tokens.limit == 3
    assert tokens.note == "50 % of 4 texts cut at max_txt_len = 6"
    page = report_page(data)
    assert page.count('class="row beyond"') == 3


def test_wide_bars_end_where_texts_are_cut() -> None:
    data = checked(findings=Findings(), lengths=Counter({3: 1, 6: 1, 7: 1, 120: 1}))
    (tokens,) = histograms(data)
    assert tokens.limit is not None
    assert sum(count for _, count in tokens.bars[: tokens.limit]) == 2
    assert sum(count for _, count in tokens.bars) == 4


def test_the_page_is_safe_and_long_lists_are_cut() -> None:
    findings = Findings()
    findings.add(Finding("cut_text", f"<script>{number}", "", "") for number in range(500))
    page = report_page(checked(findings=findings, lengths=Counter({4: 1})))
    assert page.count("<script>") == 1  # its own
    assert "a&lt;b" in page
    assert page.count("&lt;script&gt;") == NUM_LISTED
    assert "and 400 more: findings.cut_text in report.json" in page
    assert "No problems." in page


def test_files_that_are_not_there_are_not_readable() -> None:
    data = checked(Probe("readable"), findings=Findings(), lengths=Counter({4: 1}))
    texts = [AnnotatedText(name, "a dog") for name in ("0", "1", "1", "2", "3")]
    data = replace(data, sets=[ReadSet(SOURCE, texts, 0, 0)])
    data.media.ids_of_set[SOURCE.key] = {"0": "videos/0"}
    assert data.absent() == [("1", "videos"), ("2", "videos"), ("3", "videos")]
    page = report_page(data)
    assert '<b>25 %</b><span class="pale">of all are readable</span>' in page
    assert '<b>3</b><span class="pale">not there</span>' in page
    first, *rows = as_tsv(data).splitlines()
    assert first.startswith("video_id\tverdict\treason\tframes\tseconds\twidth")
    told = [row.split("\t") for row in rows]
    assert [row[:2] for row in told] == [
        *(["0", "readable"], ["1", "missing"], ["2", "missing"], ["3", "missing"])
    ]
    assert {len(row) for row in told} == {10}


def test_long_runs_of_empty_bars_are_left_out() -> None:
    page = report_page(checked(findings=Findings(), lengths=Counter({4: 1, 7: 1, 200: 1})))
    rows = page.split('<div class="row')[1:]
    assert len(rows) < 8
    assert sum("<span>⋮</span>" in row for row in rows) == 1


def test_links_open_their_lists_and_sets_name_their_folder() -> None:
    findings = Findings()
    findings.add(Finding("cut_text", str(number), "", "") for number in range(50))
    page = report_page(checked(findings=findings, lengths=Counter()))
    assert '<details class="card" id="cut_text">' in page
    assert "target.open = true" in page
    assert '<span class="pale">videos</span>' in page
