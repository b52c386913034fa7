// The service, as this page needs it. Addresses are relative, so that a prefix in front does no harm.

/** What the service, or the way to it, said no to. */
export class Refusal extends Error {
  /** @param {number} status 0 where no answer came */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The methods on offer. */
export async function methods(key) {
  return (await call("v1/methods", { key })).data;
}

/** Sample questions with their passages. */
export async function samples() {
  return (await call("page/samples.json", {})).samples;
}

/**
 * One method's view of the passages, with every unit's score.
 * @param {string} method
 * @param {string} query
 * @param {{id: string, title: string, text: string}[]} passages
 */
export async function compress(method, query, passages, { key, signal }) {
  const start = performance.now();
  const answer = await call("v1/compress", {
    key,
    signal,
    body: { method, query, passages, scores: true },
  });
  const { settings, report, results } = answer;
  return {
    method,
    settings,
    report,
    roundTrip: performance.now() - start,
    passages: results.map((result, place) => view(result, passages[place])),
  };
}

function view(result, passage) {
  const units = unitsOf(result, passage);
  return {
    ...passage,
    units,
    kept: result.kept,
    cache: result.cache,
    reason: result.reason ?? "",
    tokensIn: result.tokens_in,
    tokensOut: result.tokens_out,
    titleTokens: result.title_tokens ?? 0,
    rewritten: result.text && !result.kept.length ? result.text : "",
  };
}

/** What can be kept or dropped on its own: nothing of a twin, the whole where nothing was judged. */
function unitsOf({ units, kept, reason, tokens_in, title_tokens }, { text }) {
  if (reason?.startsWith("duplicate of ")) return [];
  if (units?.length || !kept.length) return units ?? [];
  const tokens = tokens_in - (title_tokens ?? 0);
  return [{ start: 0, end: Array.from(text).length, score: null, tokens }];
}

async function call(path, { key, signal, body }) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const request = { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The service does not answer. Is it running, and is this page still connected to it?");
  }
  if (response.ok) return response.json();
  throw new Refusal(response.status, await reason(response));
}

async function reason(response) {
  const problem = await response.json().catch(() => ({}));
  const detail = problem.detail ?? problem.title ?? `The service answered ${response.status}.`;
  if (response.status === 401) return "This service wants an API key, or another one than this.";
  const wait = response.headers.get("Retry-After");
  return response.status === 429 && wait ? `${detail} Try again in ${wait} s.` : detail;
}
