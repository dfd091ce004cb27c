// Node's `ws`: `send` to each client, deflate off.
import { createRequire } from "node:module";
import { obey, payload } from "./control.mjs";

const { WebSocketServer } = createRequire(process.env.PEERS_MODULES + "/")("ws");
const port = Number(process.argv[2]);
const server = new WebSocketServer({ host: "127.0.0.1", port, backlog: 4096, perMessageDeflate: false });
server.on("connection", (client) => client.on("error", () => client.terminate()));
server.on("listening", () =>
  obey(port, (size) => {
    const text = payload(size);
    for (const client of server.clients) client.send(text);
  }),
);
