"""The renderer: the same scene gives the same picture, and captions and prompts agree."""

from dataclasses import replace

import numpy as np

from tools.garden import pictures


def test_rendering_is_deterministic_and_in_shape():
    scene = pictures.random_scene(np.random.default_rng(5))
    first, second = pictures.render(scene), pictures.render(scene)
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert pictures.random_scene(np.random.default_rng(5)) == scene


def test_a_prompt_fixes_only_what_it_says():
    rng = np.random.default_rng(0)
    scenes = [pictures.random_scene(rng, "a blue poppy at sunset") for _ in range(300)]
    assert {pictures.caption(scene) for scene in scenes} == {"a blue poppy at sunset"}
    assert abs(np.std([s.size for s in scenes]) - pictures.SIZE_STD) < 0.03
    assert abs(np.std([s.lean for s in scenes]) - pictures.LEAN_STD) < 0.06


def test_size_and_lean_show():
    scene = pictures.Scene("poppy", "red", "by day", size=0.0)

    def red(which: pictures.Scene) -> np.ndarray:
        picture = pictures.render(which).astype(int)
        return (picture[..., 0] > 150) & (picture[..., 1] < 80)

    assert red(replace(scene, size=1.0)).sum() > 3 * red(scene).sum()
    columns = [np.nonzero(red(replace(scene, size=0.5, lean=lean)))[1].mean() for lean in (-1.0, 0.0, 1.0)]
    assert columns[0] < columns[1] - 8 < columns[2] - 16
