/**
 * <d3po-gallery base="/d3po" taste="ID" lang="en" who="" theme="dark|light" autofocus choosable single guest>
 *
 * The gallery as one element that fills its container: the same in ComfyUI, A1111/Forge and the Studio. Without `taste`
 * it offers a choice; with `choosable` there is a way back to that. Of several with `single` on one page that show the
 * same taste, one is at work and the others rest. With `guest` it is an invited person's: they pick, and look back at
 * their own picks. It sends the events "d3po-state", with the server's State whenever
 * that changes, and "d3po-asked" with "teach" or "draw" once the server has taken that, for hosts that have something
 * to do themselves then. Where it cannot be seen (behind another tab or page), nothing is drawn for it.
 */

import { Api } from "./api.mjs";
import { ChooseView } from "./choose_view.mjs";
import { claimTab, leaveSeats, takeSeat } from "./claims.mjs";
import { el } from "./dom.mjs";
import { Session } from "./session.mjs";
import { Shell } from "./shell.mjs";
import { forEver, keep, recall } from "./stored.mjs";
import { loadText } from "./text.mjs";
import { wall } from "./wall.mjs";

/** @import { Text } from "./types" */

const SHEETS = ["gallery", "pick", "pages", "blind", "history"];
const WHO = "d3po/who";
const ANEW = ["base", "taste", "lang", "who"];

export class D3POGallery extends HTMLElement {
  static observedAttributes = ANEW;

  constructor() {
    super();
    this.root = this.attachShadow({ mode: "open" });
    this.room = el("div.room");
    /** the attributes that were last opened, or are being opened */
    this.asked = "";
    /** another gallery of the same taste is to give way */
    this.insists = false;
    this.inSight = false;
    /** @type {Promise<void>} one opening after the other */
    this.turn = Promise.resolve();
    /** @type {Session | undefined} */
    this.sitting = undefined;
    /** @type {Shell | undefined} */
    this.shell = undefined;
    /** @type {ChooseView | undefined} */
    this.chooser = undefined;
    /** @type {(() => void) | undefined} takes the wall around the keys down */
    this.wall = undefined;
    /** @type {IntersectionObserver | undefined} */
    this.sight = undefined;
    /** @type {Promise<void> | undefined} */
    this.dressed = undefined;
  }

  /**
   * Some hosts look at the focused element's type before they take Ctrl+Z for their own undo, in a listener that runs
   * before ours can; for them this is a place where one types.
   */
  get type() {
    return "textarea";
  }

  /** Another gallery of this page that has the same taste open gives way to this one, once. */
  insist() {
    this.insists = true;
    this.wake();
  }

  /** For claims.mjs: tries to sit down (again). */
  wake() {
    this.asked = "";
    if (this.isConnected) this.#openSoon();
  }

  /** For claims.mjs: another gallery takes over. */
  async giveWay() {
    this.asked = "";
    await this.#close();
    this.#rest(await loadText(this.getAttribute("lang")));
  }

  /** The sitting under way, for hosts that want to look at it. */
  get session() {
    return this.sitting ?? null;
  }

  /** Ends what is open in it (zoom, a sheet, full screen), for hosts whose Escape does more; whether anything was. */
  leave() {
    return this.shell?.leave() ?? false;
  }

  connectedCallback() {
    this.wall ??= wall(this, {
      keydown: (event) => this.shell?.keyDown(event),
      keyup: (event) => this.shell?.keyUp(event),
    });
    this.sight ??= new IntersectionObserver((changes) => {
      this.inSight = changes[changes.length - 1].isIntersecting;
      this.sitting?.show(this.inSight);
      if (this.inSight) this.#takeKeys();
    });
    this.sight.observe(this);
    this.#openSoon();
  }

  disconnectedCallback() {
    // Hosts move elements about; only what stays away is closed.
    setTimeout(() => {
      if (this.isConnected) return;
      this.wall?.();
      this.sight?.disconnect();
      this.wall = this.sight = undefined;
      this.asked = "";
      leaveSeats(this);
      this.#close();
    });
  }

  /** @param {string} _name @param {string | null} before @param {string | null} after */
  attributeChangedCallback(_name, before, after) {
    if (before !== after && this.isConnected) this.#openSoon();
  }

  focus() {
    (this.shell ?? this.chooser)?.focus();
  }

  /** With `autofocus`, keys work without a click: unless somebody types or is about to do something else. */
  #takeKeys() {
    const now = document.activeElement;
    const idle = !now || now === document.body || now.closest("[role=tablist], .tab-nav");
    if (idle && this.inSight && this.hasAttribute("autofocus")) this.focus();
  }

  /** Once for any number of attributes that are set together. */
  #openSoon() {
    const asked = JSON.stringify(ANEW.map((name) => this.getAttribute(name)));
    if (asked === this.asked) return;
    this.asked = asked;
    this.turn = this.turn.then(() => this.#open(asked));
  }

  /** @param {string} asked */
  async #open(asked) {
    if (asked !== this.asked || !this.isConnected) return;
    const hadFocus = this.matches(":focus-within");
    await this.#close();
    const guest = this.hasAttribute("guest") ? (this.getAttribute("who") ?? "") : "";
    const api = new Api(this.getAttribute("base") ?? "/d3po", guest);
    const [text] = await Promise.all([loadText(this.getAttribute("lang")), this.#dress()]);
    // Another attribute may have been set in the meantime.
    if (asked !== this.asked) return;
    api.addEventListener("ended", () => this.#end(text), { once: true });
    const taste = this.getAttribute("taste");
    if (!taste) {
      leaveSeats(this);
      this.#choose(api, text);
    } else if (await this.#maySit(`${api.base} ${taste}`)) await this.#sit(api, taste, text, asked);
    else this.#rest(text);
    if (hadFocus) this.focus();
    else this.#takeKeys();
  }

  /** @param {string} place */
  async #maySit(place) {
    return !this.hasAttribute("single") || takeSeat(place, this, this.insists);
  }

  /** @param {Api} api @param {string} taste @param {Text} text @param {string} asked */
  async #sit(api, taste, text, asked) {
    const who = this.getAttribute("who") || recall(forEver, WHO, "");
    const tab = await claimTab();
    if (asked !== this.asked) return void tab.release();
    this.insists = false;
    this.sitting = new Session(api, taste, who, tab);
    this.shell = new Shell(this, this.sitting, text, {
      setWho: (name) => this.#setWho(name),
      leave: this.hasAttribute("choosable") ? () => this.removeAttribute("taste") : null,
    });
    this.room.replaceChildren(this.shell.element);
    this.sitting.show(this.inSight);
    this.sitting.start();
  }

  /** @param {Api} api @param {Text} text */
  #choose(api, text) {
    this.chooser = new ChooseView(api, text, (taste) => {
      this.insists = true;
      this.setAttribute("taste", taste);
    });
    this.room.replaceChildren(el("div.gallery", { lang: text.language }, this.chooser.element));
  }

  /** @param {Text} text */
  #rest(text) {
    const here = () => this.insist();
    const words = el("p.title", {}, text.t("resting"));
    const button = el("button", { type: "button", class: "main", onclick: here }, text.t("resting.here"));
    const box = el("div.empty", {}, words, button);
    this.room.replaceChildren(el("div.gallery", { lang: text.language }, box));
  }

  /** The link no longer works: nothing is shown any more but that. @param {Text} text */
  #end(text) {
    this.#close();
    const words = [el("p.title", {}, text.t("guest.ended")), el("p.hint", {}, text.t("guest.ended.hint"))];
    const box = el("div.empty", { role: "alert" }, ...words);
    this.room.replaceChildren(el("div.gallery", { lang: text.language }, box));
  }

  /** @param {string} who */
  #setWho(who) {
    keep(forEver, WHO, who);
    this.removeAttribute("who");
    this.wake();
  }

  #close() {
    const ended = this.sitting?.stop();
    this.chooser?.stop();
    this.sitting = this.shell = this.chooser = undefined;
    this.room.replaceChildren();
    return ended;
  }

  /** Nothing is shown before its style sheets are there. */
  #dress() {
    this.dressed ??= new Promise((done) => {
      let missing = SHEETS.length;
      const arrived = () => --missing || done();
      const links = SHEETS.map((name) =>
        el("link", {
          rel: "stylesheet",
          href: new URL(`./${name}.css`, import.meta.url),
          onload: arrived,
          onerror: arrived,
        }),
      );
      this.root.append(...links, this.room);
    });
    return this.dressed;
  }
}

if (!customElements.get("d3po-gallery")) customElements.define("d3po-gallery", D3POGallery);
