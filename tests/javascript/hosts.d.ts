// What hosts' pages provide, as far as web/ and javascript/ use it.

type ComfyEvents = {
  executing: string | null;
  executed: { node: string; display_node?: string; output?: { d3po_taste?: string[] } };
  status: { exec_info?: { queue_remaining?: number } } | null;
  "d3po.group": { taste: string; group: string };
  "d3po.taught": { taste: string; lora: string };
};

declare module "*/scripts/api.js" {
  export const api: {
    addEventListener<K extends keyof ComfyEvents>(type: K, heard: (event: CustomEvent<ComfyEvents[K]>) => void): void;
    dispatchCustomEvent(type: string, detail: object): void;
    apiURL(path: string): string;
    fetchApi(path: string): Promise<Response>;
  };
}

declare module "*/scripts/app.js" {
  type Node = import("../../web/types").ComfyNode;
  export const app: {
    rootGraph?: import("../../web/types").ComfyGraph;
    canvas: { graph: import("../../web/types").ComfyGraph };
    reloadNodeDefs?(): Promise<void>;
    refreshComboInNodes(): Promise<void>;
    queuePrompt(number: number, count: number, nodes: string[]): Promise<unknown>;
    registerExtension(extension: {
      name: string;
      setup(): Promise<void>;
      nodeCreated(node: Node): void;
      getNodeMenuItems(node: Node): { content: string; callback: () => void }[];
    }): void;
    ui: {
      settings: {
        addEventListener(type: string, heard: (event: CustomEvent<{ value: unknown }>) => void): void;
      };
    };
    extensionManager: {
      setting: { get(id: string): unknown };
      toast: { add(message: { severity: string; summary: string; detail?: string; life: number }): void };
      registerSidebarTab(tab: object): void;
      workflow?: { activeWorkflow?: { changeTracker?: { captureCanvasState?(): void } } };
    };
  };
}

// A1111 and Forge
declare function gradioApp(): Document | HTMLElement;
declare function onUiLoaded(done: () => void): void;
declare function onUiUpdate(done: () => void): void;
declare function updateInput(field: HTMLElement): void;
declare function switch_to_txt2img(): void;
declare function requestProgress(task: string, bar: HTMLElement, gallery: null, atEnd: () => void): void;

interface Window {
  localization?: Record<string, string>;
  opts?: { enable_prompt_comments?: boolean };
  d3po_cards(): [];
  d3po_open(id: string): void;
  d3po_sent(): string[];
  d3po_use(message: string): [];
  d3po_begun(taste: string): [];
}
