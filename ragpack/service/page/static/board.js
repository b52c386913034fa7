// The right side: the columns, and the cut that is made through all of them.

import { byId, count, element, milliseconds, plural } from "./dom.js";
import { Panel, failed, waiting } from "./panel.js";

const FIRST_BUDGET = 0.25; // of all tokens

const [budget, hide] = ["budget", "hide"].map(byId);
let panels = [];

/** Which cut is chosen; a least score is each column's own. */
export function cut() {
  const { value: kind } = document.querySelector("input[name=cut]:checked");
  return kind === "budget" ? { kind, value: Number(budget.value) } : { kind };
}

/** The least score of each column that has scores, by method. */
export const scores = () =>
  Object.fromEntries(panels.filter(({ score }) => score !== null).map((p) => [p.result.method, p.score]));

/** What a link holds of the board. */
export const state = () => ({ cut: cut(), scores: cut().kind === "score" ? scores() : {} });

/** Choose a cut, as state() gave it; the columns take the scores when they come. */
export function restore({ cut: { kind, value } }) {
  document.querySelector(`input[name=cut][value=${kind}]`).checked = true;
  if (kind !== "budget") return;
  budget.max = String(Math.max(Number(budget.max), value));
  budget.value = String(value);
  budget.dataset.chosen = "yes";
}

/**
 * A column for each method, filled as the results come.
 * @param {string[]} methods
 * @param {number} passages
 * @param {Record<string, number>} least scores where the sliders start
 */
export function open(methods, passages, least) {
  byId("empty").hidden = true;
  byId("panels").style.setProperty("--columns", String(methods.length));
  byId("panels").style.setProperty("--rows", String(passages + 1));
  const holders = methods.map(waiting);
  byId("panels").replaceChildren(...holders);
  panels = [];
  return methods.map((method, place) => ({
    fill(result) {
      const panel = new Panel(result, least[method]);
      holders[place].replaceWith(panel.node);
      panels.push(panel);
    },
    fail(message) {
      holders[place].replaceWith(failed(method, message));
    },
  }));
}

/** All columns have come: offer the cut, and say in words what they show. */
export function close(methods) {
  panels.sort((one, other) => methods.indexOf(one.result.method) - methods.indexOf(other.result.method));
  byId("cut").hidden = !panels.length;
  if (!panels.length) return "Nothing could be compressed.";
  const most = Math.max(...panels.map(({ result }) => result.report.tokens_in));
  budget.max = String(most);
  if (!budget.dataset.chosen) budget.value = String(Math.round(most * FIRST_BUDGET));
  byId("jump").replaceChildren(...(panels.length > 1 ? panels.map(jump) : []));
  recut();
  return panels.map(({ result }) => summary(result)).join(" ");
}

/** @param {() => void} changed called when a cut has been settled on */
export function listen(changed) {
  byId("cut").addEventListener("input", recut);
  budget.addEventListener("input", () => (budget.dataset.chosen = "yes"));
  for (const id of ["cut", "panels"]) byId(id).addEventListener("change", changed);
}

function recut() {
  const chosen = cut();
  byId("budget-box").hidden = chosen.kind !== "budget";
  const words = plural(Number(budget.value), "token");
  byId("budget-value").textContent = words;
  budget.setAttribute("aria-valuetext", `${words} of ${count(Number(budget.max))}`);
  for (const panel of panels) panel.cut(chosen);
  byId("panels").classList.toggle("hide-dropped", hide.checked);
}

/** Leads to a column where they stand below one another. */
function jump({ result: { method }, node }) {
  const button = element("button", { type: "button" }, method);
  button.addEventListener("click", () => node.querySelector("h3").focus());
  return button;
}

function summary({ method, report, roundTrip }) {
  const { tokens_in: before, tokens_out: after } = report;
  return `${method} keeps ${count(after)} of ${plural(before, "token")}, in ${milliseconds(roundTrip)}.`;
}
