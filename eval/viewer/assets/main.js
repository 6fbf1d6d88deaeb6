// Where everything begins: the address says what is shown, and each view comes from its own module.
import { h, link, put, say } from "./dom.js";
import { listen } from "./keys.js";
import { overview } from "./overview.js";
import { pairView } from "./pair.js";
import { rolloutView } from "./rollout.js";
import { runsView } from "./runs.js";
import { address, open, store } from "./store.js";
import { treeView } from "./tree.js";

const content = document.getElementById("content");
const scrolled = new Map();
let view = {};
let shown = null;
let turn = 0;

function parsed(hash) {
  const special = /^#=(\w+)\//.exec(hash);
  const rest = special ? hash.slice(special[0].length) : hash.slice(1);
  return { kind: special?.[1] ?? "", parts: rest.split("/").map(decodeURIComponent).filter(Boolean) };
}

class NotHere extends Error {}

function runOf(name) {
  const found = store.runs.find((run) => run.name === name);
  if (!found) throw new NotHere(`There is no run ${name} in this page.`);
  return found;
}

function sideOf(name, id) {
  const run = runOf(name);
  const row = run.byId.get(id);
  if (!row) throw new NotHere(`There is no rollout ${id} in ${name}.`);
  return { run, row };
}

// What an address stands for: {key, crumbs, make}; two addresses with one key are places in one view.
function route({ kind, parts }) {
  const [name, id, ...others] = parts;
  if (kind === "tree") {
    const run = runOf(name);
    if (!run.tasks.has(id)) throw new NotHere(`There is no task ${id} in ${name}.`);
    return { key: `tree ${name} ${id}`, crumbs: [[name, address(name)], [id]], make: () => treeView(run, id) };
  }
  if (kind === "pair") {
    const sides = [sideOf(name, id), sideOf(...others)];
    return { key: `pair ${parts.join(" ")}`, crumbs: [["side by side"]], make: () => pairView(sides) };
  }
  if (id) {
    const { run, row } = sideOf(name, id);
    return { key: `rollout ${name} ${id}`, crumbs: [[name, address(name)], [id]], make: () => rolloutView(run, row), step: others[0], self: address(name, id) };
  }
  const run = name ? runOf(name) : store.runs.length === 1 ? store.runs[0] : null;
  return run ? { key: `run ${run.name}`, crumbs: [[run.name]], make: () => overview(run) } : { key: "runs", crumbs: [], make: runsView };
}

async function show() {
  const mine = ++turn;
  try {
    const found = route(parsed(location.hash));
    if (found.key !== shown) await replace(found, mine);
    if (mine === turn && found.step) choose(view.stepOf(found.step), true);
  } catch (error) {
    if (mine === turn) fail(error);
  }
}

async function replace(found, mine) {
  if (shown) scrolled.set(shown, [scrollY, location.hash]);
  const from = view.self;
  const next = await found.make();
  if (mine !== turn) return;
  const first = shown === null;
  shown = found.key;
  view = { ...next, self: found.self ?? location.hash, select: (at) => choose(at, false) };
  content.replaceChildren();
  put(content, [next.element]);
  trail(found.crumbs);
  document.title = `${next.title} · repo-agent view`;
  if (!first) settle(from);
}

// After a change of view: back where one was before, else at the top; the focus goes where reading goes on.
function settle(from) {
  const [place] = scrolled.get(shown) ?? [0];
  const back = [...content.querySelectorAll("tbody a")].find((each) => each.getAttribute("href") === from);
  (back ?? content.querySelector("h1"))?.focus({ preventScroll: true });
  scrollTo(0, place);
  say(document.title);
}

function choose(at, move) {
  const card = view.cards?.[at];
  if (!card) return;
  view.cards.forEach((each) => each.classList.toggle("current", each === card));
  document.querySelectorAll("nav.outline a[aria-current]").forEach((each) => each.removeAttribute("aria-current"));
  const entry = document.querySelectorAll("nav.outline li")[at]?.firstElementChild;
  entry?.setAttribute("aria-current", "step");
  entry?.scrollIntoView({ block: "nearest" });
  if (move) {
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });
    return;
  }
  const { parts } = parsed(location.hash);
  history.replaceState(null, "", address(parts[0], parts[1], view.idOf(at)));
}

function trail(crumbs) {
  const items = [["repo-agent view", "#"], ...crumbs];
  document.getElementById("crumbs").replaceChildren(h("ol", null, items.map(([label, where], at) => h("li", null, at === items.length - 1 || !where ? h("span", { "aria-current": "page" }, label) : link(where, null, label)))));
}

function fail(error) {
  shown = "nothing";
  view = { up: "#" };
  content.replaceChildren(h("h1", { tabindex: "-1" }, "Not here"), h("p", null, error instanceof NotHere ? error.message : `This cannot be shown: ${error.message}`), h("p", null, link("#", null, "To the beginning")));
  if (!(error instanceof NotHere)) console.error(error);
}

listen(() => view);
document.querySelector("a.skip").addEventListener("click", (event) => {
  event.preventDefault();
  content.focus();
});
await open();
addEventListener("hashchange", show);
await show();
document.documentElement.dataset.ready = "yes";
