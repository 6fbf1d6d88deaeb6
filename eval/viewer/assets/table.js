// A table that can be sorted and filtered; rows are made as they come into view, so that it may have many thousands.
import { button, h, say } from "./dom.js";
import { count } from "./text.js";

const PORTION = 150;
const remembered = new Map();

// Words that a row must hold, and conditions such as steps>5; all of them.
export function matcher(text) {
  const tests = text.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const found = /^(\w+)(<=|>=|<|>|=)(-?[\d.]+)$/.exec(word);
    if (!found) return (row) => row.words.includes(word);
    const [, name, sign, number] = found;
    const compare = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b }[sign];
    return (row) => name in row.numbers && row.numbers[name] !== null && compare(row.numbers[name], Number(number));
  });
  return (row) => tests.every((test) => test(row));
}

function compared(one, other) {
  if (one === other) return 0;
  if (one === null || one === undefined) return 1;
  if (other === null || other === undefined) return -1;
  return typeof one === "string" ? one.localeCompare(other, "en", { numeric: true }) : one - other;
}

// columns: {name, label, value(item), cell(item), number, title}; rows: {item, words, numbers}; choices: [label, test].
export function table({ key, caption, columns, rows, choices = [], unit = "rollout" }) {
  const state = remembered.get(key) ?? remembered.set(key, { sort: null, down: false, text: "", choice: 0, made: 0 }).get(key);
  const body = h("tbody");
  const total = h("span", { class: "faint", role: "status" });
  const field = h("input", { type: "search", class: "filter", "aria-label": `Filter ${unit}s`, placeholder: "Filter: words, steps>5, loops>0", spellcheck: "false" });
  const heads = columns.map((column) => heading(column, () => sortBy(column)));
  const more = button("", () => grow(), { class: "more" });
  let shown = [];
  let made = 0;

  function refresh() {
    const matches = matcher(state.text);
    const chosen = choices[state.choice]?.[1] ?? (() => true);
    shown = rows.filter((row) => chosen(row.item) && matches(row));
    const by = columns.find((column) => column.name === state.sort);
    if (by) shown.sort((a, b) => order(by.value(a.item), by.value(b.item)));
    columns.forEach((column, at) => mark(heads[at], column));
    total.textContent = shown.length === rows.length ? count(rows.length, unit) : `${shown.length.toLocaleString("en")} of ${count(rows.length, unit)}`;
    body.replaceChildren();
    made = 0;
    grow();
  }
  function order(one, other) {
    const missing = [one, other].some((each) => each === null || each === undefined);
    return (state.down && !missing ? -1 : 1) * compared(one, other);
  }
  function mark(head, column) {
    const sorted = column.name === state.sort;
    head.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
  }
  function sortBy(column) {
    if (state.sort === column.name) state.down = !state.down;
    else [state.sort, state.down] = [column.name, Boolean(column.number)];
    refresh();
    say(`Sorted by ${column.label}, ${state.down ? "descending" : "ascending"}`);
  }
  function grow() {
    const next = shown.slice(made, made + PORTION).map((row) => line(columns, row.item));
    made += next.length;
    state.made = made;
    body.append(...next);
    more.hidden = made >= shown.length;
    more.textContent = `Show more (${(shown.length - made).toLocaleString("en")} left)`;
    if (!shown.length) body.append(h("tr", null, h("td", { colspan: columns.length, class: "faint" }, "Nothing matches.")));
  }
  field.value = state.text;
  field.addEventListener("input", () => {
    state.text = field.value;
    refresh();
  });
  const buttons = choices.map(([label], at) => button(label, () => {
    state.choice = at;
    buttons.forEach((each, number) => each.setAttribute("aria-pressed", String(number === at)));
    refresh();
  }, { "aria-pressed": String(at === state.choice) }));
  new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && !more.hidden && grow(), { rootMargin: "600px" }).observe(more);
  const before = state.made;
  refresh();
  while (made < before && made < shown.length) grow();
  return h("section", { class: "tabled", "aria-label": caption },
    h("div", { class: "toolbar" }, field, choices.length > 0 && h("div", { class: "choices", role: "group", "aria-label": "Show" }, buttons), total),
    h("div", { class: "scroll" }, h("table", null, h("caption", { class: "hidden" }, caption), h("thead", null, h("tr", null, heads)), body)),
    more);
}

function heading(column, action) {
  const sign = h("span", { class: "sign", "aria-hidden": "true" });
  const inside = column.value ? button([column.label, sign], action, { title: column.title }) : column.label;
  return h("th", { scope: "col", class: column.number ? "number" : column.wide ? "wide" : null }, inside);
}

function line(columns, item) {
  const cells = columns.map((column, at) => {
    const kind = [column.number && "number", column.kind].filter(Boolean).join(" ");
    return h(at ? "td" : "th", { class: kind || null, scope: at ? null : "row" }, column.cell(item));
  });
  const row = h("tr", null, cells);
  row.addEventListener("click", (event) => {
    if (event.target.closest("a, button") || String(getSelection())) return;
    row.querySelector("a")?.click();
  });
  return row;
}
