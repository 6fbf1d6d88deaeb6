// What a trace says, made fit to be shown: nothing invisible stays invisible, and long texts come in portions.

const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

const NAMES = { 0: "NUL", 7: "BEL", 8: "BS", 13: "CR", 27: "ESC", 127: "DEL" };

function named(char) {
  const code = char.charCodeAt(0);
  return `\u27e8${NAMES[code] ?? `U+${code.toString(16).toUpperCase().padStart(4, "0")}`}\u27e9`;
}

// Control characters (so too those of terminal colours), marks that turn or hide text, and halves of characters.
export function visible(text) {
  return String(text).replace(HIDDEN, named);
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function decimal(value, digits = 1) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function whole(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
}

export function compact(value) {
  if (value === null || value === undefined) return "–";
  return value < 10000 ? whole(value) : value.toLocaleString("en", { notation: "compact", maximumFractionDigits: 1 });
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 5400) return `${decimal(value / 3600)} h`;
  if (value >= 90) return `${decimal(value / 60)} min`;
  return value >= 10 ? `${whole(value)} s` : value >= 0.0995 ? `${decimal(value)} s` : `${whole(value * 1000)} ms`;
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${decimal(value * 100)}%`;
}

export function size(chars) {
  return chars < 10000 ? count(chars, "character") : `${compact(chars)} characters`;
}

// How much of a text is shown at first: whole lines as far as they go.
export function head(text, lines, chars) {
  let end = -1;
  for (let line = 0; line < lines; line++) {
    end = text.indexOf("\n", end + 1);
    if (end < 0) return text.slice(0, chars);
    if (end > chars) return text.slice(0, chars);
  }
  return text.slice(0, end);
}
