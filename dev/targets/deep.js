// A recursion of known depth and order, through generated code and through builtins that call back: down(12) calls down
// directly, by Array.sort, by Array.forEach and by JSON.stringify, in turn. Argument: seconds.
'use strict';

const DEPTH = 12;
let sink = 0;

function leaf(n) {
  let x = n | 0;
  for (let i = 0; i < 300; i++) x = (x * 31 + i) | 0;
  sink ^= x;
  return x;
}

function down(depth) {
  leaf(depth);
  if (depth === 0) return;
  switch (depth % 4) {
    case 0: bySort(depth); break;
    case 1: byForEach(depth); break;
    case 2: byJson(depth); break;
    default: down(depth - 1);
  }
}

function bySort(depth) {
  [2, 1].sort(function compared(a, b) { down(depth - 1); return a - b; });
}

function byForEach(depth) {
  [depth].forEach(function visited(x) { down(x - 1); });
}

function byJson(depth) {
  JSON.stringify({ toJSON: function printed() { down(depth - 1); return 1; } });
}

function work(seconds) {
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) down(DEPTH);
}

work(Number(process.argv[2] || 3));
