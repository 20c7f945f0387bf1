"""How soon the calibration page has reacted to a click: pressed, solved, sent, drawn, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.rows import Promise, Row
from calib.scene import Scene, save_scene
from viewsync.errors import InternalError

_WHAT = "calibration page: a click, until residuals and all views are drawn anew, 3 views, Chromium"
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_WARM_UP = 3
# Columns and rows of places to click; nearer to each other, a click would choose the mark that is there.
_PLACES = (12, 9)


def page_row(scene: Scene, pictures: Mapping[str, NDArray[np.uint8]], clicks: int) -> Row:
    """`clicks` points marked one after the other; skipped where there is no Chromium or no Playwright.

    pictures: RGB frames (F, H, W, 3) by view, of which the first is shown.
    """
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        import playwright.sync_api  # noqa: F401
    except ModuleNotFoundError:
        return _skipped("Playwright is not installed: pip install -c constraints.txt -e '.[dev]'")
    if chromium is None:
        return _skipped("there is no Chromium: install it, or set CHROMIUM to its path")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_scene(scene, folder / "scene.yaml")
        for view, frames in pictures.items():
            cv2.imwrite(str(folder / f"{view}.png"), frames[0][..., ::-1])
        words = [str(folder / "scene.yaml"), "--frames", str(folder), "--port", "0"]
        served = subprocess.Popen(
            [sys.executable, "-m", "viewsync", "calib", "serve", *words], stderr=subprocess.PIPE, text=True
        )
        try:
            times = np.array(_times_ms(_address(served), chromium, clicks))
        finally:
            served.terminate()
            served.communicate(timeout=60)
    return Row(
        name="page.click",
        what=_WHAT,
        unit="ms",
        figure=float(np.median(times)),
        promise=Promise(100.0),
        samples=len(times),
        facts={"fastest_ms": float(times.min()), "p90_ms": float(np.percentile(times, 90))},
    )


def _skipped(why: str) -> Row:
    return Row(name="page.click", what=_WHAT, unit="ms", promise=Promise(100.0), skipped=why)


def _address(served: subprocess.Popen[str]) -> str:
    said = []
    assert served.stderr is not None
    for line in served.stderr:
        said.append(line)
        found = re.search(r"page is at (http://\S+)", line)
        if found:
            return found[1]
    raise InternalError(f"the calibration page did not start: {''.join(said)}")


def _times_ms(address: str, chromium: str, clicks: int) -> list[float]:
    """From the moment that the browser stamped on the press to the end of the frame that shows its effect."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.goto(address)
        page.locator(".view.active canvas").wait_for()
        box = page.locator(".view.active canvas").bounding_box()
        assert box is not None
        for number in range(min(clicks + _WARM_UP, _PLACES[0] * _PLACES[1])):
            row, column = divmod(number, _PLACES[0])
            across, down = 0.2 + 0.6 * column / _PLACES[0], 0.2 + 0.6 * row / _PLACES[1]
            page.keyboard.press("n")
            page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])
            count = "performance.getEntriesByName('click-to-drawn').length"
            page.wait_for_selector("body[aria-busy=false]")
            for _ in range(200):
                if page.evaluate(count) > number:
                    break
                page.wait_for_timeout(25)
        times: list[float] = page.evaluate(
            "performance.getEntriesByName('click-to-drawn').map((entry) => entry.duration)"
        )
        browser.close()
    if len(times) <= _WARM_UP:
        raise InternalError("the calibration page did not react to clicks")
    return times[_WARM_UP:]
