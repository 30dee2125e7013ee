/** How teaching goes, in words people use; the figures behind them are one click away. */

import { el, mark, say } from "./dom.mjs";
import { RoundCard } from "./round_card.mjs";
import { WorkLine } from "./waiting.mjs";

/** @typedef {import("./types").Round} Round */
/** @typedef {import("./session.mjs").Session} Session */
/** @typedef {import("./types").ShellLike} ShellLike */
/** @typedef {import("./types").State} State */
/** @typedef {import("./text.mjs").Text} Text */

export class TeachingView {
  /**
   * @param {Session} session
   * @param {Text} text
   * @param {ShellLike} shell
   */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.shell = shell;
    this.visible = false;
    /** Teach was pressed and not answered yet */
    this.starting = false;
    /** what the rounds' elements were made from */
    this.drawn = "";
    this.work = new WorkLine(text);
    this.lead = el("p", { class: "lead" });
    this.teach = this.#action("teach", "main", () => this.#start());
    this.stop = this.#action("stop", "", () => session.ask("stop"));
    this.blind = this.#action("blind", "main", () => shell.go("blind"));
    this.blindHint = el("p", { class: "lead" }, text.t("teach.blind.hint"));
    this.check = el(
      "div",
      { class: "card invite", hidden: true },
      el("h3", {}, text.t("teach.blind.title")),
      this.blindHint,
      this.blind,
    );
    this.now = el(
      "div",
      { class: "card" },
      this.lead,
      this.work.element,
      el("div", { class: "actions" }, this.teach, this.stop),
    );
    this.latest = el("div", { class: "latest" });
    this.earlier = el("div", { class: "earlier" });
    this.nearby = el("p", { class: "hint" });
    const page = el("div", { class: "page" }, this.check, this.now, this.latest, this.earlier, this.nearby);
    this.element = el("section", { class: "scroll teaching", tabindex: -1, "aria-label": text.t("teach.title") }, page);
    session.addEventListener("state", () => this.visible && this.refresh());
  }

  focus() {
    this.element.focus({ preventScroll: true });
  }

  /** @param {boolean} on */
  shown(on) {
    this.visible = on;
    this.session.watch(on);
    if (on) this.refresh();
  }

  refresh() {
    const { state } = this.session;
    if (!state) return;
    const teaching = state.work?.kind === "teaching";
    this.work.refresh(state.work);
    say(this.lead, this.#leadWords(state));
    this.teach.hidden = teaching;
    this.teach.disabled = this.starting || !state.can.includes("teach");
    this.stop.hidden = !state.can.includes("stop");
    this.check.hidden = !state.blind || Boolean(state.blind.decision);
    say(this.blind, this.text.t(state.blind?.done ? "teach.blind.go_on" : "teach.blind"));
    say(this.nearby, state.groups.near ? this.text.t("teach.near", { n: state.groups.near }) : "");
    // What is being taught has no outcome yet; only a round that was left open is shown unfinished.
    this.#rounds(state.work ? state.rounds.filter((round) => round.finished) : state.rounds);
  }

  /** @param {State} state */
  #leadWords(state) {
    if (state.work?.kind === "teaching") return this.text.t("teach.busy");
    const stopped = state.rounds.find((round) => !round.finished && round.reward);
    if (stopped && !state.work) return this.text.t("teach.reward", { n: stopped.number, name: stopped.reward ?? "" });
    if (state.can.includes("teach")) return this.text.t("teach.ready", { n: state.picks.usable });
    if (!state.picks.usable) return this.text.t("teach.none");
    if (!state.picks.untaught && !state.work) return this.text.t("teach.nothing_new");
    return this.text.t("teach.not_yet", { n: state.picks.usable });
  }

  async #start() {
    this.starting = true;
    this.refresh();
    if (await this.session.act("teach")) this.shell.asked("teach");
    this.starting = false;
    this.refresh();
  }

  /**
   * Drawn anew only when something in them has changed, so that an open fold stays open while work goes on.
   * @param {Round[]} rounds
   */
  #rounds(rounds) {
    const drawn = JSON.stringify(rounds);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const cards = [...rounds]
      .sort((a, b) => b.number - a.number)
      .map((round) => new RoundCard(round, this.text, this.session.api));
    this.latest.replaceChildren(...cards.slice(0, 1).map((card) => card.element));
    const older = cards.slice(1).map((card) => card.element);
    const fold = el(
      "details",
      { class: "fold" },
      el("summary", {}, this.text.t("teach.earlier", { n: older.length })),
      ...older,
    );
    this.earlier.replaceChildren(...(older.length ? [fold] : []));
    mark(this.element, "empty", !cards.length);
  }

  /** @param {string} name @param {string} look @param {(event: MouseEvent) => void} press */
  #action(name, look, press) {
    return el(
      "button",
      { type: "button", class: `action ${look}`, "data-action": name, onclick: press },
      this.text.t(`teach.${name}`),
    );
  }
}
