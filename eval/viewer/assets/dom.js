// Elements. Texts become text nodes: nothing here, or anywhere else, reads a string as HTML.
import { count, head, size, visible } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : visible(value));
  }
  put(element, children);
  return element;
}

export function put(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : visible(child));
  }
}

export function h(tag, properties, ...children) {
  return filled(document.createElement(tag), properties, children);
}

export function s(tag, properties, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

export function button(label, action, properties = {}) {
  return h("button", { type: "button", onclick: action, ...properties }, label);
}

export function link(address, properties, ...children) {
  return h("a", { href: address, ...properties }, ...children);
}

export function badge(kind, text, title) {
  return h("span", { class: `badge ${kind}`, title }, text);
}

export function forkSign() {
  return s("svg", { class: "fork", width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true" }, s("path", { d: "M3 1.5v9M3 8.5c0-3 6-1.5 6-5V1.5" }));
}

const PORTIONS = [200_000, 500_000];

// A text that may be of any length: its beginning, and a button for more.
export function long(text, { lines = 16, chars = 4000, tag = "pre", kind = "text" } = {}) {
  const shown = h(tag, { class: kind, tabindex: "0" });
  let end = head(text, lines, chars).length;
  shown.append(visible(text.slice(0, end)));
  if (end >= text.length) {
    shown.removeAttribute("tabindex");
    return shown;
  }
  let turn = 0;
  const more = button("", () => {
    const next = Math.min(text.length, end + PORTIONS[Math.min(turn++, 1)]);
    shown.append(visible(text.slice(end, next)));
    end = next;
    if (end < text.length) label();
    else more.remove();
  }, { class: "more" });
  const label = () => {
    const left = text.length - end;
    const rest = left < 20_000 ? count(text.slice(end).split("\n").length - 1 || 1, "more line") : `${size(left)} more`;
    more.textContent = `Show ${rest}`;
  };
  label();
  return h("div", { class: "long" }, shown, more);
}

// A part that is built when it is opened.
export function fold(title, build, { open = false, kind = "" } = {}) {
  const made = h("details", { class: `fold ${kind}` }, h("summary", null, title));
  let built = false;
  const fill = () => {
    if (built || !made.open) return;
    built = true;
    put(made, [build()]);
  };
  made.addEventListener("toggle", fill);
  if (open) {
    made.open = true;
    fill();
  }
  return made;
}

export function say(text) {
  document.getElementById("said").textContent = visible(text);
}
