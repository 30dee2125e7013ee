/** The sheets that open over the gallery, inside it: the keys, and the names. */

import { button, el, icon } from "./dom.mjs";

/** @import { Text } from "./types" */

export class Overlay {
  /** @param {Text} text @param {HTMLElement[]} below made inert while it is open @param {() => void} closed */
  constructor(text, below, closed) {
    this.text = text;
    this.below = below;
    this.closed = closed;
    /** the sheet that is or was open */
    this.name = "";
    /** @param {MouseEvent} event */
    const onclick = (event) => event.target === this.element && this.close();
    this.element = el("div.overlay", { hidden: true, onclick });
  }

  get open() {
    return !this.element.hidden;
  }

  /** @param {string} name @param {string} title @param {...Node} content */
  show(name, title, ...content) {
    this.name = name;
    const shut = button(
      "bare shut",
      { "aria-label": this.text.t("close"), onclick: () => this.close() },
      icon("close"),
    );
    const dialog = { role: "dialog", "aria-modal": "true", "aria-labelledby": "sheet-title", tabindex: -1 };
    const head = el("header", {}, el("h2", { id: "sheet-title" }, title), shut);
    const sheet = el("div.sheet", dialog, head, ...content);
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
  ["brush", ["B"]],
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
  return [el("p.hint", {}, text.t("help.focus")), el("dl.keys", {}, ...rows), el("p.hint", {}, text.t("help.touch"))];
}

/**
 * Asks for the person's name and the taste's.
 * @param {string} who @param {string} taste @param {(who: string, taste: string) => void} named @param {Text} text
 */
export function youForm(who, taste, named, text) {
  /** @param {string} id @param {string} key @param {string} value */
  const field = (id, key, value) => [
    el("label", { for: id }, text.t(key)),
    el("input", { id, type: "text", maxlength: 60, value, autocomplete: "off", spellcheck: "false" }),
    el("p.hint", {}, text.t(`${key}.hint`)),
  ];
  /** @param {SubmitEvent} event */
  const onsubmit = (event) => {
    event.preventDefault();
    const [yours, tastes] = form.querySelectorAll("input");
    named(yours.value.trim(), tastes.value.trim());
  };
  const fields = [...field("your-name", "you.name", who), ...field("taste-name", "you.taste", taste)];
  const form = el("form.form", { onsubmit }, ...fields, el("button.action.main", {}, text.t("you.save")));
  return form;
}
