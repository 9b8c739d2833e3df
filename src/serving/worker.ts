/** The engine's thread. Its whole import graph is free of packages: a Worker cannot import any (settled 29). */
import { createHost } from "./host.ts";
import type { FromEngine, ToEngine } from "./protocol.ts";

declare const self: {
  onmessage: ((event: MessageEvent<ToEngine>) => void) | null;
  postMessage(message: FromEngine): void;
};

const receive = createHost((message) => self.postMessage(message));
self.onmessage = ({ data }) => receive(data);
