/** The blind check's result: a sentence, the pairs as beads, what chance would give, and the decision. */

import { button, el, fold, options, refill } from "./dom.mjs";
import { beforeAndAfter, chanceLine } from "./figures.mjs";

/** @import { Blind, FinishedBlind, Option, Round, Session, ShellLike, Text } from "./types" */

const KINDS = /** @type {const} */ (["taught", "neither", "before"]);

export class BlindResult {
  /** @param {Session} session @param {Text} text @param {ShellLike} shell */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.shell = shell;
    /** what was decided is to be decided anew */
    this.anew = false;
    this.element = el("div.scroll.result", { tabindex: -1, hidden: true, "aria-label": text.t("blind.result") });
  }

  /** @param {FinishedBlind} blind @param {boolean} revealed it has just become known */
  refresh(blind, revealed) {
    const rounds = this.session.state?.rounds ?? [];
    const { result, of } = blind;
    const words = this.text.t("blind.outcome", { taught: result.taught, of, low: result.low, high: result.high });
    const drawn = refill(this.element, [blind, this.anew, rounds], () => {
      const choices = blind.decision && !this.anew ? this.#decided(blind, blind.decision) : this.#choices(blind, rounds);
      const figure = chanceLine(result, of, words, this.text);
      return [el("div.page.reveal", {}, this.#sentence(blind, words), this.#beads(blind), figure, choices)];
    });
    if (drawn && revealed) this.shell.speak(words);
  }

  /** @param {FinishedBlind} blind @param {string} words */
  #sentence({ result: { taught, low, high } }, words) {
    const verdict = taught > high ? "above" : taught < low ? "below" : "within";
    return el("div", {}, el("h2", {}, words), el("p.lead", {}, this.text.t(`blind.verdict.${verdict}`)));
  }

  /** @param {FinishedBlind} blind */
  #beads({ result }) {
    const beads = result.answers.map((kind) => el("span", { class: `bead ${kind}` }));
    beads.forEach((bead, at) => bead.style.setProperty("--at", String(at)));
    const legend = KINDS.map((kind) => {
      const bead = el("span", { class: `bead ${kind}`, "aria-hidden": "true" });
      return el("span.key", {}, bead, this.text.t(`blind.${kind}`, { n: result[kind] }));
    });
    return el("div", {}, el("div.beads.big", { "aria-hidden": "true" }, ...beads), el("p.legend", {}, ...legend));
  }

  /** @param {FinishedBlind} blind @param {Round[]} rounds */
  #choices(blind, rounds) {
    const back = rounds.map((round) => round.number).filter((number) => number < blind.round);
    /** @type {Option[]} */
    const targets = back.reverse().map((n) => [n, this.text.t("blind.round", { n })]);
    const better = blind.result.taught > blind.result.before;
    return el(
      "div.choices",
      {},
      this.#choice("keep", [], () => this.#decide(blind, { decision: "keep" }), better),
      ...this.#weaker(blind, rounds),
      this.#choice("back", [...targets, [0, this.text.t("blind.original")]], (round) =>
        this.#decide(blind, { decision: "back", round: Number(round) }),
      ),
    );
  }

  /**
   * The LoRA at less than its full strength: which strengths were tried, and how each looks.
   * @param {FinishedBlind} blind @param {Round[]} rounds
   */
  #weaker(blind, rounds) {
    const tried = rounds.find((round) => round.number === blind.round)?.gentler ?? [];
    if (!tried.length) return [];
    /** @type {Option[]} */
    const strengths = tried.map(({ strength, drift }) => {
      const n = this.text.fine.format(strength);
      return [strength, this.text.t("blind.strength", { n, drift: this.text.t(`drift.${drift}`) })];
    });
    const choice = this.#choice("gentler", strengths, (strength) =>
      this.#decide(blind, { decision: "gentler", strength: Number(strength) }),
    );
    const looks = tried.map(({ strip }) => beforeAndAfter(strip, this.text, this.session.api));
    const menu = /** @type {HTMLSelectElement} */ (choice.querySelector("select"));
    const show = () => looks.forEach((look, at) => (look.hidden = at !== menu.selectedIndex));
    menu.addEventListener("change", show);
    show();
    return [choice, fold(this.text.t("blind.gentler.look"), ...looks)];
  }

  /**
   * A decision, with a menu where there is more than one way to take it.
   * @param {string} name @param {Option[]} ways @param {(value: string) => void} decide
   */
  #choice(name, ways, decide, first = false) {
    const menu =
      ways.length > 0 && el("select", { "aria-label": this.text.t(`blind.${name}.which`) }, ...options(ways));
    const onclick = () => decide(menu ? menu.value : "");
    const look = first ? "action main" : "action";
    const press = button(look, { "data-action": name, onclick }, this.text.t(`blind.${name}`));
    return el("div.choice", {}, el("div.row", {}, press, menu), el("p.hint", {}, this.text.t(`blind.${name}.hint`)));
  }

  /** @param {FinishedBlind} blind @param {string} decision */
  #decided(blind, decision) {
    const done = el("p.lead", { role: "status" }, this.text.t(`blind.decided.${decision}`));
    const next = button("action main", { onclick: () => this.shell.go("pick") }, this.text.t("blind.to_picks"));
    const onclick = () => {
      this.anew = true;
      this.refresh(blind, false);
    };
    const again = button("action", { "data-action": "again", onclick }, this.text.t("blind.again"));
    return el("div.choices", {}, done, el("div.actions", {}, next, again));
  }

  /**
   * @param {FinishedBlind} blind
   * @param {{decision: NonNullable<Blind["decision"]>, strength?: number, round?: number}} decision
   */
  async #decide(blind, decision) {
    const answer = await this.session.ask("blind/decide", { check: blind.check, ...decision });
    this.anew &&= !answer;
    if (answer?.state?.blind?.result) this.refresh({ ...answer.state.blind, result: answer.state.blind.result }, false);
    this.element.focus({ preventScroll: true });
  }
}
