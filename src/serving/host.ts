/** Runs an engine for whoever sends messages: opens the model, steps while there is work, yields between steps. */
import { InputError, messageOf } from "../errors.ts";
import { fingerprintModel } from "../formats/fingerprint.ts";
import { freeLlama, loadLlama } from "../model/model.ts";
import { closeDevice, NativeError, openDevice } from "../native/device.ts";
import { createEngine, type Engine, engineInfo, freeEngine, handleMessage, stats, step } from "./engine.ts";
import type { EngineOptions, FromEngine, ToEngine } from "./protocol.ts";

/** @returns what takes the messages; answers go to `send` */
export function createHost(send: (message: FromEngine) => void): (message: ToEngine) => void {
  let engine: Engine | null = null;
  let stepping = false;
  let closed = false;
  const fail = (error: unknown): void => {
    closed = true;
    const user = error instanceof InputError || error instanceof NativeError;
    const message = user || !(error instanceof Error) ? messageOf(error) : (error.stack ?? error.message);
    send({ kind: "failed", message, user });
  };
  const run = async (): Promise<void> => {
    if (stepping || !engine) return;
    stepping = true;
    try {
      // A macrotask a step, or no message would ever arrive (settled 9).
      while (!closed && step(engine)) await nextTurn();
      if (closed) close();
    } catch (error) {
      fail(error);
    } finally {
      stepping = false;
    }
  };
  const close = (): void => {
    if (!engine) return;
    const { model } = engine;
    freeEngine(engine);
    freeLlama(model);
    closeDevice(model.device);
    engine = null;
    send({ kind: "closed" });
  };
  return (message) => {
    if (message.kind === "open") {
      open(message.options, send).then((opened) => {
        engine = opened;
        if (closed) close();
        else send({ kind: "ready", info: engineInfo(opened), stats: stats(opened) });
      }, fail);
      return;
    }
    if (message.kind === "close") {
      closed = true;
      // Else the loop closes behind the step it is in.
      if (!stepping) close();
      return;
    }
    if (!engine || closed) return;
    try {
      handleMessage(engine, message);
    } catch (error) {
      fail(error);
      return;
    }
    void run();
  };
}

async function open(options: EngineOptions, send: (message: FromEngine) => void): Promise<Engine> {
  const { model: dir, compute, quantize, threads, context } = options;
  const device = await openDevice(threads === null ? {} : { threads });
  try {
    const model = loadLlama(device, dir, {
      ...{ compute, positions: context },
      ...(quantize ? { quantize } : {}),
    });
    return createEngine(model, fingerprintModel(dir), options, send);
  } catch (error) {
    closeDevice(device);
    throw error;
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
