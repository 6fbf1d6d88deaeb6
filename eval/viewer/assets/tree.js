// The rollouts of a task as a tree: a node a step, a branch where they part, values on the branches, pairs beneath.
import { badge, h, link, s } from "./dom.js";
import { dots, verdict } from "./outcome.js";
import { flags, title } from "./steps.js";
import { address, rollout, special } from "./store.js";
import { count, decimal, visible } from "./text.js";

const MOST_ROLLOUTS = 300;
const [ACROSS, DOWN, EDGE, SIZE, TRUNK] = [64, 30, 28, 10, 17];
const LETTERS = { list_files: "L", read_file: "R", grep: "G", write_file: "W", replace_in_file: "W", final: "F" };

export async function treeView(run, task) {
  const rows = run.tasks.get(task);
  const drawn = rows.slice(0, MOST_ROLLOUTS).filter((row, _, some) => row.parent === null || some.some((each) => each.rollout === row.parent));
  const documents = new Map(await Promise.all(drawn.map(async (row) => [row.rollout, await rollout(row)])));
  const grown = grow(run, drawn, documents);
  const pairs = run.pairs.filter((pair) => run.byId.get(pair.rollout)?.task === task);
  const forked = rows.filter((row) => row.parent !== null).length;
  return {
    title: `${task}, as a tree`,
    up: address(run.name),
    stops: () => [...document.querySelectorAll("main svg.tree a.end, main tbody th a")],
    element: [
      h("div", { class: "top" }, h("div", null, h("h1", { tabindex: "-1" }, task), h("p", { class: "facts" },
        h("span", { class: "fact" }, count(rows.length, "rollout")), forked > 0 && h("span", { class: "fact" }, `${count(forked, "fork")} of them`),
        h("span", { class: "fact" }, count(pairs.length, "pair")), dots(run, rows.filter((row) => row.parent === null))))),
      drawn.length < rows.length && h("p", { class: "notices" }, `The first ${drawn.length} of ${rows.length} rollouts are drawn.`),
      h("div", { class: "scroll canvas" }, drawing(run, grown, pairs)),
      legend(), pairTable(run, pairs)],
  };
}

// ---- the tree: nodes {step, row, children, value, depth, lane}

function grow(run, rows, documents) {
  const root = node(null, null, 0);
  const own = new Map();
  const wanted = new Set(rows.map((row) => row.rollout));
  const nodeOf = (id, step) => {
    if (step === null) return root;
    const row = run.byId.get(id);
    attach(row);
    return own.get(`${id} ${step}`) ?? nodeOf(row.parent, step);
  };
  const attached = new Set();
  const attach = (row) => {
    if (attached.has(row.rollout)) return;
    attached.add(row.rollout);
    let at = row.parent === null ? root : nodeOf(row.parent, row.fork_step);
    for (const step of documents.get(row.rollout).steps) {
      const next = node(step, row, at.depth + 1);
      own.set(`${row.rollout} ${step.id}`, next);
      at.children.push(next);
      at = next;
    }
    at.children.push({ ...node(null, row, at.depth + 1), value: row.score, end: true });
  };
  rows.filter((row) => wanted.has(row.rollout)).forEach(attach);
  return { root, own, nodeOf, lanes: place(root, 0), depth: deepest(root) };
}

function node(step, row, depth) {
  return { step, row, depth, children: [], value: null, lane: 0, end: false };
}

// A lane for every end; a value is the mean of those of the branches, node by node, those without a score left out.
function place(at, lane) {
  at.lane = lane;
  if (!at.children.length) return lane + 1;
  let next = lane;
  for (const child of at.children) next = place(child, next);
  const values = at.children.map((child) => child.value).filter((value) => value !== null);
  at.value = values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  return next;
}

function deepest(at) {
  return Math.max(at.depth, ...at.children.map(deepest));
}

// ---- its drawing

const x = (at) => EDGE + at.depth * ACROSS;
const y = (at) => EDGE + 14 + at.lane * DOWN;

function drawing(run, grown, pairs) {
  const edges = [];
  const nodes = [];
  const width = EDGE * 2 + grown.depth * ACROSS + 300;
  const height = EDGE * 2 + grown.lanes * DOWN;
  walk(run, grown.root, edges, nodes);
  const steps = Array.from({ length: grown.depth - 1 }, (_, at) => s("text", { class: "depth", x: EDGE + (at + 1) * ACROSS, y: 14, "text-anchor": "middle" }, at + 1));
  return s("svg", { class: "tree", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `Tree of ${count(grown.lanes, "rollout")}` },
    steps, edges, s("circle", { class: "root", cx: x(grown.root), cy: y(grown.root), r: 5 }), s("text", { class: "depth", x: 6, y: 14 }, "prompt"), nodes, marks(grown, pairs));
}

function walk(run, at, edges, nodes) {
  const branches = at.children.length > 1;
  for (const child of at.children) {
    edges.push(edge(at, child));
    if (branches && child.value !== null) nodes.push(s("text", { class: `worth ${grade(child.value)}`, x: x(child) - SIZE - 3, y: y(child) - 6, "text-anchor": "end" }, decimal(child.value, 2)));
    nodes.push(child.end ? ended(run, child) : stepNode(run, child));
    walk(run, child, edges, nodes);
  }
}

export function grade(value) {
  if (value === null) return "none";
  return value >= 1 ? "pass" : value <= 0 ? "fail" : "mid";
}

// A branch leaves the trunk, which stands right of the node that they have in common.
function edge(from, to) {
  const kind = `edge ${grade(to.value)}`;
  if (from.lane === to.lane) return s("path", { class: kind, d: `M ${x(from)} ${y(from)} H ${x(to)}` });
  const at = x(from) + TRUNK;
  return [s("path", { class: "edge", d: `M ${at} ${y(from)} V ${y(to) - 7}` }), s("path", { class: kind, d: `M ${at} ${y(to) - 7} q 0 7 7 7 H ${x(to)}` })];
}

function stepNode(run, at) {
  const wrong = flags(at.step).length > 0;
  const said = `${title(at.step)}${wrong ? " (something is wrong here)" : ""}, ${at.row.rollout} step ${at.depth}`;
  return s("a", { href: address(run.name, at.row.rollout, at.step.id), class: `node ${at.step.call.name} ${wrong ? "wrong" : ""}`, "aria-label": said },
    s("title", null, said), s("circle", { cx: x(at), cy: y(at), r: SIZE }), s("text", { x: x(at), y: y(at) + 4, "text-anchor": "middle" }, LETTERS[at.step.call.name] ?? "?"));
}

function ended(run, at) {
  const sign = { pass: "✓", fail: "✗", none: "–" }[at.row.solved === null ? "none" : at.row.solved ? "pass" : "fail"];
  return s("a", { href: address(run.name, at.row.rollout), class: `end ${grade(at.value)}`, "aria-label": `${at.row.rollout}: ${verdict(at.row)}` },
    s("rect", { x: x(at) - 9, y: y(at) - 9, width: 18, height: 18, rx: 4 }), s("text", { class: "sign", x: x(at), y: y(at) + 4, "text-anchor": "middle" }, sign), s("text", { class: "name", x: x(at) + 16, y: y(at) + 4 }, visible(at.row.rollout)));
}

function marks(grown, pairs) {
  const seen = new Map();
  return pairs.flatMap((pair) => [["chosen", pair.chosen], ["rejected", pair.rejected]].map(([side, point]) => {
    const at = grown.own.get(`${point.rollout} ${point.step}`);
    if (!at || seen.has(`${side} ${point.rollout} ${point.step}`)) return null;
    seen.set(`${side} ${point.rollout} ${point.step}`, true);
    const [cx, cy] = [x(at) + (side === "chosen" ? 8 : -8), y(at) + 11];
    const points = side === "chosen" ? `${cx - 5},${cy + 5} ${cx + 5},${cy + 5} ${cx},${cy - 3}` : `${cx - 5},${cy - 3} ${cx + 5},${cy - 3} ${cx},${cy + 5}`;
    return s("polygon", { class: `pair-mark ${side}`, points }, s("title", null, `${side} in pair ${pair.pair}`));
  }));
}

function legend() {
  return h("p", { class: "legend faint" }, "L list, R read, G grep, W write, F final. A number is the mean score of what lies behind a branch, node by node, what has no score left out. ",
    h("span", { class: "pass-text" }, "▲ chosen"), " and ", h("span", { class: "fail-text" }, "▼ rejected"), " are the sides of a pair.");
}

// ---- the pairs

function pairTable(run, pairs) {
  if (!pairs.length) return h("p", { class: "faint" }, "No preference pairs came from this task.");
  const side = (point) => link(address(run.name, point.rollout, ...(point.step ? [point.step] : [])), null, `${point.rollout} ${point.step ?? ""}`);
  const rows = pairs.map((pair) => h("tr", null,
    h("th", { scope: "row" }, link(special("pair", run.name, pair.chosen.rollout, run.name, pair.rejected.rollout), { title: "Both side by side" }, pair.pair)),
    h("td", null, pair.source), h("td", null, side({ rollout: pair.rollout, step: pair.step })), h("td", null, sideScore(run, pair.chosen), side(pair.chosen)), h("td", null, sideScore(run, pair.rejected), side(pair.rejected)),
    h("td", { class: "number" }, pair.confidence === null ? "–" : decimal(pair.confidence, 3))));
  return h("section", { "aria-labelledby": "pairs" }, h("h2", { id: "pairs" }, "Preference pairs"), h("div", { class: "scroll" }, h("table", null,
    h("thead", null, h("tr", null, ["pair", "source", "state after", "chosen", "rejected"].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col", class: "number" }, "confidence"))), h("tbody", null, rows))));
}

function sideScore(run, point) {
  const row = run.byId.get(point.rollout);
  return row && badge(grade(row.score), { true: "✓", false: "✗", null: "–" }[row.solved], verdict(row));
}
