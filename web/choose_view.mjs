/** Which taste to open, where the host did not say. */

import { Refused } from "./api.mjs";
import { button, el, refill } from "./dom.mjs";

/** @import { Api, ListedTaste, Text } from "./types" */

const AGAIN_MS = 2500;

export class ChooseView {
  /** @param {Api} api @param {Text} text @param {(taste: string) => void} chosen */
  constructor(api, text, chosen) {
    this.api = api;
    this.text = text;
    this.chosen = chosen;
    this.stopped = false;
    this.list = el("ul.tastes");
    this.hint = el("p.hint", { role: "status" });
    const title = text.t("choose.title");
    const page = el("div.page", {}, el("h2", {}, title), this.hint, this.list);
    this.element = el("section.scroll", { tabindex: -1, "aria-label": title }, page);
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
    const drawn = refill(this.list, tastes, () => tastes.map((taste) => el("li", {}, this.#entry(taste))));
    if (drawn) this.hint.textContent = tastes.length ? "" : this.text.t("choose.none");
  }

  /** @param {ListedTaste} taste */
  #entry({ id, name, model, picks, groups }) {
    const { text } = this;
    const counts = [text.t("choose.picks", { n: picks }), text.t("choose.groups", { n: groups })];
    const meta = el("span.hint", {}, [model.name, ...counts].filter(Boolean).join(" · "));
    const title = el("strong", {}, name || text.t("choose.unnamed"));
    return button("card taste", { onclick: () => this.chosen(id) }, title, meta);
  }
}
