/** How teaching goes, in words people use; the figures behind them are one click away. */

import { el, mark, say } from "./dom.js";
import { RoundCard } from "./round_card.js";
import { WorkLine } from "./work_line.js";

export class TeachingView {
  /**
   * @param {import("./session.js").Session} session
   * @param {import("./text.js").Text} text
   * @param {{go: (view: string) => void, asked: (name: string) => void}} shell
   */
  constructor(session, text, shell) {
    Object.assign(this, { session, text, shell });
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
    say(this.lead, this.#leadWords(teaching));
    this.teach.hidden = teaching;
    this.teach.disabled = this.starting || !state.can.includes("teach");
    this.stop.hidden = !state.can.includes("stop");
    this.check.hidden = !state.blind || Boolean(state.blind.decision);
    say(this.blind, this.text.t(state.blind?.done ? "teach.blind.go_on" : "teach.blind"));
    say(this.nearby, state.groups.near ? this.text.t("teach.near", { n: state.groups.near }) : "");
    // What is being taught has no outcome yet; only a round that was left open is shown unfinished.
    this.#rounds(state.work ? state.rounds.filter((round) => round.finished) : state.rounds);
  }

  #leadWords(teaching) {
    const { state } = this.session;
    if (teaching) return this.text.t("teach.busy");
    const stopped = state.rounds.find((round) => !round.finished && round.reward);
    if (stopped && !state.work) return this.text.t("teach.reward", { n: stopped.number, name: stopped.reward });
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

  /** Drawn anew only when something in them has changed, so that an open fold stays open while work goes on. */
  #rounds(rounds) {
    const told = JSON.stringify(rounds);
    if (told === this.told) return;
    this.told = told;
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

  #action(name, look, press) {
    return /** @type {HTMLButtonElement} */ (
      el(
        "button",
        { type: "button", class: `action ${look}`, "data-action": name, onclick: press },
        this.text.t(`teach.${name}`),
      )
    );
  }
}
