/** Who is picking, and what this taste is called. Both may be left alone. */

import { el } from "./dom.js";

/**
 * @param {object} options
 * @param {import("./text.js").Text} options.text
 * @param {string} options.who
 * @param {string} options.taste its name
 * @param {(who: string, taste: string) => void} options.named
 * @returns {HTMLElement[]}
 */
export function youForm({ text, who, taste, named }) {
  const field = (id, key, value) => {
    const input = /** @type {HTMLInputElement} */ (
      el("input", { id, type: "text", maxlength: 60, value, autocomplete: "off", spellcheck: "false" })
    );
    return [input, el("label", { for: id }, text.t(key)), el("p", { class: "hint" }, text.t(`${key}.hint`))];
  };
  const [yours, yourLabel, yourHint] = field("your-name", "you.name", who);
  const [tastes, tasteLabel, tasteHint] = field("taste-name", "you.taste", taste);
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
