// @ts-check
// The drop zone: files and folders from the reader's disk to Python, in parts, one file after the other.
// First what can be tested in Node: which files are taken, and the queue; then the elements.

/** @typedef {{name: string, file: File, inFolder: boolean}} Found  a file, its name with folders */
/** @typedef {{name: string, why: string}} Left  a file that was not sent */
/** @typedef {{max_file_bytes: number, max_files: number, suffixes: string[]}} Limits */
/** @typedef {{get(name: string): any, on(name: string, f: (...args: any[]) => void): void,
 *             off(name: string, f: (...args: any[]) => void): void,
 *             send(content: any, callbacks?: any, buffers?: any[]): void, widget_manager?: any}} Model */

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
    this.done = 0; // of them, arrived or not
    this.arrived = 0;
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
      this.arrived = 0;
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
      this.arrived += 1;
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
    const ended = queue.total ? `${count(queue.arrived, 'file')} sent` : '';
    const words = queue.busy ? `Sending ${count(queue.total, 'file')}` : ended;
    const all = [words, queue.left.length ? told : ''].filter(Boolean).join(', ');
    if (this.live.textContent !== all) this.live.textContent = all;
  }

  end() {
    this.queue.cancel(); // nobody would hear the answers
    for (const ending of this.endings) ending();
  }
}

/**
 * What a page needs beside files that come in: files that go out, a question before work is lost, and names for a screen reader.
 * It touches the page that it is on (the nearest `.lesion`) and nothing else.
 */
export class Door {
  /** @param {Model} model @param {HTMLElement} el */
  constructor(model, el) {
    this.model = model;
    this.el = el;
    /** @type {Map<string, BlobPart[]>} parts of files that are on their way out */
    this.parts = new Map();
    this.onMessage = (/** @type {any} */ content, /** @type {DataView[]} */ buffers) => this.receive(content, buffers);
    this.beforeLeaving = (/** @type {BeforeUnloadEvent} */ event) => this.ask(event);
    this.observer = new MutationObserver(() => this.nameAll());
    model.on('msg:custom', this.onMessage);
    this.leaving = () => this.leave();
    // Voilà ends the program at this event, so the template listens first and calls us (see index.html.j2).
    if (this.isAlone()) Object.assign(window, { lesionLeaving: this.beforeLeaving });
    window.addEventListener('pagehide', this.leaving);
    if (this.isAlone()) this.watchKernel();
    this.settle();
  }

  /** Is this the page of a server, and not a cell among others? */
  isAlone() {
    return document.body.dataset.voila === 'voila';
  }

  /** A program that has ended cannot say so, so the page does. */
  watchKernel() {
    const kernel = this.model.widget_manager?.kernel;
    if (!kernel) return;
    const dead = ['restarting', 'autorestarting', 'dead', 'terminating'];
    kernel.statusChanged?.connect((/** @type {any} */ _, /** @type {string} */ status) => {
      if (dead.includes(status)) this.lose('The program behind this page has stopped.');
    });
    kernel.connectionStatusChanged?.connect((/** @type {any} */ _, /** @type {string} */ status) => {
      if (status === 'disconnected') this.lose('The connection to the server is gone.');
    });
    kernel.disposed?.connect(() => this.lose('The program behind this page has stopped.'));
    const address = `${kernel.serverSettings.baseUrl}api/kernels/${kernel.id}`;
    this.look = async () => {
      const reply = await fetch(address, { cache: 'no-store' }).catch(() => null);
      if (reply?.status === 404) this.lose('This session has ended, since it was not used for a long time.');
    };
    this.looking = setInterval(() => this.look?.(), 15_000);
    this.moved = Date.now();
    this.onMove = () => {
      this.moved = Date.now();
    };
    for (const kind of ['pointermove', 'keydown']) document.addEventListener(kind, this.onMove, { passive: true });
    this.greeting = setInterval(() => {
      // somebody is looking: do not end the session
      if (Date.now() - (this.moved ?? 0) < 240_000) this.model.send({ kind: 'here' });
    }, 240_000);
  }

  /** @param {string} why */
  lose(why) {
    if (this.lost || !this.root) return;
    this.lost = true;
    clearInterval(this.looking);
    clearInterval(this.greeting);
    for (const child of this.root.children) child.setAttribute('inert', '');
    const box = document.createElement('div');
    box.className = 'lesion-ended';
    box.setAttribute('role', 'alert');
    const text = document.createElement('p');
    text.textContent = `${why} What you have not saved is gone. Reload the page to begin again.`;
    const button = document.createElement('button');
    button.textContent = 'Reload the page';
    button.className = 'jupyter-button';
    button.addEventListener('click', () => location.reload());
    box.append(text, button);
    this.root.prepend(box);
    button.focus();
  }

  /** The box of the page, once it is there: keys stay in it, and everything in it has a name. */
  settle(tries = 60) {
    const root = /** @type {HTMLElement | null} */ (this.el.closest('.lesion'));
    if (!root) {
      if (tries > 0) requestAnimationFrame(() => this.settle(tries - 1));
      return;
    }
    root.dataset.lmSuppressShortcuts = 'true'; // a notebook's shortcuts (d d deletes a cell) end at this box,
    root.addEventListener('keydown', (event) => { // and so do the keys with which it moves from cell to cell
      if (!event.ctrlKey && !event.altKey && !event.metaKey) event.stopPropagation();
    });
    this.root = root;
    this.observer.observe(root, { childList: true, subtree: true });
    this.nameAll();
    root.dataset.ready = 'true';
  }

  /** What ipywidgets leaves without a name or a state gets one. */
  nameAll() {
    for (const row of this.root?.querySelectorAll('.widget-inline-hbox, .jupyter-widget-inline-hbox') ?? []) {
      const label = row.querySelector('.widget-label')?.textContent?.trim();
      if (!label) continue;
      for (const part of row.querySelectorAll('[role="slider"], .widget-readout')) {
        if (part.getAttribute('aria-label') !== label) part.setAttribute('aria-label', label);
      }
    }
    for (const button of this.root?.querySelectorAll('.widget-toggle-button') ?? []) {
      const pressed = String(button.classList.contains('mod-active'));
      if (button.getAttribute('aria-pressed') !== pressed) button.setAttribute('aria-pressed', pressed);
    }
    for (const image of this.root?.querySelectorAll('img:not([alt])') ?? []) image.setAttribute('alt', '');
    const live = this.root?.querySelector('.lesion-live');
    if (live && !live.hasAttribute('aria-live')) live.setAttribute('aria-live', 'polite');
  }

  /** @param {any} content @param {DataView[]} buffers */
  receive(content, buffers) {
    if (content?.kind !== 'give') return;
    const parts = content.part === 0 ? [] : this.parts.get(content.id) ?? [];
    parts.push(/** @type {BlobPart} */ (/** @type {unknown} */ (buffers[0])));
    this.parts.set(content.id, parts);
    if (content.part < content.parts - 1) return;
    this.parts.delete(content.id);
    if (this.isShown()) this.save(content.name, new Blob(parts, { type: content.mime }));
  }

  /** Of several views of one page, the one that a reader can see saves a file. */
  isShown() {
    return document.visibilityState === 'visible' && this.el.isConnected;
  }

  /** @param {string} name @param {Blob} blob */
  save(name, blob) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  /** @param {BeforeUnloadEvent} event */
  ask(event) {
    if (!this.model.get('unsaved') || !this.isAlone() || this.lost) return;
    event.preventDefault();
    event.returnValue = true;
    // Voilà ends the program as soon as the question is asked; we do it when the page has really gone.
    event.stopImmediatePropagation();
    this.asked = true;
  }

  /** The page is gone after it has asked. */
  leave() {
    const kernel = this.model.widget_manager?.kernel;
    if (!this.asked || !kernel) return;
    const form = new FormData();
    form.append('_xsrf', document.cookie.match('\\b_xsrf=([^;]*)\\b')?.[1] ?? '');
    navigator.sendBeacon(`${kernel.serverSettings.baseUrl}voila/api/shutdown/${kernel.id}`, form);
  }

  end() {
    this.model.off('msg:custom', this.onMessage);
    if (this.isAlone()) Object.assign(window, { lesionLeaving: null });
    window.removeEventListener('pagehide', this.leaving);
    this.observer.disconnect();
    clearInterval(this.looking);
    clearInterval(this.greeting);
    for (const kind of ['pointermove', 'keydown']) if (this.onMove) document.removeEventListener(kind, this.onMove);
  }
}

export default {
  /** @param {{model: Model, el: HTMLElement}} context */
  render({ model, el }) {
    const zone = new Zone(model, el);
    const door = new Door(model, el);
    return () => {
      zone.end();
      door.end();
    };
  },
};
