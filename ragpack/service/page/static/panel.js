// One method's column: its figures, and the passages with what it keeps marked in place.

import { choose, estimate, range } from "./cut.js";
import { count, element, milliseconds, plural } from "./dom.js";
import { slicer } from "./passages.js";

const MARGIN = 0.005; // of the range of scores: how far beyond them the slider goes

/** A column that waits for its method. */
export function waiting(method) {
  const bars = Array.from({ length: 7 }, () => element("div", { class: "bar" }));
  const head = element("div", { class: "panel-head" }, element("h3", {}, method), ...bars);
  return element("section", { class: "panel busy", "aria-busy": "true", "aria-label": method }, head);
}

/** A column whose method failed. */
export function failed(method, message) {
  const error = element("p", { class: "error", role: "alert" }, message);
  const head = element("div", { class: "panel-head" }, element("h3", {}, method), error);
  return element("section", { class: "panel", "aria-label": method }, head);
}

/** A column with a result, which can be cut again and again without asking the service. */
export class Panel {
  /** @param result what api.compress() gave @param {number} [score] where the slider starts */
  constructor(result, score) {
    this.result = result;
    this.share = element("strong");
    this.tokens = element("span");
    this.fill = element("div", { class: "meter-fill" });
    this.rate = element("dd");
    this.slider = scoreSlider(result, score ?? ownScore(result));
    this.rows = result.passages.map((passage, place) => new Row(passage, place, levels(result)));
    this.node = element(
      "section",
      { class: "panel", "aria-labelledby": `method-${result.method}` },
      this.#head(),
      ...this.rows.map((row) => row.node),
    );
    this.slider?.input.addEventListener("input", () => this.cut({ kind: "score" }));
    this.cut({ kind: "own" });
  }

  /** The least score that the slider stands at, or null where there are no scores. */
  get score() {
    return this.slider ? Number(this.slider.input.value) : null;
  }

  /**
   * Show what a cut keeps.
   * @param {{kind: "own" | "budget" | "score", value?: number}} cut the score is the column's own
   */
  cut(cut) {
    const { report, passages } = this.result;
    const exact = cut.kind === "own" || !passages.some(({ units }) => units.length);
    const value = cut.kind === "score" ? (this.score ?? -Infinity) : cut.value;
    const kept = choose(passages, { kind: cut.kind, value });
    this.rows.forEach((row, place) => row.paint(kept[place], exact));
    const tokens = exact ? report.tokens_out : Math.min(estimate(passages, kept), report.tokens_in);
    this.#figures(tokens, exact);
    this.slider?.show(cut.kind === "score", kept);
  }

  #figures(tokens, exact) {
    const before = this.result.report.tokens_in;
    const percent = before ? (100 * tokens) / before : 100;
    this.share.textContent = `${Math.round(percent)} %`;
    this.tokens.textContent = `${exact ? "" : "≈ "}${count(tokens)} of ${plural(before, "token")}`;
    this.fill.style.width = `${percent}%`;
    this.rate.textContent = (percent / 100).toFixed(2);
  }

  #head() {
    const { method, report } = this.result;
    const rate = element("div", {}, element("dt", {}, "rate"), this.rate);
    const facts = element("dl", { class: "facts" }, rate, ...factsOf(this.result));
    return element(
      "div",
      { class: "panel-head" },
      element("h3", { id: `method-${method}`, tabindex: -1 }, method),
      element("p", { class: "figure" }, this.share, this.tokens),
      element("div", { class: "meter", "aria-hidden": "true" }, this.fill),
      facts,
      stageBar(report.ms),
      element("dl", { class: "facts legend" }, ...stageFacts(report.ms)),
      ...(this.slider ? [this.slider.node] : []),
    );
  }
}

/** A passage in a column. */
class Row {
  constructor(passage, place, level) {
    this.passage = passage;
    this.units = [];
    this.tokens = element("span", { class: "tokens" });
    const title = passage.title || `Passage ${passage.id || place + 1}`;
    const badge = element("span", { class: `badge ${passage.cache}` }, passage.cache);
    this.node = element(
      "article",
      { class: "passage" },
      element("header", {}, element("h4", {}, title), badge, this.tokens),
      element("p", { class: "text" }, ...this.#text(level)),
    );
    if (passage.rewritten) this.node.append(element("p", { class: "text rewritten" }, passage.rewritten));
    this.reason = element("p", { class: "reason" }, passage.reason);
    this.node.append(this.reason);
  }

  /** @param {boolean[]} kept for each unit */
  paint(kept, exact) {
    const { units, rewritten, tokensOut, tokensIn, titleTokens } = this.passage;
    this.units.forEach(({ node, level }, place) => {
      const wanted = kept[place] ? `unit kept level-${level}` : "unit dropped";
      if (node.className === wanted) return;
      node.className = wanted;
      node.setAttribute("role", kept[place] ? "mark" : "deletion");
    });
    const some = kept.includes(true);
    const sum = units.reduce((total, unit, place) => total + (kept[place] ? unit.tokens : 0), 0);
    const tokens = exact ? tokensOut : some ? sum + titleTokens : 0;
    this.tokens.textContent = `${count(tokens)} of ${count(tokensIn)}`;
    this.reason.hidden = !exact; // it is about the method's choice, which another cut replaces
    this.node.classList.toggle("gone", !some && !rewritten);
  }

  #text(level) {
    const { text, units } = this.passage;
    const cut = slicer(text);
    const parts = [];
    let end = 0;
    for (const unit of units) {
      if (unit.start > end) parts.push(cut(end, unit.start));
      const node = element("span", {}, cut(unit.start, unit.end));
      this.units.push({ node, level: level(unit.score) });
      parts.push(node);
      end = unit.end;
    }
    parts.push(cut(end));
    return parts;
  }
}

/** How strongly a kept unit is marked, by its score's rank among all. */
function levels({ passages }) {
  const scores = passages.flatMap(({ units }) => units.map(({ score }) => score ?? -Infinity));
  scores.sort((one, other) => other - one);
  const at = (share) => scores[Math.floor(scores.length * share)] ?? -Infinity;
  const [strong, middling] = [at(0.06), at(0.2)];
  return (score) => {
    if (score === null) return 1;
    return score >= strong ? 3 : score >= middling ? 2 : 1;
  };
}

function factsOf({ report, roundTrip }) {
  const total = report.hits + report.misses;
  const store = total ? `${report.hits} of ${total}` : "nothing to store";
  const rows = [
    fact("from the store", store),
    fact("round trip", milliseconds(roundTrip)),
  ];
  for (const [why, times] of Object.entries(report.fallbacks)) {
    rows.push(fact(`uncompressed, ${why}`, count(times)));
  }
  return rows;
}

const fact = (name, value) => element("div", {}, element("dt", {}, name), element("dd", {}, value));

function stageBar(ms) {
  const parts = Object.values(ms).map((value, place) => {
    const part = element("span", { class: `stage-${place + 1}` });
    part.style.flexGrow = String(Math.max(value, 0.001));
    return part;
  });
  return element("div", { class: "stages", "aria-hidden": "true" }, ...parts);
}

function stageFacts(ms) {
  return Object.entries(ms).map(([stage, value], place) => {
    const row = fact(stage, milliseconds(value));
    row.prepend(element("i", { class: `stage-${place + 1}`, "aria-hidden": "true" }));
    return row;
  });
}

/** Where the method's own rule cuts: its setting, or the least score that it kept. */
function ownScore({ settings, passages }) {
  const set = settings.tau ?? settings.threshold;
  if (typeof set === "number") return set;
  const kept = choose(passages, { kind: "own" });
  const scores = passages.flatMap(({ units }, owner) =>
    units.filter((unit, place) => kept[owner][place] && unit.score !== null).map((unit) => unit.score),
  );
  return scores.length ? Math.min(...scores) : -Infinity;
}

function scoreSlider({ method, passages }, start) {
  const bounds = range(passages);
  if (!bounds) return null;
  const [low, high] = bounds;
  const margin = (high - low) * MARGIN || 1;
  const [least, most] = [low - margin, high + margin];
  const id = `score-${method}`;
  const input = element("input", { type: "range", id, min: least, max: most, step: "any" });
  input.value = String(Math.min(Math.max(start, least), most));
  const output = element("output", { for: id, "aria-live": "off" });
  const label = element("label", { for: id }, "Least score");
  const node = element("div", { class: "slider", hidden: true }, label, input, output);
  const total = passages.reduce((sum, { units }) => sum + units.length, 0);
  return {
    node,
    input,
    show(shown, kept) {
      node.hidden = !shown;
      const number = kept.flat().filter(Boolean).length;
      output.textContent = `${Number(input.value).toFixed(2)}, ${count(number)} of ${count(total)}`;
      input.setAttribute("aria-valuetext", output.textContent);
    },
  };
}
