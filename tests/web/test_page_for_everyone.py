"""The page for people who use a keyboard, a screen reader, a phone, or a dark room."""

from itertools import pairwise
from typing import Any

import pytest

READY = "#cut:not([hidden])"
CONTROLS = {
    "button",
    "checkbox",
    "combobox",
    "link",
    "radio",
    "slider",
    "textbox",
    "DisclosureTriangle",
}

# The contrast of each piece of text with what lies behind it (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = parse(getComputedStyle(each).backgroundColor);
      if (color[3] !== 0) return color;
    }
    return parse(getComputedStyle(document.documentElement).backgroundColor);
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const words = walker.currentNode.textContent.trim();
    if (!words || !element.checkVisibility({ opacityProperty: true })) continue;
    if (element.closest("option, noscript, .visually-hidden, :disabled")) continue;
    const style = getComputedStyle(element);
    const [one, other] = [light(parse(style.color)), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) faint.push([words.slice(0, 40), style.color, ratio]);
  }
  return faint;
}"""


@pytest.fixture
def result(open_page: Any, service: str) -> Any:
    """Opens the page with a sample's result."""

    def show(**settings: Any) -> Any:
        page = open_page(**settings)
        page.goto(service)
        page.wait_for_selector("#methods label")
        page.click("#try")
        page.wait_for_selector(READY)
        return page

    return show


def _tree(page: Any) -> list[dict[str, str]]:
    """The accessibility tree: role and name of everything that is not ignored."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    return [
        {"role": node["role"]["value"], "name": node.get("name", {}).get("value", "")}
        for node in nodes
        if not node.get("ignored")
    ]


def test_everything_has_a_role_and_a_name(result):
    page = result()
    for cut in ("method’s choice", "token budget", "least score"):
        page.get_by_role("radio", name=cut).check()
        tree = _tree(page)
        assert [node for node in tree if node["role"] in CONTROLS and not node["name"]] == []
    roles = [node["role"] for node in tree]
    assert {"banner", "navigation", "main", "form", "region"} <= set(roles)
    assert roles.count("slider") == 2  # one for each method
    assert roles.count("mark") > 5
    assert roles.count("deletion") > 5
    headings = page.eval_on_selector_all("h1, h2, h3, h4", "(all) => all.map((h) => h.tagName)")
    levels = [int(name[1]) for name in headings]
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    ids = page.eval_on_selector_all("[id]", "(all) => all.map(({ id }) => id)")
    assert len(ids) == len(set(ids))


def test_the_status_is_told(result):
    page = result()
    status = page.get_by_role("status").filter(has_text="keeps")
    assert "recomp-mini keeps" in status.inner_text()
    assert "exit-mini keeps" in status.inner_text()


def test_the_keyboard_reaches_everything_and_shows_where_it_is(result):
    page = result()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    wanted = page.evaluate(
        """() => [...document.querySelectorAll("a, button, select, summary, textarea, input")]
            .filter((each) => each.checkVisibility() && !each.disabled)
            .filter((each) => each.type !== "radio" || each.checked)
            .map((each) => each.id || each.textContent)"""
    )
    reached = []
    for _ in range(len(wanted) + 5):
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(
            """() => {
                const at = document.activeElement;
                const shown = [at, at.closest("label")].filter(Boolean);
                const width = (each) => parseFloat(getComputedStyle(each).outlineWidth);
                const style = (each) => getComputedStyle(each).outlineStyle;
                const drawn = (each) => style(each) !== "none" && width(each) >= 2;
                return [at.id || at.textContent, shown.some(drawn)];
            }"""
        )
        if name in wanted:
            assert outlined, name
            reached.append(name)
    assert set(reached) == set(wanted)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(result, scheme):
    page = result(color_scheme=scheme, reduced_motion="reduce")
    for cut in ("token budget", "method’s choice"):
        page.get_by_role("radio", name=cut).check()
        assert page.evaluate(CONTRAST) == []


def test_nothing_runs_out_of_the_window(result):
    page = result()
    page.get_by_role("radio", name="least score").check()
    for width in (320, 390, 820, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        small = page.evaluate(
            """() => [...document.querySelectorAll("button, select, input, textarea, nav a")]
                .filter((each) => each.checkVisibility() && !each.closest(".file"))
                .map((each) => [each.id, (each.closest("label") ?? each).getBoundingClientRect()])
                .filter(([, box]) => box.width < 24 || box.height < 22)"""
        )
        assert small == [], width


def test_nothing_moves_for_those_who_asked_for_it(result):
    page = result(reduced_motion="reduce")
    moving = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((each) => {
            const { animationName, transitionDuration } = getComputedStyle(each);
            return animationName !== "none" || parseFloat(transitionDuration) > 0;
        }).length"""
    )
    assert moving == 0


def test_a_narrow_window_leads_from_method_to_method(result):
    page = result(viewport={"width": 390, "height": 800})
    page.get_by_role("button", name="exit-mini").click()
    heading = page.locator("#method-exit-mini")
    assert heading.evaluate("(node) => node === document.activeElement")
    top = heading.evaluate("(node) => node.getBoundingClientRect().top")
    bar = page.locator("#cut").evaluate("(node) => node.getBoundingClientRect().bottom")
    assert bar <= top < 800
