/** Which taste to open, where the host did not say. */

import { Away } from "./api.js";
import { el } from "./dom.js";

const AGAIN_MS = 2500;

export class ChooseView {
  /** @param {import("./api.js").Api} api @param {(taste: string) => void} chosen */
  constructor(api, text, chosen) {
    Object.assign(this, { api, text, chosen });
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
        this.hint.textContent = error instanceof Away ? this.text.t("waiting.away") : (error.said?.what ?? "");
      }
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }

  #show(tastes) {
    const told = JSON.stringify(tastes);
    if (told === this.told) return;
    this.told = told;
    this.hint.textContent = tastes.length ? "" : this.text.t("choose.none");
    this.list.replaceChildren(...tastes.map((taste) => el("li", {}, this.#entry(taste))));
  }

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
