// @ts-check
// The picture: a photograph down to its real pixels, lines over it, and a mask that a reader corrects.
// First pure functions, which tests/js calls in Node; then what draws, then the tools, then what listens.
// Three kinds of coordinates: photograph pixels (x to the right, y down, the first pixel from 0 to 1), CSS pixels of
// the stage, and device pixels of a canvas (CSS pixels times `ratio`).

/** @typedef {{w: number, h: number}} Size */
/** @typedef {{x: number, y: number}} Point */
/** @typedef {{scale: number, x: number, y: number}} View  CSS pixels a photograph pixel; the point in the middle */
/** @typedef {{x0: number, y0: number, x1: number, y1: number}} Rect  x1 and y1 are the first outside */
/** @typedef {{y: number, x: number, h: number, w: number, data: Uint8Array}} Patch  the pixels that flip, as bits */
/** @typedef {(y: number, x0: number, x1: number) => void} Span  receives pixels x0 to x1 - 1 of row y */
/** @typedef {{name: string, label: string, colour: string, dash?: number[], width?: number, shown?: boolean,
 *             pane?: number | null, polygons: number[][][]}} Layer */
/** @typedef {{get(name: string): any, set(name: string, value: any): void, save_changes(): void,
 *             on(name: string, f: (...args: any[]) => void): void, off(name: string, f: (...args: any[]) => void): void,
 *             send(content: any, callbacks?: any, buffers?: any[]): void}} Model */

// ---------------------------------------------------------------- where the reader looks

const LARGEST = 64; // CSS pixels a photograph pixel
const SMALLEST = 0.25; // where the whole photograph needs no smaller scale

/**
 * The view in which the whole photograph is seen.
 * @param {Size} stage @param {Size} photo @returns {View}
 */
export function fitView(stage, photo) {
  return { scale: Math.min(stage.w / photo.w, stage.h / photo.h), x: photo.w / 2, y: photo.h / 2 };
}

/**
 * A view that shows something: not much smaller than the fit, not larger than 64 to 1, its middle
 * in the photograph.
 * @param {View} view @param {Size} stage @param {Size} photo @returns {View}
 */
export function clampView(view, stage, photo) {
  const fit = fitView(stage, photo).scale;
  const scale = Math.min(Math.max(view.scale, Math.min(fit / 2, SMALLEST)), Math.max(LARGEST, fit));
  return { scale, x: Math.min(Math.max(view.x, 0), photo.w), y: Math.min(Math.max(view.y, 0), photo.h) };
}

/**
 * From the photograph to the stage.
 * @param {View} view @param {Size} stage @param {Point} p @returns {Point}
 */
export function toStage(view, stage, p) {
  return { x: stage.w / 2 + (p.x - view.x) * view.scale, y: stage.h / 2 + (p.y - view.y) * view.scale };
}

/**
 * From the stage to the photograph.
 * @param {View} view @param {Size} stage @param {Point} p @returns {Point}
 */
export function toPhoto(view, stage, p) {
  return { x: view.x + (p.x - stage.w / 2) / view.scale, y: view.y + (p.y - stage.h / 2) / view.scale };
}

/**
 * Zoom so that the point under the pointer stays where it is.
 * @param {View} view @param {Size} stage @param {Size} photo @param {Point} at  on the stage
 * @param {number} factor @returns {View}
 */
export function zoomAt(view, stage, photo, at, factor) {
  const fixed = toPhoto(view, stage, at);
  const { scale } = clampView({ ...view, scale: view.scale * factor }, stage, photo);
  const x = fixed.x - (at.x - stage.w / 2) / scale;
  const y = fixed.y - (at.y - stage.h / 2) / scale;
  return clampView({ scale, x, y }, stage, photo);
}

/**
 * How many device pixels show one photograph pixel, as a percentage: 100 % are real pixels.
 * @param {number} scale @param {number} ratio  device pixels a CSS pixel @returns {string}
 */
export function percent(scale, ratio) {
  const value = scale * ratio * 100;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

/**
 * A length in words.
 * @param {number} mm @returns {string}
 */
export function lengthText(mm) {
  if (mm < 0.0995) return `${Number((mm * 1000).toPrecision(3))} µm`;
  return `${Number(mm.toPrecision(3))} mm`;
}

/**
 * The longest of 1, 2, 5, 10, ... that is not longer than `most` on the screen.
 * @param {number} mm  millimetres a photograph pixel @param {number} scale @param {number} most  CSS pixels
 * @returns {{length: number, text: string}}  in CSS pixels, and in words
 */
export function scaleBar(mm, scale, most) {
  const limit = (most / scale) * mm;
  const power = 10 ** Math.floor(Math.log10(limit));
  const step = [5, 2, 1].find((n) => n * power <= limit) ?? 1;
  return { length: (step * power * scale) / mm, text: lengthText(step * power) };
}

/**
 * The action of a key, '' for none. A capital counts as its small letter where it has no action of its own.
 * @param {{key: string, ctrlKey?: boolean, metaKey?: boolean, altKey?: boolean}} event
 * @param {Record<string, string>} keys  such as {'b': 'brush', 'Ctrl+z': 'undo'} @returns {string}
 */
export function keyAction(event, keys) {
  if (event.altKey) return '';
  const held = event.ctrlKey || event.metaKey ? 'Ctrl+' : '';
  const own = (/** @type {string} */ key) => (Object.hasOwn(keys, held + key) ? keys[held + key] : '');
  return own(event.key) || own(event.key.toLowerCase());
}

/**
 * The next size of the brush: a tenth more or less, at least one pixel.
 * @param {number} radius @param {number} direction  1 or -1 @returns {number}
 */
export function nextRadius(radius, direction) {
  const step = Math.max(1, Math.round(radius * 0.15));
  return Math.min(1000, Math.max(1, radius + direction * step));
}

// ---------------------------------------------------------------- rectangles

/**
 * The smallest rectangle around two.
 * @param {Rect | null} a @param {Rect} b @returns {Rect}
 */
export function union(a, b) {
  if (!a) return b;
  return { x0: Math.min(a.x0, b.x0), y0: Math.min(a.y0, b.y0), x1: Math.max(a.x1, b.x1), y1: Math.max(a.y1, b.y1) };
}

/**
 * The pixels around points, cut to the photograph; null where none is left.
 * @param {Point[]} points @param {number} margin @param {Size} photo @returns {Rect | null}
 */
export function around(points, margin, photo) {
  const xs = points.map((p) => p.x);
  const ys = points.map((p) => p.y);
  const low = (/** @type {number[]} */ v) => Math.max(0, Math.floor(v.reduce((a, b) => Math.min(a, b)) - margin));
  const high = (/** @type {number[]} */ v, /** @type {number} */ most) =>
    Math.min(most, Math.ceil(v.reduce((a, b) => Math.max(a, b)) + margin));
  const rect = { x0: low(xs), y0: low(ys), x1: high(xs, photo.w), y1: high(ys, photo.h) };
  return rect.x0 < rect.x1 && rect.y0 < rect.y1 ? rect : null;
}

// ---------------------------------------------------------------- a mask as bits

/** A mask of one bit a pixel; rows begin with a whole byte, the first pixel is the highest bit (as NumPy packs them). */
export class Bits {
  /** @param {number} width @param {number} height @param {Uint8Array} [data] */
  constructor(width, height, data) {
    this.width = width;
    this.height = height;
    this.stride = (width + 7) >> 3;
    this.data = data ?? new Uint8Array(this.stride * height);
    if (this.data.length !== this.stride * height) throw new Error('The mask does not fit the photograph.');
  }

  /** @param {number} x @param {number} y @returns {number} 0 or 1 */
  get(x, y) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return 0;
    return (this.data[y * this.stride + (x >> 3)] >> (7 - (x & 7))) & 1;
  }

  /**
   * Change the bytes of a span: `change` receives a byte and which of its bits belong to the span.
   * @param {number} y @param {number} x0 @param {number} x1
   * @param {(byte: number, bits: number) => number} change
   */
  each(y, x0, x1, change) {
    if (x1 <= x0) return;
    const row = y * this.stride;
    const first = x0 >> 3;
    const last = (x1 - 1) >> 3;
    for (let i = first; i <= last; i++) {
      let bits = 255;
      if (i === first) bits &= 255 >> (x0 & 7);
      if (i === last) bits &= 255 << (7 - ((x1 - 1) & 7));
      this.data[row + i] = change(this.data[row + i], bits);
    }
  }

  /** @param {number} y @param {number} x0 @param {number} x1 @param {number} value  0 or 1 */
  set(y, x0, x1, value) {
    this.each(y, x0, x1, value ? (byte, bits) => byte | bits : (byte, bits) => byte & ~bits);
  }

  /** @param {number} y @param {number} x0 @param {number} x1 */
  toggle(y, x0, x1) {
    this.each(y, x0, x1, (byte, bits) => byte ^ bits);
  }

  /** @param {Patch} patch */
  flip(patch) {
    const stride = (patch.w + 7) >> 3;
    for (let j = 0; j < patch.h; j++) {
      const to = (patch.y + j) * this.stride + (patch.x >> 3);
      for (let i = 0; i < stride; i++) this.data[to + i] ^= patch.data[j * stride + i];
    }
  }

  /**
   * What differs from the mask as it was, inside a rectangle; null where nothing does.
   * @param {Uint8Array} before  its bytes @param {Rect} rect @returns {Patch | null}
   */
  difference(before, rect) {
    let [top, bottom, left, right] = [this.height, -1, this.stride, -1];
    for (let y = rect.y0; y < rect.y1; y++) {
      for (let i = rect.x0 >> 3; i <= (rect.x1 - 1) >> 3; i++) {
        if (this.data[y * this.stride + i] === before[y * this.stride + i]) continue;
        top = Math.min(top, y);
        bottom = y;
        left = Math.min(left, i);
        right = Math.max(right, i);
      }
    }
    if (bottom < 0) return null;
    const stride = right - left + 1;
    const h = bottom - top + 1;
    const data = new Uint8Array(stride * h);
    for (let j = 0; j < h; j++) {
      const from = (top + j) * this.stride + left;
      for (let i = 0; i < stride; i++) data[j * stride + i] = this.data[from + i] ^ before[from + i];
    }
    return { y: top, x: left * 8, h, w: Math.min(stride * 8, this.width - left * 8), data };
  }
}

/**
 * A message of at most `most` bytes is safe on every server, so the bytes of a change travel in parts.
 * @param {Uint8Array} data @param {number} most @returns {{at: number, part: Uint8Array}[]}
 */
export function parts(data, most) {
  const list = [];
  for (let at = 0; at < data.length; at += most) list.push({ at, part: data.slice(at, at + most) });
  return list;
}

// ---------------------------------------------------------------- from strokes and lassos to pixels

/**
 * The pixels of a straight stroke: those whose centre is not farther than `radius` from it.
 * @param {Point} a @param {Point} b @param {number} radius @param {Size} photo @param {Span} emit
 */
export function strokeSpans(a, b, radius, photo, emit) {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const length2 = dx * dx + dy * dy;
  const length = Math.sqrt(length2);
  const most = radius * radius;

  /** @param {number} x @param {number} y */
  const inside = (x, y) => {
    const [px, py] = [x - a.x, y - a.y];
    const along = px * dx + py * dy;
    if (along <= 0) return px * px + py * py <= most;
    if (along >= length2) return (x - b.x) ** 2 + (y - b.y) ** 2 <= most;
    return (px * dy - py * dx) ** 2 <= most * length2;
  };

  const first = Math.max(0, Math.ceil(Math.min(a.y, b.y) - radius - 0.5));
  const last = Math.min(photo.h - 1, Math.floor(Math.max(a.y, b.y) + radius - 0.5));
  for (let row = first; row <= last; row++) {
    const y = row + 0.5;
    let [low, high] = [Infinity, -Infinity];
    for (const end of [a, b]) { // the discs at both ends
      const half2 = most - (y - end.y) ** 2;
      if (half2 < 0) continue;
      low = Math.min(low, end.x - Math.sqrt(half2));
      high = Math.max(high, end.x + Math.sqrt(half2));
    }
    if (dy !== 0) { // the band between them: its sides, cut where it ends
      const middle = a.x + ((y - a.y) * dx) / dy;
      const half = Math.abs((radius * length) / dy);
      const ends = [0, length2].map((along) => a.x + (along - dy * (y - a.y)) / dx);
      const from = Math.max(middle - half, dx ? Math.min(...ends) : -Infinity);
      const to = Math.min(middle + half, dx ? Math.max(...ends) : Infinity);
      const crosses = dx !== 0 || (y >= Math.min(a.y, b.y) && y <= Math.max(a.y, b.y));
      if (from <= to && crosses) [low, high] = [Math.min(low, from), Math.max(high, to)];
    }
    if (low > high) continue;
    // Roots are rounded, so the ends are decided by the definition itself.
    let x0 = Math.max(0, Math.ceil(low - 0.5) - 1);
    let x1 = Math.min(photo.w, Math.floor(high - 0.5) + 2);
    while (x0 < x1 && !inside(x0 + 0.5, y)) x0++;
    while (x1 > x0 && !inside(x1 - 0.5, y)) x1--;
    if (x0 < x1) emit(row, x0, x1);
  }
}

/**
 * The pixels of a closed polygon, those whose centre is inside it; what is enclosed twice is outside.
 * @param {Point[]} points @param {Size} photo @param {Span} emit
 */
export function polygonSpans(points, photo, emit) {
  /** @type {number[][]} */
  const crossings = []; // of each row
  points.forEach((p, i) => {
    const q = points[(i + 1) % points.length];
    const [top, bottom] = p.y < q.y ? [p, q] : [q, p];
    const first = Math.max(0, Math.ceil(top.y - 0.5));
    const end = Math.min(photo.h, Math.ceil(bottom.y - 0.5));
    for (let row = first; row < end; row++) {
      const x = top.x + ((row + 0.5 - top.y) * (bottom.x - top.x)) / (bottom.y - top.y);
      (crossings[row] ??= []).push(x);
    }
  });
  crossings.forEach((xs, row) => {
    xs.sort((a, b) => a - b);
    for (let i = 0; i + 1 < xs.length; i += 2) {
      const x0 = Math.max(0, Math.ceil(xs[i] - 0.5));
      const x1 = Math.min(photo.w, Math.ceil(xs[i + 1] - 0.5));
      if (x0 < x1) emit(row, x0, x1);
    }
  });
}

// ---------------------------------------------------------------- borders along the edges of pixels

const STEPS = [[1, 0], [0, 1], [-1, 0], [0, -1]]; // right, down, left, up

/**
 * Walk once around a region or a hole, with the region at the right hand, corner by corner of its pixels.
 * @param {Bits} bits @param {number} x @param {number} y  a corner with a pixel of the mask at its lower right and none at
 *   its lower left @param {(x: number, y: number) => void} [upward]  told of each pixel whose left side was passed
 * @returns {Point[]}
 */
export function traceRing(bits, x, y, upward) {
  /** @type {Point[]} */
  const ring = [];
  const begin = { x, y: y + 1 };
  const at = { ...begin };
  let heading = 3;
  do {
    ring.push({ ...at });
    const [dx, dy] = STEPS[heading];
    at.x += dx;
    at.y += dy;
    if (heading === 3) upward?.(at.x, at.y);
    // The two pixels ahead, at the right and at the left hand.
    const ahead = [[at.x, at.y], [at.x - 1, at.y], [at.x - 1, at.y - 1], [at.x, at.y - 1]];
    const right = bits.get(ahead[heading][0], ahead[heading][1]);
    const left = bits.get(ahead[(heading + 3) % 4][0], ahead[(heading + 3) % 4][1]);
    if (!right) heading = (heading + 1) % 4;
    else if (left) heading = (heading + 3) % 4;
  } while (at.x !== begin.x || at.y !== begin.y || heading !== 3);
  return ring;
}

/**
 * Every border of a mask, those of holes as well.
 * @param {Bits} bits @returns {Point[][]}
 */
export function findRings(bits) {
  /** @type {Point[][]} */
  const rings = [];
  const passed = new Set();
  for (let y = 0; y < bits.height; y++) {
    let last = 0;
    for (let i = 0; i < bits.stride; i++) {
      const byte = bits.data[y * bits.stride + i];
      const same = last ? 255 : 0;
      if (byte === same) continue;
      for (let x = i * 8; x < Math.min(i * 8 + 8, bits.width); x++) {
        const now = bits.get(x, y);
        const key = y * bits.width + x;
        if (now && !last && !passed.has(key)) {
          rings.push(traceRing(bits, x, y, (px, py) => passed.add(py * bits.width + px)));
        }
        last = now;
      }
    }
  }
  return rings;
}

/**
 * The point of the borders that is nearest, if it is near enough.
 * @param {Point[][]} rings @param {Point} p @param {number} within @returns {{ring: Point[], index: number} | null}
 */
export function nearest(rings, p, within) {
  let best = within * within;
  /** @type {{ring: Point[], index: number} | null} */
  let found = null;
  for (const ring of rings) {
    for (let index = 0; index < ring.length; index++) {
      const d = (ring[index].x - p.x) ** 2 + (ring[index].y - p.y) ** 2;
      if (d > best) continue;
      best = d;
      found = { ring, index };
    }
  }
  return found;
}

/**
 * Drag a point of a border; its neighbours follow, less and less, up to `reach` of them. The pixels that flip are those
 * between the old line and the new one: the closed polygon that runs along the old line and back along the new one.
 * @param {Point[]} ring @param {number} index @param {number} reach @param {Point} by @returns {Point[]}
 */
export function bend(ring, index, reach, by) {
  const n = ring.length;
  const most = Math.max(1, Math.min(Math.round(reach), (n >> 1) - 1));
  const [old, moved] = [/** @type {Point[]} */ ([]), /** @type {Point[]} */ ([])];
  for (let k = -most - 1; k <= most + 1; k++) { // from the first point that stays to the last
    const p = ring[(((index + k) % n) + n) % n];
    const weight = Math.abs(k) > most ? 0 : Math.cos((Math.PI / 2) * (k / (most + 1))) ** 2;
    old.push(p);
    moved.push({ x: p.x + by.x * weight, y: p.y + by.y * weight });
  }
  return [...old, ...moved.reverse()];
}

// ---------------------------------------------------------------- from bits to the screen

/**
 * A colour such as '#ffd400' as a number that a Uint32Array over an ImageData takes.
 * @param {string} colour @param {number} alpha  0 to 1 @returns {number}
 */
export function packedColour(colour, alpha) {
  const rgb = /^#[0-9a-f]{6}$/i.test(colour) ? parseInt(colour.slice(1), 16) : 0xffd400;
  const [r, g, b] = [rgb >> 16, (rgb >> 8) & 255, rgb & 255];
  return ((Math.round(alpha * 255) << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

/**
 * The rectangle of device pixels that shows a rectangle of the photograph.
 * @param {Rect} rect @param {View} view @param {Size} stage @param {number} ratio @param {number} margin  device pixels
 * @returns {Rect | null}  null where it is out of sight
 */
export function deviceRect(rect, view, stage, ratio, margin) {
  const a = toStage(view, stage, { x: rect.x0, y: rect.y0 });
  const b = toStage(view, stage, { x: rect.x1, y: rect.y1 });
  const corners = [a, b].map((p) => ({ x: p.x * ratio, y: p.y * ratio }));
  return around(corners, margin, { w: Math.round(stage.w * ratio), h: Math.round(stage.h * ratio) });
}

/**
 * The mask as the screen samples it, at the middle of each device pixel.
 * @param {Bits} bits @param {View} view @param {Size} stage @param {number} ratio
 * @param {Rect} rect  device pixels, also outside of the stage @returns {Uint8Array} 0 or 1
 */
export function sampleMask(bits, view, stage, ratio, rect) {
  const w = rect.x1 - rect.x0;
  const h = rect.y1 - rect.y0;
  const columns = new Int32Array(w);
  for (let i = 0; i < w; i++) {
    const x = Math.floor(view.x + ((rect.x0 + i + 0.5) / ratio - stage.w / 2) / view.scale);
    columns[i] = x < 0 || x >= bits.width ? -1 : x;
  }
  const seen = new Uint8Array(w * h);
  let before = -1;
  for (let j = 0; j < h; j++) {
    const y = Math.floor(view.y + ((rect.y0 + j + 0.5) / ratio - stage.h / 2) / view.scale);
    if (y < 0 || y >= bits.height) continue;
    if (y === before) { // the pixels of the photograph are larger than those of the screen
      seen.copyWithin(j * w, (j - 1) * w, j * w);
      continue;
    }
    before = y;
    for (let i = 0; i < w; i++) {
      const x = columns[i];
      if (x >= 0) seen[j * w + i] = (bits.data[y * bits.stride + (x >> 3)] >> (7 - (x & 7))) & 1;
    }
  }
  return seen;
}

/**
 * The mask as coloured pixels: along its border `line` device pixels of `edge`, then `rim` pixels of `dark`, so that the
 * line is seen on any skin, and `fill` inside.
 * @param {Bits} bits @param {View} view @param {Size} stage @param {number} ratio @param {Rect} rect  device pixels
 * @param {{fill: number, edge: number, line: number, dark: number, rim: number}} paint @returns {Uint32Array}
 */
export function paintMask(bits, view, stage, ratio, rect, paint) {
  const near = paint.line;
  const far = near + paint.rim;
  const [w, h] = [rect.x1 - rect.x0, rect.y1 - rect.y0];
  const wide = w + 2 * far;
  const margin = { x0: rect.x0 - far, y0: rect.y0 - far, x1: rect.x1 + far, y1: rect.y1 + far };
  const seen = sampleMask(bits, view, stage, ratio, margin);
  const within = (/** @type {number} */ k, /** @type {number} */ t) =>
    seen[k - t] && seen[k + t] && seen[k - t * wide] && seen[k + t * wide];
  const out = new Uint32Array(w * h);
  for (let j = 0; j < h; j++) {
    for (let i = 0; i < w; i++) {
      const k = (j + far) * wide + i + far;
      if (!seen[k]) continue;
      if (!within(k, near)) out[j * w + i] = paint.edge;
      else out[j * w + i] = within(k, far) ? paint.fill : paint.dark;
    }
  }
  return out;
}

// ---------------------------------------------------------------- what all views of one picture share

const PART = 4 * 2 ** 20; // bytes of a change that travel in one message

/**
 * A photograph and halves of it, so that a small view of a large one is drawn fast and without moiré.
 * @param {ImageBitmap} bitmap @returns {(ImageBitmap | OffscreenCanvas)[]}
 */
function halves(bitmap) {
  /** @type {(ImageBitmap | OffscreenCanvas)[]} */
  const levels = [bitmap];
  for (let last = levels[0]; Math.max(last.width, last.height) > 1024; last = levels[levels.length - 1]) {
    const half = new OffscreenCanvas(Math.ceil(last.width / 2), Math.ceil(last.height / 2));
    const context = half.getContext('2d');
    context?.drawImage(last, 0, 0, half.width, half.height);
    levels.push(half);
  }
  return levels;
}

/** The decoded pictures and the mask of one model; its views listen. */
class Store {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    this.page = Math.random().toString(36).slice(2);
    /** @type {Record<string, (ImageBitmap | OffscreenCanvas)[] | null>} */
    this.pictures = { image: null, overlay: null, compare_image: null };
    /** @type {Bits | null} */
    this.bits = null;
    this.epoch = 0;
    /** @type {Change | null} */
    this.change = null; // that is under way
    /** @type {Point[][] | null} */
    this.rings = null;
    /** @type {Set<(what: string, rect?: Rect) => void>} */
    this.views = new Set();
    model.on('msg:custom', (content, buffers) => this.receive(content, buffers ?? []));
    for (const name of Object.keys(this.pictures)) {
      model.on(`change:${name}`, () => this.decode(name));
      this.decode(name);
    }
    this.send({ kind: 'ready', page: this.page });
  }

  /** @returns {Size} */
  get photo() {
    return { w: this.model.get('width') || 1, h: this.model.get('height') || 1 };
  }

  /** @param {any} content @param {Uint8Array[]} [buffers] */
  send(content, buffers = []) {
    this.model.send(content, undefined, buffers);
  }

  /** @param {string} what @param {Rect} [rect] */
  tell(what, rect) {
    if (what === 'mask') this.rings = null;
    for (const view of this.views) view(what, rect);
  }

  /** @param {string} name */
  async decode(name) {
    const bytes = this.model.get(name);
    const empty = !bytes?.byteLength;
    let levels = null;
    try {
      if (!empty) levels = halves(await createImageBitmap(new Blob([bytes])));
    } catch {
      this.tell('broken');
    }
    if (bytes !== this.model.get(name)) return; // another one has come meanwhile
    this.pictures[name] = levels;
    this.tell('photo');
  }

  /** @param {any} content @param {DataView[]} buffers */
  receive(content, buffers) {
    const bytes = buffers.length ? new Uint8Array(buffers[0].buffer, buffers[0].byteOffset, buffers[0].byteLength) : null;
    if (content.kind === 'mask' && (!content.to || content.to === this.page)) {
      // With a size of its own: the traits `width` and `height` may come later.
      this.epoch = content.epoch;
      this.bits = bytes ? new Bits(content.w, content.h, bytes.slice()) : null;
      this.tell('mask');
    } else if (content.kind === 'patch' && content.epoch === this.epoch && bytes) {
      this.bits ??= new Bits(this.photo.w, this.photo.h);
      const patch = { ...content, data: bytes };
      this.bits.flip(patch);
      this.change?.before.flip(patch); // it is no part of the stroke that is under way
      this.tell('mask', rectOf(content));
    }
  }

  /** @returns {Point[][]} */
  borders() {
    this.rings ??= this.bits ? findRings(this.bits) : [];
    return this.rings;
  }
}

/** @param {{y: number, x: number, h: number, w: number}} p @returns {Rect} */
const rectOf = (p) => ({ x0: p.x, y0: p.y, x1: p.x + p.w, y1: p.y + p.h });

/** A change of the mask that the reader is making: drawn at once, sent when finished, or taken back. */
class Change {
  /** @param {Store} store */
  constructor(store) {
    store.change?.cancel();
    this.store = store;
    this.bits = store.bits ??= new Bits(store.photo.w, store.photo.h);
    this.before = new Bits(this.bits.width, this.bits.height, this.bits.data.slice());
    /** @type {Rect | null} */
    this.dirty = null;
    store.change = this;
  }

  /** @returns {Size} */
  get size() {
    return { w: this.bits.width, h: this.bits.height };
  }

  /**
   * Draw something and show where.
   * @param {Point[]} points  what it is about @param {number} margin  pixels around them @param {() => void} draw
   */
  draw(points, margin, draw) {
    const rect = around(points, margin, this.size);
    if (!rect || this.bits !== this.store.bits) return;
    draw();
    this.dirty = union(this.dirty, rect);
    this.store.tell('mask', rect);
  }

  /** @returns {Patch | null} what was drawn; the change is over */
  end() {
    if (this.store.change === this) this.store.change = null;
    const valid = this.dirty && this.bits === this.store.bits; // no other mask has come meanwhile
    return valid && this.dirty ? this.bits.difference(this.before.data, this.dirty) : null;
  }

  finish() {
    const patch = this.end();
    if (!patch) return;
    const { data, ...place } = patch;
    const epoch = this.store.epoch;
    for (const { at, part } of parts(data, PART)) this.store.send({ kind: 'patch', epoch, at, ...place }, [part]);
  }

  cancel() {
    const patch = this.end();
    if (!patch) return;
    this.bits.flip(patch);
    this.store.tell('mask', rectOf(patch));
  }
}

// ---------------------------------------------------------------- tools

/**
 * What a tool does with a pointer, a finger or the keys; points in photograph pixels.
 * @typedef {{down(p: Point): void, move(p: Point): void, up(): void, cancel(): void}} Tool
 */

/** Strokes are kept to eighths of a pixel, which numbers hold exactly. @param {Point} p @returns {Point} */
export const eighths = (p) => ({ x: Math.round(p.x * 8) / 8, y: Math.round(p.y * 8) / 8 });

/** @param {Viewer} viewer @param {number} value  1 draws, 0 erases @returns {Tool} */
function brush(viewer, value) {
  const radius = viewer.model.get('radius');
  /** @type {Change} */
  let change;
  /** @type {Point} */
  let last;
  const to = (/** @type {Point} */ p) => {
    const [a, b] = [last, eighths(p)];
    change.draw([a, b], radius + 1, () => {
      strokeSpans(a, b, radius, change.size, (y, x0, x1) => change.bits.set(y, x0, x1, value));
    });
    last = b;
  };
  return {
    down(p) {
      change = new Change(viewer.store);
      last = eighths(p);
      to(p);
    },
    move: to,
    up: () => change.finish(),
    cancel: () => change.cancel(),
  };
}

/** @param {Viewer} viewer @param {number} value  1 adds, 0 cuts @returns {Tool} */
function lasso(viewer, value) {
  /** @type {Point[]} */
  const points = [];
  const to = (/** @type {Point} */ p) => {
    points.push(eighths(p));
    viewer.sketch = points;
    viewer.drawSketch();
  };
  return {
    down: to,
    move: to,
    up() {
      viewer.sketch = null;
      const change = new Change(viewer.store);
      change.draw(points, 1, () => {
        polygonSpans(points, change.size, (y, x0, x1) => change.bits.set(y, x0, x1, value));
      });
      change.finish();
      viewer.drawSketch();
    },
    cancel() {
      viewer.sketch = null;
      viewer.drawSketch();
    },
  };
}

/** @param {Viewer} viewer @returns {Tool} */
function vertex(viewer) {
  /** @type {Change | null} */
  let change = null;
  /** @type {Point} */
  let from;
  /** @type {Point[] | null} */
  let loop = null;
  /** @type {{ring: Point[], index: number} | null} */
  let grip = null;
  const toggle = () => {
    const [now, points] = [change, loop];
    if (!now || !points) return;
    now.draw(points, 1, () => polygonSpans(points, now.size, (y, x0, x1) => now.bits.toggle(y, x0, x1)));
  };
  return {
    down(p) {
      from = p;
      grip = nearest(viewer.store.borders(), p, 16 / viewer.view.scale);
      if (grip) change = new Change(viewer.store);
      else viewer.say('There is no border here');
    },
    move(p) {
      if (!grip) return;
      toggle(); // the last position back, then the new one
      loop = bend(grip.ring, grip.index, viewer.spacing() * 1.5, eighths({ x: p.x - from.x, y: p.y - from.y }));
      toggle();
    },
    up: () => change?.finish(),
    cancel: () => change?.cancel(),
  };
}

/** @param {Viewer} viewer @returns {Tool} */
function pick(viewer) {
  return {
    down(p) {
      if (inPhoto(viewer, p)) viewer.store.send({ kind: 'pick', at: [p.x, p.y] });
    },
    move() {},
    up() {},
    cancel() {},
  };
}

/** @param {Viewer} viewer @param {Point} p */
function inPhoto(viewer, p) {
  const { w, h } = viewer.store.photo;
  return p.x >= 0 && p.y >= 0 && p.x <= w && p.y <= h;
}

/** Two clicks, or one drag, are a distance. @param {Viewer} viewer @returns {Tool} */
function measure(viewer) {
  const begun = viewer.ruler && !viewer.ruler.done ? viewer.ruler.a : null;
  const show = (/** @type {Point} */ a, /** @type {Point} */ b, done = false) => {
    viewer.ruler = { a, b, done };
    viewer.drawSketch();
  };
  let a = begun;
  let b = begun;
  return {
    down(p) {
      if (!inPhoto(viewer, p)) return;
      a ??= p;
      b = p;
      show(a, b);
    },
    move(p) {
      if (!a || !inPhoto(viewer, p)) return;
      b = p;
      show(a, b);
    },
    up() {
      if (!a || !b) return;
      const far = Math.hypot(b.x - a.x, b.y - a.y) * viewer.view.scale > 4;
      if (!far) return; // only the first click
      show(a, b, true);
      viewer.store.send({ kind: 'measure', a: [a.x, a.y], b: [b.x, b.y] });
      viewer.say(viewer.rulerText());
    },
    cancel() {
      viewer.ruler = null;
      viewer.drawSketch();
    },
  };
}

/** @type {Record<string, (viewer: Viewer) => Tool>} */
const TOOLS = {
  brush: (viewer) => brush(viewer, 1),
  erase: (viewer) => brush(viewer, 0),
  lasso: (viewer) => lasso(viewer, 1),
  cut: (viewer) => lasso(viewer, 0),
  vertex,
  pick,
  measure,
};

const TOOL_NAMES = /** @type {Record<string, string>} */ ({
  pan: 'Move the picture', brush: 'Brush', erase: 'Eraser', lasso: 'Lasso: add', cut: 'Lasso: cut',
  vertex: 'Drag the border', pick: 'Choose a region', measure: 'Measure',
});

// ---------------------------------------------------------------- what is drawn

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

const CANVASES = ['photo', 'overlay', 'lines', 'mask', 'sketch'];

/** One of the two pictures: a pile of canvases. */
class Pane {
  /** @param {Viewer} viewer @param {number} index  0 or 1 */
  constructor(viewer, index) {
    this.viewer = viewer;
    this.index = index;
    this.title = make('span', { className: 'lp-title' });
    this.element = make('div', { className: 'lp-pane' });
    /** @type {Record<string, CanvasRenderingContext2D>} */
    this.contexts = {};
    for (const name of CANVASES) {
      const canvas = make('canvas', { className: `lp-${name}`, 'aria-hidden': 'true' });
      // The mask is written pixel by pixel, which a canvas in the memory of the graphics card does slowly.
      const context = canvas.getContext('2d', { willReadFrequently: name === 'mask' });
      if (context) this.contexts[name] = context;
      this.element.append(canvas);
    }
    this.element.append(this.title);
  }

  /** @param {Size} stage @param {number} ratio */
  resize(stage, ratio) {
    for (const { canvas } of Object.values(this.contexts)) {
      canvas.width = Math.round(stage.w * ratio);
      canvas.height = Math.round(stage.h * ratio);
    }
  }

  /** @param {string} name @returns {CanvasRenderingContext2D} cleared, in photograph pixels */
  cleared(name) {
    const context = this.contexts[name];
    const { view, stage, ratio } = this.viewer;
    const scale = view.scale * ratio;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.setTransform(scale, 0, 0, scale, (stage.w / 2) * ratio - view.x * scale, (stage.h / 2) * ratio - view.y * scale);
    return context;
  }

  /** @param {string} name @param {(ImageBitmap | OffscreenCanvas)[] | null} levels */
  drawLevels(name, levels) {
    const context = this.cleared(name);
    if (!levels) return;
    const { w, h } = this.viewer.store.photo;
    const scale = (this.viewer.view.scale * this.viewer.ratio * w) / levels[0].width; // device pixels a pixel of the file
    const level = Math.min(levels.length - 1, Math.max(0, Math.floor(Math.log2(1 / scale))));
    context.imageSmoothingEnabled = scale < 2;
    context.imageSmoothingQuality = 'medium';
    context.drawImage(levels[level], 0, 0, w, h);
  }

  drawPhoto() {
    const { pictures } = this.viewer.store;
    const mode = this.viewer.model.get('mode');
    const second = this.index === 1 && pictures.compare_image;
    const bare = mode !== 'single' && !pictures.compare_image && this.index === 0; // beside itself under the overlay
    this.drawLevels('photo', second ? pictures.compare_image : pictures.image);
    const hidden = bare || second || this.viewer.hidden('overlay');
    this.drawLevels('overlay', hidden ? null : pictures.overlay);
  }

  drawLines() {
    const context = this.cleared('lines');
    const pixel = 1 / this.viewer.view.scale; // a CSS pixel
    for (const layer of this.viewer.layers()) {
      if ((layer.pane ?? this.index) !== this.index || this.viewer.hidden(layer.name)) continue;
      const path = this.viewer.path(layer);
      const width = layer.width ?? 2;
      context.lineJoin = 'round';
      context.setLineDash([]);
      context.strokeStyle = 'rgba(0, 20, 26, .55)';
      context.lineWidth = (width + 1.5) * pixel;
      if (!layer.dash?.length) context.stroke(path);
      context.setLineDash((layer.dash ?? []).map((d) => d * pixel));
      context.strokeStyle = layer.colour;
      context.lineWidth = width * pixel;
      context.stroke(path);
    }
  }

  /** @param {Rect} [photoRect]  only what changed */
  drawMask(photoRect) {
    const { store, view, stage, ratio, model } = this.viewer;
    const { canvas } = this.contexts.mask;
    const whole = { x0: 0, y0: 0, x1: canvas.width, y1: canvas.height };
    const { bits } = store;
    const context = this.contexts.mask;
    if (!bits || this.viewer.hidden('mask')) {
      context.clearRect(0, 0, canvas.width, canvas.height);
      return;
    }
    const line = Math.max(1, Math.round(2 * ratio));
    const rim = Math.max(1, Math.round(ratio));
    const rect = photoRect ? deviceRect(photoRect, view, stage, ratio, line + rim + 1) : whole;
    if (!rect || rect.x1 <= rect.x0 || rect.y1 <= rect.y0) return;
    const colour = model.get('mask_colour');
    const fill = packedColour(colour, model.get('mask_fill'));
    const paint = { fill, edge: packedColour(colour, 1), dark: packedColour('#00141a', 0.7), line, rim };
    const pixels = paintMask(bits, view, stage, ratio, rect, paint);
    const image = new ImageData(rect.x1 - rect.x0, rect.y1 - rect.y0);
    new Uint32Array(image.data.buffer).set(pixels);
    context.putImageData(image, rect.x0, rect.y0);
  }

  drawSketch() {
    const context = this.cleared('sketch');
    const { viewer } = this;
    const pixel = 1 / viewer.view.scale;
    const stroke = (/** @type {Path2D} */ path, /** @type {string} */ colour, /** @type {number} */ width) => {
      context.strokeStyle = colour;
      context.lineWidth = width * pixel;
      context.stroke(path);
    };
    const bright = (/** @type {Path2D} */ path) => {
      stroke(path, 'rgba(0, 20, 26, .8)', 4);
      stroke(path, '#ffffff', 1.5);
    };
    if (viewer.sketch) {
      const path = new Path2D();
      viewer.sketch.forEach((p, i) => (i ? path.lineTo(p.x, p.y) : path.moveTo(p.x, p.y)));
      bright(path);
    }
    if (viewer.tool === 'vertex' && !viewer.hidden('mask')) {
      const path = new Path2D();
      const spacing = Math.max(1, Math.round(viewer.spacing()));
      for (const ring of viewer.store.borders()) {
        for (let i = 0; i < ring.length; i += spacing) {
          path.rect(ring[i].x - 3 * pixel, ring[i].y - 3 * pixel, 6 * pixel, 6 * pixel);
        }
      }
      context.fillStyle = '#ffffff';
      context.fill(path);
      stroke(path, 'rgba(0, 20, 26, .9)', 1.5);
    }
    if (viewer.ruler) {
      const { a, b } = viewer.ruler;
      const path = new Path2D();
      path.moveTo(a.x, a.y);
      path.lineTo(b.x, b.y);
      for (const p of [a, b]) {
        path.moveTo(p.x + 4 * pixel, p.y);
        path.arc(p.x, p.y, 4 * pixel, 0, 7);
      }
      bright(path);
    }
    if (viewer.cursor) {
      const { x, y } = viewer.cursor;
      const path = new Path2D();
      for (const [dx, dy] of STEPS) {
        path.moveTo(x + dx * 4 * pixel, y + dy * 4 * pixel);
        path.lineTo(x + dx * 14 * pixel, y + dy * 14 * pixel);
      }
      bright(path);
    }
  }
}

// ---------------------------------------------------------------- what listens

const HELP = 'Plus and minus zoom, F fits, Z shows real pixels. Arrow keys move the picture, or with a tool its cross; '
  + 'Shift moves it further. Space sets the tool down and lifts it again, Escape takes it back. Tab leaves the picture.';
const ARROWS = /** @type {Record<string, number[]>} */ ({
  ArrowRight: STEPS[0], ArrowDown: STEPS[1], ArrowLeft: STEPS[2], ArrowUp: STEPS[3],
});

/**
 * A plain key in the picture is not for the notebook around it, which would move to another cell or cut this one. The
 * browser still acts on it: Tab leaves, Page Down scrolls.
 * @param {KeyboardEvent} event
 */
export function keepInside(event) {
  if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
}

/** @param {Viewer} viewer */
function elements(viewer) {
  const id = `lp-${Math.random().toString(36).slice(2)}`;
  const panes = [new Pane(viewer, 0), new Pane(viewer, 1)];
  const board = make('div', {
    className: 'lp-stage', tabIndex: 0, role: 'application', 'aria-describedby': id, 'aria-roledescription': 'picture',
  }, ...panes.map((pane) => pane.element));
  const divider = make('div', {
    className: 'lp-divider', tabIndex: 0, role: 'slider', 'aria-label': 'Divider of the two pictures',
    'aria-valuemin': '0', 'aria-valuemax': '100', 'aria-orientation': 'horizontal',
  });
  const ring = make('div', { className: 'lp-ring', hidden: true, 'aria-hidden': 'true' });
  const bar = make('div', { className: 'lp-scale', hidden: true });
  const note = make('p', { className: 'lp-note' });
  const frame = make('div', { className: 'lp-frame' }, board, ring, bar, note, divider);
  const zoomText = make('output', { className: 'lp-percent', 'aria-label': 'Zoom', 'aria-live': 'off' });
  const button = (/** @type {string} */ text, /** @type {string} */ label, /** @type {string} */ action) =>
    make('button', { type: 'button', textContent: text, title: label, 'aria-label': label, onclick: () => viewer.act(action) });
  const zoom = make('div', { className: 'lp-zoom', role: 'group', 'aria-label': 'Zoom' },
    button('−', 'Zoom out', 'zoom_out'), zoomText, button('+', 'Zoom in', 'zoom_in'),
    button('Fit', 'Fit the whole photograph', 'fit'), button('1:1', 'Real pixels, 1:1', 'real_pixels'));
  const legend = make('div', { className: 'lp-legend', role: 'group', 'aria-label': 'Lines' });
  const live = make('div', { className: 'lp-unseen', 'aria-live': 'polite' });
  const help = make('p', { className: 'lp-unseen', id, textContent: HELP });
  const element = make('div', { className: 'lesion-picture', 'data-lm-suppress-shortcuts': 'true' },
    frame, make('div', { className: 'lp-bar' }, zoom, legend), help, live);
  return { panes, board, divider, ring, bar, note, frame, zoomText, legend, live, element };
}

/** One picture on the page. */
class Viewer {
  /** @param {Model} model @param {HTMLElement} root @param {Store} store */
  constructor(model, root, store) {
    this.model = model;
    this.store = store;
    /** @type {Size} */
    this.stage = { w: 1, h: 1 };
    this.ratio = 1;
    /** @type {View} */
    this.view = { scale: 1, x: 0, y: 0 };
    this.fitted = true;
    /** @type {Tool | null} */
    this.active = null;
    /** @type {Map<number, Point>} */
    this.pointers = new Map();
    /** @type {Point[] | null} */
    this.sketch = null; // a lasso under way
    /** @type {{a: Point, b: Point, done: boolean} | null} */
    this.ruler = null;
    /** @type {Point | null} */
    this.cursor = null; // of the keys
    /** @type {WeakMap<Layer, Path2D>} */
    this.paths = new WeakMap();
    this.swipe = 0.5;
    this.frame = 0;
    this.writing = 0;
    this.blinking = 0;
    /** @type {Point | null} */
    this.ringAt = null;
    /** @type {(() => void)[]} */
    this.endings = [];
    this.ui = elements(this);
    root.append(this.ui.element);
    this.listen();
    this.showMode();
    this.showTool();
    this.showLegend();
  }

  /** @returns {string} */
  get tool() {
    return this.model.get('tool');
  }

  /** @param {string} text  for a screen reader */
  say(text) {
    this.ui.live.textContent = text;
  }

  /** @returns {Layer[]} */
  layers() {
    return this.model.get('layers').filter((/** @type {Layer} */ layer) => layer.shown !== false);
  }

  /** @param {string} name @returns {boolean} */
  hidden(name) {
    return this.model.get('hidden').includes(name) || (name === 'mask' && !this.model.get('mask_shown'));
  }

  /** @param {Layer} layer @returns {Path2D} */
  path(layer) {
    let path = this.paths.get(layer);
    if (!path) {
      path = new Path2D();
      for (const ring of layer.polygons) {
        ring.forEach(([x, y], i) => (i ? path?.lineTo(x, y) : path?.moveTo(x, y)));
        path.closePath();
      }
      this.paths.set(layer, path);
    }
    return path;
  }

  showLegend() {
    const rows = this.layers().map(({ name, label, colour, dash }) => ({ name, label, colour, dash: dash ?? [] }));
    if (this.store.bits && this.model.get('mask_shown')) {
      rows.push({ name: 'mask', label: this.model.get('mask_label'), colour: this.model.get('mask_colour'), dash: [] });
    }
    if (this.store.pictures.overlay) {
      rows.push({ name: 'overlay', label: this.model.get('overlay_label'), colour: '', dash: [] });
    }
    const key = JSON.stringify(rows);
    if (key !== this.ui.legend.dataset.rows) {
      this.ui.legend.dataset.rows = key;
      this.ui.legend.replaceChildren(...rows.map((row) => {
        const swatch = make('canvas', { className: 'lp-swatch', width: 48, height: 16, 'aria-hidden': 'true' });
        const context = swatch.getContext('2d');
        if (context && row.colour) {
          context.setLineDash(row.dash.map((d) => d * 2));
          context.strokeStyle = row.colour;
          context.lineWidth = 5;
          context.moveTo(0, 8);
          context.lineTo(48, 8);
          context.stroke();
        }
        const box = make('input', { type: 'checkbox', value: row.name, onchange: () => this.switchLine(row.name) });
        return make('label', {}, box, ...(row.colour ? [swatch] : []), row.label);
      }));
    }
    for (const box of this.ui.legend.querySelectorAll('input')) box.checked = !this.model.get('hidden').includes(box.value);
  }

  /** @param {string} name  of a line, 'mask' or 'overlay' */
  switchLine(name) {
    const hidden = this.model.get('hidden');
    const rest = hidden.filter((/** @type {string} */ other) => other !== name);
    this.write('hidden', rest.length < hidden.length ? rest : [...hidden, name]);
  }

  /** @param {string} name @param {any} value */
  write(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  showMode() {
    const mode = this.model.get('mode');
    this.ui.element.dataset.mode = mode;
    const [, second] = this.ui.panes;
    second.element.hidden = mode === 'single';
    this.ui.divider.hidden = mode !== 'swipe';
    second.element.style.clipPath = mode === 'swipe' ? `inset(0 0 0 ${this.swipe * 100}%)` : '';
    this.ui.divider.style.left = `${this.swipe * 100}%`;
    this.ui.divider.setAttribute('aria-valuenow', String(Math.round(this.swipe * 100)));
    const labels = mode === 'single' ? [] : this.model.get('pane_labels');
    this.ui.panes.forEach((pane, i) => { pane.title.textContent = labels[i] ?? ''; });
    clearInterval(this.blinking);
    second.element.style.visibility = '';
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches; // then the key alone changes the picture
    if (mode === 'blink' && !still) this.blinking = setInterval(() => this.blink(), 800);
    this.resize();
  }

  blink() {
    const { style } = this.ui.panes[1].element;
    style.visibility = style.visibility ? '' : 'hidden';
  }

  showTool() {
    const { tool } = this;
    if (this.active) this.lift(false);
    this.ruler = null;
    this.sketch = null;
    this.ui.element.dataset.tool = tool;
    this.ui.ring.hidden = true;
    if (tool === 'pan') this.cursor = null;
    this.showTouch();
    const radius = ['brush', 'erase'].includes(tool) ? `, radius ${this.model.get('radius')} pixels` : '';
    this.say(TOOL_NAMES[tool] + radius);
    this.drawSketch();
  }

  /** A finger on a picture that fits scrolls the page; in every other case it belongs to the picture. */
  showTouch() {
    this.ui.board.style.touchAction = this.tool === 'pan' && this.fitted ? 'pan-x pan-y' : 'none';
  }

  showImage() {
    const { w, h } = this.store.photo;
    const beside = this.model.get('mode') === 'side' ? 2 : 1;
    this.ui.element.style.setProperty('--lp-shape', String(h / w / beside));
    const empty = !this.model.get('image')?.byteLength;
    this.ui.board.setAttribute('aria-label', empty ? 'No photograph' : `${this.model.get('name')}, ${w} by ${h} pixels`);
    this.ui.note.textContent = empty ? 'No photograph' : this.store.pictures.image ? '' : 'Loading …';
    for (const pane of this.ui.panes) {
      const filter = `brightness(${this.model.get('brightness')}) contrast(${this.model.get('contrast')})`;
      pane.contexts.photo.canvas.style.filter = filter;
      pane.contexts.overlay.canvas.style.opacity = this.model.get('overlay_opacity');
    }
  }

  showScale() {
    const mm = this.model.get('millimetres');
    this.ui.zoomText.textContent = percent(this.view.scale, this.ratio);
    this.ui.bar.hidden = !(mm > 0);
    if (this.ui.bar.hidden) return;
    const { length, text } = scaleBar(mm, this.view.scale, Math.min(160, this.stage.w / 3));
    this.ui.bar.style.width = `${length}px`;
    this.ui.bar.textContent = text;
  }

  /** @returns {string} */
  rulerText() {
    if (!this.ruler) return '';
    const { a, b } = this.ruler;
    const pixels = Math.hypot(b.x - a.x, b.y - a.y);
    const mm = this.model.get('millimetres');
    return mm > 0 ? lengthText(pixels * mm) : `${Number(pixels.toFixed(1))} pixels`;
  }

  /** How far the points of a border are from one another, photograph pixels. @returns {number} */
  spacing() {
    return Math.max(4, 24 / this.view.scale);
  }

  // ------------------------------------------------ drawing

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    this.showScale();
    this.showImage();
    for (const pane of this.shownPanes()) {
      pane.drawPhoto();
      pane.drawMask();
      pane.drawLines();
    }
    this.drawSketch();
  }

  drawSketch() {
    for (const pane of this.shownPanes()) pane.drawSketch();
    const text = this.rulerText();
    if (text) this.ui.note.textContent = text;
    else if (this.store.pictures.image) this.ui.note.textContent = '';
  }

  /** @returns {Pane[]} */
  shownPanes() {
    return this.model.get('mode') === 'single' ? [this.ui.panes[0]] : this.ui.panes;
  }

  resize() {
    const box = this.ui.panes[0].element.getBoundingClientRect();
    if (!box.width || !box.height) return;
    this.stage = { w: box.width, h: box.height };
    this.ratio = window.devicePixelRatio || 1;
    for (const pane of this.ui.panes) pane.resize(this.stage, this.ratio);
    this.look(this.fitted ? fitView(this.stage, this.store.photo) : this.view, false);
    this.drawNow();
  }

  // ------------------------------------------------ looking

  /**
   * Look somewhere.
   * @param {View} view @param {boolean} byReader  then Python is told
   */
  look(view, byReader) {
    this.view = clampView(view, this.stage, this.store.photo);
    this.showTouch();
    this.draw();
    if (!byReader) return;
    this.fitted = false;
    if (this.writing) return;
    this.writing = setTimeout(() => {
      this.writing = 0;
      this.write('view', this.fitted ? { scale: 'fit' } : { ...this.view });
    }, 200);
  }

  /** @param {number | string} scale  'fit', '1:1' or CSS pixels a photograph pixel @param {Point} [at] on the stage */
  zoomTo(scale, at) {
    const middle = at ?? { x: this.stage.w / 2, y: this.stage.h / 2 };
    const wanted = scale === '1:1' ? 1 / this.ratio : Number(scale);
    if (scale === 'fit') this.look(fitView(this.stage, this.store.photo), true);
    else this.look(zoomAt(this.view, this.stage, this.store.photo, middle, wanted / this.view.scale), true);
    this.fitted = scale === 'fit';
    this.showTouch();
    this.say(`Zoom ${percent(this.view.scale, this.ratio)}`);
  }

  /** What Python asks for. */
  lookAsTold() {
    const { scale, x, y } = this.model.get('view');
    const told = { scale, x, y };
    if (scale === undefined || (scale === this.view.scale && x === this.view.x && y === this.view.y)) return;
    this.fitted = scale === 'fit';
    if (this.fitted) Object.assign(told, fitView(this.stage, this.store.photo));
    if (scale === '1:1') Object.assign(told, { scale: 1 / this.ratio, x: x ?? this.view.x, y: y ?? this.view.y });
    this.look({ ...this.view, ...JSON.parse(JSON.stringify(told)) }, false);
  }

  // ------------------------------------------------ pointers

  /** @param {MouseEvent} event @returns {Point} on the stage */
  place(event) {
    const side = this.model.get('mode') === 'side';
    const boxes = this.ui.panes.map((pane) => pane.element.getBoundingClientRect());
    const box = side && this.reach(boxes[1], event) < this.reach(boxes[0], event) ? boxes[1] : boxes[0];
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  /** @param {DOMRect} box @param {MouseEvent} event @returns {number} distance from its middle */
  reach(box, event) {
    return Math.hypot(event.clientX - (box.left + box.right) / 2, event.clientY - (box.top + box.bottom) / 2);
  }

  /** @param {MouseEvent} event @returns {Point} in the photograph */
  photoPoint(event) {
    return toPhoto(this.view, this.stage, this.place(event));
  }

  /** @returns {Tool} */
  panTool() {
    /** @type {Point} */
    let from;
    return {
      down: (p) => { from = p; },
      move: (p) => this.look({ ...this.view, x: this.view.x + from.x - p.x, y: this.view.y + from.y - p.y }, true),
      up() {},
      cancel() {},
    };
  }

  /** Set a tool down. @param {Point} p @param {boolean} [pan] */
  press(p, pan = false) {
    if (!this.store.pictures.image) return;
    this.active = pan || this.tool === 'pan' ? this.panTool() : TOOLS[this.tool](this);
    this.active.down(p);
  }

  /** Lift the tool. @param {boolean} [finished]  false: as if it had never been down */
  lift(finished = true) {
    const tool = this.active;
    this.active = null;
    if (finished) tool?.up();
    else tool?.cancel();
    this.drawSketch();
  }

  /** @param {PointerEvent} event */
  pointerDown(event) {
    if (event.button !== 0 && event.button !== 1) return;
    this.ui.board.focus({ preventScroll: true });
    if (event.button === 1) event.preventDefault(); // no scrolling by the middle button
    try { this.ui.board.setPointerCapture(event.pointerId); } catch { /* a made-up pointer of a test */ }
    this.pointers.set(event.pointerId, this.place(event));
    this.cursor = null;
    if (this.pointers.size > 1) this.lift(false); // a second finger: it was no stroke
    else this.press(this.photoPoint(event), event.button === 1);
    this.showRing(event);
  }

  /** @param {PointerEvent} event */
  pointerMove(event) {
    this.showRing(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = this.place(event);
    if (this.pointers.size === 2) this.pinch(event.pointerId, before, now);
    this.pointers.set(event.pointerId, now);
    if (this.pointers.size > 1 || !this.active) return;
    const panning = !TOOLS[this.tool];
    const events = panning ? [] : event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.active?.move(this.photoPoint(each));
  }

  /** @param {number} id  of the finger that moves @param {Point} before @param {Point} now */
  pinch(id, before, now) {
    const other = [...this.pointers].find(([key]) => key !== id)?.[1];
    if (!other) return;
    const distance = (/** @type {Point} */ p) => Math.max(1, Math.hypot(p.x - other.x, p.y - other.y));
    const middle = (/** @type {Point} */ p) => ({ x: (p.x + other.x) / 2, y: (p.y + other.y) / 2 });
    const [from, to] = [middle(before), middle(now)];
    const zoomed = zoomAt(this.view, this.stage, this.store.photo, from, distance(now) / distance(before));
    const [dx, dy] = [(to.x - from.x) / zoomed.scale, (to.y - from.y) / zoomed.scale];
    this.look({ ...zoomed, x: zoomed.x - dx, y: zoomed.y - dy }, true);
  }

  /** @param {PointerEvent} event @param {boolean} finished */
  pointerUp(event, finished) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.active) this.lift(finished);
  }

  /** @param {WheelEvent} event */
  wheel(event) {
    const ours = event.ctrlKey || this.model.get('wheel') === 'always' || document.activeElement === this.ui.board;
    if (!ours) return; // the page scrolls
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    const factor = Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015));
    this.zoomTo(this.view.scale * factor, this.place(event));
  }

  /** The size of the brush under the pointer. @param {PointerEvent} [event] */
  showRing(event) {
    if (event) {
      const box = this.ui.frame.getBoundingClientRect();
      this.ringAt = { x: event.clientX - box.left, y: event.clientY - box.top };
    }
    const at = this.ringAt;
    this.ui.ring.hidden = !at || !['brush', 'erase'].includes(this.tool) || event?.type === 'pointerleave';
    if (this.ui.ring.hidden || !at) return;
    const radius = this.model.get('radius') * this.view.scale;
    this.ui.ring.style.width = this.ui.ring.style.height = `${2 * radius}px`;
    this.ui.ring.style.transform = `translate(${at.x - radius}px, ${at.y - radius}px)`;
  }

  // ------------------------------------------------ keys

  /** @param {KeyboardEvent} event */
  keyDown(event) {
    if (event.target !== this.ui.board || !this.key(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {KeyboardEvent} event @returns {boolean} whether it was ours */
  key(event) {
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    const arrow = ARROWS[event.key];
    if (arrow && plain) return this.moveBy(arrow, event.shiftKey);
    if ((event.key === ' ' || event.key === 'Enter') && plain && this.tool !== 'pan') return this.pen();
    if (event.key === 'Escape') return this.escape();
    const action = this.model.get('hotkeys') ? keyAction(event, this.model.get('key_map')) : '';
    if (action) this.act(action);
    return action !== '';
  }

  /** @param {number[]} direction @param {boolean} far @returns {boolean} */
  moveBy([dx, dy], far) {
    if (this.tool === 'pan') {
      const step = (far ? 240 : 60) / this.view.scale;
      this.look({ ...this.view, x: this.view.x + dx * step, y: this.view.y + dy * step }, true);
      return true;
    }
    const step = Math.max(1, Math.round((far ? 32 : 4) / this.view.scale));
    const { w, h } = this.store.photo;
    const from = this.cursor ?? { x: Math.round(this.view.x), y: Math.round(this.view.y) };
    this.cursor = { x: Math.min(w, Math.max(0, from.x + dx * step)), y: Math.min(h, Math.max(0, from.y + dy * step)) };
    const seen = toStage(this.view, this.stage, this.cursor);
    const inSight = seen.x > 0 && seen.y > 0 && seen.x < this.stage.w && seen.y < this.stage.h;
    if (!inSight) this.look({ ...this.view, ...this.cursor }, true);
    this.active?.move(this.cursor);
    this.drawSketch();
    return true;
  }

  /** @returns {boolean} */
  pen() {
    this.cursor ??= { x: Math.round(this.view.x), y: Math.round(this.view.y) };
    if (this.active) {
      this.lift();
      this.say('Lifted');
      return true;
    }
    this.press(this.cursor);
    if (this.tool === 'pick') this.lift();
    else this.say('Down');
    this.drawSketch();
    return true;
  }

  /** @returns {boolean} */
  escape() {
    if (!this.active && !this.ruler && !this.cursor) return false;
    if (this.active) this.lift(false);
    this.ruler = null;
    this.cursor = null;
    this.drawSketch();
    return true;
  }

  /** @param {string} action */
  act(action) {
    const radius = this.model.get('radius');
    if (this.active && action === 'undo') this.lift(false);
    else if (action === 'zoom_in') this.zoomTo(this.view.scale * 1.25);
    else if (action === 'zoom_out') this.zoomTo(this.view.scale / 1.25);
    else if (action === 'fit') this.zoomTo('fit');
    else if (action === 'real_pixels') this.zoomTo('1:1');
    else if (action === 'smaller') this.write('radius', nextRadius(radius, -1));
    else if (action === 'larger') this.write('radius', nextRadius(radius, 1));
    else if (action === 'flip') this.blink();
    else if (action === 'pan' || TOOLS[action]) this.write('tool', action);
    else this.store.send({ kind: 'key', action });
  }

  // ------------------------------------------------ events

  listen() {
    const { model } = this;
    const { board } = this.ui;
    /** @type {(target: EventTarget, name: string, f: (event: any) => void, options?: AddEventListenerOptions) => void} */
    const on = (target, name, f, options) => target.addEventListener(name, f, options);
    on(board, 'pointerdown', (e) => this.pointerDown(e));
    on(board, 'pointermove', (e) => this.pointerMove(e));
    on(board, 'pointerup', (e) => this.pointerUp(e, true));
    on(board, 'pointercancel', (e) => this.pointerUp(e, false));
    on(board, 'lostpointercapture', (e) => this.pointerUp(e, false));
    on(board, 'pointerleave', (e) => this.showRing(e));
    on(board, 'wheel', (e) => this.wheel(e), { passive: false });
    on(board, 'touchstart', (e) => e.touches.length > 1 && e.preventDefault(), { passive: false });
    on(board, 'touchmove', (e) => e.touches.length > 1 && e.cancelable && e.preventDefault(), { passive: false });
    on(board, 'keydown', (e) => this.keyDown(e));
    on(this.ui.element, 'keydown', keepInside);
    on(board, 'dblclick', (e) => this.doubleClick(e));
    on(this.ui.divider, 'pointerdown', (e) => this.ui.divider.setPointerCapture(e.pointerId));
    on(this.ui.divider, 'pointermove', (e) => {
      if (this.ui.divider.hasPointerCapture(e.pointerId)) this.swipeTo(this.place(e).x / this.stage.w);
    });
    on(this.ui.divider, 'keydown', (e) => this.swipeKey(e));

    const watch = (/** @type {string} */ names, /** @type {() => void} */ f) => {
      for (const name of names.split(' ')) {
        model.on(`change:${name}`, f);
        this.endings.push(() => model.off(`change:${name}`, f));
      }
    };
    watch('image width height', () => this.newPhoto());
    watch('layers hidden mask_label mask_colour mask_shown mask_fill overlay_label', () => {
      this.showLegend();
      this.draw();
    });
    watch('name brightness contrast overlay_opacity millimetres', () => this.draw());
    watch('mode pane_labels', () => this.showMode());
    watch('tool', () => this.showTool());
    watch('view', () => this.lookAsTold());
    watch('radius', () => {
      this.showRing();
      this.say(`Radius ${model.get('radius')} pixels`);
    });

    const heard = (/** @type {string} */ what, /** @type {Rect | undefined} */ rect) => {
      if (what === 'mask') this.maskChanged(rect);
      if (what === 'photo') this.draw();
      if (what === 'broken') this.ui.note.textContent = 'This photograph cannot be shown';
      if (what !== 'mask' || !rect) this.showLegend();
    };
    this.store.views.add(heard);
    const observer = new ResizeObserver(() => this.resize());
    observer.observe(this.ui.frame);
    this.endings.push(() => this.store.views.delete(heard), () => observer.disconnect(), () => clearInterval(this.blinking));
  }

  newPhoto() {
    this.lift(false);
    this.ruler = null;
    this.cursor = null;
    if (this.fitted) this.look(fitView(this.stage, this.store.photo), false);
    this.draw();
  }

  /** @param {Rect} [rect] */
  maskChanged(rect) {
    for (const pane of this.shownPanes()) pane.drawMask(rect);
    if (this.tool === 'vertex' && !this.store.change) this.drawSketch();
  }

  /** @param {MouseEvent} event */
  doubleClick(event) {
    if (this.tool === 'pan') this.zoomTo(this.fitted ? '1:1' : 'fit', this.place(event));
  }

  /** @param {number} where  0 to 1 */
  swipeTo(where) {
    this.swipe = Math.min(1, Math.max(0, where));
    this.showMode();
  }

  /** @param {KeyboardEvent} event */
  swipeKey(event) {
    const step = /** @type {Record<string, number>} */ ({ ArrowLeft: -0.05, ArrowRight: 0.05 })[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    this.swipeTo(this.swipe + step);
  }

  end() {
    this.lift(false);
    for (const ending of this.endings) ending();
  }
}

/** One store a model, one viewer each time it is shown. */
export default () => {
  /** @type {Store | undefined} */
  let store;
  return {
    /** @param {{model: Model}} context */
    initialize({ model }) {
      store = new Store(model);
    },
    /** @param {{model: Model, el: HTMLElement}} context */
    render({ model, el }) {
      store ??= new Store(model);
      const viewer = new Viewer(model, el, store);
      return () => viewer.end();
    },
  };
};
