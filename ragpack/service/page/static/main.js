// Ties the page together: what is asked, what came back, what is shown of it.

import { Refusal, compress, methods, samples } from "./api.js";
import { byId, count, element, plural } from "./dom.js";
import { decode, encode } from "./link.js";
import { Panel, failed, waiting } from "./panel.js";
import { format, parse } from "./passages.js";

const FAVOURITES = ["recomp-extractive", "exit-mini"];
const SLOW = 1500; // milliseconds after which the wait is explained

const page = { samples: [], panels: [], running: null };
const fields = {
  sample: byId("sample"),
  query: byId("query"),
  passages: byId("passages"),
  key: byId("key"),
  hide: byId("hide"),
  budget: byId("budget"),
};

// The form

function chosenMethods() {
  return [...document.querySelectorAll("#methods input:checked")].map(({ value }) => value);
}

/** The sample that question and passages still are, so that its ids stay and its link is short. */
function pristineSample() {
  const sample = page.samples.find(({ id }) => id === fields.sample.value);
  const same = sample && sample.query === fields.query.value && format(sample.passages) === fields.passages.value;
  return same ? sample : null;
}

function readPassages() {
  return pristineSample()?.passages ?? parse(fields.passages.value);
}

function showSample(id) {
  const sample = page.samples.find((each) => each.id === id);
  fields.sample.value = sample ? id : "";
  if (!sample) return;
  fields.query.value = sample.query;
  fields.passages.value = format(sample.passages);
  countPassages();
}

function countPassages() {
  let words = "none yet";
  try {
    const { length } = readPassages();
    if (length) words = plural(length, "passage");
  } catch (error) {
    words = error.message;
  }
  byId("passage-count").textContent = words;
}

function complain(message) {
  byId("form-error").hidden = !message;
  byId("form-error").textContent = message;
}

async function openFile(event) {
  const [file] = event.target.files;
  if (!file) return;
  fields.passages.value = await file.text();
  fields.sample.value = "";
  countPassages();
}

function methodBox({ name, summary }, checked) {
  const id = `use-${name}`;
  const input = element("input", { type: "checkbox", id, value: name, checked });
  const what = element("span", { class: "what", id: `${id}-what` }, plain(summary));
  input.setAttribute("aria-describedby", what.id);
  return element("label", { class: "method", for: id }, input, element("span", { class: "name" }, name), what);
}

/** The methods that this service cannot run, folded away with the reasons. */
function missingBox(missing) {
  const rows = missing.flatMap(({ name, reason }) => [
    element("dt", {}, name),
    element("dd", {}, plain(reason)),
  ]);
  const title = element("summary", {}, `${count(missing.length)} more, not available here`);
  return element("details", { class: "missing" }, title, element("dl", {}, ...rows));
}

const plain = (words) => words.replaceAll("``", "");

/** Favourites first, in their order; the others keep theirs. */
function rank({ name }) {
  const place = FAVOURITES.indexOf(name);
  return place < 0 ? FAVOURITES.length : place;
}

async function loadMethods(wanted) {
  try {
    const all = await methods(fields.key.value);
    const offered = all.filter(({ available }) => available).sort((one, other) => rank(one) - rank(other));
    const checked = wanted?.length ? wanted : FAVOURITES;
    const boxes = offered.map((each) => methodBox(each, checked.includes(each.name)));
    const missing = all.filter(({ available }) => !available);
    byId("methods").replaceChildren(...boxes, ...(missing.length ? [missingBox(missing)] : []));
    complain("");
  } catch (error) {
    refused(error);
    byId("methods").replaceChildren(element("p", { class: "hint" }, "The methods are not known yet."));
  }
}

function refused(error) {
  complain(error.message);
  if (error instanceof Refusal && error.status === 401) {
    byId("key-box").open = true;
    fields.key.focus();
  }
}

// The result

async function run() {
  complain("");
  let passages;
  try {
    passages = readPassages();
  } catch (error) {
    return complain(error.message);
  }
  const query = fields.query.value.trim();
  const chosen = chosenMethods();
  if (!query) return complain("Please ask a question.");
  if (!passages.length) return complain("Please paste a passage, or pick a sample.");
  if (!chosen.length) return complain("Please choose a method.");
  await ask(chosen, query, passages);
}

async function ask(chosen, query, passages) {
  page.running?.abort();
  const controller = new AbortController();
  page.running = controller;
  const scores = Object.fromEntries(page.panels.map((panel) => [panel.result.method, panel.score]));
  page.panels = [];
  busy(true);
  layout(chosen.length, passages.length);
  const holders = chosen.map(waiting);
  byId("panels").replaceChildren(...holders);
  say(`Compressing ${plural(passages.length, "passage")} …`);
  const patience = setTimeout(() => say("Still at it; the first request of a method loads its model."), SLOW);
  const options = { key: fields.key.value, signal: controller.signal };
  await Promise.all(
    chosen.map((method, place) =>
      compress(method, query, passages, options).then(
        (result) => settle(holders[place], new Panel(result, page.wanted?.[method] ?? scores[method])),
        (error) => fail(holders[place], method, error),
      ),
    ),
  );
  clearTimeout(patience);
  if (page.running !== controller) return;
  page.running = null;
  page.wanted = null;
  busy(false);
  finish(chosen);
}

function settle(holder, panel) {
  if (!holder.isConnected) return;
  holder.replaceWith(panel.node);
  page.panels.push(panel);
}

function fail(holder, method, error) {
  if (!holder.isConnected) return;
  if (error.name === "AbortError") return holder.replaceWith(failed(method, "Stopped."));
  holder.replaceWith(failed(method, error.message));
  if (error.status === 401) refused(error);
}

function finish(chosen) {
  page.panels.sort((one, other) => chosen.indexOf(one.result.method) - chosen.indexOf(other.result.method));
  byId("cut").hidden = !page.panels.length;
  if (!page.panels.length) return say("Nothing could be compressed.");
  const most = Math.max(...page.panels.map(({ result }) => result.report.tokens_in));
  const fresh = Number(fields.budget.max) !== most;
  fields.budget.max = String(most);
  if (page.budget !== undefined) fields.budget.value = String(page.budget);
  else if (fresh) fields.budget.value = String(Math.round(most * 0.25));
  page.budget = undefined;
  recut();
  say(page.panels.map(({ summary }) => summary).join(" "));
  remember();
  if (matchMedia("(max-width: 62rem)").matches) byId("result").focus();
}

function layout(columns, passages) {
  byId("empty").hidden = true;
  byId("panels").style.setProperty("--columns", String(columns));
  byId("panels").style.setProperty("--rows", String(passages + 1));
}

function busy(working) {
  byId("stop").hidden = !working;
  byId("run").textContent = working ? "Compressing …" : "Compress";
  byId("run").disabled = working;
  byId("result").setAttribute("aria-busy", String(working));
}

const say = (words) => (byId("status").textContent = words);

function currentCut() {
  const { value: kind } = document.querySelector("input[name=cut]:checked");
  return kind === "budget" ? { kind, value: Number(fields.budget.value) } : { kind };
}

function recut() {
  const cut = currentCut();
  byId("budget-box").hidden = cut.kind !== "budget";
  const words = plural(Number(fields.budget.value), "token");
  byId("budget-value").textContent = words;
  fields.budget.setAttribute("aria-valuetext", `${words} of ${count(Number(fields.budget.max))}`);
  for (const panel of page.panels) panel.cut(cut);
  byId("panels").classList.toggle("hide-dropped", fields.hide.checked);
}

// The link

async function remember() {
  const sample = pristineSample();
  const asked = sample ? { sample: sample.id } : { query: fields.query.value, passages: fields.passages.value };
  const cut = currentCut();
  const known = page.panels.filter(({ score }) => score !== null);
  const scores = cut.kind === "score" ? Object.fromEntries(known.map((p) => [p.result.method, p.score])) : {};
  const state = { ...asked, methods: chosenMethods(), cut, scores };
  history.replaceState(null, "", `#${await encode(state)}`);
}

async function share() {
  await remember();
  try {
    await navigator.clipboard.writeText(location.href);
    flash("Copied");
  } catch {
    flash("Copy the address bar");
  }
}

function flash(words) {
  const button = byId("share");
  button.textContent = words;
  say(words);
  setTimeout(() => (button.textContent = "Copy link"), 2000);
}

function restore(state) {
  if (state.sample !== undefined) showSample(state.sample);
  else [fields.query.value, fields.passages.value] = [state.query, state.passages];
  countPassages();
  document.querySelector(`input[name=cut][value=${state.cut.kind}]`).checked = true;
  if (state.cut.kind === "budget") page.budget = state.cut.value;
  page.wanted = state.scores;
}

// The start

function listen() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  byId("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
  });
  byId("stop").addEventListener("click", () => page.running?.abort());
  byId("share").addEventListener("click", share);
  byId("file").addEventListener("change", openFile);
  byId("try").addEventListener("click", () => {
    showSample(page.samples[0]?.id);
    run();
  });
  fields.sample.addEventListener("change", () => showSample(fields.sample.value));
  fields.passages.addEventListener("input", countPassages);
  fields.key.addEventListener("change", () => loadMethods(chosenMethods()));
  byId("cut").addEventListener("input", recut);
  byId("cut").addEventListener("change", remember);
  byId("panels").addEventListener("change", remember);
}

async function start() {
  listen();
  const [state] = await Promise.all([
    decode(location.hash),
    samples().then((found) => (page.samples = found), () => {}),
  ]);
  for (const { id, query } of page.samples) fields.sample.append(element("option", { value: id }, query));
  if (state) restore(state);
  await loadMethods(state?.methods);
  if (state && chosenMethods().length) await run();
}

start();
