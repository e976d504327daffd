// @ts-check
// The drop zone: files and folders from the reader's disk to Python, in parts, one file after the other.
// First what can be tested in Node: which files are taken, and the queue; then the elements.

/** @typedef {{name: string, file: File, inFolder: boolean}} Found  a file, its name with folders */
/** @typedef {{name: string, why: string}} Left  a file that was not sent */
/** @typedef {{max_file_bytes: number, max_files: number, suffixes: string[]}} Limits */
/** @typedef {{get(name: string): any, on(name: string, f: (...args: any[]) => void): void,
 *             off(name: string, f: (...args: any[]) => void): void,
 *             send(content: any, callbacks?: any, buffers?: any[]): void}} Model */

/**
 * A number of bytes in words.
 * @param {number} bytes @returns {string}
 */
export function sizeText(bytes) {
  const mega = bytes / 2 ** 20;
  return `${mega < 10 ? Number(mega.toFixed(1)) : Math.round(mega)} MB`;
}

/**
 * A number of things in words.
 * @param {number} n @param {string} thing @returns {string}
 */
export const count = (n, thing) => `${n} ${thing}${n === 1 ? '' : 's'}`;

/**
 * Which files are sent, and why the others are not. Hidden files of a folder belong to the system, not to the reader.
 * @param {Found[]} files @param {Limits} limits @returns {{taken: Found[], left: Left[]}}
 */
export function sortOut(files, limits) {
  /** @type {Found[]} */
  const taken = [];
  /** @type {Left[]} */
  const left = [];
  for (const found of files) {
    const { name, file, inFolder } = found;
    const last = name.split('/').pop() ?? name;
    if (inFolder && last.startsWith('.')) continue;
    const known = !limits.suffixes.length || limits.suffixes.some((suffix) => last.toLowerCase().endsWith(suffix));
    let why = '';
    if (inFolder && !known) why = 'is not a photograph';
    else if (file.size === 0) why = 'is empty (0 bytes)';
    else if (file.size > limits.max_file_bytes) {
      why = `has ${sizeText(file.size)}; the limit is ${sizeText(limits.max_file_bytes)} a file`;
    } else if (taken.length >= limits.max_files) why = `is beyond the limit of ${limits.max_files} files at a time`;
    if (why) left.push({ name, why });
    else taken.push(found);
  }
  return { taken, left };
}

/**
 * All files below what was dropped.
 * @param {any[]} entries  of the browser's FileSystemEntry @param {boolean} [inFolder] @returns {Promise<Found[]>}
 */
export async function walk(entries, inFolder = false) {
  /** @type {Found[]} */
  const files = [];
  for (const entry of entries) {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      files.push({ name: entry.fullPath.replace(/^\//, ''), file, inFolder });
      continue;
    }
    const reader = entry.createReader();
    for (;;) { // a reader gives a hundred entries at a time
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) break;
      files.push(...await walk(some, true));
    }
  }
  return files;
}

/** Files on their way: one after the other, each in parts, each part after the last one has arrived. */
export class Queue {
  /**
   * @param {{send: (content: any, buffers?: Uint8Array[]) => void, limits: () => Limits & {part_bytes: number},
   *          changed: () => void, page: string}} outside
   */
  constructor(outside) {
    this.outside = outside;
    /** @type {Found[]} */
    this.waiting = [];
    /** @type {(Found & {id: string, at: number}) | null} */
    this.current = null;
    this.total = 0;
    this.done = 0;
    this.numbers = 0;
    this.paused = false;
    /** @type {Left[]} */
    this.left = [];
  }

  /** @returns {boolean} */
  get busy() {
    return this.current !== null || this.waiting.length > 0;
  }

  /** How much has arrived, 0 to 1. @returns {number} */
  get progress() {
    const part = this.current ? this.current.at / this.current.file.size : 0;
    return this.total ? (this.done + part) / this.total : 0;
  }

  /** @param {Found[]} files */
  add(files) {
    const { taken, left } = sortOut(files, this.outside.limits());
    if (!this.busy) {
      this.total = 0;
      this.done = 0;
      this.left = [];
    }
    this.total += taken.length;
    this.waiting.push(...taken);
    this.outside.send({ kind: 'begun', files: taken.length });
    this.leave(left);
    if (!this.current) this.next();
  }

  /** @param {Left[]} left */
  leave(left) {
    this.left.push(...left);
    for (let i = 0; i < left.length; i += 500) this.outside.send({ kind: 'left_out', files: left.slice(i, i + 500) });
    this.outside.changed();
  }

  next() {
    this.current = null;
    if (this.paused && this.waiting.length) {
      this.outside.changed();
      return;
    }
    const found = this.waiting.shift();
    if (found) {
      this.numbers += 1;
      this.current = { ...found, id: `${this.outside.page}-${this.numbers}`, at: 0 };
      this.outside.send({ kind: 'file', id: this.current.id, name: found.name, size: found.file.size });
    } else this.outside.send({ kind: 'finished' });
    this.outside.changed();
  }

  /** @param {boolean} paused */
  pause(paused) {
    this.paused = paused;
    if (!paused && !this.current && this.waiting.length) this.next();
  }

  /** @param {{kind: string, id?: string, at?: number, why?: string}} answer  of Python */
  async answer(answer) {
    const { current } = this;
    if (answer.kind === 'cancel') this.cancel();
    if (!current || answer.id !== current.id) return;
    if (answer.kind === 'go_on') {
      current.at = answer.at ?? 0;
      this.outside.changed();
      await this.part(current);
    } else if (answer.kind === 'refused') {
      this.left.push({ name: current.name, why: answer.why ?? 'was refused' }); // Python knows already
      this.done += 1;
      this.next();
    } else if (answer.kind === 'done') {
      this.done += 1;
      this.next();
    }
  }

  /** @param {Found & {id: string, at: number}} current */
  async part(current) {
    const { id, at, file } = current;
    let bytes;
    try {
      bytes = new Uint8Array(await file.slice(at, at + this.outside.limits().part_bytes).arrayBuffer());
    } catch {
      this.outside.send({ kind: 'stop', id });
      this.leave([{ name: current.name, why: 'cannot be read any more' }]);
      this.done += 1;
      this.next();
      return;
    }
    if (this.current === current) this.outside.send({ kind: 'part', id, at }, [bytes]); // not cancelled meanwhile
  }

  cancel() {
    if (!this.busy) return;
    const rest = [...(this.current ? [this.current] : []), ...this.waiting];
    if (this.current) this.outside.send({ kind: 'stop', id: this.current.id });
    this.current = null;
    this.waiting = [];
    this.leave(rest.map(({ name }) => ({ name, why: 'was cancelled' })));
    this.next();
  }
}

// ---------------------------------------------------------------- elements

/**
 * An element with its properties and children.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {Record<string, any>} [props]  names with a dash are attributes
 * @param {(Node | string)[]} children @returns {HTMLElementTagNameMap[T]}
 */
function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.includes('-') || name === 'role') element.setAttribute(name, value);
    else Object.assign(element, { [name]: value });
  }
  element.append(...children);
  return element;
}

/** One drop zone on the page. */
class Zone {
  /** @param {Model} model @param {HTMLElement} root */
  constructor(model, root) {
    this.model = model;
    /** @type {(() => void)[]} */
    this.endings = [];
    const choose = (/** @type {boolean} */ folder) => {
      const input = make('input', { type: 'file', multiple: true, hidden: true, webkitdirectory: folder });
      input.onchange = () => this.chosen(input, folder);
      return input;
    };
    this.inputs = [choose(false), choose(true)];
    this.buttons = this.inputs.map((input) => make('button', { type: 'button', onclick: () => input.click() }));
    this.hint = make('p', { className: 'dz-hint' });
    this.limits = make('p', { className: 'dz-limits' });
    this.meter = make('progress', { max: 1, 'aria-label': 'Files sent' });
    this.text = make('span', { className: 'dz-text' });
    this.stop = make('button', { type: 'button', textContent: 'Cancel', onclick: () => this.queue.cancel() });
    this.state = make('div', { className: 'dz-state', hidden: true }, this.meter, this.text, this.stop);
    this.summary = make('summary');
    this.list = make('ul');
    this.left = make('details', { className: 'dz-left', hidden: true }, this.summary, this.list);
    this.live = make('div', { className: 'dz-unseen', role: 'status' });
    this.element = make('div', { className: 'lesion-dropzone' },
      make('div', { className: 'dz-field' }, make('div', { className: 'dz-buttons' }, ...this.buttons), this.hint, this.limits),
      this.state, this.left, this.live, ...this.inputs);
    root.append(this.element);
    this.queue = new Queue({
      send: (content, buffers = []) => model.send(content, undefined, buffers),
      limits: () => ({
        max_file_bytes: model.get('max_file_bytes'), max_files: model.get('max_files'),
        suffixes: model.get('suffixes'), part_bytes: model.get('part_bytes'),
      }),
      changed: () => this.show(),
      page: Math.random().toString(36).slice(2),
    });
    this.listen();
    this.words();
    this.show();
  }

  listen() {
    const { model, element } = this;
    const target = model.get('whole_page') ? document : element;
    const on = (/** @type {string} */ name, /** @type {(event: any) => void} */ f) => {
      target.addEventListener(name, f);
      this.endings.push(() => target.removeEventListener(name, f));
    };
    on('dragover', (event) => this.over(event));
    on('dragleave', (event) => { if (!element.contains(event.relatedTarget)) element.classList.remove('dz-over'); });
    on('drop', (event) => this.drop(event));
    const watch = (/** @type {string} */ names, /** @type {(...args: any[]) => void} */ f) => {
      for (const name of names.split(' ')) {
        model.on(name, f);
        this.endings.push(() => model.off(name, f));
      }
    };
    watch('msg:custom', (content) => this.queue.answer(content));
    watch('change:label change:hint change:max_file_bytes change:max_files change:folders change:compact', () => this.words());
    watch('change:disabled', () => this.queue.pause(model.get('disabled')));
    this.queue.pause(model.get('disabled'));
  }

  /** @param {DragEvent} event */
  over(event) {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = 'copy';
    this.element.classList.add('dz-over');
  }

  /** @param {DragEvent} event */
  async drop(event) {
    this.element.classList.remove('dz-over');
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    event.stopPropagation();
    const items = [...event.dataTransfer.items].filter((item) => item.kind === 'file');
    const entries = items.map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...event.dataTransfer.files].map((file) => ({ name: file.name, file, inFolder: false }));
    try {
      this.queue.add(entries.length === items.length && entries.length ? await walk(entries) : plain);
    } catch {
      this.queue.leave([{ name: 'What was dropped', why: 'cannot be read' }]);
    }
  }

  /** @param {HTMLInputElement} input @param {boolean} inFolder */
  chosen(input, inFolder) {
    const files = [...(input.files ?? [])];
    input.value = ''; // so that the same file can be chosen again
    this.queue.add(files.map((file) => ({ name: file.webkitRelativePath || file.name, file, inFolder })));
  }

  words() {
    const { model } = this;
    this.element.classList.toggle('dz-compact', model.get('compact'));
    this.buttons[0].textContent = model.get('label');
    this.buttons[1].textContent = 'Choose a folder';
    this.buttons[1].hidden = !model.get('folders');
    this.hint.textContent = model.get('hint');
    const size = sizeText(model.get('max_file_bytes'));
    this.limits.textContent = `Up to ${size} a file, ${count(model.get('max_files'), 'file')} at a time`;
  }

  show() {
    const { queue } = this;
    if (!queue) return; // under construction
    this.state.hidden = !queue.busy;
    this.meter.value = queue.progress;
    const name = queue.current?.name ?? 'waiting';
    this.text.textContent = queue.busy ? `${Math.min(queue.done + 1, queue.total)} of ${queue.total}: ${name}` : '';
    this.left.hidden = !queue.left.length;
    const told = `${count(queue.left.length, 'file')} left out`;
    if (this.summary.textContent !== told) {
      this.summary.textContent = told;
      const line = (/** @type {Left} */ { name, why }) => (why.startsWith(name) ? why : `${name} ${why}`);
      this.list.replaceChildren(...queue.left.slice(0, 200).map((left) => make('li', { textContent: line(left) })));
    }
    const ended = queue.total ? `${count(queue.total - 0, 'file')} sent` : '';
    const words = queue.busy ? `Sending ${count(queue.total, 'file')}` : ended;
    const all = [words, queue.left.length ? told : ''].filter(Boolean).join(', ');
    if (this.live.textContent !== all) this.live.textContent = all;
  }

  end() {
    this.queue.cancel(); // nobody would hear the answers
    for (const ending of this.endings) ending();
  }
}

export default {
  /** @param {{model: Model, el: HTMLElement}} context */
  render({ model, el }) {
    const zone = new Zone(model, el);
    return () => zone.end();
  },
};
