// How the result of a rollout, or of several, is shown: by sign and word, never by colour alone.
import { badge, h, link, s } from "./dom.js";
import { address } from "./store.js";
import { compact, decimal, percent } from "./text.js";

const KINDS = new Map([[true, ["pass", "✓", "solved"]], [false, ["fail", "✗", "not solved"]], [null, ["none", "–", "no score"]]]);

export function verdict(row) {
  return KINDS.get(row.solved)[2];
}

export function outcome(row) {
  const [kind, sign, said] = KINDS.get(row.solved);
  return h("span", { class: `outcome ${kind}` }, h("span", { "aria-hidden": "true" }, sign), " ", said);
}

// A link of the size of a letter to each rollout.
export function dots(run, rows, most = 24) {
  const shown = rows.slice(0, most).map((row) => {
    const [kind, sign, said] = KINDS.get(row.solved);
    return link(address(run.name, row.rollout), { class: `dot ${kind}`, "aria-label": `${row.rollout}: ${said}`, title: `${row.rollout}: ${said}` }, sign);
  });
  return h("span", { class: "dots" }, shown, rows.length > most && h("span", { class: "faint" }, `+${rows.length - most}`));
}

// A policy that is no model counts no tokens.
export function tokensSaid(row) {
  return compact(row.prompt_tokens + row.completion_tokens || null);
}

export function rate(rows) {
  const scored = rows.filter((row) => row.solved !== null);
  return scored.length ? scored.filter((row) => row.solved).length / scored.length : null;
}

export function solvedOf(rows) {
  const scored = rows.filter((row) => row.solved !== null);
  return scored.length ? `${scored.filter((row) => row.solved).length} / ${scored.length}` : "–";
}

export function mean(rows, value) {
  const found = rows.map(value).filter((each) => each !== null);
  return found.length ? found.reduce((sum, each) => sum + each, 0) / found.length : null;
}

// A share with its 95% interval on a scale from 0 to 1.
export function intervalBar(value, [low, high]) {
  const at = (share) => `${share * 100}%`;
  const title = `${percent(value)}, 95% interval ${percent(low)} to ${percent(high)}`;
  return s("svg", { class: "interval", role: "img", "aria-label": title },
    s("rect", { class: "scale", x: 0, y: 7, width: "100%", height: 2, rx: 1 }),
    s("rect", { class: "range", x: at(low), y: 4, width: at(high - low), height: 8, rx: 4 }),
    s("circle", { class: "value", cx: at(value), cy: 8, r: 5 }));
}

export function scoreBadge(score) {
  if (!score || score.value === null) return badge("none", score?.why ? `unscored: ${score.why}` : "no score");
  const solved = score.value === 1;
  const value = Number.isInteger(score.value) ? "" : ` ${decimal(score.value, 2)}`;
  return badge(solved ? "pass" : "fail", `${solved ? "✓ solved" : "✗ not solved"}${value}`);
}
