/** What page and server say to each other, as d3po_core/gallery/API.md has it, and what hosts provide. */

export type { Api } from "./api.mjs";
export type { D3POGallery } from "./gallery.mjs";
export type { PickView } from "./pick_view.mjs";
export type { Session } from "./session.mjs";
export type { Text } from "./text.mjs";
export type Galleries = typeof import("./comfyui_gallery.mjs");

export type Flag = { candidate: number; kind: string };
/** The part of an image that is meant, see masks.mjs. */
export type Mask = { candidate: number; rows: number[] };
export type Image = { candidate: number; url: string };
export type PickKind = "favourite" | "ranking" | "tie" | "all_bad" | "skipped";
export type Reason = "random" | "repeat" | "undo" | "correction";

/** A group to show. */
export type Card = {
  group_id: string;
  number: number;
  prompt: string;
  reason: Reason;
  /** Two pictures of a tournament. */
  match: boolean;
  images: Image[];
  flags: Flag[];
  masks: Mask[];
  was?: { kind: string; order: number[]; pick_id: string } | null;
};

/** A pick in the history. */
export type Item = {
  pick_id: string;
  group_id: string;
  number: number;
  prompt: string;
  kind: string;
  order: number[];
  scores: number[];
  who: string;
  when: number;
  reason: Reason;
  round: number;
  held_out: boolean;
  flags: Flag[];
  masks: Mask[];
  images: Image[];
};

export type History = {
  total: number;
  items: Item[];
  people: string[];
  rounds: number[];
  consistency: { who: string; same: number; of: number }[];
  agreement: Agreement | null;
};

export type Agreement = {
  alpha: number | null;
  low: number | null;
  high: number | null;
  groups: number;
  same: number;
  chance: number;
  people: { who: string; groups: number; same: number; chance: number }[];
};

export type Problem = { what: string; do: string; safe: string };

export type Work = {
  kind: "loading" | "drawing" | "checking" | "teaching" | "blind" | "importing" | "stopping" | "idle";
  done: number;
  of: number;
  left_s: number | null;
  queued: number;
  text: string;
  /** A1111 and Forge: the id of the host's task. */
  task?: string;
};

export type Drift = "low" | "medium" | "high";
/** Images of one prompt and seed, before and after. */
export type Comparison = { prompt: string; before: string; after: string };

export type Round = {
  number: number;
  finished: boolean;
  reward: string | null;
  guessed: number | null;
  guessed_of: number | null;
  curve: number[] | null;
  drift: Drift | null;
  reason: string | null;
  taught: boolean;
  lora: string | null;
  strength: number | null;
  win: number | null;
  kept: number | null;
  used: number;
  strip: Comparison[];
  gentler: { strength: number; drift: Drift; strip: Comparison[] }[];
  details: Record<string, number | null> | null;
};

export type BlindAnswer = "taught" | "before" | "neither";

export type Blind = {
  check: string;
  round: number;
  of: number;
  done: number;
  decision: "keep" | "gentler" | "back" | null;
  result: (Record<BlindAnswer, number> & { low: number; high: number; answers: BlindAnswer[] }) | null;
};

export type BlindPair = { index: number; prompt: string; images: { side: number; url: string }[] };

export type Taste = { id: string; name: string; model: { family: string; name: string } };
export type ListedTaste = Taste & { picks: number; groups: number; created: number };

export type State = {
  taste: Taste;
  revision: number;
  can: string[];
  picks: Record<"yours" | "all" | "usable" | "untaught" | "needed" | "milestone" | "previous", number>;
  last: { pick_id: string; group_id: string; kind: string } | null;
  groups: { drawn: number; waiting: number; near: number };
  work: Work | null;
  problem: Problem | null;
  lost: Lost | null;
  rounds: Round[];
  blind: Blind | null;
  understood: Understood | null;
  tournament: Tournament | null;
};

/** Matches of pictures that exist, two at a time: how many are over, of how many. */
export type Tournament = { done: number; of: number };
export type RankedPicture = { place: number; won: number; played: number; name: string; image: Image };
export type Ranking = { pools: { prompt: string; pictures: RankedPicture[] }[] };

/** A LoRA file that the taste needs is missing or damaged; `to` is the round that it would go on from, 0 the original. */
export type Lost = Problem & { to: number; restores: boolean };

/** What a judge that is fitted to the picks makes of them. */
export type Understood = { right: number; groups: number; share: number; more: boolean };

/** Any answer to a POST: what is in it depends on what was asked. */
export type Answer = {
  state?: State;
  card?: Card;
  cards?: Card[];
  blind?: Blind;
  pair?: BlindPair | null;
  pick_id?: string;
  new?: boolean;
};

// What the gallery's modules hand each other

/** Attributes: `class` and ARIA as they are; functions are listeners; false and null leave one out. */
export type Attributes = {
  onclick?: (event: MouseEvent) => void;
  onsubmit?: (event: SubmitEvent) => void;
  [name: string]: unknown;
};

/** What is none is left out. */
export type Child = Node | string | false | null | undefined;
export type IconName = keyof typeof import("./dom.mjs").PATHS;
/** An entry of a menu. */
export type Option = [value: string | number, label: string];
/** A phrase by its key, or one for each plural. */
export type Words = Record<string, string | Record<string, string>>;

/** A card whose images are decoded, in the order to show. */
export type Prepared = { card: Card; pictures: HTMLImageElement[] };

/** A pick or flag of this sitting. A flag's card is as it was before, its order the one image. */
export type Made = {
  pick_id: string;
  card: Card;
  kind: string;
  order: number[];
  /** A flag was put, not taken off. */
  on?: boolean;
};

/** What a person did and the server does not know yet. */
export type Entry = {
  id: string;
  kind: "pick" | "flag" | "mask" | "undo" | "remove" | "answer";
  taste: string;
  base: string;
  path: string;
  body: Record<string, any>;
  /** By how much it changes the number of picks; a repeat and a correction leave it. */
  counts: number;
  /** A pick's or flag's group, so that it can be shown again before it was ever sent. */
  card?: Card;
  /** It was handed to the network at least once: the server may know it. */
  tried?: boolean;
  /** Why the server refused it. */
  problem?: Problem;
};

/** An entry that the server has answered. */
export type Sent = { entry: Entry; answer: Answer | null; begun: number };
/** What the browser keeps of a tab's entries. */
export type Kept = { waiting?: Entry[]; refused?: Entry[] };

export type Notice = {
  id: string;
  message: Problem;
  /** It was refused by the server. */
  entry?: Entry;
  /** What is offered to do, in words, and what does it. */
  act?: [label: string, onclick: () => void];
  /** A view that is offered. */
  go?: string;
  /** It is good news. */
  calm?: boolean;
  /** It can be closed. */
  close?: () => void;
};

/** A gallery that can give its seat to another one, and is told when it may sit again. */
export type Sitter = { giveWay: () => Promise<unknown>; wake: () => void };
/** An id that is this tab's alone; `release` resolves when others can hold it. */
export type Tab = { id: string; release: () => Promise<unknown> };
export type Cell = {
  element: HTMLElement;
  press: HTMLElement;
  badge: HTMLElement;
  veil: import("./masks.mjs").Veil;
};
export type FinishedBlind = Blind & { result: NonNullable<Blind["result"]> };

/** What views ask of the shell around them. */
export type ShellLike = {
  readonly view: string;
  go(view: string): void;
  speak(words: string): void;
  asked(name: string): void;
  focus(): void;
  /** Opens a sheet over the views; `shut` closes it. */
  open(name: string, title: string, ...content: Node[]): void;
  shut(): void;
};

/** One of the shell's views. */
export type View = {
  element: HTMLElement;
  focus(): void;
  shown(on: boolean): void;
  command?(command: Command, event: KeyboardEvent): boolean;
  keyUp?(event: KeyboardEvent): void;
  leave?(): boolean;
};

export type Command = {
  name: string;
  /** Which candidate, counted from 0. */
  at?: number;
  /** An arrow's direction. */
  by?: [number, number];
};

// What ComfyUI's page provides, as far as it is used here

export type ComfyWidget = {
  name: string;
  value: unknown;
  serialize?: boolean;
  type?: string;
  element?: HTMLElement;
  options?: { advanced?: boolean };
};

export type ComfyInput = { name: string; type: string; link: number | null; widget?: { name: string } };

/**
 * A node with the id by which the server runs it, and the subgraph nodes that it is in, the outermost first; active:
 * neither it nor what it is in is switched off.
 */
export type ListedNode = { node: ComfyNode; id: string; active: boolean; around: ComfyNode[] };

export type ComfyLink = { origin_id: number | string; origin_slot: number };

export type ComfyGraph = {
  nodes: ComfyNode[];
  getLink?(id: number | null): ComfyLink | undefined;
  getNodeById?(id: number | string): ComfyNode | null;
};

export type ComfyNode = {
  id: number | string;
  comfyClass: string;
  mode: number;
  size: number[];
  graph: ComfyGraph;
  subgraph?: ComfyGraph;
  widgets?: ComfyWidget[];
  inputs?: ComfyInput[];
  properties: Record<string, unknown>;
  showAdvanced?: boolean;
  isSubgraphNode?(): boolean;
  getInputNode(slot: number): ComfyNode | null;
  computeSize(): number[];
  setSize(size: number[]): void;
  setDirtyCanvas(front: boolean, back: boolean): void;
  addWidget(type: string, name: string, value: unknown, callback: () => void, options: object): ComfyWidget;
  addDOMWidget(name: string, type: string, element: HTMLElement, options: object): ComfyWidget;
  addInput(name: string, type: string, extra: Partial<ComfyInput>): ComfyInput;
  createPromotedHostWidget?(input: ComfyInput, id: string, source: ComfyWidget): ComfyWidget | undefined;
  onAdded?: unknown;
  onRemoved?: unknown;
  onResize?: unknown;
  onConfigure?(workflow: { properties?: Record<string, unknown> }): void;
  onExecuted?(output: { text?: string[]; d3po_taste?: string[] } | undefined): void;
};

declare global {
  interface HTMLElementEventMap {
    "d3po-state": CustomEvent<State>;
  }
  interface DocumentEventMap {
    "d3po-state": CustomEvent<State>;
    "d3po-asked": CustomEvent<string>;
  }
  interface HTMLElementTagNameMap {
    "d3po-gallery": import("./gallery.mjs").D3POGallery;
  }
}
