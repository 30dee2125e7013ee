"""How it lies in its container, its languages and themes, and what axe-core says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from d3po_core.errors import D3POError
from d3po_core.picks import Pick
from tests.hosts.browser.gallery_page import Gallery, until
from tests.hosts.browser.gallery_server import WEB, GalleryServer

Opened = Callable[..., Gallery]
SIZES = [(300, 700), (400, 420), (390, 844), (1280, 800), (3840, 2160)]


def areas(gallery: Gallery) -> dict[str, Any]:
    found: dict[str, Any] = gallery.page.evaluate(
        """() => {
            const host = document.querySelector("d3po-gallery");
            const root = host.shadowRoot;
            const box = (one) => {
                const { x, y, width, height } = one.getBoundingClientRect();
                return [x, y, width, height];
            };
            const all = [...root.querySelectorAll("*")];
            const larger = (one) => one.scrollHeight > one.clientHeight + 1 || one.scrollWidth > one.clientWidth + 1;
            const may = (one) => /auto|scroll/.test(getComputedStyle(one).overflow) && one.clientHeight;
            const scrolls = (one) => may(one) && larger(one);
            const visible = (one) => one.checkVisibility() && one.getBoundingClientRect().width > 2;
            const outside = (one) => {
                if (!visible(one) || one.closest("svg, .stage, .thumb, .voice")) return false;
                const [x, y, w, h] = box(one);
                const [hx, hy, hw, hh] = box(host);
                return x < hx - 1 || y < hy - 1 || x + w > hx + hw + 1 || y + h > hy + hh + 1;
            };
            const { scrollWidth, scrollHeight } = document.documentElement;
            return {
                host: box(host),
                stage: box(root.querySelector(".pick:not(.asking) .stage")),
                images: [...root.querySelectorAll(".pick:not(.asking) .frame img")].map(box),
                outside: all.filter(outside).map((one) => one.className || one.localName),
                scrolling: all.filter(scrolls).map((one) => one.className),
                page: [scrollWidth - innerWidth, scrollHeight - innerHeight],
            };
        }"""
    )
    return found


@pytest.mark.parametrize("candidates", [2, 3, 6, 8])
def test_pictures_are_equal_whole_and_large_in_every_container(
    opened: Opened, server: GalleryServer, candidates: int
) -> None:
    server.taste.draw(6, candidates, size=(96, 128) if candidates == 3 else (128, 128))
    gallery = opened(candidates=candidates)
    aspect = 0.75 if candidates == 3 else 1
    for width, height in SIZES:
        gallery.page.set_viewport_size({"width": width, "height": height})
        gallery.rest()
        found = areas(gallery)
        assert found["outside"] == [] and found["scrolling"] == [] and found["page"] == [0, 0]
        assert found["host"] == [0, 0, width, height]
        sx, sy, sw, sh = found["stage"]
        for x, y, w, h in found["images"]:
            assert [w, h] == found["images"][0][2:] and abs(w / h - aspect) < 0.02
            assert sx - 0.5 <= x and sy - 0.5 <= y and x + w <= sx + sw + 0.5 and y + h <= sy + sh + 0.5
        w, h = found["images"][0][2:]
        # No other grid of equal pictures would show them larger.
        grids = [(columns, -(-candidates // columns)) for columns in range(1, candidates + 1)]
        gap = 10
        best = max(min((sw - gap * (c - 1)) / c, (sh - gap * (r - 1)) / r * aspect) for c, r in grids)
        assert w >= best - 2, (width, height)
        # Little is spent on anything but pictures.
        assert sh / height > (0.62 if height > 500 else 0.5)


def test_theme_and_the_systems_choice(opened: Opened) -> None:
    ground = "getComputedStyle(document.querySelector('d3po-gallery')).backgroundColor"
    gallery = opened(context={"color_scheme": "dark"})
    assert gallery.page.evaluate(ground) == "rgb(22, 22, 22)"
    gallery.page.evaluate("document.querySelector('d3po-gallery').setAttribute('theme', 'light')")
    assert gallery.page.evaluate(ground) == "rgb(242, 242, 242)"
    gallery.page.emulate_media(color_scheme="light")
    gallery.page.evaluate("document.querySelector('d3po-gallery').setAttribute('theme', 'dark')")
    assert gallery.page.evaluate(ground) == "rgb(22, 22, 22)"


def test_reduced_motion_stops_what_moves(opened: Opened, server: GalleryServer) -> None:
    gallery = opened()
    moving = "document.getAnimations().length"
    bead = """(() => { const bead = document.createElement("li"); bead.className = "bead";
        const beads = document.createElement("ol"); beads.className = "beads big"; beads.append(bead);
        document.querySelector("d3po-gallery").shadowRoot.querySelector(".gallery").append(beads);
        return getComputedStyle(bead).animationName; })()"""
    assert gallery.page.evaluate(bead) == "none"
    gallery.page.emulate_media(reduced_motion="no-preference")
    assert gallery.page.evaluate(bead) == "pop"
    assert gallery.page.evaluate(moving) >= 0


def test_languages_have_the_same_words_and_the_same_places_to_fill() -> None:
    english, chinese = (json.loads((WEB / "text" / f"{name}.json").read_text("utf-8")) for name in ("en", "zh"))
    assert list(english) == list(chinese)

    def places(entry: Any) -> set[str]:
        phrases = entry.values() if isinstance(entry, dict) else [entry]
        return {place for phrase in phrases for place in re.findall(r"\{(\w+)\}", phrase)}

    assert {key: places(entry) for key, entry in english.items()} == {
        key: places(entry) for key, entry in chinese.items()
    }


def test_every_word_that_the_code_asks_for_is_there_and_every_word_there_is_asked_for() -> None:
    words = set(json.loads((WEB / "text" / "en.json").read_text("utf-8")))
    code = "\n".join(path.read_text("utf-8") for path in sorted([*WEB.glob("*.js"), *WEB.glob("*.mjs")]))
    plain = set(re.findall(r'"([a-z_]+(?:\.[a-z_0-9]+)+)"', code))
    patterns = [
        re.sub(r"\$\{.*?\}", "[A-Za-z_0-9.]+", one.replace(".", r"\."))
        for one in re.findall(r"`([^`\s]*\$\{[^`\s]*)`", code)
    ]
    asked = {key for key in words if f'"{key}"' in code or any(re.fullmatch(pattern, key) for pattern in patterns)}
    assert words - asked == set()
    prefixes = {key.split(".")[0] for key in words if "." in key}
    assert {key for key in plain if key.split(".")[0] in prefixes} - words == {"bar.zoom"} - words


@pytest.mark.parametrize("language", ["zh", "zh-CN", "en-GB", "fr"])
def test_language_is_the_hosts_choice(opened: Opened, language: str) -> None:
    gallery = opened(lang=language)
    wanted = "挑选" if language.startswith("zh") else "Pick"
    assert gallery.find('[data-view="pick"]').inner_text() == wanted
    assert gallery.find(".gallery").get_attribute("lang") == ("zh" if wanted == "挑选" else "en")


def test_the_ring_is_there_only_with_the_focus(opened: Opened) -> None:
    gallery = opened()
    ring = "getComputedStyle(document.querySelector('d3po-gallery'), '::after').borderTopColor"
    assert gallery.page.evaluate(ring) == "rgba(0, 0, 0, 0)"
    gallery.find(".pick:not(.asking) .prompt").click()
    gallery.focus()
    assert gallery.page.evaluate(ring) != "rgba(0, 0, 0, 0)"


def serious(gallery: Gallery) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    violations = axe.Axe().run(gallery.page).response["violations"]
    return [
        f"{one['id']}: {[node['html'] for node in one['nodes']]}"
        for one in violations
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened: Opened, server: GalleryServer, theme: str) -> None:
    taste = server.taste
    again = taste.picked(8, 4, "Anna")
    for group_id in again:
        taste.pick(group_id, Pick("favourite", (0,)), "Anna", "repeat")
    taste.picked(4, 2, "Ben")
    taste.draw(6, 4, size=(64, 64))
    taste.draw(3, 2, size=(64, 64), alike=True)
    taste.add_round()
    taste.add_round()
    taste.prepare_blind(of=1)
    server.actions.trouble = D3POError("The disk is full.", "Make room.", "Your picks are saved.")
    gallery = opened(theme=theme)
    gallery.focus()
    gallery.press("ArrowRight")
    gallery.press("Shift+Digit2")
    assert serious(gallery) == []
    gallery.press("z")
    gallery.press("?")
    assert serious(gallery) == []
    gallery.press("Escape")
    gallery.find("[data-head=person]").click()
    assert serious(gallery) == []
    gallery.press("Escape")
    gallery.view("teach")
    for summary in gallery.find(".teaching summary").all():
        summary.click()
    assert serious(gallery) == []
    gallery.find("[data-action=blind]").click()
    gallery.find(".asking .frame").first.wait_for()
    assert serious(gallery) == []
    gallery.press("1")
    gallery.find(".result h2").wait_for()
    assert serious(gallery) == []
    gallery.view("history")
    gallery.find(".pickcard").first.wait_for()
    assert serious(gallery) == []
    gallery.find(".pickcard .cell button").first.click()
    gallery.find("img.large").wait_for()
    assert serious(gallery) == []
    gallery.press("Escape")
    gallery.find(".pickcard [aria-label='Delete this pick']").first.click()
    gallery.find("[data-action=restore]").wait_for()
    assert serious(gallery) == []
    gallery.find("[data-action=restore]").click()
    gallery.view("pick")
    for _ in range(6):
        gallery.press("1")
    gallery.find(".pick:not(.asking) .empty .title").wait_for()
    until(lambda: len(taste.standing()) == 18)
    assert serious(gallery) == []
