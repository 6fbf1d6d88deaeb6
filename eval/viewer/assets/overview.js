// A run: its figures, and its rollouts and tasks as tables.
import { spark } from "./chart.js";
import { badge, button, fold, forkSign, h, link } from "./dom.js";
import { dots, intervalBar, mean, outcome, rate, solvedOf, tokensSaid, verdict } from "./outcome.js";
import { address, special, summaryLine } from "./store.js";
import { table } from "./table.js";
import { compact, count, decimal, percent, seconds, whole } from "./text.js";

export function overview(run) {
  const forks = run.rows.length - run.roots.length;
  const tabs = [["Rollouts", () => rolloutTable(run)], ["Tasks", () => taskTable(run)]];
  return {
    title: run.name,
    up: "#",
    element: [
      h("div", { class: "top" }, h("div", null, h("h1", { tabindex: "-1" }, run.name), h("p", { class: "facts" }, about(run)))),
      notices(run),
      figures(run, forks),
      run.rows.length > 0 ? tabbed(tabs) : h("p", { class: "wait" }, "No rollout was begun."),
      fold("How this run was made", () => made(run), { kind: "made" }),
    ],
  };
}

function about(run) {
  const { config } = run;
  const items = [summaryLine(run), `${count(config.tasks.length, "task")} × ${config.rollouts}`, `seed ${config.seed}`, `temperature ${config.temperature}`, `at most ${config.max_iters} steps`, `tests ${config.test_policy}`, run.about.started?.slice(0, 16).replace("T", " ")];
  return items.filter(Boolean).map((item) => h("span", { class: "fact" }, item));
}

function notices(run) {
  const unfinished = run.rows.filter((row) => row.stop === null).length;
  const said = [...(run.about.notices ?? []), run.torn_bytes && `The log ends in a torn line of ${run.torn_bytes} bytes, as a crash leaves it.`, unfinished && `${count(unfinished, "rollout")} not finished.`, run.config.oracle && "This policy is an oracle: it knows the answers."].filter(Boolean);
  return said.length > 0 && h("ul", { class: "notices", "aria-label": "Notices" }, said.map((line) => h("li", null, line)));
}

// ---- figures

function figure(name, value, more) {
  return h("div", { class: "figure" }, h("dt", null, name), h("dd", null, value, more && h("span", { class: "more-said" }, more)));
}

function counted(counts) {
  return Object.entries(counts).sort((one, other) => other[1] - one[1]).map(([name, number]) => `${name} ${number}`).join(", ");
}

function figures(run, forks) {
  const all = run.summary;
  const passes = Object.entries(all.pass_at_k).filter(([k]) => k !== "1");
  return h("section", { class: "figures", "aria-label": "Figures" },
    h("dl", null, solved(all),
      passes.length > 0 && figure(`pass@${passes.at(-1)[0]}`, percent(passes.at(-1)[1]), passes.slice(0, -1).map(([k, value]) => `@${k} ${percent(value)}`).join(", ")),
      Object.entries(all.parts).filter(([name]) => name !== "correct").map(([name, share]) => figure(name, percent(share.rate), `${percent(share.interval[0])} to ${percent(share.interval[1])}`)),
      figure("steps", decimal(all.avg_steps), all.avg_first_write_step !== null && `first write at ${decimal(all.avg_first_write_step)}`),
      figure("parse errors", whole(all.parse_errors), counted(all.parse_errors_by_cause)),
      figure("loops", whole(all.loop_detections), all.loop_rate ? `in ${percent(all.loop_rate)} of rollouts` : null),
      all.prompt_tokens + all.completion_tokens > 0 && figure("tokens", compact(all.prompt_tokens + all.completion_tokens), `${compact(all.completion_tokens)} written`),
      all.cost_usd !== null && figure("cost", `$${all.cost_usd.toFixed(2)}`),
      figure("time", seconds(run.wall_seconds ?? all.seconds), run.wall_seconds === null ? "in rollouts" : `model ${seconds(all.model_seconds)}, tests ${seconds(all.test_seconds)}`),
      figure("ended", h("span", { class: "words" }, counted(all.stop_reasons) || "–"), all.unscored ? `${all.unscored} unscored` : null)),
    forks > 0 && h("p", { class: "faint" }, `The figures are those of ${count(run.roots.length, "rollout")}; ${count(forks, "fork")} of them ${forks === 1 ? "is" : "are"} not counted.`));
}

function solved(all) {
  const bar = all.solved_interval && intervalBar(all.solved_rate, all.solved_interval);
  const range = all.solved_interval && `95% ${percent(all.solved_interval[0])} to ${percent(all.solved_interval[1])}`;
  return h("div", { class: "figure first" }, h("dt", null, "solved"), h("dd", null, all.scored ? percent(all.solved_rate) : "–", h("span", { class: "of" }, `${all.solved} of ${all.scored}`), bar, h("span", { class: "more-said" }, range || (all.not_tested ? "not tested" : "nothing scored"))));
}

// ---- tables

function tabbed(tabs) {
  const place = h("div");
  const buttons = tabs.map(([label], at) => button(label, () => turn(at)));
  const turn = (chosen) => {
    buttons.forEach((each, at) => each.setAttribute("aria-pressed", String(at === chosen)));
    place.replaceChildren(tabs[chosen][1]());
  };
  turn(0);
  return [h("div", { class: "tabs", role: "group", "aria-label": "Table of" }, buttons), place];
}

const OUTCOMES = [["All", () => true], ["Solved", (row) => row.solved === true], ["Not solved", (row) => row.solved === false], ["No score", (row) => row.solved === null]];

function rolloutTable(run) {
  const tested = run.rows.some((row) => row.curve.length > 0);
  const costs = run.rows.some((row) => row.cost_usd !== null);
  const columns = [
    { name: "rollout", label: "rollout", value: (row) => row.rollout, cell: (row) => [link(address(run.name, row.rollout), null, row.rollout), row.parent !== null && badge("none", [forkSign(), "fork"], `from ${row.parent}`)] },
    { name: "solved", label: "result", value: (row) => row.score, cell: outcome },
    { name: "why", label: "why", wide: true, kind: "why", value: (row) => row.why || row.error || null, cell: (row) => h("span", { title: row.error || row.why }, row.why || row.error) },
    tested && { name: "curve", label: "tests", value: (row) => (row.curve.length ? row.curve.at(-1)[1] / Math.max(1, row.curve.at(-1)[2]) : null), cell: (row) => spark(row.curve) ?? "" },
    { name: "stop", label: "stopped", value: (row) => row.stop, cell: (row) => row.stop ?? "not finished" },
    { name: "steps", label: "steps", number: true, value: (row) => row.steps, cell: (row) => whole(row.steps) },
    { name: "problems", label: "parse", title: "Messages that were not strictly one protocol object", number: true, value: (row) => row.problems, cell: (row) => warned(row.problems) },
    { name: "loops", label: "loops", number: true, value: (row) => row.loops, cell: (row) => warned(row.loops) },
    { name: "tokens", label: "tokens", number: true, value: (row) => row.prompt_tokens + row.completion_tokens, cell: (row) => tokensSaid(row) },
    costs && { name: "cost", label: "cost", number: true, value: (row) => row.cost_usd, cell: (row) => (row.cost_usd === null ? "–" : `$${row.cost_usd.toFixed(4)}`) },
    { name: "seconds", label: "time", number: true, value: (row) => row.seconds, cell: (row) => seconds(row.seconds) },
  ].filter(Boolean);
  const rows = run.rows.map((item) => ({ item, words: words(item), numbers: numbers(item) }));
  return table({ key: `${run.name} rollouts`, caption: `Rollouts of ${run.name}`, columns, rows, choices: OUTCOMES });
}

function warned(value) {
  return value ? h("span", { class: "warned" }, value) : h("span", { class: "faint" }, "0");
}

function words(row) {
  return [row.rollout, row.stop ?? "unfinished", row.why, row.error, verdict(row), row.parent === null ? "" : "fork", row.loops ? "loop" : "", row.problems ? "parse" : ""].join(" ").toLowerCase();
}

function numbers(row) {
  return { steps: row.steps, parse: row.problems, loops: row.loops, tokens: row.prompt_tokens + row.completion_tokens, cost: row.cost_usd, time: row.seconds, score: row.score, passed: row.passed };
}

function taskTable(run) {
  const tokens = (row) => row.prompt_tokens + row.completion_tokens;
  const of = (rows) => rows.filter((row) => row.parent === null);
  const columns = [
    { name: "task", label: "task", value: ([task]) => task, cell: ([task]) => link(special("tree", run.name, task), null, task) },
    { name: "rollouts", label: "rollouts", cell: ([, rows]) => dots(run, of(rows)) },
    { name: "solved", label: "solved", number: true, value: ([, rows]) => rate(of(rows)), cell: ([, rows]) => solvedOf(of(rows)) },
    { name: "forks", label: "forks", number: true, value: ([, rows]) => rows.length - of(rows).length, cell: ([, rows]) => whole(rows.length - of(rows).length) },
    { name: "steps", label: "steps", number: true, value: ([, rows]) => mean(of(rows), (row) => row.steps), cell: ([, rows]) => decimal(mean(of(rows), (row) => row.steps)) },
    { name: "problems", label: "parse", number: true, value: ([, rows]) => total(of(rows), (row) => row.problems), cell: ([, rows]) => warned(total(of(rows), (row) => row.problems)) },
    { name: "tokens", label: "tokens", number: true, value: ([, rows]) => mean(of(rows), tokens), cell: ([, rows]) => compact(mean(of(rows), tokens) || null) },
    { name: "seconds", label: "time", number: true, value: ([, rows]) => mean(of(rows), (row) => row.seconds), cell: ([, rows]) => seconds(mean(of(rows), (row) => row.seconds)) },
  ];
  const rows = [...run.tasks].map((item) => ({ item, words: item[0].toLowerCase(), numbers: { solved: rate(of(item[1])), forks: item[1].length - of(item[1]).length, steps: mean(of(item[1]), (row) => row.steps) } }));
  return table({ key: `${run.name} tasks`, caption: `Tasks of ${run.name}`, columns, rows, unit: "task" });
}

function total(rows, value) {
  return rows.reduce((sum, row) => sum + value(row), 0);
}

// ---- how it was made

function flat(value, before = "") {
  if (value === null || typeof value !== "object") return [[before, value]];
  if (Array.isArray(value)) return [[before, value.length > 12 ? `${value.slice(0, 12).join(", ")}, … (${value.length})` : value.join(", ")]];
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, before ? `${before}.${key}` : key));
}

function made(run) {
  const rows = [...flat(run.config), ...flat({ ...run.about, notices: undefined })].filter(([, value]) => value !== undefined && value !== "");
  return h("table", { class: "small" }, h("tbody", null, rows.map(([name, value]) => h("tr", null, h("th", { scope: "row" }, name), h("td", { class: "mono" }, String(value))))));
}
