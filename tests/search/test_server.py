"""The JSON API, the media, and who may ask for them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image
from starlette.testclient import TestClient

import alpro
from alpro.commands.main import main
from alpro.search.answers import SERVER, announce, announced, identity_of
from alpro.search.index import Index
from alpro.search.searcher import Searcher
from alpro.search.server import app as server
from alpro.search.server.app import create_app
from alpro.search.updating import update_index
from tests.datasets.clips import write_image
from tests.search.fakes import FakeModel, fake_model, settings, write_levels

NAME = "<img src=x onerror=alert(1)>.mp4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three videos; one is not UTF-8 by name, one would be HTML."""
    root = tmp_path_factory.mktemp("served")
    write_levels(root / "videos/a" / NAME, [3, 3, 3, 9, 9, 9])
    path = write_levels(root / "videos/x.mp4", [15, 15])
    path.rename(os.fsdecode(os.fsencode(root) + b"/videos/lat\xff1.mp4"))
    (root / "videos/bad.mp4").write_bytes(b"no video")
    update_index(root / "index", [root / "videos"], fake_model(), settings())
    return root / "index"


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with Index(folder) as index:
        app = create_app(Searcher(index, fake_model), hosts=("testserver",))
        yield TestClient(app, raise_server_exceptions=False)
        app.state.media.close()


def search(client: TestClient, **given: Any) -> dict[str, Any]:
    answer = client.get("/api/search", params=given)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def id_of(client: TestClient, level: int) -> int:
    return int(search(client, q=f"level {level}")["moments"][0]["file"])


def test_moments_have_ids_and_names_below_the_common_folder(client: TestClient) -> None:
    found = search(client, q="level 9", top=1)
    (moment,) = found["moments"]
    assert (moment["name"], moment["start"], moment["end"]) == (f"a/{NAME}", 1.5, 3.0)
    assert found["num_windows"] == 6
    assert str(Path(client.app.state.media._cache).parent) not in json.dumps(found)  # type: ignore[attr-defined]  # noqa: SLF001
    assert search(client, q="level 15")["moments"][0]["name"] == "lat\\udcff1.mp4"


def test_queries_have_all_that_the_command_has(client: TestClient) -> None:
    assert search(client, q="level 15", folder="a")["moments"][0]["name"] == f"a/{NAME}"
    assert search(client, q="level 9", max_seconds=2)["num_windows"] == 1
    assert search(client, q="level 9", min_score=0.9, top=1, skip=1)["moments"] == []
    assert search(client, **{"q": "level 9", "not": "level 9"})["moments"]
    bright = id_of(client, 15)
    like = search(client, like=f"{bright}:0:1")["moments"]
    assert like[0]["file"] == bright
    assert search(client, q="level 9", rerank=3)["moments"][0]["match"] is not None


def test_a_picture_or_clip_may_be_sent(client: TestClient, tmp_path: Path) -> None:
    picture = write_image(tmp_path / "p.jpg", 15).read_bytes()
    answer = client.post("/api/search?name=p.jpg", content=picture)
    assert answer.json()["moments"][0]["file"] == id_of(client, 15)
    clip = write_levels(tmp_path / "c.mp4", [9, 9]).read_bytes()
    answer = client.post("/api/search?name=c.mp4&top=1", content=clip)
    assert answer.json()["moments"][0]["file"] == id_of(client, 9)
    bad = client.post("/api/search?name=secret.mp4", content=b"no video")
    assert bad.status_code == 400
    assert bad.json()["error"].startswith("secret.mp4: ")
    assert "/tmp" not in bad.text
    assert client.post("/api/search?name=x.exe", content=b"").status_code == 415


def test_uploads_are_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_UPLOAD_BYTES", 1 << 20)
    sent = []

    def pieces() -> Iterator[bytes]:
        for number in range(40):
            sent.append(number)
            yield bytes(1 << 16)

    answer = client.post("/api/search?name=p.png", content=pieces())
    assert (answer.status_code, answer.json()) == (413, {"error": "larger than 1 MB"})


@pytest.mark.parametrize(
    ("address", "code", "message"),
    [
        ("/api/search", 400, "nothing to search for"),
        ("/api/search?q=level+1&top=x", 400, "top: a number from 1 to 200 is needed"),
        ("/api/search?q=level+1&top=1000000", 400, "top: a number"),
        ("/api/search?like=77:0:1", 404, "no such file"),
        ("/api/search?like=../x", 404, "no such file"),
        ("/api/search?like=1:1:0.5", 400, "like: ends before it begins"),
        ("/api/search?like=1:-1:1", 400, "start: a number from 0"),
        (f"/api/search?like={10**30}:0:1", 404, "no such file"),
        (f"/media/{10**30}", 404, "no such file"),
        ("/media/" + 5000 * "9", 404, "no such file"),
        ("/media/77", 404, "no such file"),
        ("/media/..%2Findex.sqlite3", 404, "Not Found"),
        ("/static/..%2Fapp.py", 404, "Not Found"),
        ("/strip/1?t0=0", 400, "t1: a number"),
        ("/preview/2?t0=0.9&t1=0.5", 400, "t1 must be after t0"),
        ("/preview/1?t0=500&t1=501", 400, "t0: a number from 0 to"),
        ("/api/ask/1?t0=0&t1=1&q=what", 404, "no model that answers"),
        ("/api/caption/1?t0=0&t1=1", 404, "no model that describes"),
        ("/nothing", 404, "Not Found"),
    ],
)
def test_mistakes_are_told(client: TestClient, address: str, code: int, message: str) -> None:
    answer = client.get(address)
    assert answer.status_code == code
    assert message in answer.text


def test_media_come_in_ranges_strips_and_previews(client: TestClient) -> None:
    number = id_of(client, 9)
    part = client.get(f"/media/{number}", headers={"Range": "bytes=10-19"})
    assert (part.status_code, len(part.content)) == (206, 10)
    whole = client.get(f"/media/{number}")
    assert whole.content[10:20] == part.content
    assert whole.headers["content-type"] == "video/mp4"
    strip = client.get(f"/strip/{number}?t0=0&t1=3")
    picture = Image.open(BytesIO(strip.content))
    assert picture.size == (4 * 64, 64)
    levels = [picture.getpixel((64 * i + 32, 32))[0] // 12 for i in range(4)]  # type: ignore[index]
    assert levels[0] < 5 < 7 < levels[3]
    preview = client.get(f"/preview/{number}?t0=1.5&t1=3&download=1")
    assert preview.headers["content-disposition"].startswith("attachment")
    with av.open(BytesIO(preview.content), "r") as clip:
        assert clip.streams.video[0].codec_context.name == "h264"
        frames = [frame.to_ndarray(format="rgb24").mean() / 12 for frame in clip.decode(video=0)]
    assert len(frames) == 12
    assert min(frames) > 7


def test_files_that_are_gone_or_changed_are_not_served(tmp_path: Path) -> None:
    path = write_levels(tmp_path / "videos/a.mp4", [3, 3])
    update_index(tmp_path / "index", [tmp_path / "videos"], fake_model(), settings())
    with Index(tmp_path / "index") as index:
        app = create_app(Searcher(index, fake_model), hosts=("testserver",))
        client = TestClient(app)
        write_levels(path, [4, 4, 4])
        assert "has changed since it was indexed" in client.get("/media/1").text
        path.unlink()
        gone = client.get("/strip/1?t0=0&t1=1")
        assert gone.status_code == 409
        assert "is not there any more: index again" in gone.text
        assert client.get("/api/search?like=1:0:1").status_code == 409
        again = client.get("/api/search?q=level+3&rerank=2")
        assert again.status_code == 400
        assert again.json()["error"].startswith("a.mp4: ")
        app.state.media.close()


def test_a_token_is_needed_where_there_is_one(folder: Path) -> None:
    with Index(folder) as index:
        app = create_app(Searcher(index, fake_model), token="secret", hosts=("testserver",))
        client = TestClient(app)
        for address in ("/", "/api/status", "/media/1", "/static/page.js", "/?token=wrong"):
            assert client.get(address).status_code == 401
        assert client.get("/api/status?token=secret").status_code == 200
        bearer = {"Authorization": "Bearer secret"}
        assert client.get("/api/status", headers=bearer).status_code == 200
        # The page's address is forgotten by history, and a cookie stands in for it.
        page = client.get("/?token=secret")
        assert (str(page.url), page.status_code) == ("http://testserver/", 200)
        assert client.get("/api/status").status_code == 200
        cookie = page.history[0].headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        app.state.media.close()


def test_other_pages_cannot_reach_it(client: TestClient) -> None:
    assert client.get("/api/status", headers={"Host": "evil.example"}).status_code == 400
    answer = client.get("/", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_server_answers_for_its_own_index_only(client: TestClient, folder: Path) -> None:
    own = identity_of(folder)
    assert client.get(f"/api/search?q=level+9&index={own}").status_code == 200
    assert client.get("/api/search?q=level+9&index=1-2").status_code == 421


class Answering(FakeModel):
    can_answer = can_caption = True

    def caption(self, video: Path, **span: float) -> str:
        return f"{video.suffix} {span['start']:g}-{span['end']:g}"

    def answer(self, question: str, video: Path, **span: float) -> list[tuple[str, float]]:
        assert video.suffix == ".mp4"
        return [(f"{question} {span['start']:g}-{span['end']:g}", 0.5)]


def test_a_model_answers_questions_about_a_moment(folder: Path) -> None:
    with Index(folder) as index:
        answering: Any = Answering()
        searcher = Searcher(index, fake_model)
        app = create_app(searcher, answering=answering, hosts=("testserver",))
        client = TestClient(app)
        number = id_of(client, 9)
        answer = client.get(f"/api/ask/{number}?t0=1&t1=2&q=what")
        assert answer.json() == {"answers": [{"text": "what 1-2", "probability": 0.5}]}
        caption = client.get(f"/api/caption/{number}?t0=1&t1=2").json()
        assert caption == {"caption": ".mp4 1-2"}
        assert all(f'id="{name}"' in client.get("/").text for name in ("ask", "caption"))
        app.state.media.close()


def test_the_command_refuses_other_addresses_without_a_token(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alpro, "load", lambda *_, **__: fake_model(), raising=False)
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        assert main(["serve", "--index", str(folder), "--host", host]) == 2
        assert "Give a secret with --token" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--index", str(folder), "--port", port]) == 2
        assert "Address already in use. Choose another" in capsys.readouterr().err


def test_a_server_is_announced_to_its_owner_alone(tmp_path: Path) -> None:
    announce(tmp_path, url="http://127.0.0.1:1", token="secret")
    assert (tmp_path / SERVER).stat().st_mode & 0o777 == 0o600
    assert announced(tmp_path) == ("http://127.0.0.1:1", "secret")
    (tmp_path / SERVER).write_text("{}")
    assert announced(tmp_path) is None
