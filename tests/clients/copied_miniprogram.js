// The mini-program client that many have copied, as docs/protocol.md describes it. It is wrong in every way that
// such clients are wrong, and must stay so: it parses each network chunk on its own, looks for two words anywhere in it,
// and lets the user type again when a chunk is the end frame or a bare line end. An answer must survive it.
//
// Prints {text, locked, code, error, messageId, conversationId, receipt, lost, chunks, textAfterUnlock}:
//   locked           whether the user still cannot send: must be false at the end
//   code, error      what an error frame said, null without one
//   lost             chunks that it could not make sense of: must be empty
//   textAfterUnlock  text that came when the user could send again: must be empty
"use strict";

const { run } = require("./deliver.js");

const page = {
  text: "", locked: true, code: null, error: null, messageId: null, conversationId: null, receipt: null,
  lost: [], chunks: 0, textAfterUnlock: "",
};

function decode(bytes) {
  // Phones have no TextDecoder.
  return decodeURIComponent(escape(String.fromCharCode(...bytes)));
}

function show(data) {
  if (!page.locked) page.textAfterUnlock += data.content;
  page.text += data.content;
  page.messageId = data.message_id ?? page.messageId;
  page.conversationId = data.conversation_id ?? page.conversationId;
  page.receipt = data.receipt ?? page.receipt;
}

function onChunkReceived(bytes) {
  page.chunks += 1;
  let chunk = "";
  try {
    chunk = decode(bytes);
    if (chunk.indexOf("error") > -1) {
      const data = JSON.parse(chunk.split("data: ")[1]);
      page.code = data.code;
      page.error = data;
      page.locked = false;
    } else if (chunk === "0\r\n\r\n" || chunk === "\r\n") {
      page.locked = false;
    } else if (chunk.indexOf("success") > -1) {
      const frames = chunk.split("success: ");
      for (const frame of frames) {
        if (frame) show(JSON.parse(frame));
      }
    } else {
      page.lost.push(chunk);
    }
  } catch {
    page.lost.push(chunk);
  }
}

run({ chunk: onChunkReceived, state: () => page });
