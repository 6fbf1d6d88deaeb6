// The keyboard, the theme and the page that tells of them.
import { button, h } from "./dom.js";
import { unfold } from "./rollout.js";

const KEYS = [
  ["j  ↓", "next row or step"], ["k  ↑", "the one before"], ["Enter", "open the row; unfold the step"], ["Esc", "back"],
  ["/", "filter"], ["[  ]", "previous, next rollout"], ["o", "unfold or fold all"], ["t", "light, dark or as the system"], ["?", "these keys"],
];
const THEMES = ["auto", "light", "dark"];

// view(): the view that is shown now: {stops, select, up, neighbours}
export function listen(view) {
  const actions = {
    j: () => move(view(), 1), ArrowDown: () => move(view(), 1), k: () => move(view(), -1), ArrowUp: () => move(view(), -1),
    Enter: () => view().cards && enter(), Escape: () => goTo(view().up), "/": filter, o: unfold, t: turnTheme, "?": help,
    "[": () => goTo(view().neighbours?.[0]), "]": () => goTo(view().neighbours?.[1]),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("help").open) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      else if (event.key === "Enter") move(view(), 1);
      return;
    }
    const scrolls = event.key.startsWith("Arrow") && event.target.closest("pre[tabindex], [role=tablist]");
    const opens = event.key === "Enter" && event.target.closest("a, button, summary");
    const action = actions[event.key];
    if (!action || scrolls || opens) return;
    event.preventDefault();
    action();
  });
  document.getElementById("keys").addEventListener("click", help);
  document.getElementById("theme").addEventListener("click", turnTheme);
  applyTheme();
}

function stopsOf(view) {
  return view.cards ?? view.stops?.() ?? [...document.querySelectorAll("main tbody th a")];
}

function move(view, by) {
  const stops = stopsOf(view);
  const now = stops.findIndex((stop) => stop.contains(document.activeElement));
  const seen = now >= 0 ? now + by : Math.max(0, stops.findIndex((stop) => stop.getBoundingClientRect().top > 48));
  const next = stops[Math.min(stops.length - 1, Math.max(0, seen))];
  if (!next) return;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: view.cards ? "start" : "nearest" });
  view.select?.(stops.indexOf(next));
}

function enter() {
  const folds = [...(document.activeElement?.closest("article")?.querySelectorAll("details, button.more") ?? [])];
  const opened = folds.some((each) => each.tagName === "DETAILS" && !each.open);
  folds.forEach((each) => (each.tagName === "DETAILS" ? (each.open = opened) : each.click()));
}

function filter() {
  const field = document.querySelector("main input[type=search]");
  field?.focus();
  field?.select();
}

function goTo(where) {
  if (where) location.hash = where;
}

function help() {
  const dialog = document.getElementById("help");
  dialog.replaceChildren(h("h2", { id: "help-title" }, "Keys"), h("dl", null, KEYS.map(([keys, said]) => h("div", null, h("dt", null, keys.split(/\s+/).map((key) => h("kbd", null, key))), h("dd", null, said)))), button("Close", () => dialog.close()));
  dialog.showModal();
}

// ---- light and dark

function storedTheme() {
  try {
    return localStorage.getItem("repo-agent theme") ?? "auto";
  } catch {
    return "auto";
  }
}

let theme = storedTheme();

function turnTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try {
    localStorage.setItem("repo-agent theme", theme);
  } catch {
    // a page from disk need not have a storage: the choice lasts as long as the page
  }
  applyTheme();
}

function applyTheme() {
  if (!THEMES.includes(theme)) theme = "auto";
  document.documentElement.dataset.theme = theme;
  const control = document.getElementById("theme");
  control.textContent = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[theme];
  control.setAttribute("aria-label", `Colours: ${theme}. Change`);
}
