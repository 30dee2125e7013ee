/** Which taste to open, where the host did not say. */

import { Refused } from "./api.mjs";
import { el } from "./dom.mjs";

/** @typedef {import("./api.mjs").Api} Api */
/** @typedef {import("./types").ListedTaste} ListedTaste */
/** @typedef {import("./text.mjs").Text} Text */

const AGAIN_MS = 2500;

export class ChooseView {
  /**
   * @param {Api} api
   * @param {Text} text
   * @param {(taste: string) => void} chosen
   */
  constructor(api, text, chosen) {
    this.api = api;
    this.text = text;
    this.chosen = chosen;
    this.stopped = false;
    /** what the elements were made from */
    this.drawn = "";
    this.list = el("ul", { class: "tastes" });
    this.hint = el("p", { class: "hint", role: "status" });
    this.element = el(
      "section",
      { class: "scroll", tabindex: -1, "aria-label": text.t("choose.title") },
      el("div", { class: "page" }, el("h2", {}, text.t("choose.title")), this.hint, this.list),
    );
    this.#keepLooking();
  }

  focus() {
    this.element.focus({ preventScroll: true });
  }

  stop() {
    this.stopped = true;
  }

  async #keepLooking() {
    while (!this.stopped) {
      try {
        this.#show((await this.api.get("tastes")).tastes);
      } catch (error) {
        this.hint.textContent = error instanceof Refused ? error.problem.what : this.text.t("waiting.away");
      }
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }

  /** @param {ListedTaste[]} tastes */
  #show(tastes) {
    const drawn = JSON.stringify(tastes);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.hint.textContent = tastes.length ? "" : this.text.t("choose.none");
    this.list.replaceChildren(...tastes.map((taste) => el("li", {}, this.#entry(taste))));
  }

  /** @param {ListedTaste} taste */
  #entry({ id, name, model, picks, groups }) {
    const meta = [model.name, this.text.t("choose.picks", { n: picks }), this.text.t("choose.groups", { n: groups })]
      .filter(Boolean)
      .join(" · ");
    return el(
      "button",
      { type: "button", class: "card taste", onclick: () => this.chosen(id) },
      el("strong", {}, name || this.text.t("choose.unnamed")),
      el("span", { class: "hint" }, meta),
    );
  }
}
