// A rollout as a conversation: the prompt folded, a card a step, the end; beside it an outline and the curve.
import { curve } from "./chart.js";
import { badge, button, fold, forkSign, h, link, long } from "./dom.js";
import { scoreBadge, tokensSaid } from "./outcome.js";
import { diff, flags, roleMessage, stepCard, target, title } from "./steps.js";
import { address, path, special } from "./store.js";
import { count, decimal, seconds } from "./text.js";

export async function rolloutView(run, row) {
  const trace = await path(run, row);
  const children = run.children.get(row.rollout) ?? [];
  const numbers = new Map(trace.steps.map((step, at) => [step.id, at + 1]));
  const scores = new Map(trace.step_scores.map(([step, passed, expected, why]) => [step, { passed, expected, why }]));
  const cards = trace.steps.map((step, at) => stepCard(step, {
    id: `step-${at + 1}`, number: at + 1, address: address(run.name, row.rollout, step.id), score: scores.get(step.id),
    forks: children.filter((child) => child.fork_step === step.id).length, tree: special("tree", run.name, row.task),
  }));
  const talk = h("div", { class: "talk" }, prompt(trace), cards.flatMap((card, at) => (at + 1 === trace.shared ? [card, forkMark(trace, run)] : [card])), ending(trace));
  return {
    title: row.rollout,
    cards,
    stepOf: (id) => (numbers.has(id) ? numbers.get(id) - 1 : -1),
    idOf: (at) => trace.steps[at]?.id,
    up: address(run.name),
    neighbours: neighbours(run, row),
    element: [top(run, row, trace), h("div", { class: "columns" }, outline(run, row, trace, numbers, scores), talk)],
  };
}

function neighbours(run, row) {
  const at = run.rows.indexOf(row);
  return [run.rows[at - 1], run.rows[at + 1]].map((each) => each && address(run.name, each.rollout));
}

function top(run, row, trace) {
  const [before, after] = neighbours(run, row);
  const step = (where, sign, said) => (where ? link(where, { class: "button", "aria-label": said, title: said }, sign) : h("span", { class: "button off", "aria-hidden": "true" }, sign));
  const family = run.tasks.get(row.task).some((each) => each.parent !== null);
  return h("div", { class: "top" },
    h("div", null, h("h1", { tabindex: "-1" }, row.rollout), h("p", { class: "facts" }, scoreBadge(trace.score), facts(row, trace))),
    h("div", { class: "tools" },
      link(special("tree", run.name, row.task), { class: "button" }, family ? [forkSign(), "Tree"] : "Task"),
      button("Unfold all", unfold, { id: "unfold" }), step(before, "←", "Previous rollout"), step(after, "→", "Next rollout")));
}

export function facts(row, trace) {
  const items = [
    trace.stop ? `stopped: ${trace.stop}` : "not finished",
    count(row.steps, "step"),
    row.prompt_tokens + row.completion_tokens > 0 && `${tokensSaid(row)} tokens`,
    row.cost_usd !== null && `$${row.cost_usd.toFixed(4)}`,
    seconds(row.seconds),
    `temperature ${trace.sampling.temperature}, seed ${trace.sampling.seed}`,
  ];
  return items.filter(Boolean).map((item) => h("span", { class: "fact" }, item));
}

export function unfold() {
  const folds = [...document.querySelectorAll("main details")];
  const opened = folds.some((each) => !each.open);
  folds.forEach((each) => (each.open = opened));
  const control = document.getElementById("unfold");
  if (control) control.textContent = opened ? "Fold all" : "Unfold all";
}

export function prompt(trace) {
  return h("section", { class: "prompt", "aria-label": "Prompt" }, trace.prompt.map((message) => roleMessage(message, message.role !== "system")));
}

function forkMark(trace, run) {
  const { rollout, step } = trace.fork;
  const where = step ? address(run.name, rollout, step) : address(run.name, rollout);
  return h("p", { class: "shared" }, forkSign(), "up to here shared with ", link(where, null, rollout));
}

export function ending(trace) {
  const { score } = trace;
  const parts = Object.entries(score?.parts ?? {});
  return h("section", { class: "ending", "aria-label": "End" },
    trace.pending !== null && h("div", { class: "unread" }, h("p", null, "Said last, and not carried out any more"), long(trace.pending, { lines: 12, kind: "text wrap" })),
    h("p", { class: "facts" }, scoreBadge(score), score?.why && h("span", { class: "fact" }, score.why),
      h("span", { class: "fact" }, trace.stop ? `stopped: ${trace.stop}` : "not finished"), score?.cached && h("span", { class: "fact" }, "verdict from the cache"),
      trace.score_seconds >= 0.01 && h("span", { class: "fact" }, `graded in ${seconds(trace.score_seconds)}`)),
    parts.length > 0 && h("dl", { class: "parts" }, parts.map(([name, value]) => h("div", null, h("dt", null, name.replaceAll("_", " ")), h("dd", null, Number.isInteger(value) ? value : decimal(value, 2))))),
    score?.ignored_edits.length > 0 && h("p", null, badge("warn", "edits not graded"), " ", score.ignored_edits.join(", ")),
    trace.error && long(trace.error, { lines: 12, kind: "text error" }),
    trace.rescores.map((note) => h("p", { class: "facts" }, h("span", { class: "fact" }, "graded again"), scoreBadge(note.score), h("span", { class: "fact" }, note.score.why), h("span", { class: "fact faint" }, `${note.sandbox}, suite ${note.suite_version.slice(0, 12)}`))),
    trace.patch && fold("Patch against the task's tree", () => diff(trace.patch.replace(/\n$/, "").split("\n")), { open: trace.patch.length < 6000 }));
}

function outline(run, row, trace, numbers, scores) {
  const points = testPoints(trace, numbers, scores);
  const where = (step) => step && address(run.name, row.rollout, trace.steps[step - 1].id);
  return h("nav", { class: "outline", "aria-label": "Steps" },
    points.length > 0 && curve(points, trace.steps.length, where),
    h("ol", null, trace.steps.map((step, at) => entry(step, at, where(at + 1), trace.shared))));
}

// A step score counts every test; a test run on the way may have stopped at the first failures.
function testPoints(trace, numbers, scores) {
  const points = trace.steps.flatMap((step, at) => (step.report && !scores.has(step.id) ? [{ step: at + 1, passed: step.report.passed, expected: step.report.expected.length, early: step.report.stopped_early }] : []));
  for (const [id, { passed, expected }] of scores) {
    if (passed !== null && (id === null || numbers.has(id))) points.push({ step: numbers.get(id) ?? 0, passed, expected, scored: true });
  }
  return points.sort((one, other) => one.step - other.step);
}

function entry(step, at, where, shared) {
  const passed = step.report && (step.report.passed === step.report.expected.length ? badge("pass", "✓") : badge("fail", `${step.report.passed}/${step.report.expected.length}`));
  const name = step.call.name || step.call.problem;
  return h("li", { class: at < shared ? "inherited" : null }, link(where, { title: title(step) }, h("span", { class: "number" }, at + 1), h("span", { class: "tool" }, name), h("span", { class: "target" }, target(step.call).split("/").at(-1)), passed, !passed && flags(step).length > 0 && h("span", { class: "warned", title: "something is wrong here" }, "!")));
}
