/**
 * One person's sitting with one taste: what they say of its groups, and what the server last answered. It knows no
 * elements; views listen to its events: "group" another group (or none) is in front, "flags" or "masks" its own have changed,
 * "state" anything else that is shown has changed.
 */

import { Away, Refused } from "./api.mjs";
import { Cards } from "./cards.mjs";
import { FlagChanges, hasFlag, isFlag, withFlag } from "./flags.mjs";
import { MaskChanges, withMask } from "./masks.mjs";
import { Outbox } from "./outbox.mjs";
import { Polling } from "./polling.mjs";
import { newId } from "./stored.mjs";
import { Pace } from "./timing.mjs";

/** @import { Answer, Api, Card, Flag, Image, Item, Made, PickKind, Problem, Sent, State, Tab } from "./types" */

/** Whether a pick says that one image is better than another, so that something can be learnt. @param {string} kind */
const teaches = (kind) => kind === "favourite" || kind === "ranking" || kind === "scores";

/** @param {{images: Image[]}} of */
const shownOrder = (of) => of.images.map((image) => image.candidate);

export class Session extends EventTarget {
  /** @param {Api} api @param {string} taste @param {string} who @param {Tab} tab */
  constructor(api, taste, who, tab) {
    super();
    this.api = api;
    this.taste = taste;
    this.who = who;
    this.tab = tab;
    this.path = `taste/${taste}`;
    this.outbox = new Outbox(api, taste, tab.id);
    this.pace = new Pace(who);
    this.ending = new AbortController();
    this.cards = new Cards({
      url: (path) => api.url(path),
      signal: this.ending.signal,
      changed: () => this.tell("group"),
      advanced: () => this.polling.askSoon(),
    });
    this.polling = new Polling(this);
    /** @type {State | null} the server's last */
    this.state = null;
    this.heardAt = 0;
    /** @type {Problem | null} the server refused to answer at all */
    this.refusal = null;
    /** @type {Problem | null} a word for the person, until they close it */
    this.notice = null;
    /** @type {Made[]} */
    this.made = [];
    this.flags = new FlagChanges();
    this.masks = new MaskChanges();
    /** @type {Map<string, number>} when a group was last picked here */
    this.pickedAt = new Map();
    /** @type {number | null} picks at the milestone that was just reached */
    this.rest = null;
    this.takingBack = Promise.resolve();
  }

  start() {
    this.outbox.addEventListener("change", () => this.tell("state"));
    this.outbox.addEventListener("sent", (event) => this.#heardOf(/** @type {CustomEvent<Sent>} */ (event).detail));
    this.api.addEventListener("change", () => {
      if (!this.api.away) this.outbox.pause.cut();
      this.tell("state");
    });
    this.made = this.outbox.waiting.flatMap(({ id, card, body: { kind, order, candidate, on } }) => {
      if (!card) return [];
      return [isFlag(kind) ? { pick_id: id, card, kind, order: [candidate], on } : { pick_id: id, card, kind, order }];
    });
    for (const { card, kind, order, on } of this.made) {
      if (isFlag(kind)) this.flags.note(card.group_id, order[0], kind, Boolean(on));
    }
    for (const { kind, body } of this.outbox.waiting) {
      if (kind === "mask" && body.who === this.who && body.reason !== "repeat") this.masks.note(body.group_id, body.candidate, body.rows);
    }
    this.outbox.start();
    document.addEventListener("visibilitychange", () => this.hear(), { signal: this.ending.signal });
    this.polling.run();
  }

  /** Resolves when another gallery may use this tab's id. */
  stop() {
    this.ending.abort();
    this.outbox.stop();
    this.polling.pause.cut();
    return this.tab.release();
  }

  get stopped() {
    return this.ending.signal.aborted;
  }

  get current() {
    return this.cards.current;
  }

  get ahead() {
    return this.cards.ahead;
  }

  // Picking

  /** The card in front, where it is certain that there is one. */
  get #front() {
    if (!this.current) throw new Error("No group is in front.");
    return this.current.card;
  }

  /**
   * Says something about the group in front and goes on to the next.
   * @param {PickKind} kind @param {number[]} order candidate numbers @param {number} decision_ms
   */
  pick(kind, order, decision_ms) {
    const card = this.#front;
    const before = this.progress();
    const pick_id = newId();
    const { group_id, reason, was: _, ...rest } = card;
    const plain = { ...rest, group_id, reason };
    const pick = { kind, order, shown_order: shownOrder(card), decision_ms, reason };
    const body = { pick_id, client: this.tab.id, who: this.who, group_id, ...pick };
    const repeat = reason === "repeat";
    this.made.push({ pick_id, card: plain, kind, order });
    this.pickedAt.set(group_id, performance.now());
    this.pace.add(decision_ms);
    const counts = repeat || card.flags.length || !teaches(kind) ? 0 : 1;
    this.outbox.add({ id: pick_id, kind: "pick", path: `${this.path}/pick`, body, card: plain, counts });
    this.rest = before && before.done + counts >= before.of ? before.of : null;
    this.cards.advance();
  }

  /**
   * Puts a flag on an image of the group in front, or takes it off. Whatever is picked there stays open.
   * @param {number} candidate @param {string} kind @returns {boolean} whether it is on now
   */
  flag(candidate, kind) {
    const card = this.#front;
    const on = !hasFlag(card.flags, candidate, kind);
    const { was: _, ...plain } = card;
    const pick_id = newId();
    this.made.push({ pick_id, card: plain, kind, order: [candidate], on });
    this.#sendFlag({ pick_id, candidate, kind, on, reason: card.reason }, card, this.who, plain);
    this.#setFlag(card.group_id, candidate, kind, on);
    return on;
  }

  /**
   * Says which part of an image of the group in front is meant; [] for the whole image. It judges nothing by itself.
   * @param {number} candidate @param {number[]} rows
   */
  mask(candidate, rows) {
    const card = this.#front;
    const { group_id, reason } = card;
    const pick_id = newId();
    const mask = { pick_id, candidate, rows, reason, shown_order: shownOrder(card) };
    const body = { client: this.tab.id, who: this.who, group_id, ...mask };
    this.outbox.add({ id: pick_id, kind: "mask", path: `${this.path}/mask`, body, counts: 0 });
    if (reason !== "repeat") this.masks.note(group_id, candidate, rows);
    this.cards.change(group_id, (now) => ({ ...now, masks: withMask(now.masks, candidate, rows) }));
    this.tell("masks");
  }

  /** A card with what was said of its images here and the server may not know yet. @param {Card} card */
  withChanges(card) {
    return this.masks.on(this.flags.on(card));
  }

  /**
   * The same from the history, under the name of whoever judged.
   * @param {Item} item @param {number} candidate @param {string} kind @returns {Flag[]} the item's flags now
   */
  correctFlag(item, candidate, kind) {
    const on = !hasFlag(item.flags, candidate, kind);
    this.#sendFlag({ pick_id: newId(), candidate, kind, on, reason: "correction" }, item, item.who);
    if (item.who === this.who) this.#setFlag(item.group_id, candidate, kind, on);
    return withFlag(item.flags, candidate, kind, on);
  }

  /**
   * @param {{pick_id: string, candidate: number, kind: string, on: boolean, reason: string}} change
   * @param {Card | Item} of @param {string} who @param {Card} [card] to show again as long as it was not sent
   */
  #sendFlag(change, of, who, card) {
    const body = { ...change, client: this.tab.id, who, group_id: of.group_id, shown_order: shownOrder(of) };
    const after = withFlag(of.flags, change.candidate, change.kind, change.on);
    // A group counts once it has a pick or a flag.
    const judged = of.reason === "repeat" || ("kind" in of && of.kind !== "flagged");
    const counts = judged ? 0 : Math.sign(after.length) - Math.sign(of.flags.length);
    this.outbox.add({ id: change.pick_id, kind: "flag", path: `${this.path}/flag`, body, card, counts });
  }

  /**
   * Here and now, and on whatever the server tells of this group before it has heard of it.
   * @param {string} group_id @param {number} candidate @param {string} kind @param {boolean} on
   */
  #setFlag(group_id, candidate, kind, on) {
    this.flags.note(group_id, candidate, kind, on);
    this.#setFlags(group_id, (flags) => withFlag(flags, candidate, kind, on));
  }

  /** @param {string} group_id @param {(flags: Flag[]) => Flag[]} change */
  #setFlags(group_id, change) {
    this.cards.change(group_id, (card) => ({ ...card, flags: change(card.flags) }));
    this.tell("flags");
    this.tell("state");
  }

  // Taking back

  /**
   * Takes this person's last standing pick back; its group comes back in front. Or their last flag, if that came later.
   * Any number of times, also after a reload.
   */
  undo() {
    this.rest = null;
    const last = this.made.pop();
    if (last) this.#takeBackOurs(last);
    else this.takingBack = this.takingBack.then(() => this.#takeBackTheServers());
    return this.takingBack;
  }

  get canUndo() {
    return this.made.length > 0 || Boolean(this.state?.last);
  }

  /** @param {Made} made */
  #takeBackOurs({ pick_id, card, kind, order, on }) {
    const flags = card.flags ?? [];
    const after = isFlag(kind) ? withFlag(flags, order[0], kind, Boolean(on)).length : flags.length + Number(teaches(kind));
    if (!this.outbox.cancel(pick_id)) {
      // A pick that the server refused is dropped with the undo; there is nothing to take back.
      if (this.outbox.refused.some((entry) => entry.id === pick_id)) this.outbox.drop(pick_id);
      else this.#sendUndo(pick_id, card.reason === "repeat" ? 0 : Math.sign(flags.length) - Math.sign(after));
    }
    if (isFlag(kind)) {
      this.#setFlag(card.group_id, order[0], kind, !on);
      if (this.current?.card.group_id !== card.group_id) this.#bringBack({ ...card, was: null });
    } else {
      this.pickedAt.delete(card.group_id);
      this.#bringBack({ ...card, was: { kind, order, pick_id } });
    }
  }

  async #takeBackTheServers() {
    // What still waits may change what the last pick is.
    await this.outbox.empty();
    const last = this.state?.last;
    if (!last || this.stopped) return;
    const answer = await this.#sendUndo(last.pick_id, teaches(last.kind) ? -1 : 0);
    if (!answer?.card) return this.polling.pause.cut();
    const { card } = answer;
    this.flags.forget(card.group_id);
    this.masks.forget(card.group_id);
    const inFront = this.current?.card.group_id === last.group_id;
    if (isFlag(last.kind) && inFront) this.#setFlags(last.group_id, () => card.flags);
    else await this.#bringBack(card);
  }

  /** @param {string} pick_id @param {number} counts */
  #sendUndo(pick_id, counts) {
    const body = { client: this.tab.id, who: this.who, pick_id };
    return this.outbox.add({ id: `${pick_id}-undo`, kind: "undo", path: `${this.path}/undo`, body, counts });
  }

  /** @param {Card} card */
  #bringBack(card) {
    return this.cards.bringBack(this.withChanges(card));
  }

  // The history

  /**
   * Replaces a pick from the history, under the name of whoever made it: a group has one pick of each person.
   * @param {Item} item @param {number} candidate the favourite from now on @returns {string} the new pick's id
   */
  correct(item, candidate) {
    const pick_id = newId();
    const now = { pick_id, kind: "favourite", order: [candidate] };
    const pick = { ...now, shown_order: shownOrder(item), decision_ms: 0, reason: "correction" };
    const body = { client: this.tab.id, who: item.who, group_id: item.group_id, ...pick };
    this.made = this.made.map((one) => (one.pick_id === item.pick_id ? { ...one, ...now } : one));
    this.outbox.add({ id: pick_id, kind: "pick", path: `${this.path}/pick`, body, counts: 0 });
    return pick_id;
  }

  /** Takes back all that a person said of a group. @param {Item} item */
  remove({ pick_id, group_id, who, kind, flags }) {
    const ours = who === this.who;
    this.made = this.made.filter(
      (one) => one.pick_id !== pick_id && !(ours && isFlag(one.kind) && one.card.group_id === group_id),
    );
    if (ours) {
      this.flags.forget(group_id);
      this.masks.forget(group_id);
      this.cards.change(group_id, (card) => ({ ...card, masks: [] }));
      this.#setFlags(group_id, () => []);
    }
    const body = { who: this.who, pick_id };
    const counts = teaches(kind) || flags.length ? -1 : 0;
    this.outbox.add({ id: `${pick_id}-remove`, kind: "remove", path: `${this.path}/remove`, body, counts });
  }

  // What is shown about it

  /** Matches of a tournament while one is in front, with those that the server does not know yet counted in. */
  tournament() {
    const { tournament } = this.state ?? {};
    if (!tournament || !this.current?.card.match) return null;
    const ours = this.outbox.waiting.filter(({ taste, kind, body, card }) => {
      return taste === this.taste && kind === "pick" && card?.match && body.reason !== "repeat";
    });
    return { done: Math.min(tournament.of, tournament.done + ours.length), of: tournament.of };
  }

  /** Picks done, the milestone ahead and the one behind, with what the server does not know yet counted in. */
  progress() {
    if (!this.state) return null;
    const picks = this.state.picks;
    const ours = this.outbox.waiting.filter((entry) => entry.taste === this.taste);
    const unsent = ours.reduce((sum, entry) => sum + entry.counts, 0);
    // The group in front counts by its flags already, and is not done with.
    const front = this.current?.card;
    const open = front && front.reason !== "repeat" && front.flags.length ? 1 : 0;
    return { done: Math.max(0, picks.usable + unsent - open), of: picks.milestone, previous: picks.previous };
  }

  /** Seconds to the next milestone, from this person's own times, or null. */
  secondsLeft() {
    const progress = this.progress();
    return progress && progress.of > progress.done ? this.pace.seconds(progress.of - progress.done) : null;
  }

  /** A view that shows the server's work asks to be told sooner. @param {boolean} on */
  watch(on) {
    this.polling.watching = on;
    if (on) this.polling.pause.cut();
  }

  /**
   * Whether the gallery can be seen. While it cannot, it only listens: it takes no groups, keeps none from others, and
   * the server does not draw for it.
   * @param {boolean} on
   */
  show(on) {
    if (on === this.shown) return;
    this.polling.shown = on;
    this.hear();
  }

  get shown() {
    return this.polling.shown;
  }

  /** The host knows that there is something new: the server is asked now, not at the next turn. */
  hear() {
    this.polling.hear();
  }

  /** A word of the host's, shown where the server's refusals are. @param {string} what */
  note(what) {
    this.notice = { what, do: "", safe: "" };
    this.tell("state");
  }

  // The server

  /** Teach, stop, draw: what was picked before the press counts for it. @param {string} name */
  async act(name, body = {}) {
    await this.outbox.empty();
    return this.ask(name, body);
  }

  /**
   * Posts and takes the state that comes back. A refusal is shown.
   * @param {string} name @returns {Promise<Answer | null>}
   */
  async ask(name, body = {}) {
    const begun = performance.now();
    try {
      const answer = await this.api.post(`${this.path}/${name}`, { who: this.who, ...body });
      this.#takeAnswer(answer, begun);
      return answer;
    } catch (error) {
      if (error instanceof Refused) this.notice = error.problem;
      else if (!(error instanceof Away)) throw error;
      this.tell("state");
      return null;
    }
  }

  /** @param {string} check @param {number} index the pair @param {number | null} side @param {number} decision_ms */
  answerBlind(check, index, side, decision_ms) {
    const body = { check, index, side, decision_ms };
    const path = `${this.path}/blind/answer`;
    return this.outbox.add({ id: `${check}-${index}`, kind: "answer", path, body, counts: 0 });
  }

  /** @param {Answer} answer @param {number} begun when it was asked for @param {boolean} [settled] */
  #takeAnswer(answer, begun, settled) {
    if (answer.state) this.take(answer.state, begun, settled);
    else if (answer.blind && this.state) {
      this.state = { ...this.state, blind: answer.blind };
      this.tell("state");
    }
  }

  /**
   * Believes a state if it is newer than ours. While picks are on their way their counts are left alone: an answer to
   * something else may or may not have counted them already.
   * @param {State} state @param {number} begun when it was asked for
   */
  take(state, begun, settled = !this.outbox.waiting.length) {
    const ours = this.state;
    if (ours && state.revision < ours.revision && begun < this.heardAt) return;
    this.state = settled || !ours ? state : { ...state, picks: ours.picks, last: ours.last };
    this.heardAt = performance.now();
    this.refusal = null;
    this.tell("state");
  }

  /** @param {Sent} sent */
  #heardOf({ entry, answer, begun }) {
    if (entry.taste !== this.taste || !answer) return;
    // A state told for another person's name is not ours in what it says of "yours" and "last".
    this.#takeAnswer(answer, begun, (entry.body.who ?? this.who) === this.who);
  }

  /** @param {"group" | "flags" | "masks" | "state"} what */
  tell(what) {
    if (!this.stopped) this.dispatchEvent(new Event(what));
  }
}
