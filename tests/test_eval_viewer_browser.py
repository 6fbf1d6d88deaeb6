"""The viewer in a real browser, opened from disk: what a person sees and does, and what a hostile trace cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page, expect

from eval.view_cli import main
from eval.viewer.packing import pack
from eval.viewer.serve import ViewerServer
from eval.viewer.sources import run_sources
from tests.browser import browser, ready
from tests.viewer_world import family, hostile, many

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as made:
        yield made


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The addresses of pages: of many rollouts, of forks, of two runs, of a hostile one."""
    root = tmp_path_factory.mktemp("viewer")
    many(root / "many", 400)
    family(root / "family")
    hostile(root / "hostile")
    for number, name in enumerate(("before", "after")):
        many(root / "two" / name, 12, seed=number)
    for name in ("many", "family", "two", "hostile"):
        main([str(root / name), "--out", str(root / f"{name}.html")])
    return {name: (root / f"{name}.html").as_uri() for name in ("many", "family", "two", "hostile")}


@pytest.fixture
def page(chrome: Browser) -> Iterator[Page]:
    """A page that may say nothing on its console and ask nothing of a network."""
    context = chrome.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    made, told = context.new_page(), list[str]()
    made.on("console", lambda message: told.append(message.text))
    made.on("pageerror", lambda error: told.append(str(error)))
    made.on(
        "request",
        lambda request: None if request.url.startswith(("file:", "http://127.")) else told.append(request.url),
    )
    yield made
    context.close()
    assert not told


def rows(page: Page) -> list[str]:
    return page.locator("main tbody tr:visible th").all_inner_texts()


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent"))


def test_page_from_disk_shows_figures_and_rollouts(page: Page, pages: dict[str, str]) -> None:
    ready(page, pages["many"])
    expect(page.get_by_role("heading", level=1)).to_have_text("many")
    expect(page.get_by_label("Figures")).to_contain_text("of 400")
    expect(page.get_by_role("link", name="task_00000#0", exact=True)).to_be_visible()


def test_rows_beyond_the_first_come_with_scrolling(page: Page, pages: dict[str, str]) -> None:
    ready(page, pages["many"])
    assert len(rows(page)) < 400
    for _ in range(100):
        if len(rows(page)) == 400:
            return
        page.mouse.wheel(0, 20_000)
        page.wait_for_timeout(50)
    pytest.fail(f"{len(rows(page))} rows of 400")


def test_filter_takes_words_and_conditions(page: Page, pages: dict[str, str]) -> None:
    ready(page, pages["many"])
    page.get_by_label("Filter rollouts").fill("task_00007")
    assert sorted(rows(page)) == [f"task_00007#{number}" for number in range(4)]
    page.get_by_label("Filter rollouts").fill("task_0000 steps>6")
    steps = page.locator("main tbody tr td:nth-child(6)").all_inner_texts()
    assert steps and all(int(each) > 6 for each in steps)


def test_buttons_choose_by_result(page: Page, pages: dict[str, str]) -> None:
    ready(page, pages["many"])
    page.get_by_role("button", name="Not solved").click()
    assert set(page.locator("main tbody td:nth-child(2)").all_inner_texts()) == {"✗ not solved"}


def test_column_sorts_both_ways_and_says_so(page: Page, pages: dict[str, str]) -> None:
    ready(page, pages["many"])
    head = page.get_by_role("columnheader", name="tokens")
    found = []
    for direction in ("descending", "ascending"):
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", direction)
        found.append(
            [int(each.replace(",", "")) for each in page.locator("main tbody td:nth-child(9)").all_inner_texts()]
        )
    assert found == [sorted(found[0], reverse=True), sorted(found[1])]


def test_rollout_opens_as_a_conversation(page: Page, pages: dict[str, str]) -> None:
    ready(page, pages["many"])
    page.get_by_role("link", name="task_00002#1", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("task_00002#1")
    expect(page.locator("article").first).to_contain_text("list_files")
    assert page.locator(".diff .add").count() > 0
    assert "tests fail" in page.locator("details.report").first.inner_text()
    expect(page.get_by_role("navigation", name="Steps").get_by_role("figure")).to_be_visible()


def test_system_prompt_and_long_results_are_folded(page: Page, pages: dict[str, str]) -> None:
    ready(page, f"{pages['many']}#many/task_00002%231")
    expect(page.get_by_text("You repair a Python repository").first).to_be_hidden()
    page.locator("summary", has_text="system").click()
    expect(page.get_by_text("You repair a Python repository").first).to_be_visible()
    result = page.locator("article").nth(1)
    expect(result).not_to_contain_text("entry_29")
    result.get_by_role("button", name="Show").click()
    expect(result).to_contain_text("entry_29")


def test_deep_link_leads_to_its_step_also_after_a_reload(page: Page, pages: dict[str, str]) -> None:
    ready(page, f"{pages['many']}#many/task_00050%233/s0002")
    for _ in range(2):
        assert focused(page) == "step-3"
        expect(page.locator("#step-3")).to_be_in_viewport()
        expect(page.locator("nav.outline a[aria-current=step]")).to_contain_text("write_file")
        page.reload()
        page.wait_for_selector("html[data-ready=yes]")


def test_unknown_address_is_said_to_be_unknown(page: Page, pages: dict[str, str]) -> None:
    ready(page, f"{pages['many']}#many/nobody")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not here")


def test_keyboard_goes_through_rows_steps_and_back(page: Page, pages: dict[str, str]) -> None:
    ready(page, pages["many"])
    names = rows(page)
    for key, name in (("j", names[0]), ("j", names[1]), ("ArrowDown", names[2]), ("k", names[1])):
        page.keyboard.press(key)
        assert focused(page) == name
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(names[1])
    for key, step in (("j", "step-1"), ("j", "step-2"), ("ArrowUp", "step-1")):
        page.keyboard.press(key)
        assert focused(page) == step
    assert page.url.endswith("/s0000")
    page.keyboard.press("]")
    expect(page.get_by_role("heading", level=1)).to_have_text(names[2])
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", level=1)).to_have_text("many")
    assert focused(page) == names[2]


def test_slash_filters_and_question_mark_tells_the_keys(page: Page, pages: dict[str, str]) -> None:
    ready(page, pages["many"])
    page.keyboard.press("/")
    page.keyboard.type("task_00003#2")
    page.keyboard.press("Enter")
    assert focused(page) == "task_00003#2"
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()


def test_colours_follow_the_system_until_they_are_chosen(page: Page, pages: dict[str, str]) -> None:
    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    ready(page, pages["many"])
    light = ground()
    page.emulate_media(color_scheme="dark")
    dark = ground()
    assert light != dark
    page.get_by_role("button", name="Colours: auto").click()
    assert ground() == light
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert ground() == light
    page.get_by_role("button", name="Colours: light").click()
    assert ground() == dark


def test_page_has_landmarks_and_names(page: Page, pages: dict[str, str]) -> None:
    ready(page, f"{pages['many']}#many/task_00002%231")
    for role in ("banner", "main"):
        expect(page.get_by_role(role)).to_have_count(1)
    expect(page.get_by_role("navigation", name="Where you are")).to_be_visible()
    nameless = (
        "[...document.querySelectorAll('button, a, select, input')].filter(e => !(e.ariaLabel || e.textContent.trim()))"
    )
    assert page.evaluate(f"{nameless}.length") == 0


def test_forks_are_drawn_as_a_tree_with_values_and_pairs(page: Page, pages: dict[str, str]) -> None:
    ready(page, f"{pages['family']}#=tree/family/ledger")
    tree = page.get_by_label("Tree of 4 rollouts")
    assert tree.locator("a.end").count() == 4
    assert tree.locator("text.worth").all_text_contents() == ["0.33", "0.00", "1.00", "0.00", "1.00"]
    assert tree.locator(".pair-mark").count() == 2
    expect(page.locator("tbody tr", has_text="0123abcd")).to_contain_text("ledger#0@s0002.1")
    tree.locator("a.node").nth(2).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("ledger#0")


def test_fork_is_shown_from_the_prompt_on(page: Page, pages: dict[str, str]) -> None:
    ready(page, f"{pages['family']}#family/ledger%230%40s0002.1/s0002")
    expect(page.locator("article").first).to_contain_text("list_files")
    expect(page.locator("p.shared")).to_contain_text("ledger#0")
    assert focused(page) == "step-3"


def test_step_scores_are_points_of_the_curve(page: Page, pages: dict[str, str]) -> None:
    ready(page, f"{pages['family']}#family/ledger%230")
    expect(page.get_by_label("at the start: 3 of 12 pass (step score)")).to_be_visible()
    page.get_by_role("link", name="after step 3: 7 of 12 pass (step score)").click()
    assert focused(page) == "step-3"


def test_two_runs_are_paired_by_task_and_opened_side_by_side(page: Page, pages: dict[str, str]) -> None:
    ready(page, pages["two"])
    versus = page.get_by_role("region", name="after against before")
    expect(versus.get_by_role("row")).to_have_count(4)
    versus.get_by_role("link", name="task_00001", exact=True).click()
    sides = [page.get_by_role("region", name=name) for name in ("Left: after", "Right: before")]
    for side in sides:
        expect(side).to_be_visible()
    assert page.locator(".pairrow").nth(2).locator("article").count() == 2
    page.get_by_label("Rollout on the right").select_option("task_00001#3")
    expect(page.get_by_role("region", name="Right: before task_00001#3")).to_be_visible()


def test_hostile_trace_runs_nothing_and_is_shown_as_text(page: Page, pages: dict[str, str]) -> None:
    ready(page, pages["hostile"])
    page.locator("main tbody th a").first.click()
    expect(page.locator("article")).to_have_count(7)
    page.keyboard.press("o")
    page.locator("main article").first.hover()
    shown = page.locator("main").inner_text()
    assert "<img src=x onerror='window.hurt = 2'>" in shown
    assert "⟨ESC⟩[31mred⟨ESC⟩[0m" in shown and "⟨NUL⟩ NUL ⟨U+202E⟩gnp.exe" in shown
    assert page.evaluate("window.hurt") is None
    assert page.locator("main img, main script, main b").count() == 0


def test_long_line_is_cut_until_more_is_asked_for(page: Page, pages: dict[str, str]) -> None:
    ready(page, pages["hostile"])
    page.locator("main tbody th a").first.click()
    long = page.locator("article").nth(1)
    text = long.locator("pre").first
    assert len(text.inner_text()) < 10_000
    long.get_by_role("button", name="Show 5M characters more").click()
    assert 100_000 < len(text.inner_text()) < 1_000_000


def test_injected_script_is_stopped_by_the_policy(chrome: Browser, pages: dict[str, str]) -> None:
    made = chrome.new_page()
    ready(made, pages["family"])
    made.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hurt = 1'}))"
    )
    made.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hurt = 2\">')")
    made.wait_for_timeout(100)
    assert made.evaluate("window.hurt") is None
    made.close()


def test_served_page_fetches_its_blocks(page: Page, tmp_path: Path) -> None:
    many(tmp_path / "run", 120)
    with ViewerServer(pack(run_sources([tmp_path / "run"])), 0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            ready(page, f"{server.address}#run/task_00029%233/s0001")
            assert focused(page) == "step-2"
        finally:
            server.shutdown()
            thread.join()
