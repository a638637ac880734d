"""The page of `provision matrix html`, in a real browser: it agrees with the resolver, and can be used."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMEDRIVER, CHROMIUM, Browser

from provisioner.cli.main import main
from provisioner.matrix.reader import Matrix, load
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.resolve import solve
from provisioner.resolve.explore import engine_of
from provisioner.resolve.hypothetical import Shelf

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None, reason="chromium and chromedriver are not installed: scripts/setup --dev"
)
DOWN, RIGHT = "\ue015", "\ue014"
SELECTIONS, CELLS = 25, 8
PICK = """
const [gpu, os, src, nets] = arguments;
const set = (id, value) => { const e = document.getElementById(id); e.value = value;
  e.dispatchEvent(new Event("change", {bubbles: true})); };
set("os", os); set("src", src); set("gpu", gpu);
for (const box of document.querySelectorAll("#nets input"))
  if (box.checked !== nets.includes(box.dataset.net)) box.click();
return [...document.querySelectorAll("#grid button")].map(b => [b.dataset.cell, b.dataset.state, b.dataset.driver]);
"""


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "matrix.html"
    assert main(["matrix", "html", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        found.open(page)
        yield found


def expected(matrix: Matrix, shelf: Shelf, gpu: str, os: str, nets: list[str], cell: str) -> tuple[str, str]:
    """What the resolver answers to the request that a cell stands for."""
    branch, level = cell.split()
    native = matrix.drivers[branch].native_cuda.level.text
    if [int(part) for part in level.split(".")] > [int(part) for part in native.split(".")]:
        state = "above"
    else:
        state = "refused"
    intent = Intent(networks=tuple(nets), driver=branch, cuda=level, runtime=engine_of(os, shelf))
    answer = solve(shelf.host(os, [gpu]), intent, matrix)
    if isinstance(answer, HostLock):
        assert answer.driver_version is not None and answer.modules is not None
        return "fits", f"{answer.driver_version.value} {answer.modules.value}"
    return state, ""


@pytest.mark.browser
@needs_browser
def test_another_version_of_a_client_takes_the_place_of_the_one_before(browser: Browser) -> None:
    """No host can run both, so no cell may call both together fitting."""
    shown = "return [...document.querySelectorAll('#nets input:checked')].map(b => b.dataset.net)"
    for nets in (["akash"], ["akash", "livepeer@v0.9.1"], ["akash", "livepeer@v0.9.1", "livepeer@v0.7.2"]):
        for name in nets:
            browser.run(
                "const b = document.querySelector(`[data-net='${arguments[0]}']`); if (!b.checked) b.click()",
                name,
            )

    assert sorted(browser.run(shown)) == ["akash", "livepeer@v0.7.2"]


@pytest.mark.browser
@needs_browser
def test_the_grid_agrees_with_the_resolver_for_200_cells(browser: Browser, matrix: Matrix) -> None:
    """Picked as a person picks. Half of the cells are of those that the page calls fitting, where there are any."""
    dice = random.Random(20261124)
    networks = browser.run("return DATA.networks.map(n => n[0])")
    places = browser.run("return DATA.places.map(p => [p.os, p.sources])")
    looked, states = 0, set()
    for number in range(SELECTIONS):
        os, sources = places[number % len(places)]
        gpu = dice.choice(sorted(matrix.gpus))
        # Most networks want something that no single card has: the likely ones are picked more often.
        nets = dice.sample(
            [
                "akash",
                "lium",
                "ionet",
                "nosana",
                "livepeer@v0.9.1",
                "livepeer@v0.7.2",
                "clore-ai",
                "vast-ai",
                "heurist",
            ],
            number % 3,
        )
        if number % 5 == 4:
            nets = [*nets, dice.choice([name for name in networks if name not in nets])]
        once = {re.split("[/@]", name)[0]: name for name in nets}  # a host runs one client of a network
        nets = [name for name in networks if name in once.values()]
        cells: list[list[str]] = browser.run(PICK, gpu, os, sources, nets)
        fitting = [cell for cell in cells if cell[1] == "fits"]
        chosen = dice.sample(fitting, min(len(fitting), CELLS // 2))
        chosen += dice.sample([cell for cell in cells if cell not in chosen], CELLS - len(chosen))
        shelf = Shelf(matrix, sources)
        for cell, state, driver in chosen:
            assert (state, driver) == expected(matrix, shelf, gpu, os, nets, cell), (os, sources, gpu, nets, cell)
            looked += 1
            states.add(state)

    assert (looked, states) == (200, {"fits", "refused", "above"})


@pytest.mark.browser
@needs_browser
def test_reasons_come_by_pointer_by_click_and_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, "gpu=gtx-1080&os=debian-12&src=archive&net=akash")
    why = "return document.querySelector('#why').innerText"
    at = "return (r => [Math.round(r.x + r.width / 2), Math.round(r.y + r.height / 2)])(" \
         "document.querySelector('[data-cell=\"620 11.0\"]').getBoundingClientRect())"  # fmt: skip

    browser.point(*browser.run(at))
    assert "Driver 620, CUDA 11.0: does not fit" in browser.run(why)
    assert (
        "GeForce GTX 1080 (Pascal architecture, compute capability 6.1) is driven by no branch after 580"
        in browser.run(why)
    )
    assert "gpus/gtx-1080, seen 2026-11-24" in browser.run(why)

    browser.run("document.querySelector('[data-cell=\"620 11.0\"]').click()")
    browser.run("document.querySelector('[data-cell=\"620 11.0\"]').focus()")
    browser.keys(DOWN + RIGHT)
    assert browser.run("return document.activeElement.dataset.cell") == "615 11.1"
    assert browser.run(why).startswith("✗ Driver 615, CUDA 11.1: does not fit")
    assert browser.run("return document.querySelectorAll('#grid button[tabindex=\"0\"]').length") == 1


@pytest.mark.browser
@needs_browser
def test_each_cell_has_a_sign_and_words_and_the_choice_stands_in_the_address(browser: Browser, page: Path) -> None:
    browser.open(page, "gpu=rtx-3090&os=debian-13&src=vendor&net=lium")
    cells: list[list[Any]] = browser.run(
        "return [...document.querySelectorAll('#grid button')]"
        ".map(b => [b.textContent, b.dataset.state, b.getAttribute('aria-label')])"
    )
    words = {"fits": ("✓", "fits"), "refused": ("✗", "does not fit"), "above": ("·", "above what the branch carries")}

    assert all((sign, label.split(": ")[1]) == words[state] for sign, state, label in cells)
    assert browser.run("return location.hash") == "#gpu=rtx-3090&os=debian-13&src=vendor&net=lium"
    assert browser.run("return document.querySelector('#netsum').textContent").startswith("Networks: Lium")


@pytest.mark.browser
@needs_browser
def test_a_phone_scrolls_the_grid_and_not_the_page(page: Path, tmp_path: Path) -> None:
    with Browser(tmp_path, 390, 844) as phone:
        phone.open(page)
        width, whole = phone.run("return [innerWidth, document.documentElement.scrollWidth]")
        rows, sizes = phone.run(
            "return [document.querySelectorAll('#grid tbody tr').length,"
            " [...document.querySelectorAll('#grid button')].map(b => [b.offsetWidth, b.offsetHeight])]"
        )
        seen = phone.run(
            "const c = document.querySelector('#grid tbody button').getBoundingClientRect(),"
            " w = document.querySelector('#why').getBoundingClientRect(); return c.bottom < w.top"
        )

    assert whole <= width
    assert rows == 25
    assert all(wide >= 32 and high >= 40 for wide, high in sizes)
    assert seen, "the first row must show above the reasons without scrolling"


def test_the_page_is_one_file_that_asks_nobody(page: Path, matrix: Matrix) -> None:
    text = page.read_text(encoding="utf-8")
    code = re.sub(r"const DATA = .*", "", text)

    assert "default-src 'none'" in code
    assert not re.search(r"https?://|\bfetch\(|XMLHttpRequest|import\(|<script src|<link rel=.stylesheet", code)
    assert text.count("</script>") == 1
    assert matrix.digest in text
    assert len(text.encode()) < 600_000


def test_a_page_that_cannot_be_written_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["matrix", "html", str(tmp_path / "none" / "matrix.html")]) == 3
    assert "[page-not-written]" in capsys.readouterr().err
