// One step as a card: what was called with what, what came of it, the tests, and all that was wrong with it.
import { badge, fold, forkSign, h, link, long } from "./dom.js";
import { compact, count, seconds, visible } from "./text.js";

const NOT_COMPARED = { unseen: "The file was not read before in this rollout: shown whole.", long: "Too long to compare: shown whole." };
const SHOWN_ARGUMENT = new Set(["rel_path", "rel_dir", "pattern", "content", "summary"]);

export function roleMessage(message, open) {
  const lines = message.content.split("\n").length;
  const title = [h("span", { class: "role" }, message.role), h("span", { class: "faint" }, count(lines, "line"))];
  return fold(title, () => long(message.content, { lines: 400, chars: 60_000, kind: "text wrap" }), { open, kind: "message" });
}

// about: {number, owner, address, forks, score, heading}
export function stepCard(step, about) {
  const problem = step.call.problem;
  const kinds = ["step", step.loop && "loop", problem && (step.call.repaired ? "repaired" : "broken"), step.error && "faulty"];
  return h("article", { class: kinds.filter(Boolean).join(" "), id: about.id, tabindex: "-1", "aria-label": `Step ${about.number}: ${title(step)}` },
    header(step, about), h("div", { class: "inside" }, said(step), result(step), tests(step, about.score), forks(about), raw(step)));
}

export function title(step) {
  if (!step.call.name) return step.call.problem ?? "message";
  return [step.call.name, target(step.call)].filter(Boolean).join(" ");
}

export function target(call) {
  const { rel_path: file, rel_dir: folder, pattern } = call.args;
  return [pattern && `/${pattern}/`, file ?? (pattern && folder === "." ? null : folder)].filter((part) => part !== undefined && part !== null).join(" in ");
}

function header(step, about) {
  const name = step.call.name || "no call";
  const level = `h${about.heading ?? 2}`;
  const more = Object.entries(step.call.args).filter(([key]) => !SHOWN_ARGUMENT.has(key));
  return h("header", null,
    link(about.address, { class: "number", "aria-label": `Link to step ${about.number}` }, about.number),
    h(level, null, h("span", { class: "tool" }, name), " ", h("span", { class: "target" }, target(step.call))),
    more.map(([key, value]) => h("span", { class: "argument" }, `${key} = ${JSON.stringify(value)}`)),
    flags(step), spent(step));
}

export function flags(step) {
  const { problem, repaired } = step.call;
  return [
    problem && badge("warn", repaired ? `${problem}, repaired` : problem, step.call.detail || "not strictly one protocol object"),
    step.error && step.error !== problem && step.error !== "parse" && badge("fail", step.error, "the tool refused"),
    step.loop && badge("warn", "loop", "part of a loop"),
    step.completion.finish_reason === "length" && badge("warn", "cut off", "the completion reached its token limit"),
    step.truncated && badge("none", "result cut", "the tool's result was truncated"),
    step.completion.faults.length > 0 && badge("none", `retried ×${step.completion.faults.length}`, step.completion.faults.join(", ")),
  ].filter(Boolean);
}

function spent(step) {
  const { usage, cost_usd: cost, seconds: model } = step.completion;
  const parts = [];
  if (usage.prompt_tokens !== null || usage.completion_tokens !== null) parts.push(`${compact(usage.prompt_tokens)} → ${compact(usage.completion_tokens)} tok`);
  if (cost !== null) parts.push(`$${cost.toFixed(4)}`);
  if (model > 0) parts.push(seconds(model));
  const tests = step.test_seconds >= 0.01 ? `tests ${seconds(step.test_seconds)}` : "";
  if (tests) parts.push(tests);
  return h("span", { class: "spent", title: `prompt → completion tokens; model ${seconds(model)}, tool ${seconds(step.tool_seconds)}` }, parts.join(" · "));
}

// ---- what was said

function said(step) {
  const { name, args, problem, repaired, detail } = step.call;
  const text = step.completion.text;
  if (problem && !repaired) {
    return h("div", { class: "unread" }, h("p", null, h("strong", null, problem), detail && `: ${detail}`), long(text, { lines: 12, kind: "text wrap" }));
  }
  if (name === "write_file") return written(step);
  if (name === "final") return final(text, args);
  return null;
}

function final(text, args) {
  const protocol = /^\s*[{`]/.test(text);
  return [!protocol && long(text, { lines: 60, chars: 8000, kind: "text wrap" }),
    h("p", { class: "final" }, h("span", { class: "faint" }, protocol ? "Summary" : "Answer"), " ", visible(args.summary ?? "") || "–")];
}

function written(step) {
  const content = String(step.call.args.content ?? "");
  if (step.diff?.lines) return diff(step.diff.lines, step.diff.against === "created" ? "A new file" : null);
  const why = step.diff ? NOT_COMPARED[step.diff.against] : "Not carried out.";
  return [h("p", { class: "faint note" }, why), long(content, { lines: 24, kind: "code" })];
}

const MOST_LINES = 240;

export function diff(lines, note) {
  if (!lines.length) return h("p", { class: "faint note" }, "Written as it was: no line differs.");
  const kinds = kindsOf(lines);
  const shown = (from, to) => lines.slice(from, to).map((line, at) =>
    h("span", { class: kinds[from + at] }, line.length > 2000 ? `${line.slice(0, 2000)}… (${count(line.length - 2000, "more character")})` : line, "\n"));
  const made = h("pre", { class: "code diff" }, shown(0, MOST_LINES));
  const [plus, minus] = ["add", "del"].map((kind) => kinds.filter((each) => each === kind).length);
  const rest = lines.length > MOST_LINES && fold(`${lines.length - MOST_LINES} more lines`, () => h("pre", { class: "code diff" }, shown(MOST_LINES)));
  return h("div", { class: "written" }, h("p", { class: "faint note" }, note && `${note} · `, h("span", { class: "plus" }, `+${plus}`), " ", h("span", { class: "minus" }, `−${minus}`)), made, rest);
}

// The lines before the first @@ of each file name it: they are neither added nor taken away.
function kindsOf(lines) {
  let naming = lines[0].startsWith("diff ");
  return lines.map((line) => {
    naming = line.startsWith("diff ") || (naming && !line.startsWith("@@"));
    return naming ? "hunk" : ({ "+": "add", "-": "del", "@": "hunk" }[line[0]] ?? "same");
  });
}

// ---- what came of it

function result(step) {
  if (step.observation === null) return null;
  const text = step.observation.replace(/^\[tool_result\]\n?/, "");
  const quiet = step.call.name === "write_file" && !step.error;
  return h("div", { class: "result" }, long(text, { lines: quiet ? 8 : 14, kind: step.error ? "text error" : "text" }));
}

function tests(step, score) {
  const { report } = step;
  return [report && testReport(report), score && h("p", { class: "scored" }, bar(score.passed, score.expected), `step score: ${score.passed ?? "–"} of ${score.expected} tests pass`, score.passed === null && ` (${score.why})`)];
}

function bar(passed, expected) {
  const track = h("meter", { min: 0, max: Math.max(1, expected), value: passed ?? 0, "aria-hidden": "true" });
  return track;
}

function testReport(report) {
  const all = report.passed === report.expected.length && !report.tampered;
  const notes = [report.timed_out && "timed out", report.stopped_early && "stopped at the first failures", report.tampered && `tampered: ${report.tampered}`, report.cached && "from the verdict cache"].filter(Boolean);
  const head = [badge(all ? "pass" : "fail", all ? "✓ tests pass" : "✗ tests fail"), bar(report.passed, report.expected.length),
    `${report.passed} of ${report.expected.length} expected tests passed`, h("span", { class: "faint" }, [seconds(report.seconds), ...notes].join(" · "))];
  return fold(h("span", { class: "tests" }, head), () => outcomes(report), { kind: "report" });
}

function outcomes(report) {
  const order = ["failed", "error"];
  const listed = [...new Set([...report.expected, ...Object.keys(report.outcomes)])]
    .map((test) => [test, report.outcomes[test] ?? "not seen"])
    .sort((one, other) => order.includes(other[1]) - order.includes(one[1]));
  const rows = listed.map(([test, outcome]) => h("tr", null, h("td", null, badge(outcome === "passed" ? "pass" : order.includes(outcome) ? "fail" : "none", outcome)), h("td", { class: "mono" }, test)));
  return [h("table", { class: "small" }, h("tbody", null, rows)), report.output_tail && long(report.output_tail, { lines: 12 })];
}

function forks(about) {
  return about.forks > 0 && h("p", { class: "forks" }, forkSign(), link(about.tree, null, `${count(about.forks, "rollout")} ${about.forks === 1 ? "branches" : "branch"} off after this step`));
}

function raw(step) {
  if (!step.call.name || (step.call.problem && !step.call.repaired)) return null;
  return fold("Raw message", () => long(step.completion.text, { lines: 30, kind: "text wrap" }), { kind: "raw" });
}
