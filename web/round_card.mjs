/** One round of teaching: what it learned, how far it moved, what it looks like. */

import { el, fold } from "./dom.mjs";
import { beforeAndAfter, predictionChart } from "./figures.mjs";

/** @import { Api, Round, Text } from "./types" */

/** Share of new pictures to be preferred, below which nothing has moved to speak of. */
const MOVED = 0.55;
const DRIFTS = ["low", "medium", "high"];

export class RoundCard {
  /** @param {Round} round @param {Text} text @param {Api} api */
  constructor(round, text, api) {
    this.round = round;
    this.text = text;
    this.api = api;
    const parts = [this.#head(), this.#predictions(), this.#effect(), this.#drift(), this.#strip(), this.#file()];
    this.element = el("article.card.round", {}, ...parts, this.#details());
  }

  #head() {
    const { number, finished, reason } = this.round;
    const title = el("h3", {}, this.text.t("round.title", { n: number }));
    const tag = !finished && el("span.tag", {}, this.text.t("round.stopped"));
    return el("header", {}, title, tag, reason && el("p.hint", {}, reason));
  }

  #predictions() {
    const { guessed, guessed_of, reward } = this.round;
    if (reward) return this.#reward(reward);
    if (!guessed_of && !this.round.finished) return null;
    if (!guessed_of || guessed === null) return el("p.hint", {}, this.text.t("round.no_hidden"));
    const share = guessed / guessed_of;
    const percent = this.text.percent(share);
    const fill = el("span.fill");
    fill.style.inlineSize = `${share * 100}%`;
    const words = this.text.t("round.predicts", { percent, chance: this.text.percent(0.5) });
    return el(
      "div.predictions",
      {},
      el("p.big", {}, words),
      el("div.meter", { role: "img", "aria-label": words }, fill, el("span.chance")),
      el("p.hint", {}, this.text.t("round.predicts.of", { n: guessed_of })),
    );
  }

  /**
   * What was learnt from instead of picks, and how much of it the images had before and have now.
   * @param {string} name
   */
  #reward(name) {
    const { text } = this;
    const { reward_before: before, reward: now } = this.round.details ?? {};
    if (typeof before !== "number" || typeof now !== "number") {
      return el("p.hint", {}, text.t("round.reward", { name }));
    }
    const moved = { name, before: text.fine.format(before), now: text.fine.format(now) };
    return el("p.big", {}, text.t("round.reward.moved", moved));
  }

  /** What the pictures before and after tell: would the person prefer them, and do they still show the prompt? */
  #effect() {
    const { win, kept, used } = this.round;
    const { text } = this;
    if (win === null && kept === null) return null;
    const moved = win !== null && win >= MOVED;
    const words = moved ? text.t("round.win", { percent: text.percent(win) }) : text.t("round.win.not");
    const hint = text.t(moved ? "round.win.hint" : "round.win.not.hint");
    const preference = win === null || (!moved && used < 1) ? [] : [el("p.big", {}, words), el("p.hint", {}, hint)];
    const values = { percent: text.percent(kept ?? 1), n: text.fine.format(used) };
    const prompt = kept !== null && el("p.big", {}, text.t(used < 1 ? "round.used" : "round.kept", values));
    return el("div.effect", {}, ...preference, prompt);
  }

  #drift() {
    const { drift } = this.round;
    if (!drift) return null;
    const reached = DRIFTS.indexOf(drift);
    const dots = DRIFTS.map((_, at) => el("span", { class: at <= reached ? "dot on" : "dot" }));
    const scale = el("span", { class: "drift", "data-drift": drift, "aria-hidden": "true" }, ...dots);
    const hint = el("p.hint", {}, this.text.t(`round.drift.${drift}.hint`));
    return el("div", {}, el("p.big", {}, this.text.t(`round.drift.${drift}`), " ", scale), hint);
  }

  #strip() {
    const { strip } = this.round;
    return strip?.length ? beforeAndAfter(strip, this.text, this.api) : null;
  }

  #file() {
    const { lora, strength, taught } = this.round;
    if (!lora) return null;
    const saved = el("span.hint", {}, this.text.t(taught ? "round.saved" : "round.unchanged"));
    const advice =
      taught && strength && el("span.hint", {}, this.text.t("round.strength", { n: this.text.fine.format(strength) }));
    return el("p.file", {}, saved, " ", el("code", {}, lora), advice || "");
  }

  #details() {
    const { details, curve } = this.round;
    if (!details && !curve?.length) return null;
    const list = Object.entries(details ?? {}).flatMap(([name, value]) => {
      if (value === null || !this.text.has(`details.${name}`)) return [];
      return [
        el("dt", { title: this.text.t(`details.${name}.help`) }, this.text.t(`details.${name}`)),
        el("dd", {}, name === "clip_fraction" ? this.text.percent(value) : this.text.fine.format(value)),
      ];
    });
    const chart = curve && curve.length > 1 ? predictionChart(curve, this.text) : null;
    return fold(this.text.t("details.title"), el("dl", {}, ...list), chart);
  }
}
