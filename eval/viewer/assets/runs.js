// Several runs: each with its figures, and two of them task by task.
import { h, link } from "./dom.js";
import { dots, intervalBar, rate, solvedOf } from "./outcome.js";
import { address, special, store, summaryLine } from "./store.js";
import { table } from "./table.js";
import { compact, count, decimal, percent, seconds, whole } from "./text.js";

const chosen = { sides: null };

export function runsView() {
  chosen.sides ??= [0, Math.max(1, store.runs.findIndex((run, at) => at > 0 && run.config.suite === store.runs[0].config.suite))];
  const place = h("div");
  const choose = () => place.replaceChildren(...taskByTask(choose));
  choose();
  return {
    title: `${count(store.runs.length, "run")}`,
    up: "#",
    element: [h("div", { class: "top" }, h("h1", { tabindex: "-1" }, count(store.runs.length, "run"))), runTable(), place],
  };
}

function runTable() {
  const columns = [
    { name: "run", label: "run", value: (run) => run.name, cell: (run) => link(address(run.name), null, run.name) },
    { name: "what", label: "policy and suite", wide: true, kind: "why", value: summaryLine, cell: summaryLine },
    { name: "seed", label: "seed", number: true, value: (run) => run.config.seed, cell: (run) => whole(run.config.seed) },
    { name: "solved", label: "solved", number: true, value: (run) => run.summary.solved_rate, cell: (run) => [h("span", { class: "faint" }, `${whole(run.summary.solved)} / ${whole(run.summary.scored)} `), percent(run.summary.solved_rate)] },
    { name: "interval", label: "95%", cell: (run) => (run.summary.solved_interval ? intervalBar(run.summary.solved_rate, run.summary.solved_interval) : "") },
    { name: "steps", label: "steps", number: true, value: (run) => run.summary.avg_steps, cell: (run) => decimal(run.summary.avg_steps) },
    { name: "parse", label: "parse", number: true, value: (run) => run.summary.parse_errors, cell: (run) => whole(run.summary.parse_errors) },
    { name: "loops", label: "loops", number: true, value: (run) => run.summary.loop_detections, cell: (run) => whole(run.summary.loop_detections) },
    { name: "tokens", label: "tokens", number: true, value: tokensOf, cell: (run) => compact(tokensOf(run)) },
    { name: "time", label: "time", number: true, value: timeOf, cell: (run) => seconds(timeOf(run)) },
  ];
  const rows = store.runs.map((item) => ({ item, words: `${item.name} ${summaryLine(item)}`.toLowerCase(), numbers: { solved: item.summary.solved_rate, seed: item.config.seed, steps: item.summary.avg_steps } }));
  return table({ key: "=runs", caption: "Runs", columns, rows, unit: "run" });
}

function tokensOf(run) {
  return run.summary.prompt_tokens + run.summary.completion_tokens;
}

function timeOf(run) {
  return run.wall_seconds ?? run.summary.seconds;
}

// ---- two of them, task by task

function taskByTask(again) {
  const [one, other] = chosen.sides.map((at) => store.runs[at]);
  const items = [...new Set([...one.tasks.keys(), ...other.tasks.keys()])].map((task) => paired(task, one, other));
  const both = items.filter((item) => item.change !== null);
  const [gained, lost] = [1, -1].map((sign) => both.filter((item) => Math.sign(item.change) === sign).length);
  const said = `${gained} better in the second, ${lost} worse, ${both.length - gained - lost} the same, of ${count(both.length, "task")} that both have. `;
  const pick = (side) => picker(side, again);
  const rows = items.map((item) => ({ item, words: item.task.toLowerCase(), numbers: { change: item.change } }));
  const choices = [["All", () => true], ["Differ", (item) => item.change], ["Better", (item) => item.change > 0], ["Worse", (item) => item.change < 0]];
  return [h("h2", null, "Task by task"), h("p", { class: "versus" }, pick(0), " against ", pick(1)),
    h("p", null, said, h("span", { class: "faint" }, "Whether that is more than chance: repo-agent compare.")),
    table({ key: `=versus ${one.name} ${other.name}`, caption: `${one.name} against ${other.name}`, columns: versus(one, other), rows, choices, unit: "task" })];
}

function picker(side, again) {
  const choice = h("select", { "aria-label": side ? "Second run" : "First run" }, store.runs.map((run, at) => h("option", { value: at, selected: at === chosen.sides[side] }, run.name)));
  choice.addEventListener("change", () => {
    chosen.sides[side] = Number(choice.value);
    again();
  });
  return choice;
}

function paired(task, one, other) {
  const sides = [one, other].map((run) => (run.tasks.get(task) ?? []).filter((row) => row.parent === null));
  const rates = sides.map(rate);
  return { task, sides, rates, change: rates.includes(null) ? null : rates[1] - rates[0] };
}

function versus(one, other) {
  const average = (rows) => (rows.length ? rows.reduce((sum, row) => sum + row.steps, 0) / rows.length : null);
  const of = (run, at) => [
    { name: `rollouts${at}`, label: at ? "second" : "first", cell: (item) => dots(run, item.sides[at], 12) },
    { name: `solved${at}`, label: "solved", number: true, value: (item) => item.rates[at], cell: (item) => solvedOf(item.sides[at]) },
    { name: `steps${at}`, label: "steps", number: true, value: (item) => average(item.sides[at]), cell: (item) => decimal(average(item.sides[at])) },
  ];
  return [
    { name: "task", label: "task", value: (item) => item.task, cell: (item) => opener(item, one, other) },
    ...of(one, 0), ...of(other, 1),
    { name: "change", label: "change", number: true, value: (item) => item.change, cell: (item) => change(item.change) },
  ];
}

function opener({ task, sides }, one, other) {
  if (!sides[0].length || !sides[1].length) return task;
  return link(special("pair", one.name, sides[0][0].rollout, other.name, sides[1][0].rollout), null, task);
}

function change(value) {
  if (!value) return h("span", { class: "faint" }, value === null ? "–" : "0");
  return h("span", { class: value > 0 ? "pass-text" : "fail-text" }, `${value > 0 ? "▲ +" : "▼ −"}${decimal(Math.abs(value), 2)}`);
}
