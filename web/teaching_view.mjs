/** How teaching goes, in words people use; the figures behind them are one click away. */

import { button, el, fold, mark, refill, say } from "./dom.mjs";
import { RoundCard } from "./round_card.mjs";
import { understoodWords } from "./text.mjs";
import { WorkLine } from "./waiting.mjs";

/** @import { Round, Session, ShellLike, State, Text } from "./types" */

/** Kinds of work that are a round's own. */
const BUSY = ["checking", "teaching", "blind"];

export class TeachingView {
  /** @param {Session} session @param {Text} text @param {ShellLike} shell */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.shell = shell;
    /** Teach was pressed and not answered yet */
    this.starting = false;
    this.work = new WorkLine(text);
    this.lead = el("p.lead");
    this.teach = this.#action("teach", "main", () => this.#start());
    this.stop = this.#action("stop", "", () => session.ask("stop"));
    this.blind = this.#action("blind", "main", () => shell.go("blind"));
    this.again = this.#action("again", "", () => shell.go("blind"));
    const [title, hint] = [text.t("teach.blind.title"), text.t("teach.blind.hint")];
    this.check = el("div.card.invite", { hidden: true }, el("h3", {}, title), el("p.lead", {}, hint), this.blind);
    const now = el("div.card", {}, this.lead, this.work.element, el("div.actions", {}, this.teach, this.stop, this.again));
    this.latest = el("div.latest");
    this.earlier = el("div.earlier");
    this.nearby = el("p.hint");
    const page = el("div.page", {}, this.check, now, this.latest, this.earlier, this.nearby);
    this.element = el("section.scroll.teaching", { tabindex: -1, "aria-label": text.t("teach.title") }, page);
    session.addEventListener("state", () => !this.element.hidden && this.refresh());
  }

  focus() {
    this.element.focus({ preventScroll: true });
  }

  /** @param {boolean} on */
  shown(on) {
    this.session.watch(on);
    if (on) this.refresh();
  }

  refresh() {
    const { state } = this.session;
    if (!state) return;
    this.work.refresh(state.work);
    say(this.lead, this.#leadWords(state));
    const stopping = state.work?.kind === "stopping";
    this.teach.hidden = stopping || BUSY.includes(state.work?.kind ?? "");
    this.teach.disabled = this.starting || !state.can.includes("teach");
    this.stop.hidden = stopping || !state.can.includes("stop");
    this.again.hidden = !(state.blind?.decision && state.can.includes("decide"));
    this.check.hidden = !state.blind || Boolean(state.blind.decision);
    say(this.blind, this.text.t(state.blind?.done ? "teach.blind.go_on" : "teach.blind"));
    say(this.nearby, state.groups.near ? this.text.t("teach.near", { n: state.groups.near }) : "");
    // What is being taught has no outcome yet; only a round that was left open is shown unfinished.
    this.#rounds(state.work ? state.rounds.filter((round) => round.finished) : state.rounds);
  }

  /** @param {State} state */
  #leadWords(state) {
    if (state.work?.kind === "blind") return this.text.t("teach.comparing");
    if (BUSY.includes(state.work?.kind ?? "")) return this.text.t("teach.busy");
    const stopped = state.rounds.find((round) => !round.finished && round.reward);
    if (stopped && !state.work) return this.text.t("teach.reward", { n: stopped.number, name: stopped.reward ?? "" });
    if (state.can.includes("teach")) {
      const ready = this.text.t("teach.ready", { n: state.picks.usable });
      return state.understood ? `${understoodWords(state.understood, this.text)}. ${ready}` : ready;
    }
    const { usable, needed, untaught } = state.picks;
    if (!usable) return this.text.t("teach.none", { needed });
    if (usable < needed) return this.text.t("teach.missing", { n: needed - usable, usable, needed });
    const key = state.work ? "teach.wait" : untaught ? "teach.ready" : "teach.nothing_new";
    return this.text.t(key, { n: usable });
  }

  async #start() {
    this.starting = true;
    this.refresh();
    if (await this.session.act("teach")) this.shell.asked("teach");
    this.starting = false;
    this.refresh();
  }

  /** All are drawn anew where one has changed. @param {Round[]} rounds */
  #rounds(rounds) {
    const [latest, ...older] = [...rounds].sort((a, b) => b.number - a.number);
    /** @param {Round} round */
    const card = (round) => new RoundCard(round, this.text, this.session.api).element;
    refill(this.latest, rounds, () => [latest && card(latest)]);
    const words = this.text.t("teach.earlier", { n: older.length });
    refill(this.earlier, rounds, () => [older.length > 0 && fold(words, ...older.map(card))]);
    mark(this.element, "empty", !latest);
  }

  /** @param {string} name @param {string} look @param {() => void} onclick */
  #action(name, look, onclick) {
    return button(`action ${look}`, { "data-action": name, onclick }, this.text.t(`teach.${name}`));
  }
}
