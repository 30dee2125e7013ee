/** The blind check's result: a sentence, the pairs as beads, what chance would give, and the decision. */

import { el } from "./dom.mjs";
import { beforeAndAfter, chanceLine } from "./figures.mjs";

/** @typedef {import("./types").Blind} Blind */
/** @typedef {import("./types").Round} Round */
/** @typedef {import("./session.mjs").Session} Session */
/** @typedef {import("./types").ShellLike} ShellLike */
/** @typedef {import("./text.mjs").Text} Text */
/** @typedef {Blind & {result: NonNullable<Blind["result"]>}} Finished */
/** @typedef {[value: string | number, label: string]} Option */

const KINDS = /** @type {const} */ (["taught", "neither", "before"]);

export class BlindResult {
  /**
   * @param {Session} session
   * @param {Text} text
   * @param {ShellLike} shell
   */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.shell = shell;
    /** what the elements were made from */
    this.drawn = "";
    this.element = el("div", {
      class: "scroll result",
      tabindex: -1,
      hidden: true,
      "aria-label": text.t("blind.result"),
    });
  }

  /** @param {Finished} blind @param {boolean} revealed it has just become known */
  refresh(blind, revealed) {
    const rounds = this.session.state?.rounds ?? [];
    const drawn = JSON.stringify([blind, rounds.map((round) => round.number)]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const choices = blind.decision ? this.#decided(blind.decision) : this.#choices(blind, rounds);
    const parts = [this.#sentence(blind), this.#beads(blind), this.#line(blind), choices];
    this.element.replaceChildren(el("div", { class: "page reveal" }, ...parts));
    if (revealed) this.shell.speak(this.#words(blind));
  }

  /** @param {Finished} blind */
  #words({ result, of }) {
    return this.text.t("blind.outcome", { taught: result.taught, of, low: result.low, high: result.high });
  }

  /** @param {Finished} blind */
  #sentence(blind) {
    const { taught, low, high } = blind.result;
    const verdict = taught > high ? "above" : taught < low ? "below" : "within";
    return el(
      "div",
      {},
      el("h2", {}, this.#words(blind)),
      el("p", { class: "lead" }, this.text.t(`blind.verdict.${verdict}`)),
    );
  }

  /** @param {Finished} blind */
  #beads({ result }) {
    const beads = result.answers.map((kind, at) => {
      const bead = el("span", { class: `bead ${kind}` });
      bead.style.setProperty("--at", String(at));
      return bead;
    });
    const legend = KINDS.map((kind) =>
      el(
        "span",
        { class: "key" },
        el("span", { class: `bead ${kind}`, "aria-hidden": "true" }),
        this.text.t(`blind.${kind}`, { n: result[kind] }),
      ),
    );
    return el(
      "div",
      {},
      el("div", { class: "beads big", "aria-hidden": "true" }, ...beads),
      el("p", { class: "legend" }, ...legend),
    );
  }

  /** @param {Finished} blind */
  #line(blind) {
    const { result, of } = blind;
    const caption = el(
      "figcaption",
      { class: "hint" },
      this.text.t("blind.chance", { low: result.low, high: result.high }),
    );
    return el("figure", { class: "figure" }, chanceLine(result, of, this.#words(blind)), caption);
  }

  /** @param {Finished} blind @param {Round[]} rounds */
  #choices(blind, rounds) {
    const back = rounds.map((round) => round.number).filter((number) => number < blind.round);
    /** @type {Option[]} */
    const options = back.reverse().map((n) => [n, this.text.t("blind.round", { n })]);
    return el(
      "div",
      { class: "choices" },
      this.#choice(
        "keep",
        [],
        () => this.#decide(blind, { decision: "keep" }),
        blind.result.taught > blind.result.before,
      ),
      ...this.#weaker(blind, rounds),
      this.#choice("back", [...options, [0, this.text.t("blind.original")]], (round) =>
        this.#decide(blind, { decision: "back", round: Number(round) }),
      ),
    );
  }

  /**
   * The LoRA at less than its full strength: which strengths were tried, and how each looks.
   * @param {Finished} blind
   * @param {Round[]} rounds
   */
  #weaker(blind, rounds) {
    const tried = rounds.find((round) => round.number === blind.round)?.gentler ?? [];
    if (!tried.length) return [];
    /** @type {Option[]} */
    const options = tried.map(({ strength, drift }) => {
      const n = this.text.fine.format(strength);
      return [strength, this.text.t("blind.strength", { n, drift: this.text.t(`drift.${drift}`) })];
    });
    const choice = this.#choice("gentler", options, (strength) =>
      this.#decide(blind, { decision: "gentler", strength: Number(strength) }),
    );
    const looks = tried.map(({ strip }) => beforeAndAfter(strip, this.text, this.session.api));
    const menu = /** @type {HTMLSelectElement} */ (choice.querySelector("select"));
    const show = () => looks.forEach((look, at) => (look.hidden = at !== menu.selectedIndex));
    menu.addEventListener("change", show);
    show();
    const fold = el("details", { class: "fold" }, el("summary", {}, this.text.t("blind.gentler.look")), ...looks);
    return [choice, fold];
  }

  /**
   * A decision, with a menu where there is more than one way to take it.
   * @param {string} name
   * @param {Option[]} options
   * @param {(value: string) => void} decide
   */
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

  /** @param {string} decision */
  #decided(decision) {
    const done = el("p", { class: "lead", role: "status" }, this.text.t(`blind.decided.${decision}`));
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

  /**
   * @param {Finished} blind
   * @param {{decision: NonNullable<Blind["decision"]>, strength?: number, round?: number}} decision
   */
  async #decide(blind, decision) {
    await this.session.ask("blind/decide", { check: blind.check, ...decision });
    this.element.focus({ preventScroll: true });
  }
}
