import numpy as np
import pytest

from alpro.commands.demo.captions import draw_captions
from alpro.commands.demo.rendering import render
from alpro.commands.demo.scenes import KINDS, Event, Scene, Thing, draw_scene
from alpro.commands.demo.trajectories import NUM_FRAMES, SIZE, event_spans, stage

RED_SQUARE = Thing("red", "square")
BLUE_HEART = Thing("blue", "heart")


def one_thing(*actions: str, kind: str) -> Scene:
    return Scene(kind, "plain", (RED_SQUARE,), tuple(Event(0, action) for action in actions))


def test_a_mirrored_scene_has_mirrored_actions_in_the_opposite_order() -> None:
    scene = one_thing("left", "grow", kind="then")
    assert scene.mirrored() == one_thing("shrink", "right", kind="then")
    assert scene.swapped() == one_thing("grow", "left", kind="then")
    assert scene.mirrored().mirrored() == scene


def test_scenes_at_once_are_equal_in_any_order_of_things() -> None:
    a = Scene("together", "plain", (RED_SQUARE, BLUE_HEART), (Event(0, "up"), Event(1, "spin")))
    b = Scene("together", "plain", (BLUE_HEART, RED_SQUARE), (Event(0, "spin"), Event(1, "up")))
    assert a.key == b.key
    in_turns = [Scene("turns", s.background, s.things, s.events) for s in (a, b)]
    assert in_turns[0].key != in_turns[1].key


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_scenes_look_different_backwards(kind: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene = draw_scene(kind, rng=rng)
        assert scene.key != scene.mirrored().key
        assert len(set(scene.things)) == len(scene.things)


@pytest.mark.parametrize("kind", KINDS)
def test_things_stay_inside_the_picture(kind: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        for track in stage(draw_scene(kind, rng=rng), rng=rng):
            for path in (track.x, track.y):
                assert (path - track.radius >= 0).all()
                assert (path + track.radius <= SIZE).all()


def test_motion_follows_the_events_in_order() -> None:
    scene = one_thing("left", "grow", kind="then")
    (track,) = stage(scene, rng=np.random.default_rng(2))
    half = NUM_FRAMES // 2
    assert event_spans(scene) == [(0, half), (half, NUM_FRAMES)]
    assert (np.diff(track.x[:half]) < 0).all()
    assert (np.diff(track.x[half:]) == 0).all()
    assert (np.diff(track.radius[:half]) == 0).all()
    assert (np.diff(track.radius[half:]) > 0).all()
    assert (track.y == track.y[0]).all()


def test_blinking_is_seen_in_any_two_frames_a_quarter_apart() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        (track,) = stage(one_thing("blink", kind="single"), rng=rng)
        quarter = NUM_FRAMES // 4
        assert ((track.opacity[:-quarter] == 0) | (track.opacity[quarter:] == 0)).all()
        assert set(track.opacity) == {0.0, 1.0}


def test_rendering_draws_the_thing_where_it_is() -> None:
    scene = one_thing("right", kind="single")
    tracks = stage(scene, rng=np.random.default_rng(4))
    frames = render(scene, tracks, rng=np.random.default_rng(5))
    assert frames.shape == (NUM_FRAMES, SIZE, SIZE, 3)
    assert frames.dtype == np.uint8
    for frame in (0, NUM_FRAMES - 1):
        row, column = int(tracks[0].y[frame]), int(tracks[0].x[frame])
        red, green, blue = frames[frame, row, column].astype(int)
        assert red > 200
        assert max(green, blue) < 60


def test_captions_of_a_clip_differ_and_name_the_order() -> None:
    scene = one_thing("left", "grow", kind="then")
    captions = draw_captions(scene, num_captions=4, rng=np.random.default_rng(6))
    assert set(captions) == {
        "a red square moves left and then grows",
        "a red square first moves left, then grows",
        "a red square moves left before growing",
        "after moving left, a red square grows",
    }


def test_things_moving_towards_each_other_pass() -> None:
    scene = Scene("together", "plain", (RED_SQUARE, BLUE_HEART), (Event(0, "up"), Event(1, "down")))
    captions = draw_captions(scene, num_captions=8, rng=np.random.default_rng(7))
    assert "a red square moving up passes a blue heart moving down" in captions
    assert "a blue heart moving down passes a red square moving up" in captions
