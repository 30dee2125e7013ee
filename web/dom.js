/**
 * Building elements. Text is only ever set as text and never parsed as HTML, so that a prompt or a name cannot become
 * markup. Attribute values never come from a server except through Api.url().
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} tag
 * @param {Record<string, any>} attributes `class` and ARIA as they are; `onclick` and the like are listeners; false and
 *   null leave it out.
 * @param {...(Node|string|null|false|undefined)} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for a drawing. @returns {SVGElement} */
export function svg(tag, attributes = {}, ...children) {
  return /** @type {any} */ (filled(document.createElementNS(SVG, tag), attributes, children));
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Sets the text only where it differs, so that a live region does not speak twice and nothing is laid out anew. */
export function say(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

/** Adds or removes an attribute without a value. */
export function mark(node, name, on) {
  if (node.hasAttribute(name) !== Boolean(on)) node.toggleAttribute(name, Boolean(on));
}
