/** The sheets that open over the gallery, inside it: the keys, and the names. */

import { el, icon } from "./dom.mjs";

/** @typedef {import("./text.mjs").Text} Text */

export class Overlay {
  /**
   * @param {Text} text
   * @param {HTMLElement[]} below made inert while it is open
   * @param {() => void} closed
   */
  constructor(text, below, closed) {
    this.text = text;
    this.below = below;
    this.closed = closed;
    /** the sheet that is or was open */
    this.name = "";
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

/** @type {[string, string[]][]} */
const KEYS = [
  ["choose", ["1", "…", "8"]],
  ["arrows", ["←", "→"]],
  ["highlight", ["←", "↑", "↓", "→", "↵"]],
  ["rank", ["⇧", "1", "…", "8"]],
  ["confirm", ["↵"]],
  ["tie", ["T"]],
  ["all_bad", ["X"]],
  ["skip", ["S"]],
  ["defective", ["D"]],
  ["unsafe", ["U"]],
  ["undo", ["Z"]],
  ["zoom", ["Space"]],
  ["full", ["F"]],
  ["history", ["H"]],
  ["help", ["?"]],
  ["leave", ["Esc"]],
];

/** @param {Text} text */
export function keyList(text) {
  /** @param {string[]} keys */
  const caps = (keys) =>
    keys.map((key) =>
      key === "…" ? el("span", {}, key) : el("kbd", {}, text.has(`key.${key}`) ? text.t(`key.${key}`) : key),
    );
  const rows = KEYS.flatMap(([name, keys]) => [el("dt", {}, ...caps(keys)), el("dd", {}, text.t(`help.${name}`))]);
  return [
    el("p", { class: "hint" }, text.t("help.focus")),
    el("dl", { class: "keys" }, ...rows),
    el("p", { class: "hint" }, text.t("help.touch")),
  ];
}

/**
 * @param {object} options
 * @param {Text} options.text
 * @param {string} options.who
 * @param {string} options.taste its name
 * @param {(who: string, taste: string) => void} options.named
 * @returns {HTMLElement[]}
 */
export function youForm({ text, who, taste, named }) {
  /** @param {string} id @param {string} key @param {string | number} value */
  const field = (id, key, value) => {
    const input = el("input", { id, type: "text", maxlength: 60, value, autocomplete: "off", spellcheck: "false" });
    return [input, el("label", { for: id }, text.t(key)), el("p", { class: "hint" }, text.t(`${key}.hint`))];
  };
  const [yours, yourLabel, yourHint] = field("your-name", "you.name", who);
  const [tastes, tasteLabel, tasteHint] = field("taste-name", "you.taste", taste);
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    named(/** @type {HTMLInputElement} */ (yours).value.trim(), /** @type {HTMLInputElement} */ (tastes).value.trim());
  };
  return [
    el(
      "form",
      { class: "form", onsubmit: submit },
      yourLabel,
      yours,
      yourHint,
      tasteLabel,
      tastes,
      tasteHint,
      el("button", { class: "action main" }, text.t("you.save")),
    ),
  ];
}
