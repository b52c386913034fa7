// Ties the page together: asks the service, fills the board, keeps the link up to date.

import { compress, methods, samples } from "./api.js";
import * as board from "./board.js";
import { byId, plural } from "./dom.js";
import * as form from "./form.js";
import { decode, encode } from "./link.js";

const SLOW = 1500; // milliseconds after which the wait is explained
const FLASH = 2000;

let running = null; // the AbortController of the request under way
let latest = 0; // how often the link was begun, so that an older one never replaces a newer
let least = {}; // where the score sliders start, by method

const say = (words) => (byId("status").textContent = words);

async function run() {
  const asked = form.read();
  if (!asked) return;
  running?.abort();
  const controller = (running = new AbortController());
  form.busy(true);
  say(`Compressing ${plural(asked.passages.length, "passage")} …`);
  const patience = setTimeout(() => say("Still at it; a method's first request loads its model."), SLOW);
  const columns = board.open(asked.methods, asked.passages.length, { ...board.scores(), ...least });
  least = {};
  await Promise.all(asked.methods.map((method, place) => fill(columns[place], method, asked, controller)));
  clearTimeout(patience);
  if (running !== controller) return;
  running = null;
  form.busy(false);
  say(board.close(asked.methods));
  remember();
  if (matchMedia("(max-width: 62rem)").matches) byId("result").focus();
}

async function fill(column, method, { query, passages }, { signal }) {
  try {
    column.fill(await compress(method, query, passages, { key: form.apiKey(), signal }));
  } catch (error) {
    column.fail(error.name === "AbortError" ? "Stopped." : error.message);
    if (error.status === 401) form.refused(error);
  }
}

async function loadMethods(wanted) {
  try {
    form.offerMethods(await methods(form.apiKey()), wanted);
    form.complain("");
  } catch (error) {
    form.offerMethods([]);
    form.refused(error);
  }
}

async function remember() {
  const mine = ++latest;
  const state = { ...form.asked(), methods: form.chosenMethods(), ...board.state() };
  const link = await encode(state);
  if (mine === latest) history.replaceState(null, "", `#${link}`);
}

async function share() {
  await remember();
  try {
    await navigator.clipboard.writeText(location.href);
    flash("Copied");
  } catch {
    flash("Copy it from the address bar");
  }
}

function flash(words) {
  byId("share").textContent = words;
  say(words);
  setTimeout(() => (byId("share").textContent = "Copy link"), FLASH);
}

/** Show what a link holds, and ask again for it. */
async function follow() {
  const state = await decode(location.hash);
  if (state) {
    form.restore(state);
    board.restore(state);
    least = state.scores;
  }
  await loadMethods(state?.methods);
  if (state && form.chosenMethods().length) await run();
}

async function start() {
  form.listen({ run, key: () => loadMethods(form.chosenMethods()) });
  board.listen(remember);
  byId("stop").addEventListener("click", () => running?.abort());
  byId("share").addEventListener("click", share);
  byId("try").addEventListener("click", () => {
    form.showSample();
    run();
  });
  window.addEventListener("hashchange", follow);
  form.offerSamples(await samples().catch(() => []));
  await follow();
}

start();
