/** One round of teaching: what it learned, how far it moved, what it looks like. */

import { guessChart } from "./chart.js";
import { el } from "./dom.js";
import { beforeAndAfter } from "./strip.js";

const DRIFTS = ["low", "medium", "high"];

export class RoundCard {
  /** @param {any} round @param {import("./text.js").Text} text @param {import("./api.js").Api} api */
  constructor(round, text, api) {
    Object.assign(this, { round, text, api });
    const parts = [this.#head(), this.#guesses(), this.#drift(), this.#strip(), this.#file(), this.#details()];
    this.element = el("article", { class: "card round" }, ...parts);
  }

  #head() {
    const { number, finished, reason } = this.round;
    const title = el("h3", {}, this.text.t("round.title", { n: number }));
    return el(
      "header",
      {},
      title,
      !finished && el("span", { class: "tag" }, this.text.t("round.stopped")),
      reason && el("p", { class: "hint" }, reason),
    );
  }

  #guesses() {
    const { guessed, guessed_of, reward } = this.round;
    if (reward) return this.#reward(reward);
    if (!guessed_of && !this.round.finished) return null;
    if (!guessed_of) return el("p", { class: "hint" }, this.text.t("round.no_hidden"));
    const share = guessed / guessed_of;
    const percent = this.text.percent(share);
    const fill = el("span", { class: "fill" });
    fill.style.inlineSize = `${share * 100}%`;
    const meter = {
      class: "meter",
      role: "img",
      "aria-label": this.text.t("round.guesses", { percent, chance: this.text.percent(0.5) }),
    };
    return el(
      "div",
      { class: "guesses" },
      el("p", { class: "big" }, this.text.t("round.guesses", { percent, chance: this.text.percent(0.5) })),
      el("div", meter, fill, el("span", { class: "chance" })),
      el("p", { class: "hint" }, this.text.t("round.guesses.of", { done: guessed, of: guessed_of })),
    );
  }

  /** What was learnt from instead of picks, and how much of it the pictures had before and have now. */
  #reward(name) {
    const { reward_before: before, reward: now } = this.round.details ?? {};
    if (before === undefined || now === undefined) return el("p", { class: "hint" }, this.text.t("round.reward", { name }));
    const told = { name, before: this.text.fine.format(before), now: this.text.fine.format(now) };
    return el("p", { class: "big" }, this.text.t("round.reward.moved", told));
  }

  #drift() {
    const { drift } = this.round;
    if (!drift) return null;
    const reached = DRIFTS.indexOf(drift);
    const dots = DRIFTS.map((_, at) => el("span", { class: at <= reached ? "dot on" : "dot" }));
    const scale = el("span", { class: "drift", "data-drift": drift, "aria-hidden": "true" }, ...dots);
    const hint = el("p", { class: "hint" }, this.text.t(`round.drift.${drift}.hint`));
    return el("div", {}, el("p", { class: "big" }, this.text.t(`round.drift.${drift}`), " ", scale), hint);
  }

  #strip() {
    const { strip } = this.round;
    if (!strip?.length) return null;
    return beforeAndAfter(strip, this.text, this.api);
  }

  #file() {
    const { lora, strength } = this.round;
    if (!lora) return null;
    const file = el("code", {}, lora);
    const advice = strength ? this.text.t("round.strength", { n: this.text.fine.format(strength) }) : "";
    return el(
      "p",
      { class: "file" },
      el("span", { class: "hint" }, this.text.t("round.saved")),
      " ",
      file,
      advice && el("span", { class: "hint" }, advice),
    );
  }

  #details() {
    const { details, curve } = this.round;
    if (!details && !curve?.length) return null;
    const rows = Object.entries(details ?? {}).filter(
      ([name, value]) => value !== null && this.text.has(`details.${name}`),
    );
    const list = rows.flatMap(([name, value]) => [
      el("dt", { title: this.text.t(`details.${name}.help`) }, this.text.t(`details.${name}`)),
      el("dd", {}, name === "clip_fraction" ? this.text.percent(value) : this.text.fine.format(value)),
    ]);
    const chart = curve?.length > 1 ? guessChart(curve, this.text) : null;
    return el(
      "details",
      { class: "fold" },
      el("summary", {}, this.text.t("details.title")),
      el("dl", {}, ...list),
      chart,
    );
  }
}
