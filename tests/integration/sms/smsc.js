// An SMSC of the npm package smpp, which a test drives: a JSON object a line, both ways.
//
// argv: port, directory of node_modules, system id, password, and with TLS the files of certificate and key
// told: {mode: "accept" | "silent" | "drop" | "drop-after" | "throttle" | "reject", count: N (then accept again)}
//       {deliver: {from, text, parts?, esm_class?}}   {receipt: {id, state, from}}   {cut: true}   {password: "..."}
// tells: {listening}  {bound: system_id}  {refused: system_id}  {submit: {id, to, from, text, validity, coding, bytes, status}}
//        {answered: {status}}  {closed: true}
"use strict";
const path = require("path");
const fs = require("fs");
const readline = require("readline");
const [port, modules, systemId, password, certificate, key] = process.argv.slice(2);
const smpp = require(path.join(modules, "smpp"));

let wanted = password, mode = "accept", left = -1, number = 0;
const sessions = new Set();
const parts = new Map();
const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");

function text(pdu) {
  const message = pdu.short_message;
  return typeof message.message === "string" ? message.message : message.message.toString("latin1");
}

function whole(pdu) {
  const udh = pdu.short_message.udh;
  if (!udh || !udh.length) return text(pdu);
  const head = udh[0];
  const reference = `${pdu.destination_addr}/${head[2]}`;
  const found = parts.get(reference) || [];
  found[head[4] - 1] = text(pdu);
  parts.set(reference, found);
  if (found.filter((one) => one !== undefined).length < head[3]) return null;
  parts.delete(reference);
  return found.join("");
}

function session(made) {
  sessions.add(made);
  made.on("error", () => {});
  made.on("close", () => { sessions.delete(made); tell({ closed: true }); });
  made.on("bind_transceiver", (pdu) => {
    if (pdu.system_id !== systemId || pdu.password !== wanted) {
      tell({ refused: pdu.system_id });
      made.send(pdu.response({ command_status: smpp.ESME_RINVPASWD }));
      made.close();
      return;
    }
    made.bound = true;
    made.send(pdu.response({ system_id: "smsc" }));
    tell({ bound: pdu.system_id });
  });
  made.on("enquire_link", (pdu) => made.send(pdu.response()));
  made.on("unbind", (pdu) => { made.send(pdu.response()); made.close(); });
  made.on("submit_sm", (pdu) => {
    const now = left === 0 ? "accept" : mode;
    if (left > 0) left -= 1;
    const id = (++number).toString(16).padStart(8, "0");
    const status = { throttle: smpp.ESME_RTHROTTLED, reject: smpp.ESME_RINVDSTADR }[now] || 0;
    const taken = now === "accept" || now === "drop-after" || now === "silent";
    const said = taken ? whole(pdu) : text(pdu);
    if (said !== null) tell({ submit: { id, to: pdu.destination_addr, from: pdu.source_addr, text: said, validity: pdu.validity_period, coding: pdu.data_coding, mode: now, taken } });
    if (now === "drop" || now === "drop-after") { made.socket.destroy(); return; }
    if (now === "silent") return;
    made.send(pdu.response(status ? { command_status: status } : { message_id: id }));
  });
}

const options = certificate ? { key: fs.readFileSync(key), cert: fs.readFileSync(certificate) } : {};
const server = smpp.createServer(options, session);
server.listen(Number(port), "127.0.0.1", () => tell({ listening: Number(port) }));

function deliver(pdu) {
  for (const made of sessions) {
    if (!made.bound) continue;
    made.deliver_sm(pdu, (answer) => tell({ answered: { status: answer.command_status } }));
    return;
  }
  tell({ answered: { status: -1 } });
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const told = JSON.parse(line);
  if (told.mode) { mode = told.mode; left = told.count === undefined ? -1 : told.count; }
  if (told.password !== undefined) wanted = told.password;
  if (told.cut) for (const made of sessions) made.socket.destroy();
  if (told.deliver) {
    const { from, text: said, parts: chunks } = told.deliver;
    const address = { source_addr_ton: 1, source_addr_npi: 1, source_addr: from, destination_addr: "4930123456" };
    if (!chunks) deliver({ ...address, short_message: said });
    else chunks.forEach((chunk, at) => deliver({ ...address, esm_class: 0x40, short_message: { udh: Buffer.from([5, 0, 3, 77, chunks.length, at + 1]), message: chunk } }));
  }
  if (told.receipt) {
    const { id, state, from } = told.receipt;
    deliver({ source_addr_ton: 1, source_addr_npi: 1, source_addr: from, destination_addr: "4930123456", esm_class: 4,
      short_message: `id:${id} sub:001 dlvrd:001 submit date:2612010000 done date:2612010001 stat:${state} err:000 text:` });
  }
}).on("close", () => process.exit(0));
