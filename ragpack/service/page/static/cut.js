// Which units (sentences or words) stay, computed from the scores that came with the response.

/**
 * @typedef {{start: number, end: number, score: number | null, tokens: number}} Unit
 * @typedef {{units: Unit[], titleTokens: number, kept: [number, number][]}} Scored
 * @typedef {{kind: "own"} | {kind: "budget" | "score", value: number}} Cut
 */

const SEPARATOR_TOKENS = 1;

/**
 * For each passage, which of its units the cut keeps.
 * @param {Scored[]} passages
 * @param {Cut} cut
 * @returns {boolean[][]}
 */
export function choose(passages, cut) {
  if (cut.kind === "own") return passages.map(own);
  if (cut.kind === "score") {
    const neutral = median(passages);
    return passages.map(({ units }) => units.map((unit) => (unit.score ?? neutral) >= cut.value));
  }
  return withinBudget(passages, cut.value);
}

/**
 * Tokens of what is kept: titles, units and separators added up. A tokenizer may join what stands
 * side by side, so the true count can differ by a few.
 */
export function estimate(passages, kept) {
  let tokens = 0;
  passages.forEach(({ units, titleTokens }, owner) => {
    if (!kept[owner].includes(true)) return;
    tokens += titleTokens + (tokens ? SEPARATOR_TOKENS : 0);
    units.forEach((unit, place) => (tokens += kept[owner][place] ? unit.tokens : 0));
  });
  return tokens;
}

/** Least and greatest score, or null where the method gives none. */
export function range(passages) {
  const scores = known(passages);
  return scores.length ? [Math.min(...scores), Math.max(...scores)] : null;
}

function own({ units, kept }) {
  return units.map(({ start, end }) => kept.some(([from, to]) => from <= start && end <= to));
}

/** The service's own rule: best score first, as long as it fits, ties in document order. */
function withinBudget(passages, budget) {
  const everything = passages.map(({ units }) => units.map(() => true));
  if (estimate(passages, everything) <= budget) return everything;
  const kept = passages.map(({ units }) => units.map(() => false));
  const opened = new Set();
  let spent = 0;
  for (const { owner, place, tokens } of ranked(passages)) {
    let cost = tokens;
    if (!opened.has(owner)) cost += passages[owner].titleTokens + (opened.size ? SEPARATOR_TOKENS : 0);
    if (spent + cost > budget) continue;
    spent += cost;
    opened.add(owner);
    kept[owner][place] = true;
  }
  return kept;
}

function ranked(passages) {
  const neutral = median(passages);
  return passages
    .flatMap(({ units }, owner) =>
      units.map(({ score, tokens }, place) => ({ owner, place, tokens, score: score ?? neutral })),
    )
    .sort((one, other) => other.score - one.score);
}

function known(passages) {
  return passages.flatMap(({ units }) => units.map(({ score }) => score)).filter((s) => s !== null);
}

function median(passages) {
  const scores = known(passages).sort((one, other) => one - other);
  const middle = scores.length >> 1;
  if (!scores.length) return 0;
  return scores.length % 2 ? scores[middle] : (scores[middle - 1] + scores[middle]) / 2;
}
