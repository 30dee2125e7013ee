/** What page and server say to each other, as d3po_core/gallery/API.md has it, and what hosts provide. */

export type Flag = { candidate: number; kind: string };
export type Image = { candidate: number; url: string };
export type PickKind = "favourite" | "ranking" | "tie" | "all_bad" | "skipped";
export type Reason = "random" | "repeat" | "undo" | "correction";

/** A group to show. */
export type Card = {
  group_id: string;
  number: number;
  prompt: string;
  reason: Reason;
  images: Image[];
  flags: Flag[];
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
  images: Image[];
};

export type History = {
  total: number;
  items: Item[];
  people: string[];
  rounds: number[];
  consistency: { same: number; of: number } | null;
};

export type Problem = { what: string; do: string; safe: string };

export type Work = {
  kind: "loading" | "drawing" | "checking" | "teaching" | "blind" | "importing" | "idle";
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
  lora: string | null;
  strength: number | null;
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
  picks: { yours: number; all: number; usable: number; untaught: number; milestone: number; previous: number };
  last: { pick_id: string; group_id: string; kind: string } | null;
  groups: { drawn: number; waiting: number; near: number };
  work: Work | null;
  problem: Problem | null;
  rounds: Round[];
  blind: Blind | null;
};

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

/** What views ask of the shell around them. */
export type ShellLike = {
  readonly view: string;
  go(view: string): void;
  speak(words: string): void;
  asked(name: string): void;
  focus(): void;
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
  element?: HTMLElement;
  options?: { advanced?: boolean };
};

export type ComfyInput = { name: string; type: string; link: number | null; widget?: { name: string } };

export type ComfyGraph = { nodes: ComfyNode[] };

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
