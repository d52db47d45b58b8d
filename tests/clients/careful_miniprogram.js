// A client as ours has to be: it buffers bytes and decodes line by line, so it does not matter how they arrive. It reads
// both framings.
//
// Prints {text, ended, error, messageId, conversationId, receipt, chunks, unknown}:
//   ended    whether the end frame or [DONE] came
//   error    what an error frame said, null without one
//   chunks   H5: the OpenAI chunks, parsed; mini-program: the number of frames with text
//   unknown  lines that belong to neither framing: must be empty
"use strict";

const { run } = require("./deliver.js");

const LINE_FEED = 10;
const answer = {
  text: "", ended: false, error: null, messageId: null, conversationId: null, receipt: null, frames: 0, chunks: [], unknown: [],
};
let buffered = [];
let event = "";
let zeroSeen = false;

function decode(bytes) {
  // Phones have no TextDecoder: percent-encode every byte and let decodeURIComponent read the UTF-8.
  return decodeURIComponent(bytes.map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""));
}

function readFrame(data) {
  answer.text += data.content;
  answer.frames += 1;
  answer.messageId = data.message_id ?? answer.messageId;
  answer.conversationId = data.conversation_id ?? answer.conversationId;
  answer.receipt = data.receipt ?? answer.receipt;
}

function readData(data) {
  if (event === "error") answer.error = JSON.parse(data);
  else if (event === "receipt") answer.receipt = JSON.parse(data);
  else if (data === "[DONE]") answer.ended = true;
  else {
    const chunk = JSON.parse(data);
    answer.chunks.push(chunk);
    answer.text += chunk.choices?.[0]?.delta?.content ?? "";
  }
}

function readLine(line) {
  if (line.startsWith("success: ")) readFrame(JSON.parse(line.slice(9)));
  else if (line.startsWith("event: ")) event = line.slice(7);
  else if (line.startsWith("data: ")) readData(line.slice(6));
  else if (line === "0") zeroSeen = true;
  else if (line === "") {
    if (zeroSeen) answer.ended = true;
    event = "";
  } else if (!line.startsWith(":")) answer.unknown.push(line);
}

function chunk(bytes) {
  for (const byte of bytes) {
    if (byte !== LINE_FEED) buffered.push(byte);
    else {
      readLine(decode(buffered).replace(/\r$/, ""));
      buffered = [];
    }
  }
}

run({ chunk, state: () => ({ ...answer, unread: buffered.length }) });
