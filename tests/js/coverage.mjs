// Run the tests of the JavaScript and hold the coverage of its pure parts: 90 % of the lines before the mark in each file.
// What lies behind the mark draws and listens, and is tested in a real browser by tests/test_picture_browser.py.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const BAR = 90;
const MARKS = {
  'lesion_seg/webapp/picture.js': '// ---------------------------------------------------------------- what all views',
  'lesion_seg/webapp/dropzone.js': '// ---------------------------------------------------------------- elements',
};
const flags = ['--test', '--experimental-test-coverage', '--test-reporter=spec', '--test-reporter-destination=stdout',
  '--test-reporter=lcov', '--test-reporter-destination=.coverage.js.info', 'tests/js/'];
const run = spawnSync(process.execPath, flags, { stdio: 'inherit' });
if (run.status) process.exit(run.status ?? 1);

let low = false;
for (const record of readFileSync('.coverage.js.info', 'utf8').split('end_of_record')) {
  const file = /^SF:(.*)$/m.exec(record)?.[1].replace(/.*lesion_seg\//, 'lesion_seg/') ?? '';
  if (!(file in MARKS)) continue;
  const lines = readFileSync(file, 'utf8').split('\n');
  const end = lines.findIndex((line) => line.startsWith(MARKS[file])) + 1;
  if (!end) throw new Error(`${file} has lost its mark`);
  const hits = [...record.matchAll(/^DA:(\d+),(\d+)$/gm)].map((m) => [Number(m[1]), Number(m[2])]).filter(([n]) => n < end);
  const share = (100 * hits.filter(([, n]) => n > 0).length) / hits.length;
  const missed = hits.filter(([, n]) => !n).map(([n]) => n).join(' ');
  console.log(`${file}: ${share.toFixed(1)} % of the lines before ${end}${missed ? `; not ${missed}` : ''}`);
  low ||= share < BAR;
}
process.exit(low ? 1 : 0);
