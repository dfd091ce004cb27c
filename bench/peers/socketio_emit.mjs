// socket.io: `emit` to everyone, over WebSocket from the start. Its frame says `42["m",…]` around the text.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { obey } from "./control.mjs";

const { Server } = createRequire(process.env.PEERS_MODULES + "/")("socket.io");
const port = Number(process.argv[2]);
const http = createServer();
// Pings would fall into the others' turns.
const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false, pingInterval: 3_600_000 });
const AROUND = '42["m",]'.length;
http.listen({ host: "127.0.0.1", port, backlog: 4096 }, () =>
  obey(port, (size) => {
    // A number over 2^53 loses its last digits in JSON: microseconds with three zeros behind them stay exact.
    const head = { t: Number(process.hrtime.bigint() / 1000n) * 1000, pad: "" };
    head.pad = "x".repeat(Math.max(size - AROUND - JSON.stringify(head).length, 0));
    io.emit("m", head);
  }),
);
