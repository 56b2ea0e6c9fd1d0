// ws for Node.js: the server broadcast of its README, every client including the sender.
"use strict";

const { WebSocket, WebSocketServer } = require("ws");

const host = "127.0.0.1";
const port = Number(process.argv[2] ?? 0);

const server = new WebSocketServer({
  host,
  port,
  backlog: 65535,
  perMessageDeflate: false,
  maxPayload: 1024 * 1024,
});

server.on("connection", (client) => {
  client.on("error", () => client.terminate());
  client.on("message", (data, isBinary) => {
    for (const receiver of server.clients) {
      if (receiver.readyState === WebSocket.OPEN) receiver.send(data, { binary: isBinary });
    }
  });
});

server.on("listening", () => console.log("listening", host, server.address().port));
process.on("SIGTERM", () => process.exit(0));
