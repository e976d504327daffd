// The pure parts of the picture, each against a definition that is written out here and nowhere in the code.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  Bits, around, bend, clampView, deviceRect, eighths, findRings, fitView, keyAction, lengthText, nearest, nextRadius,
  packedColour, paintMask, parts, percent, polygonSpans, scaleBar, strokeSpans, toPhoto, toStage, traceRing, union, zoomAt,
} from '../../lesion_seg/webapp/picture.js';

/** Numbers that are the same in every run. */
function randoms(seed) {
  let state = seed;
  return (below) => {
    state = (state * 1664525 + 1013904223) % 4294967296;
    return (state / 4294967296) * below;
  };
}

/** The mask as text, a line a row. */
const text = (bits) => Array.from({ length: bits.height }, (_, y) =>
  Array.from({ length: bits.width }, (_, x) => (bits.get(x, y) ? '#' : '.')).join(''));

/** A mask from a rule for each pixel. */
function masked(width, height, rule) {
  const bits = new Bits(width, height);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) if (rule(x, y)) bits.set(y, x, x + 1, 1);
  return bits;
}

const stage = { w: 800, h: 600 };
const photo = { w: 6000, h: 4000 };

test('the whole photograph fits, its middle in the middle', () => {
  const view = fitView(stage, photo);
  assert.deepEqual(view, { scale: 800 / 6000, x: 3000, y: 2000 });
  assert.deepEqual(toStage(view, stage, { x: 0, y: 2000 }), { x: 0, y: 300 });
  assert.deepEqual(toStage(view, stage, { x: 6000, y: 2000 }), { x: 800, y: 300 });
});

test('to the photograph and back is nothing', () => {
  const view = { scale: 0.37, x: 1234, y: 567 };
  const p = toPhoto(view, stage, { x: 17, y: 590 });
  const back = toStage(view, stage, p);
  assert.ok(Math.hypot(back.x - 17, back.y - 590) < 1e-9);
});

test('zooming keeps the point under the pointer', () => {
  const view = { scale: 0.5, x: 2000, y: 1500 };
  const at = { x: 100, y: 500 };
  const zoomed = zoomAt(view, stage, photo, at, 3);
  assert.equal(zoomed.scale, 1.5);
  const [a, b] = [toPhoto(view, stage, at), toPhoto(zoomed, stage, at)];
  assert.ok(Math.hypot(a.x - b.x, a.y - b.y) < 1e-9);
});

test('a view never shows nothing, and never less than a pixel', () => {
  assert.equal(clampView({ scale: 1e-9, x: -5, y: 9e9 }, stage, photo).scale, 800 / 6000 / 2);
  assert.deepEqual(clampView({ scale: 1e9, x: -5, y: 9e9 }, stage, photo), { scale: 64, x: 0, y: 4000 });
  assert.equal(clampView({ scale: 1, x: 1, y: 1 }, stage, { w: 300, h: 200 }).scale, 1); // real pixels of a small one
  assert.equal(clampView({ scale: 500, x: 1, y: 1 }, stage, { w: 4, h: 4 }).scale, 150); // tiny: it may still fit
});

test('100 % are real pixels, also on a fine screen', () => {
  assert.equal(percent(1, 1), '100 %');
  assert.equal(percent(0.5, 2), '100 %');
  assert.equal(percent(512 / 3008, 1), '17 %');
  assert.equal(percent(0.05, 1), '5.0 %');
});

test('lengths keep their zeros', () => {
  assert.equal(lengthText(500), '500 mm');
  assert.equal(lengthText(120.24), '120 mm');
  assert.equal(lengthText(5.126), '5.13 mm');
  assert.equal(lengthText(0.05), '50 µm');
});

test('the scale bar is the longest round number that has room', () => {
  assert.deepEqual(scaleBar(0.01, 1, 160), { length: 100, text: '1 mm' });
  assert.deepEqual(scaleBar(0.01, 1, 99), { length: 50, text: '0.5 mm' });
  for (const scale of [0.03, 0.2, 1, 7, 40]) {
    const { length } = scaleBar(0.0137, scale, 160);
    assert.ok(length <= 160 && length > 160 / 2.6, `${scale}: ${length}`);
  }
});

test('keys: capitals, control, and what belongs to nobody', () => {
  const keys = { b: 'brush', 'Ctrl+z': 'undo', 'Ctrl+Z': 'redo', '?': 'help' };
  assert.equal(keyAction({ key: 'b' }, keys), 'brush');
  assert.equal(keyAction({ key: 'B' }, keys), 'brush'); // caps lock
  assert.equal(keyAction({ key: 'z', ctrlKey: true }, keys), 'undo');
  assert.equal(keyAction({ key: 'Z', metaKey: true }, keys), 'redo');
  assert.equal(keyAction({ key: 'b', ctrlKey: true }, keys), ''); // the browser's bookmarks
  assert.equal(keyAction({ key: 'b', altKey: true }, keys), '');
  assert.equal(keyAction({ key: 'constructor' }, keys), '');
});

test('the brush grows and shrinks, and never to nothing', () => {
  assert.deepEqual([nextRadius(1, -1), nextRadius(1, 1), nextRadius(100, 1), nextRadius(100, -1)], [1, 2, 115, 85]);
  assert.equal(nextRadius(1000, 1), 1000);
});

test('rectangles', () => {
  const a = { x0: 1, y0: 2, x1: 3, y1: 4 };
  assert.deepEqual(union(null, a), a);
  assert.deepEqual(union(a, { x0: 0, y0: 3, x1: 2, y1: 9 }), { x0: 0, y0: 2, x1: 3, y1: 9 });
  assert.deepEqual(around([{ x: 5.5, y: 5 }, { x: 7, y: 1 }], 2, { w: 8, h: 20 }), { x0: 3, y0: 0, x1: 8, y1: 7 });
  assert.equal(around([{ x: 50, y: 5 }], 2, { w: 8, h: 20 }), null);
});

test('bits: what numpy.packbits writes, and every span', () => {
  const bits = new Bits(20, 4);
  bits.set(1, 10, 13, 1);
  assert.deepEqual([...bits.data.slice(3, 6)], [0, 0x38, 0]);
  const random = randoms(1);
  for (let i = 0; i < 300; i++) {
    const [a, b] = [Math.floor(random(21)), Math.floor(random(21))];
    const one = new Bits(20, 4);
    one.set(2, a, b, 1);
    assert.deepEqual(text(one)[2], Array.from({ length: 20 }, (_, x) => (x >= a && x < b ? '#' : '.')).join(''));
    one.toggle(2, 0, 20);
    one.set(2, a, b, 1);
    one.set(2, 0, 20, 0);
    assert.ok(one.data.every((byte) => byte === 0));
  }
  assert.equal(bits.get(-1, 0) + bits.get(20, 0) + bits.get(0, 4), 0);
  assert.throws(() => new Bits(20, 4, new Uint8Array(3)), /does not fit/);
});

test('a difference, flipped, is the mask again; and it is as small as it can be', () => {
  const random = randoms(2);
  for (let i = 0; i < 100; i++) {
    const bits = masked(37, 19, () => random(1) < 0.3);
    const before = bits.data.slice();
    const [y, x] = [Math.floor(random(19)), Math.floor(random(35))];
    bits.toggle(y, x, x + 3);
    const patch = bits.difference(before, { x0: 0, y0: 0, x1: 37, y1: 19 });
    assert.deepEqual([patch.y, patch.h, patch.x], [y, 1, x - (x % 8)]);
    assert.ok(patch.x + patch.w <= 37);
    assert.equal(patch.data.length, patch.h * Math.ceil(patch.w / 8));
    bits.flip(patch);
    assert.deepEqual(bits.data, before);
    assert.equal(bits.difference(before, { x0: 0, y0: 0, x1: 37, y1: 19 }), null);
  }
});

test('parts put together are the whole', () => {
  const data = Uint8Array.from({ length: 10 }, (_, i) => i);
  const list = parts(data, 4);
  assert.deepEqual(list.map(({ at, part }) => [at, part.length]), [[0, 4], [4, 4], [8, 2]]);
  assert.deepEqual(list.flatMap(({ part }) => [...part]), [...data]);
});

/** Distance of a point from a segment, from the textbook. */
function distance(p, a, b) {
  const l2 = (b.x - a.x) ** 2 + (b.y - a.y) ** 2;
  const t = l2 ? Math.max(0, Math.min(1, ((p.x - a.x) * (b.x - a.x) + (p.y - a.y) * (b.y - a.y)) / l2)) : 0;
  return Math.hypot(p.x - a.x - t * (b.x - a.x), p.y - a.y - t * (b.y - a.y));
}

test('a stroke covers the pixels whose centre is near enough, no more and no less', () => {
  const random = randoms(3);
  const size = { w: 60, h: 40 };
  for (let i = 0; i < 400; i++) {
    const kind = i % 4; // any direction, horizontal, vertical, a dot; also beyond the frame
    const a = eighths({ x: random(80) - 10, y: random(60) - 10 });
    const b = kind === 3 ? a : eighths({ x: kind === 2 ? a.x : random(80) - 10, y: kind === 1 ? a.y : random(60) - 10 });
    const radius = 1 + Math.floor(random(15));
    const bits = new Bits(size.w, size.h);
    strokeSpans(a, b, radius, size, (y, x0, x1) => bits.set(y, x0, x1, 1));
    for (let y = 0; y < size.h; y++) {
      for (let x = 0; x < size.w; x++) {
        const d = distance({ x: x + 0.5, y: y + 0.5 }, a, b);
        if (Math.abs(d - radius) > 1e-9) assert.equal(bits.get(x, y), d < radius ? 1 : 0, JSON.stringify({ a, b, radius, x, y }));
      }
    }
  }
});

test('a dot of radius 1 in the middle of a pixel is a plus: a centre at the distance of the radius counts', () => {
  const bits = new Bits(5, 5);
  const middle = { x: 2.5, y: 2.5 };
  strokeSpans(middle, middle, 1, { w: 5, h: 5 }, (y, x0, x1) => bits.set(y, x0, x1, 1));
  assert.deepEqual(text(bits), ['.....', '..#..', '.###.', '..#..', '.....']);
});

/** Is a point inside? A ray to the left, crossed an odd number of times. */
function insidePolygon(p, points) {
  let inside = false;
  points.forEach((a, i) => {
    const b = points[(i + 1) % points.length];
    if ((a.y > p.y) !== (b.y > p.y) && p.x > a.x + ((p.y - a.y) * (b.x - a.x)) / (b.y - a.y)) inside = !inside;
  });
  return inside;
}

test('a lasso takes the pixels whose centre it encloses, also where it crosses itself or leaves the photograph', () => {
  const random = randoms(4);
  const size = { w: 50, h: 30 };
  for (let i = 0; i < 300; i++) {
    const points = Array.from({ length: 3 + Math.floor(random(9)) }, () => ({ x: random(70) - 10, y: random(50) - 10 }));
    const bits = new Bits(size.w, size.h);
    polygonSpans(points, size, (y, x0, x1) => bits.toggle(y, x0, x1));
    for (let y = 0; y < size.h; y++) {
      for (let x = 0; x < size.w; x++) {
        assert.equal(bits.get(x, y) === 1, insidePolygon({ x: x + 0.5, y: y + 0.5 }, points), JSON.stringify({ points, x, y }));
      }
    }
  }
});

test('a centre on the line belongs to one side only, so that two lassos with a common side share no pixel', () => {
  const size = { w: 6, h: 3 };
  const box = (left, right) => [{ x: left, y: 0 }, { x: right, y: 0 }, { x: right, y: 2.5 }, { x: left, y: 2.5 }];
  const bits = new Bits(6, 3);
  for (const points of [box(1.5, 3.5), box(3.5, 4.5)]) polygonSpans(points, size, (y, x0, x1) => bits.toggle(y, x0, x1));
  assert.deepEqual(text(bits), ['.###..', '.###..', '......']);
});

test('borders of a ring: outside with the mask at the right hand, the hole the other way round', () => {
  const bits = masked(5, 5, (x, y) => x > 0 && x < 4 && y > 0 && y < 4 && !(x === 2 && y === 2));
  const rings = findRings(bits);
  const area = (ring) => ring.reduce((sum, p, i) => {
    const q = ring[(i + 1) % ring.length];
    return sum + (p.x * q.y - q.x * p.y) / 2;
  }, 0);
  assert.deepEqual(rings.map((ring) => [ring.length, area(ring)]), [[12, 9], [4, -1]]);
  assert.deepEqual(traceRing(bits, 1, 1)[0], { x: 1, y: 2 });
});

test('borders, filled again, are the mask: pixel for pixel, for any mask', () => {
  const random = randoms(5);
  for (let i = 0; i < 100; i++) {
    const [w, h] = [1 + Math.floor(random(40)), 1 + Math.floor(random(30))];
    const density = random(1);
    const bits = masked(w, h, () => random(1) < density);
    const again = new Bits(w, h);
    for (const ring of findRings(bits)) polygonSpans(ring, { w, h }, (y, x0, x1) => again.toggle(y, x0, x1));
    assert.deepEqual(text(again), text(bits));
  }
});

test('dragging a point moves the border there, lets the far side be, and is taken back by the same flips', () => {
  const size = { w: 60, h: 60 };
  const bits = masked(60, 60, (x, y) => Math.hypot(x - 29.5, y - 29.5) < 20);
  const before = bits.data.slice();
  const grip = nearest(findRings(bits), { x: 30, y: 9 }, 5);
  assert.ok(grip && Math.abs(grip.ring[grip.index].y - 10) <= 1);
  const flip = () => polygonSpans(bend(grip.ring, grip.index, 12, { x: 0, y: -6 }), size, (y, x0, x1) => bits.toggle(y, x0, x1));
  flip();
  assert.equal(bits.get(30, 6), 1); // six further up
  const patch = bits.difference(before, { x0: 0, y0: 0, x1: 60, y1: 60 });
  assert.ok(patch.y >= 3 && patch.y + patch.h <= 16, JSON.stringify(patch)); // nothing below
  flip();
  assert.deepEqual(bits.data, before);
  assert.equal(nearest(findRings(bits), { x: 30, y: 30 }, 5), null);
});

test('dragging flips the pixels between the old border and the new one', () => {
  const size = { w: 80, h: 80 };
  const random = randoms(7);
  const [ring] = findRings(masked(80, 80, (x, y) => Math.abs(x - 40) + Math.abs(y - 38) < 22));
  for (let i = 0; i < 30; i++) {
    const [index, reach] = [Math.floor(random(ring.length)), 1 + Math.floor(random(20))];
    const by = eighths({ x: random(30) - 15, y: random(30) - 15 });
    const moved = ring.map((p, at) => {
      const turn = Math.abs(at - index);
      const k = Math.min(turn, ring.length - turn); // how far along the border
      const weight = k > reach ? 0 : Math.cos((Math.PI / 2) * (k / (reach + 1))) ** 2;
      return { x: p.x + by.x * weight, y: p.y + by.y * weight };
    });
    const [want, got] = [new Bits(80, 80), new Bits(80, 80)];
    for (const points of [ring, moved]) polygonSpans(points, size, (y, x0, x1) => want.toggle(y, x0, x1));
    polygonSpans(bend(ring, index, reach, by), size, (y, x0, x1) => got.toggle(y, x0, x1));
    assert.deepEqual(text(got), text(want));
  }
});

test('dragging the point of a region of one pixel', () => {
  const bits = masked(9, 9, (x, y) => x === 4 && y === 4);
  const [ring] = findRings(bits);
  const loop = bend(ring, 0, 50, { x: -3, y: 0 });
  assert.equal(loop.length, 10); // all four corners, the one that stays at both ends, there and back
  assert.deepEqual(loop[7], { x: 1, y: 5 });
});

test('colours', () => {
  assert.equal(packedColour('#102030', 1), 0xff302010);
  assert.equal(packedColour('nonsense', 0), 0x0000d4ff);
});

test('the mask on the screen: fill, border, nothing outside; a part equals that part of the whole', () => {
  const bits = masked(6, 5, (x, y) => x >= 1 && x < 5 && y >= 1);
  const small = { w: 12, h: 10 };
  const view = { scale: 2, x: 3, y: 2.5 };
  const paint = { fill: 1, edge: 2, line: 1, dark: 3, rim: 0 };
  const whole = paintMask(bits, view, small, 1, { x0: 0, y0: 0, x1: 12, y1: 10 }, paint);
  const rows = Array.from({ length: 10 }, (_, y) => [...whole.slice(y * 12, y * 12 + 12)].join(''));
  assert.deepEqual(rows, ['000000000000', '000000000000', '002222222200', ...Array(6).fill('002111111200'), '002222222200']);
  const rimmed = paintMask(bits, view, small, 1, { x0: 0, y0: 0, x1: 12, y1: 10 }, { ...paint, rim: 1 });
  assert.equal([...rimmed.slice(48, 60)].join(''), '002311113200');
  const part = paintMask(bits, view, small, 1, { x0: 2, y0: 3, x1: 7, y1: 6 }, paint);
  assert.deepEqual([...part], [3, 4, 5].flatMap((y) => [...whole.slice(y * 12 + 2, y * 12 + 7)]));
});

test('the mask on the screen is sampled at the middle of each device pixel, at any zoom', () => {
  const random = randoms(6);
  const bits = masked(30, 20, () => random(1) < 0.5);
  for (let i = 0; i < 50; i++) {
    const view = { scale: 0.2 + random(4), x: random(30), y: random(20) };
    const ratio = 1 + Math.floor(random(2));
    const rect = { x0: 0, y0: 0, x1: 25 * ratio, y1: 15 * ratio };
    const pixels = paintMask(bits, view, { w: 25, h: 15 }, ratio, rect, { fill: 7, edge: 7, line: 2, dark: 7, rim: 1 });
    for (let y = 0; y < rect.y1; y++) {
      for (let x = 0; x < rect.x1; x++) {
        const p = toPhoto(view, { w: 25, h: 15 }, { x: (x + 0.5) / ratio, y: (y + 0.5) / ratio });
        assert.equal(pixels[y * rect.x1 + x], bits.get(Math.floor(p.x), Math.floor(p.y)) ? 7 : 0);
      }
    }
  }
});

test('what changes in the photograph is inside what is drawn again', () => {
  const view = { scale: 0.5, x: 100, y: 100 };
  const rect = deviceRect({ x0: 90, y0: 90, x1: 110, y1: 110 }, view, { w: 100, h: 100 }, 2, 3);
  assert.deepEqual(rect, { x0: 87, y0: 87, x1: 113, y1: 113 });
  assert.equal(deviceRect({ x0: 900, y0: 90, x1: 910, y1: 110 }, view, { w: 100, h: 100 }, 2, 3), null);
});
