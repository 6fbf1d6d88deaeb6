// The curve of passing tests over the steps of a rollout.
import { h, s } from "./dom.js";

const [BAR, GAP, TALL, MOST] = [5, 2, 16, 12];

// A bar for each of the last test runs.
export function spark(points) {
  if (!points.length) return null;
  const [, last, of] = points.at(-1);
  const bars = points.slice(-MOST).map(([, passed, expected], at) => {
    const share = expected ? passed / expected : 0;
    const place = { x: at * (BAR + GAP), width: BAR, rx: 1 };
    return [s("rect", { class: "full", ...place, y: 0, height: TALL }), s("rect", { class: share === 1 ? "all" : "part", ...place, y: TALL * (1 - share), height: TALL * share })];
  });
  return s("svg", { class: "spark", width: Math.min(points.length, MOST) * (BAR + GAP), height: TALL, role: "img", "aria-label": `tests passing in the end: ${last} of ${of}` }, s("title", null, points.map(([step, passed, expected]) => `step ${step}: ${passed} of ${expected}`).join("\n")), bars);
}

// points: {step, passed, expected, scored, early}; `count`: steps of the rollout. A point is a link to its step.
export function curve(points, count, addressOf) {
  const [width, height, left, foot] = [248, 118, 26, 20];
  const top = Math.max(1, ...points.map((point) => point.expected));
  const x = (step) => left + (count ? step / count : 0) * (width - left - 8);
  const y = (passed) => 8 + (1 - passed / top) * (height - foot - 8);
  const solid = points.some((point) => point.scored) ? points.filter((point) => point.scored) : points;
  const line = solid.map((point, at) => {
    const before = at ? `H ${x(point.step)} ` : "";
    return `${before}${at ? "V" : `M ${x(point.step)}`} ${y(point.passed)}`;
  }).join(" ");
  const marks = points.map((point) => {
    const said = `${point.step ? `after step ${point.step}` : "at the start"}: ${point.passed} of ${point.expected} pass (${kindOf(point)})`;
    const shape = point.scored
      ? s("rect", { class: "mark", x: x(point.step) - 3.5, y: y(point.passed) - 3.5, width: 7, height: 7, rx: 1 })
      : s("circle", { class: point.early ? "mark early" : "mark", cx: x(point.step), cy: y(point.passed), r: 4 });
    const inside = [s("title", null, said), shape];
    const where = addressOf(point.step);
    return where ? s("a", { href: where, "aria-label": said }, inside) : s("g", { role: "img", "aria-label": said }, inside);
  });
  const grid = [0, top].map((value) => [
    s("line", { class: "grid", x1: left, x2: width - 4, y1: y(value), y2: y(value) }),
    s("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value)]);
  const ends = [s("text", { x: left, y: height - 4 }, "0"), s("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, `step ${count}`)];
  const kinds = ["■ step score", "● test run", "○ stopped early"].filter((name) => points.some((point) => name.endsWith(kindOf(point))));
  return h("figure", { class: "curve" },
    h("figcaption", null, "Tests passing", h("span", { class: "faint" }, kinds.join("  "))),
    s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "Tests passing over steps" }, grid, ends, s("path", { class: "line", d: line }), marks));
}

function kindOf(point) {
  return point.scored ? "step score" : point.early ? "stopped early" : "test run";
}
