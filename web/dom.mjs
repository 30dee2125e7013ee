/**
 * Building elements. Text is only ever set as text and never parsed as HTML, so that a prompt or a name cannot become
 * markup. Attribute values never come from a server except through Api.url().
 */

/** @import { Attributes, Child, IconName, Option } from "./types" */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Makes an element; classes may follow the tag: `el("p.hint", { title }, ...children)`.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag | `${Tag}.${string}`} tag @param {Attributes} attributes @param {...Child} children
 */
export function el(tag, attributes = {}, ...children) {
  const [name, ...looks] = tag.split(".");
  const node = /** @type {HTMLElementTagNameMap[Tag]} */ (document.createElement(name));
  if (looks.length) node.className = looks.join(" ");
  return filled(node, attributes, children);
}

/**
 * The same for a drawing, without classes in the tag.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag @param {Attributes} attributes @param {...Child} children
 */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** A button that sends no form. @param {string} look @param {Attributes} attributes @param {...Child} children */
export function button(look, attributes, ...children) {
  return el("button", { type: "button", class: look, ...attributes }, ...children);
}

/** What a summary unfolds. @param {string} summary @param {...Child} children */
export function fold(summary, ...children) {
  return el("details", { class: "fold" }, el("summary", {}, summary), ...children);
}

/** @param {Option[]} entries of a menu */
export function options(entries) {
  return entries.map(([value, label]) => el("option", { value }, label));
}

/**
 * @template {Element} Kind
 * @param {Kind} node @param {Attributes} attributes @param {Child[]} children
 */
function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** @type {WeakMap<Element, string>} what elements were last filled from */
const sources = new WeakMap();

/**
 * Fills an element anew only where what it is made from has changed, so that an open fold stays open; whether it did.
 * @param {Element} node @param {unknown} source JSON-able @param {() => Child[]} make
 */
export function refill(node, source, make) {
  const now = JSON.stringify(source);
  if (sources.get(node) === now) return false;
  sources.set(node, now);
  node.replaceChildren();
  filled(node, {}, make());
  return true;
}

/**
 * Sets the text only where it differs, so that a live region does not speak twice and nothing is laid out anew.
 * @param {Element} node @param {string} words
 */
export function say(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

/** Adds or removes an attribute without a value. @param {Element} node @param {string} name @param {boolean} on */
export function mark(node, name, on) {
  if (node.hasAttribute(name) !== on) node.toggleAttribute(name, on);
}

/** The gallery's icons: strokes on a 20 by 20 field, drawn for it. */
export const PATHS = {
  undo: "M4 8.5h8a4 4 0 0 1 0 8H8M4 8.5 7.5 5M4 8.5 7.5 12",
  tie: "M4.5 7.5h11M4.5 12.5h11",
  all_bad: "M5.5 5.5l9 9M14.5 5.5l-9 9",
  skipped: "M5 5.5l5.5 4.5L5 14.5M14.5 5.5v9",
  ranking: "M4.5 15.5v-3M8.2 15.5v-5.5M11.9 15.5v-8M15.5 15.5v-11",
  favourite: "M4.5 10.5l3.8 3.8 7.2-8.3",
  flag: "M5.5 17V3.8M5.5 4.3h8.8l-2.2 3.4 2.2 3.4H5.5",
  brush: "M16.5 3.5 9 11.5M9 11.5c-2-.8-3.6.2-3.9 2.1-.2 1.2-.6 1.9-1.6 2.4 3.3.6 6-.3 6.4-2.6.1-.8-.2-1.5-.9-1.9z",
  zoom: "M8.8 14.1a5.3 5.3 0 1 0 0-10.6 5.3 5.3 0 0 0 0 10.6zM12.7 12.7l4 4M8.8 6.6v4.4M6.6 8.8H11",
  full: "M4 8V4h4M12 4h4v4M16 12v4h-4M8 16H4v-4",
  help: "M7.6 7.8a2.5 2.5 0 1 1 3.6 2.2c-.8.4-1.2.9-1.2 1.8M10 14.6v.1",
  person: "M10 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM4 16.5c.6-3 3-4.5 6-4.5s5.4 1.5 6 4.5",
  close: "M5.5 5.5l9 9M14.5 5.5l-9 9",
  remove: "M4.5 6h11M8 6V4.3h4V6M6 6l.7 9.7h6.6L14 6M8.7 8.8v4.2M11.3 8.8v4.2",
  arrow: "M4.5 10h11M11.5 6l4 4-4 4",
  back: "M12.5 4.5 7 10l5.5 5.5",
  save: "M10 3.5v9M6.5 9.2 10 12.7l3.5-3.5M4 16h12",
};

/** @param {IconName} name */
export function icon(name) {
  const attributes = { viewBox: "0 0 20 20", class: "icon", "aria-hidden": "true", focusable: "false" };
  return svg("svg", attributes, svg("path", { d: PATHS[name] }));
}
