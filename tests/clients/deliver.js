// Makes the request that a test describes, and hands the body's bytes on as a network might deliver them.
//
// The description is JSON in the last argument of the command line:
//   {url, method = "GET", headers = {}, body = null, delivery = {mode}, hangUpAfter = null}
// delivery.mode:
//   "asis"    as node received them, usually one HTTP chunk each
//   "bytes"   one byte at a time
//   "all"     everything in one piece, at the end
//   "random"  cut and joined at random, by delivery.seed
//   "glue"    what arrives within delivery.ms of the piece before is glued to it, as a buffering proxy does
// hangUpAfter: leave after so many bytes.
"use strict";

const http = require("node:http");

function describe() {
  return { method: "GET", headers: {}, body: null, delivery: { mode: "asis" }, hangUpAfter: null, ...JSON.parse(process.argv.at(-1)) };
}

// A small generator of numbers in [0, 1): the same cuts for the same seed.
function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
}

function asIs(deliver) {
  return { push: deliver, end() {} };
}

function bytewise(deliver) {
  return {
    push(bytes) {
      for (const byte of bytes) deliver(Buffer.from([byte]));
    },
    end() {},
  };
}

function atOnce(deliver) {
  const pieces = [];
  return {
    push: (bytes) => pieces.push(bytes),
    end: () => deliver(Buffer.concat(pieces)),
  };
}

function atRandom(deliver, seed) {
  const random = randomFrom(seed);
  let held = Buffer.alloc(0);
  return {
    push(bytes) {
      held = Buffer.concat([held, bytes]);
      while (held.length > 0 && random() < 0.8) {
        const cut = 1 + Math.floor(random() * held.length);
        deliver(held.subarray(0, cut));
        held = held.subarray(cut);
      }
    },
    end() {
      if (held.length > 0) deliver(held);
    },
  };
}

function glued(deliver, ms) {
  let held = [];
  let timer = null;
  const flush = () => {
    clearTimeout(timer);
    timer = null;
    if (held.length > 0) deliver(Buffer.concat(held));
    held = [];
  };
  return {
    push(bytes) {
      held.push(bytes);
      timer ??= setTimeout(flush, ms);
    },
    end: flush,
  };
}

function network(delivery, deliver) {
  switch (delivery.mode) {
    case "asis": return asIs(deliver);
    case "bytes": return bytewise(deliver);
    case "all": return atOnce(deliver);
    case "random": return atRandom(deliver, delivery.seed);
    case "glue": return glued(deliver, delivery.ms);
    default: throw new Error(`no such delivery: ${delivery.mode}`);
  }
}

// Runs one request. `client.chunk(bytes)` is called for each piece, `client.state()` gives what is printed at the end.
function run(client) {
  const wanted = describe();
  const print = (transport) => {
    process.stdout.write(`${JSON.stringify({ ...client.state(), ...transport })}\n`);
  };
  const request = http.request(wanted.url, { method: wanted.method, headers: wanted.headers }, (response) => {
    const line = network(wanted.delivery, (bytes) => client.chunk(bytes));
    const transport = { status: response.statusCode, headers: response.headers, cut: false, bytes: 0 };
    response.on("data", (bytes) => {
      transport.bytes += bytes.length;
      line.push(bytes);
      if (wanted.hangUpAfter !== null && transport.bytes >= wanted.hangUpAfter) response.destroy();
    });
    response.on("error", () => { transport.cut = true; });
    response.on("close", () => {
      line.end();
      print(transport);
    });
  });
  request.on("error", (fault) => {
    process.stderr.write(`${fault.message}\n`);
    process.exitCode = 1;
  });
  if (wanted.body !== null) request.write(wanted.body);
  request.end();
}

module.exports = { run };
