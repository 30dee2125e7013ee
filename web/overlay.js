/** A sheet over the gallery, inside it: the keys, or one's name. What lies below rests while it is open. */

import { el } from "./dom.js";
import { icon } from "./icons.js";

export class Overlay {
  /** @param {HTMLElement[]} below made inert while it is open */
  constructor(text, below, closed) {
    Object.assign(this, { text, below, closed });
    this.element = el("div", {
      class: "overlay",
      hidden: true,
      onclick: (event) => event.target === this.element && this.close(),
    });
  }

  get open() {
    return !this.element.hidden;
  }

  /** @param {string} name @param {string} title @param {...Node} content */
  show(name, title, ...content) {
    this.name = name;
    const shut = el(
      "button",
      { type: "button", class: "bare shut", "aria-label": this.text.t("close"), onclick: () => this.close() },
      icon("close"),
    );
    const sheet = el(
      "div",
      { class: "sheet", role: "dialog", "aria-modal": "true", "aria-labelledby": "sheet-title", tabindex: -1 },
      el("header", {}, el("h2", { id: "sheet-title" }, title), shut),
      ...content,
    );
    this.element.replaceChildren(sheet);
    this.element.hidden = false;
    for (const node of this.below) node.inert = true;
    (sheet.querySelector("input") ?? sheet).focus({ preventScroll: true });
  }

  close() {
    if (!this.open) return false;
    this.element.hidden = true;
    this.element.replaceChildren();
    for (const node of this.below) node.inert = false;
    this.closed();
    return true;
  }
}
