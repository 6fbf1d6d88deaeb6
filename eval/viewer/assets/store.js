// The data: the index at once, the rollouts of a block when one of them is shown.

const KEPT_BLOCKS = 12;
const kept = new Map();
export const store = { runs: [], made: "" };

async function bytes(name) {
  const element = document.getElementById(name.replace("blocks/", "block-"));
  if (!element) {
    const answer = await fetch(`/${name}`);
    if (!answer.ok) throw new Error(`${name} cannot be fetched: ${answer.status}`);
    return answer.blob();
  }
  const text = atob(element.textContent);
  const data = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) data[at] = text.charCodeAt(at);
  return new Blob([data]);
}

async function unpacked(name) {
  const packed = await bytes(name);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

export async function open() {
  const index = await unpacked("index");
  store.made = index.made;
  store.runs = index.runs.map((run) => {
    const rows = run.rows.map((values) => Object.fromEntries(index.columns.map((name, at) => [name, values[at]])));
    const byId = new Map(rows.map((row) => [row.rollout, row]));
    return { ...run, rows, byId, roots: rows.filter((row) => row.parent === null), ...families(rows) };
  });
}

function families(rows) {
  const tasks = new Map();
  const children = new Map();
  const put = (map, key, row) => (map.get(key) ?? map.set(key, []).get(key)).push(row);
  for (const row of rows) {
    put(tasks, row.task, row);
    if (row.parent !== null) put(children, row.parent, row);
  }
  return { tasks, children };
}

function block(number) {
  const found = kept.get(number) ?? unpacked(`blocks/${number}`);
  kept.delete(number);
  kept.set(number, found);
  found.catch(() => kept.delete(number));
  for (const oldest of kept.keys()) {
    if (kept.size <= KEPT_BLOCKS) break;
    kept.delete(oldest);
  }
  return found;
}

export async function rollout(row) {
  return (await block(row.block))[row.place];
}

// A rollout from the prompt on: the steps that it shares stand with those that it was forked from.
export async function path(run, row) {
  const own = await rollout(row);
  const steps = own.steps.map((step) => ({ ...step, owner: row.rollout }));
  const scores = own.step_scores;
  if (row.parent === null) return { ...own, steps, row, shared: 0 };
  const parent = await path(run, run.byId.get(row.parent));
  const shared = parent.steps.slice(0, row.shared);
  const all = [...shared, ...steps];
  return { ...own, prompt: parent.prompt, steps: all, step_scores: [...parent.step_scores, ...scores], row, shared: shared.length };
}

export function address(...parts) {
  return `#${parts.map(encodeURIComponent).join("/")}`;
}

export function special(kind, ...parts) {
  return `#=${kind}/${parts.map(encodeURIComponent).join("/")}`;
}

export function summaryLine(run) {
  const config = run.config;
  const model = config.model ? ` ${config.model}` : "";
  return `${config.policy}${model} on ${config.suite}${config.oracle ? " (oracle)" : ""}`;
}
