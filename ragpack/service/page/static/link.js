// The page's state in the URL fragment, which browsers keep to themselves.

const LARGEST = 4_000_000; // characters; a link that unpacks to more is refused

/**
 * @param {object} state anything that JSON can hold
 * @returns {Promise<string>} text for location.hash
 */
export async function encode(state) {
  const bytes = new TextEncoder().encode(JSON.stringify(state));
  const packed = await collect(new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate-raw")));
  const binary = Array.from(packed, (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/**
 * @param {string} hash location.hash
 * @returns {Promise<object | null>} null where the fragment holds no state of this page
 */
export async function decode(hash) {
  try {
    const text = atob(hash.replace(/^#/, "").replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const state = JSON.parse(new TextDecoder().decode(await collect(stream)));
    return valid(state) ? state : null;
  } catch {
    return null;
  }
}

async function collect(stream) {
  const chunks = [];
  let size = 0;
  for (const reader = stream.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > LARGEST) throw new RangeError("the link is too large");
    chunks.push(value);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** A link is somebody's text: everything in it is checked before it is used. */
function valid(state) {
  const { query, passages, sample, methods, cut, scores } = state;
  const strings = (list) => Array.isArray(list) && list.every((each) => typeof each === "string");
  const texts = typeof query === "string" && typeof passages === "string";
  return (
    (typeof sample === "string" || texts) &&
    strings(methods) &&
    ["own", "budget", "score"].includes(cut?.kind) &&
    (cut.kind !== "budget" || Number.isFinite(cut.value)) &&
    Object.values(scores ?? {}).every(Number.isFinite)
  );
}
