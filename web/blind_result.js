/** What the blind check found: the sentence, the pairs as a row of beads, what chance would give, and the decision. */

import { chanceLine } from "./chart.js";
import { el } from "./dom.js";
import { beforeAndAfter } from "./strip.js";

export class BlindResult {
  constructor(session, text, shell) {
    Object.assign(this, { session, text, shell });
    this.element = el("div", {
      class: "scroll result",
      tabindex: -1,
      hidden: true,
      "aria-label": text.t("blind.result"),
    });
  }

  /** @param {any} blind @param {boolean} revealed it has just become known */
  refresh(blind, revealed) {
    const told = JSON.stringify([blind, this.session.state.rounds.map((round) => round.number)]);
    if (told === this.told) return;
    this.told = told;
    this.blind = blind;
    const choices = blind.decision ? this.#decided() : this.#choices();
    this.element.replaceChildren(
      el("div", { class: "page reveal" }, this.#sentence(), this.#beads(), this.#line(), choices),
    );
    if (revealed) this.shell.speak(this.#words());
  }

  #words() {
    const { result, of } = this.blind;
    return this.text.t("blind.outcome", { taught: result.taught, of, low: result.low, high: result.high });
  }

  #sentence() {
    const { taught, low, high } = this.blind.result;
    const verdict = taught > high ? "above" : taught < low ? "below" : "within";
    return el(
      "div",
      {},
      el("h2", {}, this.#words()),
      el("p", { class: "lead" }, this.text.t(`blind.verdict.${verdict}`)),
    );
  }

  #beads() {
    const beads = this.blind.result.answers.map((kind, at) => {
      const bead = el("span", { class: `bead ${kind}` });
      bead.style.setProperty("--at", String(at));
      return bead;
    });
    const legend = ["taught", "neither", "before"].map((kind) =>
      el(
        "span",
        { class: "key" },
        el("span", { class: `bead ${kind}`, "aria-hidden": "true" }),
        this.text.t(`blind.${kind}`, { n: this.blind.result[kind] }),
      ),
    );
    return el(
      "div",
      {},
      el("div", { class: "beads big", "aria-hidden": "true" }, ...beads),
      el("p", { class: "legend" }, ...legend),
    );
  }

  #line() {
    const { result, of } = this.blind;
    const caption = el(
      "figcaption",
      { class: "hint" },
      this.text.t("blind.chance", { low: result.low, high: result.high }),
    );
    return el("figure", { class: "figure" }, chanceLine(result, of, this.#words()), caption);
  }

  #choices() {
    const back = this.session.state.rounds.map((round) => round.number).filter((number) => number < this.blind.round);
    return el(
      "div",
      { class: "choices" },
      this.#choice(
        "keep",
        [],
        () => this.#decide({ decision: "keep" }),
        this.blind.result.taught > this.blind.result.before,
      ),
      ...this.#gentler(),
      this.#choice(
        "back",
        [...back.reverse().map((n) => [n, this.text.t("blind.round", { n })]), [0, this.text.t("blind.original")]],
        (round) => this.#decide({ decision: "back", round: Number(round) }),
      ),
    );
  }

  /** Less of what was taught: how much, and how each looks. */
  #gentler() {
    const { state, api } = this.session;
    const tried = state.rounds.find((round) => round.number === this.blind.round)?.gentler ?? [];
    if (!tried.length) return [];
    const options = tried.map(({ strength, drift }) => {
      const n = this.text.fine.format(strength);
      return [strength, this.text.t("blind.strength", { n, drift: this.text.t(`drift.${drift}`) })];
    });
    const choice = this.#choice("gentler", options, (strength) =>
      this.#decide({ decision: "gentler", strength: Number(strength) }),
    );
    const looks = tried.map(({ strip }) => beforeAndAfter(strip, this.text, api));
    const menu = choice.querySelector("select");
    const show = () => looks.forEach((look, at) => (look.hidden = at !== menu.selectedIndex));
    menu.addEventListener("change", show);
    show();
    const fold = el("details", { class: "fold" }, el("summary", {}, this.text.t("blind.gentler.look")), ...looks);
    return [choice, fold];
  }

  /** A decision, with a menu where there is more than one way to take it. */
  #choice(name, options, decide, first = false) {
    const menu =
      options.length > 0 &&
      el(
        "select",
        { "aria-label": this.text.t(`blind.${name}.which`) },
        ...options.map(([value, label]) => el("option", { value }, label)),
      );
    const look = first ? "action main" : "action";
    const press = el(
      "button",
      { type: "button", class: look, "data-action": name, onclick: () => decide(menu ? menu.value : "") },
      this.text.t(`blind.${name}`),
    );
    return el(
      "div",
      { class: "choice" },
      el("div", { class: "row" }, press, menu),
      el("p", { class: "hint" }, this.text.t(`blind.${name}.hint`)),
    );
  }

  #decided() {
    const done = el("p", { class: "lead", role: "status" }, this.text.t(`blind.decided.${this.blind.decision}`));
    return el(
      "div",
      { class: "choices" },
      done,
      el(
        "button",
        { type: "button", class: "action main", onclick: () => this.shell.go("pick") },
        this.text.t("blind.to_picks"),
      ),
    );
  }

  async #decide(decision) {
    await this.session.ask("blind/decide", { check: this.blind.check, ...decision });
    this.element.focus({ preventScroll: true });
  }
}
