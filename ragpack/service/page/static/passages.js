// Passages as people write them, and text by code points as the service counts it.

/**
 * Reads passages from plain text (blocks between empty lines, "# " before a title) or JSON Lines.
 * @param {string} text
 * @returns {{id: string, title: string, text: string}[]}
 * @throws {Error} with the number of a JSON line that cannot be used
 */
export function parse(text) {
  const found = text.trimStart().startsWith("{") ? parseLines(text) : parseBlocks(text);
  return found.map((passage, place) => ({ ...passage, id: passage.id || String(place + 1) }));
}

/** The plain text that parse() reads back. */
export function format(passages) {
  return passages.map(({ title, text }) => (title ? `# ${title}\n${text}` : text)).join("\n\n");
}

/**
 * Cuts a text at code-point offsets, which differ from JavaScript's where an emoji stands.
 * @param {string} text
 * @returns {(start: number, end: number) => string}
 */
export function slicer(text) {
  if (!/[\ud800-\udfff]/.test(text)) return (start, end) => text.slice(start, end);
  const points = Array.from(text);
  return (start, end) => points.slice(start, end).join("");
}

function parseBlocks(text) {
  return text
    .replaceAll("\r\n", "\n")
    .split(/\n[ \t]*\n+/)
    .map((block) => block.trim())
    .filter(Boolean)
    .map((block) => {
      const [first, ...rest] = block.split("\n");
      const titled = first.startsWith("# ") && rest.length > 0;
      return titled
        ? { title: first.slice(2).trim(), text: rest.join("\n").trim() }
        : { title: "", text: block };
    });
}

function parseLines(text) {
  const passages = [];
  for (const [place, line] of text.split("\n").entries()) {
    if (!line.trim()) continue;
    const record = parseRecord(line);
    if (typeof record?.text !== "string") {
      throw new Error(`Line ${place + 1} of the passages is no JSON object with a "text".`);
    }
    const { id = "", title = "", text: body } = record;
    passages.push({ id: String(id), title: String(title), text: body });
  }
  return passages;
}

function parseRecord(line) {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}
