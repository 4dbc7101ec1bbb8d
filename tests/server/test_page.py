"""The page in a browser."""

import os
import shutil
from contextlib import ExitStack

import pytest

from helpers.servers import serving
from sigmax.model.dual_encoder import load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        # Where it was promised, its absence is no excuse.
        assert "SIGMAX_BROWSER" not in os.environ, "SIGMAX_BROWSER is set, but there is no chromium"
        pytest.skip("no chromium")
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "other"
    model = load(folder)
    model.candidates = [f"<b>{name}</b>" for name in model.candidates]
    model.save(other)
    with serving(folder, other) as server:
        yield server


@pytest.fixture
def page(browser, server):
    """The page, with nothing amiss in the browser's console at the end."""
    with ExitStack() as stack:

        def opened(width=1280, height=900, **given):
            context = browser.new_context(viewport={"width": width, "height": height}, **given)
            stack.callback(context.close)
            page = context.new_page()
            page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(server.url)
            page.locator("#rule option").first.wait_for(state="attached")
            return page

        said = []
        yield opened
        assert [text for text in said if "Failed to load resource" not in text] == []


def ask(page, text):
    page.get_by_label("Your question").fill(text)
    page.locator("section caption", has_text=f"“{text}”").first.wait_for()


def colours(page):
    return page.evaluate("(({ color, backgroundColor }) => [color, backgroundColor])(getComputedStyle(document.body))")


def test_typing(page, server):
    shown = page()
    ask(shown, "moon")
    assert shown.locator("section").count() == 2
    for section, name in zip(shown.locator("section").all(), ("things", "other"), strict=True):
        (found,) = server.match("moon", model=name, top_k=8)["results"]
        assert section.locator("h2").text_content() == name
        rows = section.locator("table").first.locator("tbody tr").all()
        for row, match in zip(rows, found["matches"], strict=True):
            cells = [cell.strip() for cell in row.locator("th, td").all_text_contents()]
            assert match["candidate"] in cells[0]
            assert ("✓" in cells[0]) == ("(accepted)" in cells[0]) == match["accepted"]
            assert cells[1:] == [f"{match['share']:.3f}", f"{match['presence']:.3f}"]
        assert section.locator(".any .number").text_content() == f"{found['any']:.3f}"
        unlike = ". Unlike anything in training." if found["unlike_training"] else ""
        assert section.locator(".verdict").text_content() == f"{found['accepted_count']} accepted{unlike}"
    told = shown.get_by_role("status").text_content()
    assert " accepted" in told
    assert f"; best {found['matches'][0]['candidate']}" in told


def test_rules_and_levels(page, server):
    shown = page()
    ask(shown, "moon")
    assert not shown.get_by_label("Level").is_visible()
    with shown.expect_response(lambda answer: "recall=0.9" in (answer.request.post_data or "")):
        shown.get_by_label("Rule").select_option("recall")
    with shown.expect_response(lambda answer: "recall=0.3" in (answer.request.post_data or "")):
        shown.get_by_label("Level").fill("0.3")
    shown.locator(".promise", has_text="0.3 are accepted").first.wait_for()
    for name in ("precision", "false-claims", "contains"):
        with shown.expect_response(lambda answer, name=name: f"{name}=0.3" in (answer.request.post_data or "")) as told:
            shown.get_by_label("Rule").select_option(name)
        assert told.value.status == 200


@pytest.mark.parametrize("unlike", [False, True])
@pytest.mark.parametrize("outcome", ["none of these", "nothing accepted"])
def test_nothing_is_accepted(page, outcome, unlike):
    shown = page()
    shown.route(
        "**/match",
        lambda route: route.fulfill(json=nothing(route.fetch().json(), outcome, unlike)),
    )
    ask(shown, "moon")
    more = " Unlike anything in training." if unlike else ""
    assert shown.locator(".verdict").first.text_content() == f"{outcome.capitalize()}.{more}"
    assert outcome.capitalize() in shown.get_by_role("status").text_content()
    assert shown.locator("tr.accepted").count() == 0


def nothing(answer, outcome, unlike):
    """The answer where a rule accepts nothing."""
    (result,) = answer["results"]
    result |= {"accepted_count": 0, "accepted": [], "outcome": outcome, "unlike_training": unlike}
    for match in result["matches"]:
        match["accepted"] = False
    return answer


def test_the_activation_table(page):
    shown = page()
    ask(shown, "moon")
    shown.locator("summary").first.click()
    shown.wait_for_selector(".words li")
    assert shown.locator(".activations").first.locator("tbody tr").count() == 6
    assert shown.locator(".activations").first.locator("tbody tr").first.locator("td").last.text_content() in (
        "present",
        "perhaps",
        "absent",
    )


def test_markup_in_names_is_text(page):
    shown = page()
    ask(shown, "<img src=x onerror=alert(1)> moon")
    assert shown.locator("section b, section img").count() == 0
    assert "<b>" in shown.locator("section").nth(1).text_content()


def test_errors_are_said(page):
    shown = page()
    shown.route("**/match", lambda route: route.abort())
    shown.get_by_label("Your question").fill("moon")
    shown.get_by_role("alert").wait_for()
    assert "cannot be reached" in shown.get_by_role("alert").text_content()
    shown.unroute("**/match")
    ask(shown, "sky")
    assert not shown.get_by_role("alert").is_visible()


def test_the_keyboard_is_enough(page):
    shown = page()
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.id") == "text"
    assert shown.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    shown.keyboard.type("moon")
    shown.keyboard.press("Enter")
    shown.wait_for_selector("section")
    visited = []
    for _ in range(8):
        shown.keyboard.press("Tab")
        visited.append(shown.evaluate("document.activeElement.tagName + document.activeElement.id"))
    assert visited[:3] == ["BUTTON", "SELECTrule", "SUMMARY"]
    shown.get_by_label("Rule").focus()
    shown.keyboard.press("ArrowDown")
    assert shown.get_by_label("Level").is_visible()
    shown.keyboard.press("Tab")
    shown.keyboard.press("ArrowLeft")
    assert shown.evaluate("document.querySelector('#level').value") == "0.89"
    shown.locator("summary").first.focus()
    shown.keyboard.press("Enter")
    shown.wait_for_selector(".words li")


def test_what_a_screen_reader_gets(page):
    shown = page()
    ask(shown, "moon")
    assert shown.evaluate("document.documentElement.lang") == "en"
    for control in shown.locator("input, select").all():
        assert control.evaluate("one => one.labels.length") == 1
    for table in shown.locator("section table").all():
        assert table.locator("caption").count() == 1
        assert table.locator("thead th[scope=col]").count() >= 3
    assert shown.locator("tbody th[scope=row]").count() >= 12
    assert shown.locator(".track:not([aria-hidden])").count() == shown.locator(".any .track").count()


def test_light_and_dark(page):
    """Each with enough contrast between text and ground (WCAG: 4.5)."""
    grounds = []
    for scheme in ("light", "dark"):
        shown = page(color_scheme=scheme)
        ask(shown, "moon")
        grounds.append(colours(shown)[1])
        ground = luminance(grounds[-1])
        for selector in ("body", "header p", "th.share-word", "th.presence-word", "caption", "#rule-says"):
            ink = luminance(shown.locator(selector).first.evaluate("one => getComputedStyle(one).color"))
            light, dark = max(ink, ground), min(ink, ground)
            assert (light + 0.05) / (dark + 0.05) > 4.5, (scheme, selector)
    assert len(set(grounds)) == 2


def luminance(colour):
    """Of "rgb(r, g, b)", as WCAG defines it."""
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_on_a_phone(page):
    shown = page(width=360, height=740)
    ask(shown, "moon")
    shown.locator("summary").first.click()
    shown.wait_for_selector(".words li")
    assert shown.evaluate("document.documentElement.scrollWidth") == 360
    left, right = (section.bounding_box() for section in shown.locator("section").all())
    assert right["y"] > left["y"] + left["height"] - 1


def test_side_by_side(page):
    shown = page()
    ask(shown, "moon")
    left, right = (section.bounding_box() for section in shown.locator("section").all())
    assert left["y"] == right["y"]
    assert right["x"] > left["x"] + left["width"]


def test_the_key_is_asked_for(browser, folder):
    with serving(folder, SIGMAX_API_KEY="sesame") as server:
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_label("This server asks for a key").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        page.get_by_text("got another").wait_for()
        page.get_by_label("This server asks for a key").fill("sesame")
        page.get_by_role("button", name="Use it").click()
        page.locator("#rule option").first.wait_for(state="attached")
        ask(page, "moon")
        assert page.locator("section").count() == 1
        assert not page.get_by_label("This server asks for a key").is_visible()
        page.close()
