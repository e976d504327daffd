// Which files are taken, and the queue, played with a Python of a few lines.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Queue, count, sizeText, sortOut, walk } from '../../lesion_seg/webapp/dropzone.js';

const MB = 2 ** 20;
const limits = { max_file_bytes: 5 * MB, max_files: 3, suffixes: ['.jpg', '.png'], part_bytes: 4 };

/** A file of some bytes, or one that only says its size. */
const file = (content) => (typeof content === 'number' ? { size: content } : new Blob([content]));
const found = (name, content = 'abcdefghij', inFolder = false) => ({ name, file: file(content), inFolder });

test('words', () => {
  assert.deepEqual([sizeText(0.26 * MB), sizeText(12.4 * MB), sizeText(200 * MB)], ['0.3 MB', '12 MB', '200 MB']);
  assert.deepEqual([count(1, 'file'), count(0, 'file')], ['1 file', '0 files']);
});

test('every file is taken, or left out with a reason; only hidden ones of a folder are nobody\'s', () => {
  const files = [
    found('a.JPG'), found('sub/.DS_Store', 'x', true), found('sub/notes.txt', 'x', true), found('notes.txt'),
    found('empty.jpg', 0), found('large.jpg', 6 * MB), found('b.png', 'x', true), found('c.png'), found('d.png'),
  ];
  const { taken, left } = sortOut(files, limits);
  // What was chosen by itself is for Python to judge.
  assert.deepEqual(taken.map((f) => f.name), ['a.JPG', 'notes.txt', 'b.png']);
  assert.deepEqual(left, [
    { name: 'sub/notes.txt', why: 'is not a photograph' },
    { name: 'empty.jpg', why: 'is empty (0 bytes)' },
    { name: 'large.jpg', why: 'has 6 MB; the limit is 5 MB a file' },
    { name: 'c.png', why: 'is beyond the limit of 3 files at a time' },
    { name: 'd.png', why: 'is beyond the limit of 3 files at a time' },
  ]);
  assert.equal(sortOut([found('x.xyz', 'x', true)], { ...limits, suffixes: [] }).taken.length, 1);
});

const fileEntry = (path) => ({ isFile: true, fullPath: path, file: (resolve) => resolve(file('x')) });
function folderEntry(entries) {
  const rest = [...entries];
  return { isFile: false, createReader: () => ({ readEntries: (resolve) => resolve(rest.splice(0, 2)) }) };
}

test('a folder is walked to its end, although it is told in pieces', async () => {
  const inner = folderEntry([fileEntry('/set/in/c.jpg')]);
  const outer = folderEntry([fileEntry('/set/a.jpg'), fileEntry('/set/b.jpg'), inner, fileEntry('/set/d.jpg')]);
  const files = await walk([fileEntry('/top.jpg'), outer]);
  assert.deepEqual(files.map((f) => [f.name, f.inFolder]),
    [['top.jpg', false], ['set/a.jpg', true], ['set/b.jpg', true], ['set/in/c.jpg', true], ['set/d.jpg', true]]);
});

/** A queue, what it sent, and a Python that answers as lesion_seg/dropzone.py does. */
function play(refuse = () => '') {
  const log = [];
  const arrived = {};
  const held = {};
  const waiting = [];
  const queue = new Queue({
    send: (content, buffers = []) => {
      log.push(content);
      waiting.push([content, buffers]);
    },
    limits: () => limits,
    changed() {},
    page: 'p',
  });
  /** Let Python answer one message. */
  async function step() {
    const [content, buffers] = waiting.shift();
    const { kind, id } = content;
    if (kind === 'file') {
      held[id] = { name: content.name, size: content.size, data: [] };
      const why = refuse(content.name);
      await queue.answer(why ? { kind: 'refused', id, why } : { kind: 'go_on', id, at: 0 });
    } else if (kind === 'part') {
      const one = held[id];
      assert.equal(content.at, one.data.length);
      one.data.push(...buffers[0]);
      if (one.data.length < one.size) return queue.answer({ kind: 'go_on', id, at: one.data.length });
      arrived[one.name] = Buffer.from(one.data).toString();
      await queue.answer({ kind: 'done', id });
    }
  }
  async function run() {
    while (waiting.length) await step();
  }
  return { queue, log, arrived, run, step, kinds: () => log.map((c) => c.kind) };
}

test('files arrive whole, in parts, one after the other', async () => {
  const { queue, arrived, run, log, kinds } = play();
  queue.add([found('a.jpg'), found('b.jpg', 'xyz')]);
  assert.equal(queue.busy, true);
  await run();
  assert.deepEqual(arrived, { 'a.jpg': 'abcdefghij', 'b.jpg': 'xyz' });
  assert.deepEqual(kinds(), ['begun', 'file', 'part', 'part', 'part', 'file', 'part', 'finished']);
  assert.deepEqual(log.filter((c) => c.kind === 'part').map((c) => c.at), [0, 4, 8, 0]);
  assert.deepEqual([queue.busy, queue.progress, queue.done], [false, 1, 2]);
});

test('a second drop waits its turn', async () => {
  const { queue, arrived, run, step, kinds } = play();
  queue.add([found('a.jpg')]);
  await step(); // begun
  await step(); // file a
  await step(); // its first part
  queue.add([found('b.jpg'), found('none.jpg', 0)]);
  assert.ok(queue.progress > 0 && queue.progress < 0.5);
  await run();
  assert.deepEqual(Object.keys(arrived), ['a.jpg', 'b.jpg']);
  assert.deepEqual(queue.left, [{ name: 'none.jpg', why: 'is empty (0 bytes)' }]);
  assert.equal(kinds().filter((kind) => kind === 'finished').length, 1);
  queue.add([found('c.jpg')]); // a new count
  assert.deepEqual([queue.total, queue.done, queue.left], [1, 0, []]);
});

test('what Python refuses is left out, and the next one goes', async () => {
  const { queue, arrived, run } = play((name) => (name === 'a.jpg' ? 'a.jpg: is a mask; add its photograph' : ''));
  queue.add([found('a.jpg'), found('b.jpg')]);
  await run();
  assert.deepEqual(Object.keys(arrived), ['b.jpg']);
  assert.deepEqual(queue.left, [{ name: 'a.jpg', why: 'a.jpg: is a mask; add its photograph' }]);
});

test('cancel names every file that has not arrived', async () => {
  const { queue, arrived, run, step, log } = play();
  queue.add([found('a.jpg', 'ab'), found('b.jpg'), found('c.jpg')]);
  await step(); // begun
  await step(); // file a
  await step(); // part a: arrived
  await step(); // file b
  await queue.answer({ kind: 'cancel' });
  await run();
  assert.deepEqual(Object.keys(arrived), ['a.jpg']);
  assert.deepEqual(queue.left.map((l) => l.name), ['b.jpg', 'c.jpg']);
  assert.deepEqual(log.find((c) => c.kind === 'left_out').files.map((l) => l.why), ['was cancelled', 'was cancelled']);
  assert.equal(log.find((c) => c.kind === 'stop').id, 'p-2');
  assert.equal(queue.busy, false);
  queue.cancel(); // nothing to do
});

test('what is read while the reader cancels is not sent', async () => {
  const { queue, step, log } = play();
  queue.add([found('a.jpg')]);
  await step(); // begun
  const reading = step(); // Python says go on, and the disk is asked
  queue.cancel();
  await reading;
  assert.deepEqual(log.map((c) => c.kind), ['begun', 'file', 'stop', 'left_out', 'finished']);
});

test('a file that cannot be read any more is left out', async () => {
  const { queue, arrived, run, kinds } = play();
  const gone = { size: 10, slice: () => ({ arrayBuffer: () => Promise.reject(new Error('gone')) }) };
  queue.add([{ name: 'gone.jpg', file: gone, inFolder: false }, found('b.jpg')]);
  await run();
  assert.deepEqual(Object.keys(arrived), ['b.jpg']);
  assert.deepEqual(queue.left, [{ name: 'gone.jpg', why: 'cannot be read any more' }]);
  assert.ok(kinds().includes('stop'));
});

test('while the page is busy files wait, and go on by themselves', async () => {
  const { queue, arrived, run, kinds } = play();
  queue.pause(true);
  queue.add([found('a.jpg')]);
  await run();
  assert.deepEqual([kinds(), queue.busy], [['begun'], true]);
  queue.pause(false);
  await run();
  assert.deepEqual(Object.keys(arrived), ['a.jpg']);
});

test('answers to others are not ours', async () => {
  const { queue, log } = play();
  queue.add([found('a.jpg')]);
  await queue.answer({ kind: 'go_on', id: 'q-1', at: 0 });
  await queue.answer({ kind: 'done', id: 'q-1' });
  assert.equal(log.length, 2);
  assert.equal(queue.done, 0);
});
