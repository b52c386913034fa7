// The left side: what is asked, and of which methods.

import { byId, count, element, plural } from "./dom.js";
import { format, parse } from "./passages.js";

const FAVOURITES = ["recomp-mini", "exit-mini"];

const [sample, query, passages, key] = ["sample", "query", "passages", "key"].map(byId);
let samples = [];

/** @returns {string} the API key, which is held nowhere else */
export const apiKey = () => key.value;

/** @returns {string[]} */
export const chosenMethods = () =>
  [...document.querySelectorAll("#methods input:checked")].map(({ value }) => value);

/** @param {{id: string, query: string, passages: object[]}[]} found */
export function offerSamples(found) {
  samples = found;
  sample.append(...found.map((each) => element("option", { value: each.id }, each.query)));
}

/** @param {string} [id] the first one unless given */
export function showSample(id = samples[0]?.id) {
  const found = samples.find((each) => each.id === id);
  sample.value = found ? id : "";
  if (found) show(found.query, format(found.passages));
}

/** What a link holds of the form: a sample's id as long as nothing was changed. */
export const asked = () =>
  pristine() ? { sample: sample.value } : { query: query.value, passages: passages.value };

/** The form as asked() gave it. */
export function restore(state) {
  if (state.sample !== undefined) showSample(state.sample);
  else show(state.query, state.passages);
}

/**
 * The question, the passages and the methods, or null after saying what is missing.
 */
export function read() {
  complain("");
  const methods = chosenMethods();
  let found = [];
  try {
    found = passagesNow();
  } catch (error) {
    return complain(error.message, passages);
  }
  if (!query.value.trim()) return complain("Please ask a question.", query);
  if (!found.length) return complain("Please paste a passage, or start from a sample.", passages);
  if (!methods.length) return complain("Please choose a method.", document.querySelector("#methods input"));
  return { query: query.value.trim(), passages: found, methods };
}

/**
 * Say what is wrong, and lead there.
 * @param {string} message empty when nothing is
 * @param {HTMLElement | null} [field]
 */
export function complain(message, field = null) {
  for (const each of [query, passages, key]) each.setAttribute("aria-invalid", String(each === field));
  byId("form-error").hidden = !message;
  byId("form-error").textContent = message;
  field?.focus();
  return null;
}

/** Show a refusal of the service; the key field where a key is missing. */
export function refused({ message, status }) {
  if (status === 401) byId("key-box").open = true;
  complain(message, status === 401 ? key : null);
}

/** While the service works, it can be stopped and nothing else asked. */
export function busy(working) {
  byId("stop").hidden = !working;
  byId("run").textContent = working ? "Compressing …" : "Compress";
  byId("run").disabled = working;
}

/**
 * List the methods, those that can run first.
 * @param {{name: string, summary: string, available: boolean, reason: string}[]} all
 * @param {string[]} [wanted] names to choose; our favourites unless given
 */
export function offerMethods(all, wanted) {
  const checked = wanted?.length ? wanted : FAVOURITES;
  const here = all.filter(({ available }) => available).sort((one, other) => rank(one) - rank(other));
  const missing = all.filter(({ available }) => !available);
  const boxes = here.map((each) => methodBox(each, checked.includes(each.name)));
  const rest = missing.length ? [missingBox(missing)] : [];
  const none = element("p", { class: "hint" }, "The service has not named any.");
  byId("methods").replaceChildren(...(all.length ? boxes : [none]), ...rest);
}

/** @param {{run: () => void, key: () => void}} on */
export function listen(on) {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    on.run();
  });
  byId("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) on.run();
  });
  byId("file").addEventListener("change", openFile);
  sample.addEventListener("change", () => showSample(sample.value));
  passages.addEventListener("input", countPassages);
  key.addEventListener("change", on.key);
}

function pristine() {
  const found = samples.find(({ id }) => id === sample.value);
  const same = found && found.query === query.value && format(found.passages) === passages.value;
  return same ? found : null;
}

/** A sample's passages as long as they are unchanged, since the text alone has lost their ids. */
const passagesNow = () => pristine()?.passages ?? parse(passages.value);

function show(question, text) {
  query.value = question;
  passages.value = text;
  countPassages();
}

function countPassages() {
  let words;
  try {
    const { length } = passagesNow();
    words = length ? plural(length, "passage") : "none yet";
  } catch (error) {
    words = "not readable yet";
  }
  byId("passage-count").textContent = words;
}

async function openFile(event) {
  const [file] = event.target.files;
  if (!file) return;
  sample.value = "";
  show(query.value, await file.text());
}

/** Favourites first, in their order; the others keep theirs. */
function rank({ name }) {
  const place = FAVOURITES.indexOf(name);
  return place < 0 ? FAVOURITES.length : place;
}

function methodBox({ name, summary }, checked) {
  const id = `use-${name}`;
  const what = element("span", { class: "what", id: `${id}-what` }, plain(summary));
  const input = element("input", { type: "checkbox", id, value: name, checked, "aria-describedby": what.id });
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
