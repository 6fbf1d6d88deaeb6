// Two rollouts side by side, step beside step.
import { h, link } from "./dom.js";
import { scoreBadge, verdict } from "./outcome.js";
import { ending, facts, prompt } from "./rollout.js";
import { stepCard } from "./steps.js";
import { address, path, special, store } from "./store.js";

export async function pairView(sides) {
  const traces = await Promise.all(sides.map(({ run, row }) => path(run, row)));
  const rows = Array.from({ length: Math.max(...traces.map((trace) => trace.steps.length)) }, (_, at) =>
    h("div", { class: "pairrow", tabindex: "-1", "aria-label": `Step ${at + 1}`, role: "group" }, traces.map((trace, side) => cell(sides[side], trace, at))));
  const same = JSON.stringify(traces[0].prompt) === JSON.stringify(traces[1].prompt);
  return {
    title: sides.map(({ row }) => row.rollout).join(" and "),
    up: sides[0].run === sides[1].run ? special("tree", sides[0].run.name, sides[0].row.task) : "#",
    stops: () => rows,
    element: [
      h("h1", { class: "hidden", tabindex: "-1" }, "Side by side"),
      h("div", { class: "pairrow heads" }, traces.map((trace, side) => heads(sides, side, trace))),
      same ? prompt(traces[0]) : h("div", { class: "pairrow" }, traces.map((trace) => h("div", null, prompt(trace)))),
      rows,
      h("div", { class: "pairrow" }, traces.map((trace) => h("div", null, ending(trace))))],
  };
}

function cell({ run, row }, trace, at) {
  const step = trace.steps[at];
  if (!step) return h("div", { class: "nothing" }, at === trace.steps.length ? "ended" : "");
  return h("div", null, stepCard(step, { id: null, number: at + 1, address: address(run.name, row.rollout, step.id), forks: 0, score: scoreOf(trace, step), heading: 3 }));
}

function scoreOf(trace, step) {
  const found = trace.step_scores.find(([id]) => id === step.id);
  return found && { passed: found[1], expected: found[2], why: found[3] };
}

function heads(sides, side, trace) {
  const { run, row } = sides[side];
  const others = run.tasks.get(row.task);
  const choice = h("select", { "aria-label": `Rollout on the ${side ? "right" : "left"}` }, others.map((each) => h("option", { value: each.rollout, selected: each === row }, `${each.rollout}: ${verdict(each)}`)));
  choice.addEventListener("change", () => {
    const chosen = sides.map((each, at) => [each.run.name, at === side ? choice.value : each.row.rollout]);
    location.hash = special("pair", ...chosen.flat());
  });
  return h("section", { class: "heads-side", "aria-label": `${side ? "Right" : "Left"}: ${run.name} ${row.rollout}` },
    store.runs.length > 1 && h("p", { class: "faint" }, link(address(run.name), null, run.name)), h("p", null, choice, " ", link(address(run.name, row.rollout), { class: "button" }, "Open alone")), h("p", { class: "facts" }, scoreBadge(trace.score), facts(row, trace)));
}
