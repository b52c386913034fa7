"""The page in a real Chromium, against the real service."""

import base64
import json
import random
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from ragpack.budget import Draft, fit
from ragpack.client import Client
from ragpack.service.page.samples import samples
from ragpack.types import Passage, TextArtifact

HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    "\"><svg onload=document.title='owned'>",
    "javascript:document.title='owned'",
]
READY = "#cut:not([hidden])"


@pytest.fixture
def visit(open_page: Any, service: str) -> Iterator[Any]:
    """Opens the page; afterwards nothing may have gone wrong in it, or asked another host."""
    faults, asked = [], []

    def visit(fragment: str = "") -> Any:
        page = open_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{service}/{fragment}")
        page.wait_for_selector("#methods label, #form-error:not([hidden])")
        return page

    visit.faults = faults  # type: ignore[attr-defined]
    yield visit
    assert faults == []
    assert {url.split("/")[2] for url in asked if "://" in url} <= {service.split("/")[2]}


def ask(page: Any, query: str, passages: str) -> None:
    page.fill("#query", query)
    page.fill("#passages", passages)
    page.click("#run")
    page.wait_for_selector(READY)


def column(page: Any, method: str) -> Any:
    return page.locator(f"section.panel[aria-labelledby=method-{method}]")


def kept(page: Any, method: str) -> list[list[str]]:
    """For each passage of a column the texts that are marked."""
    rows = column(page, method).locator("article").all()
    return [row.locator(".unit.kept").all_text_contents() for row in rows]


def text_of(fragment: dict[str, Any]) -> str:
    """A fragment as the page writes it."""
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(json.dumps(fragment).encode()) + packer.flush()
    return "#" + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def linked(page: Any) -> dict[str, Any]:
    """What the page's address holds."""
    text = page.evaluate("location.hash.slice(1)")
    return json.loads(zlib.decompress(base64.urlsafe_b64decode(text + "=="), wbits=-15))


def test_a_sample_question_is_marked_as_the_service_says(visit, service, until):
    page = visit()
    page.click("#try")
    page.wait_for_selector(READY)
    sample = samples()[0]
    passages = [Passage(p["id"], p["text"], p["title"]) for p in sample["passages"]]
    assert page.input_value("#query") == sample["query"]
    assert page.locator("#passage-count").text_content() == "8 passages"
    for method in ("recomp-mini", "exit-mini"):
        with Client(service) as client:
            wanted = client.compress(sample["query"], passages, method=method)
        shown = kept(page, method)
        assert [" ".join(row) for row in shown] == [row.text for row in wanted.results]
        assert f"{wanted.report.tokens_out} of 1,084 tokens" in column(page, method).inner_text()
        roles = column(page, method).locator(".unit.dropped").first.get_attribute("role")
        assert roles == "deletion"
    with Client(service) as client:  # written behind the answer
        asked = partial(client.compress, sample["query"], passages, method="exit-mini")
        until(lambda: {row.cache for row in asked().results} == {"hit"})
    page.click("#run")
    page.wait_for_selector("#run:not([disabled])")
    assert column(page, "exit-mini").locator(".badge.hit").count() == len(passages)


def test_the_sliders_answer_without_a_request(visit):
    page = visit()
    page.click("#try")
    page.wait_for_selector(READY)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))  # the icon, now and then
    page.get_by_role("radio", name="token budget").check()
    budget = page.get_by_role("slider", name="Budget")
    for tokens in (0, 60, 200, 500):
        budget.fill(str(tokens))
        shown = column(page, "recomp-mini").locator(".figure span").inner_text()
        assert int(shown.removeprefix("≈ ").split()[0]) <= tokens
    dropped = column(page, "recomp-mini").locator(".unit.dropped")
    assert dropped.count() > 0
    budget.press("End")
    assert dropped.count() == 0
    page.get_by_role("radio", name="least score").check()
    for method in ("recomp-mini", "exit-mini"):
        score = column(page, method).get_by_role("slider", name="Least score")
        score.press("Home")
        assert column(page, method).locator(".unit.dropped").count() == 0
        score.press("End")
        assert column(page, method).locator(".unit.kept").count() == 0
        assert "0 of" in score.get_attribute("aria-valuetext")
    page.get_by_role("checkbox", name="hide the rest").check()
    assert column(page, "exit-mini").locator(".unit:visible").count() == 0
    assert [url for url in asked if "/v1/" in url] == []


class _Additive:
    """Counts so that a context has exactly the tokens of its parts: words, titles, separators."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.replace("\n\n", " | ").split()) for text in texts]


def _random_case(chance: random.Random) -> tuple[list[Draft], list[dict[str, Any]], int]:
    drafts, views = [], []
    for number in range(chance.randint(1, 5)):
        title = "title" if chance.random() < 0.5 else ""
        lengths = [chance.randint(1, 9) for _ in range(chance.randint(0, 6))]
        words, spans, at = [" ".join(["word"] * n) for n in lengths], [], 0
        for sentence in words:
            spans.append((at, at + len(sentence)))
            at += len(sentence) + 1
        scores = [chance.choice([0.1, 0.5, 0.9]) for _ in spans]
        passage = Passage(str(number), " ".join(words), title)
        drafts.append(Draft(passage, TextArtifact(tuple(spans), tuple(scores))))
        units = [
            {"start": start, "end": end, "score": score, "tokens": length}
            for (start, end), score, length in zip(spans, scores, lengths, strict=True)
        ]
        views.append({"units": units, "titleTokens": int(bool(title)), "kept": []})
    return drafts, views, chance.randint(0, 60)


def test_the_pages_budget_is_the_engines(visit):
    chance = random.Random(5)
    cases = [_random_case(chance) for _ in range(200)]
    got = visit().evaluate(
        """async (cases) => {
            const { choose } = await import("./page/cut.js");
            return cases.map(([passages, value]) => choose(passages, { kind: "budget", value }));
        }""",
        [[views, budget] for _, views, budget in cases],
    )
    for (drafts, views, budget), chosen in zip(cases, got, strict=True):
        segments = fit(drafts, budget, _Additive())
        for segment, view, marks in zip(segments, views, chosen, strict=True):
            wanted = [
                any(start <= unit["start"] and unit["end"] <= end for start, end in segment.spans)
                for unit in view["units"]
            ]
            assert marks == wanted


def test_text_is_never_markup(visit):
    page = visit()
    blocks = [f"# {attack}\nFirst {attack} sentence. Second one." for attack in HOSTILE]
    ask(page, HOSTILE[0], "\n\n".join(blocks))
    assert page.locator("#panels :is(img, script, svg, a)").count() == 0
    assert HOSTILE[0] in column(page, "exit-mini").locator("h4").first.inner_text()
    linked = text_of(
        {"query": HOSTILE[1], "passages": blocks[1], "methods": ["identity", *HOSTILE]}
        | {"cut": {"kind": "own"}, "scores": {}}
    )
    second = visit(linked)
    second.wait_for_selector(READY)
    assert second.input_value("#query") == HOSTILE[1]
    for shown in (page, second):
        assert shown.title() == "ragpack: see what is kept"


def test_no_inline_script_runs(visit):
    page = visit()
    violated = page.evaluate(
        """() => new Promise((done) => {
            const told = ({ effectiveDirective }) => done(effectiveDirective);
            document.addEventListener("securitypolicyviolation", told);
            const script = document.createElement("script");
            script.textContent = "document.title = 'owned'";
            document.body.append(script);
        })"""
    )
    assert violated == "script-src-elem"
    assert page.title() != "owned"
    visit.faults.clear()  # the console told of it


def test_a_link_brings_everything_back(visit, service, until):
    page = visit()
    ask(
        page,
        "Who fed the heron 🐦?",
        "# Dock\nA heron 🐦🐦 came. 彼女は鷺に餌をやった。 It rained.",
    )
    page.get_by_role("radio", name="least score").check()
    slider = column(page, "exit-mini").get_by_role("slider")
    slider.press("ArrowRight")
    page.wait_for_function("location.hash.length > 1")
    value = slider.input_value()
    until(lambda: linked(page)["scores"].get("exit-mini") == float(value))
    again = visit(page.evaluate("location.hash"))
    again.wait_for_selector(READY)
    assert again.input_value("#passages") == page.input_value("#passages")
    assert kept(again, "exit-mini") == kept(page, "exit-mini")
    assert column(again, "exit-mini").get_by_role("slider").input_value() == value


@pytest.mark.parametrize(
    "fragment",
    [
        "#nonsense",
        text_of({"query": 1, "passages": [], "methods": [], "cut": {"kind": "own"}}),
        text_of({"sample": "q24", "methods": ["identity"], "cut": {"kind": "script"}}),
        text_of({"query": "a" * 5_000_000, "passages": "", "methods": [], "cut": {"kind": "own"}}),
    ],
    ids=["nonsense", "wrong types", "unknown cut", "bomb"],
)
def test_a_link_that_is_none_is_passed_over(visit, fragment):
    page = visit(fragment)
    assert page.input_value("#query") == ""
    assert page.locator("#empty").is_visible()


def test_passages_as_json_lines_from_a_file(visit):
    page = visit()
    lines = [{"id": "a", "title": "T", "text": "The tank is long."}, {"text": "It rains."}]
    body = "\n".join(map(json.dumps, lines)).encode()
    page.set_input_files("#file", {"name": "p.jsonl", "mimeType": "text/plain", "buffer": body})
    page.get_by_text("2 passages", exact=True).wait_for()
    page.fill("#query", "How long is the tank?")
    page.click("#run")
    page.wait_for_selector(READY)
    titles = column(page, "exit-mini").locator("h4").all_text_contents()
    assert titles == ["T", "Passage 2"]
    page.fill("#passages", '{"text": "fine"}\n{"title": "no text"}')
    page.click("#run")
    assert "Line 2" in page.get_by_role("alert").first.inner_text()
    assert page.evaluate("document.activeElement.id") == "passages"


def test_twins_are_packed_once(visit):
    page = visit()
    ask(page, "How long is the tank?", "The tank is 38 metres.\n\nThe tank is 38 metres.")
    assert "duplicate of" in column(page, "recomp-mini").inner_text()
    page.get_by_role("radio", name="token budget").check()
    page.get_by_role("slider", name="Budget").press("End")
    assert [len(row) for row in kept(page, "recomp-mini")] == [1, 0]


def test_a_key_is_asked_for_and_stays_in_memory(open_page, locked_service, key):
    page = open_page()
    page.goto(locked_service)
    field = page.get_by_label("Bearer key")
    field.wait_for()
    assert "wants an API key" in page.locator("#form-error").inner_text()
    field.fill(key)
    field.press("Tab")
    page.wait_for_selector("#methods label")
    page.check("#use-identity")
    ask(page, "How long is the tank?", "The tank is 38 metres.")
    page.wait_for_function("location.hash.length > 1")
    stored = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert key not in stored + page.evaluate("location.href") + page.content()


def test_a_service_that_is_away_says_so(visit):
    page = visit()
    page.fill("#query", "How long is the tank?")
    page.fill("#passages", "The tank is 38 metres.")
    page.context.set_offline(True)
    page.click("#run")
    alert = page.locator(".panel .error").first
    alert.wait_for()
    assert "does not answer" in alert.inner_text()
    page.context.set_offline(False)
    page.click("#run")
    page.wait_for_selector(READY)
    visit.faults.clear()  # the console told of the lost connection


@pytest.mark.parametrize(
    ("empty", "words"), [("#query", "ask a question"), ("#passages", "paste a passage")]
)
def test_what_is_missing_is_said(visit, empty, words):
    page = visit()
    page.fill("#query", "How long is the tank?")
    page.fill("#passages", "The tank is 38 metres.")
    page.fill(empty, " ")
    page.keyboard.press("Control+Enter")
    assert words in page.get_by_role("alert").first.inner_text()
    assert page.locator(empty).get_attribute("aria-invalid") == "true"
