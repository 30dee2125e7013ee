/**
 * What stays around the views: the head with its tabs, notices, sheets, full screen, the voice for screen readers, and
 * keys.
 */

import { BlindView } from "./blind_view.mjs";
import { button, el, icon, say } from "./dom.mjs";
import { HistoryView } from "./history_view.mjs";
import { commandFor } from "./keys.mjs";
import { Notices } from "./notices.mjs";
import { PickView } from "./pick_view.mjs";
import { RankingView } from "./ranking_view.mjs";
import { keyList, Overlay, youForm } from "./sheets.mjs";
import { TeachingView } from "./teaching_view.mjs";

/** @import { Child, Command, IconName, Session, Text, View } from "./types" */

const TABS = ["pick", "ranking", "teach", "history"];

/** A wheel that scrolls something in here must not zoom a host's canvas as well. @param {Event} event */
function keepWheel(event) {
  /** @param {EventTarget} node */
  const scrolls = (node) => node instanceof Element && node.matches(".scroll, .sheet");
  if (event.composedPath().some(scrolls)) event.stopPropagation();
}

export class Shell {
  /**
   * @param {HTMLElement} host the custom element @param {Session} session @param {Text} text
   * @param {{setWho: (who: string) => void, leave: (() => void) | null}} owner
   */
  constructor(host, session, text, owner) {
    this.host = host;
    this.session = session;
    this.text = text;
    this.owner = owner;
    this.view = "pick";
    this.voice = el("p.voice", { "aria-live": "polite" });
    /** @type {Record<string, View>} */
    this.views = {
      pick: new PickView(session, text, this),
      ranking: new RankingView(session, text, this),
      teach: new TeachingView(session, text, this),
      blind: new BlindView(session, text, this),
      history: new HistoryView(session, text, this),
    };
    this.notices = new Notices(session, text, this);
    this.guest = Boolean(session.api.guest);
    this.tabs = TABS.map((name) => this.#tab(name));
    this.#of("teach").hidden = this.guest;
    this.title = el("h1");
    this.fullButton = this.#round("full", () => this.toggleFull());
    this.fullButton.setAttribute("aria-pressed", "false");
    this.head = this.#head();
    this.body = el("div.body", {}, ...Object.values(this.views).map((view) => view.element));
    this.overlay = new Overlay(text, [this.head, this.notices.element, this.body], () => this.focus());
    const parts = [this.head, this.notices.element, this.body, this.overlay.element, this.voice];
    this.element = el("div.gallery", { lang: text.language }, ...parts);
    this.element.addEventListener("click", () => this.#keepFocus());
    this.element.addEventListener("wheel", keepWheel, { passive: true });
    session.addEventListener("state", () => this.#refresh());
    document.addEventListener("fullscreenchange", () => this.#refreshFull(), { signal: session.ending.signal });
    this.go("pick", false);
  }

  get now() {
    return this.views[this.view];
  }

  focus() {
    this.now.focus();
  }

  /** @param {string} words */
  speak(words) {
    say(this.voice, words);
  }

  /** @param {string} name */
  go(name, focus = true) {
    this.view = name;
    for (const [one, view] of Object.entries(this.views)) {
      if (one !== name && !view.element.hidden) view.shown(false);
      view.element.hidden = one !== name;
    }
    this.now.shown(true);
    const tab = name === "blind" ? "teach" : name;
    for (const one of this.tabs) {
      if (one.dataset.view === tab) one.setAttribute("aria-current", "page");
      else one.removeAttribute("aria-current");
    }
    this.notices.refresh();
    if (focus) this.focus();
  }

  /** A press on what takes no focus would give it to the page, and keys would act there. */
  #keepFocus() {
    if (!this.host.matches(":focus-within")) this.focus();
  }

  // Keys

  /** @param {KeyboardEvent} event */
  keyDown(event) {
    const command = commandFor(event);
    if (!command) return;
    if (this.#run(command, event)) event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  keyUp(event) {
    this.now.keyUp?.(event);
  }

  /** @param {Command} command @param {KeyboardEvent} event */
  #run(command, event) {
    if (command.name === "nothing") return true;
    if (command.name === "leave") return this.#leave(event);
    if (this.overlay.open) return this.#inOverlay(command, event);
    /** @type {Record<string, () => unknown>} */
    const acts = {
      full: () => this.toggleFull(),
      history: () => this.go(this.view === "history" ? "pick" : "history"),
      help: () => this.showHelp(),
    };
    const act = acts[command.name];
    if (!act) return this.now.command?.(command, event) ?? false;
    if (!event.repeat) act();
    return true;
  }

  /** @param {Command} command @param {KeyboardEvent} event */
  #inOverlay(command, event) {
    if (command.name === "help" && this.overlay.name === "help" && !event.repeat) this.overlay.close();
    return command.name === "help";
  }

  /**
   * Escape: the innermost of zoom, sheet and full screen; otherwise nothing, and never the host's business.
   * @param {KeyboardEvent} event
   */
  #leave(event) {
    if (!event.repeat) this.leave();
    return true;
  }

  /** Ends what is open in here, the innermost first; whether anything was. */
  leave() {
    if (this.overlay.close() || this.now.leave?.()) return true;
    if (!this.full) return false;
    this.toggleFull();
    return true;
  }

  // Full screen

  get full() {
    return document.fullscreenElement === this.host || this.host.hasAttribute("filled");
  }

  async toggleFull() {
    if (document.fullscreenElement === this.host) return document.exitFullscreen();
    if (this.host.hasAttribute("filled")) this.host.removeAttribute("filled");
    else await this.host.requestFullscreen().catch(() => this.host.setAttribute("filled", ""));
    this.#refreshFull();
    this.focus();
  }

  #refreshFull() {
    this.fullButton.setAttribute("aria-pressed", String(this.full));
  }

  // Sheets

  /** @param {string} name @param {string} title @param {...Node} content */
  open(name, title, ...content) {
    this.overlay.show(name, title, ...content);
  }

  shut() {
    this.overlay.close();
  }

  showHelp() {
    this.overlay.show("help", this.text.t("help.title"), ...keyList(this.text));
  }

  showYou() {
    const taste = this.session.state?.taste.name ?? "";
    /** @param {string} who @param {string} name */
    const named = (who, name) => {
      this.overlay.close();
      if (name && name !== taste) this.session.ask("rename", { name });
      if (who !== this.session.who) this.owner.setWho(who);
    };
    const form = youForm(this.session.who, taste, named, this.text);
    this.overlay.show("you", this.text.t("you.title"), form);
  }

  /** @param {string} name */
  #tab(name) {
    const attributes = { type: "button", "data-view": name, onclick: () => this.go(name) };
    return el("button", attributes, this.text.t(`tab.${name}`));
  }

  /** The tab of a view. @param {string} name */
  #of(name) {
    return this.tabs[TABS.indexOf(name)];
  }

  #head() {
    const { who } = this.session;
    const named = () => this.#round("person", () => this.showYou(), who && el("span.name", {}, who));
    const person = this.guest ? el("span.name", { "data-head": "person" }, who) : named();
    const back = this.owner.leave && this.#round("back", this.owner.leave);
    const help = this.#round("help", () => this.showHelp());
    return el(
      "div.head",
      {},
      el("div.left", {}, back, this.title),
      el("nav.tabs", { "aria-label": this.text.t("tab.title") }, ...this.tabs),
      el("div.right", {}, person, this.fullButton, help),
    );
  }

  /** @param {IconName} name @param {() => void} press @param {...Child} more */
  #round(name, press, ...more) {
    const label = this.text.t(`head.${name}`);
    const attributes = { "data-head": name, title: label, "aria-label": label, onclick: press };
    return button("bare", attributes, icon(name), ...more);
  }

  /** Tell the host what was asked for. @param {string} name */
  asked(name) {
    this.host.dispatchEvent(new CustomEvent("d3po-asked", { detail: name, bubbles: true }));
  }

  #refresh() {
    const { state } = this.session;
    if (!state) return;
    say(this.title, state.taste.name || this.text.t("choose.unnamed"));
    this.title.title = state.taste.model.name;
    const undecided = Boolean(state.blind && !state.blind.decision);
    this.#of("teach").toggleAttribute("news", undecided || state.work?.kind === "teaching");
    this.#of("ranking").hidden = !state.tournament;
    this.host.dispatchEvent(new CustomEvent("d3po-state", { detail: state, bubbles: true }));
  }
}
