/** PyTorch's steps (scripts/peers/step.py) as contenders. */
import type { Compute } from "../../src/adapters/adapter.ts";
import { withTemporaryFolder } from "../../src/formats/files.ts";
import { type LlamaConfig, toHfConfig } from "../../src/formats/hf-config.ts";
import { planTraining } from "../../src/training/plan.ts";
import type { Bench } from "./context.ts";
import type { Contender } from "./interleave.ts";
import { type PeerForm, type StepMethod, stepMethods } from "./options.ts";
import { formEnvironment, numberOf, type Peer, startPeer } from "./peer.ts";
import { adapterOptions, STEP_ALPHA, STEP_RANK, STEP_TARGETS } from "./step-bed.ts";

/** What PyTorch is asked for: SBoRA-FB has no counterpart there, and the frozen forward stands for the floor. */
export type PeerMethod = "lora" | "dora" | "sbora-fa" | "frozen";

export function peerMethods(methods: readonly StepMethod[]): PeerMethod[] {
  return [...methods.filter((method) => method !== "sbora-fb"), "frozen"];
}

/** A process with a model of that shape and everything it needs for those methods. `folder`: for what is compiled. */
async function openStepPeer(
  { device, options, report }: Bench,
  config: LlamaConfig,
  compute: Compute,
  form: PeerForm,
  methods: readonly StepMethod[],
  folder: string,
): Promise<Peer> {
  if (!options.python) throw new Error("no --peer python:PATH");
  const environment = await formEnvironment(form, folder);
  const peer = await startPeer(`PyTorch (${form})`, options.python, "step.py", [], environment);
  report.peers[peer.name] = peer.about;
  const { architectures, model_type, torch_dtype, dtype, ...shape } = toHfConfig(config);
  const { trained } = await peer.ask({
    do: "setup",
    config: shape,
    dtype: compute,
    threads: device.threads,
    rank: STEP_RANK,
    alpha: STEP_ALPHA,
    targets: STEP_TARGETS,
    methods: peerMethods(methods),
  });
  sameParameters(config, trained as Readonly<Record<string, number>>);
  return peer;
}

/** Runs `body` with such a process, which ends with it. */
export function withStepPeer<R>(
  bench: Bench,
  config: LlamaConfig,
  compute: Compute,
  form: PeerForm,
  methods: readonly StepMethod[],
  body: (peer: Peer) => Promise<R>,
): Promise<R> {
  return withTemporaryFolder(async (folder) => {
    const peer = await openStepPeer(bench, config, compute, form, methods, folder);
    try {
      return await body(peer);
    } finally {
      await peer.close();
    }
  });
}

/** Both sides train the same number of parameters, or they are not at the same work. */
function sameParameters(config: LlamaConfig, theirs: Readonly<Record<string, number>>): void {
  for (const method of stepMethods) {
    const count = theirs[method];
    if (count === undefined) continue;
    const load = { compute: "f32", positions: 1 } as const;
    const { parameters } = planTraining(config, load, adapterOptions(method), 0, 1, 4);
    if (parameters !== count) {
      throw new Error(`${method}: we train ${parameters} parameters, scripts/peers/step.py trains ${count}`);
    }
  }
}

/** Contenders "torch <method>", milliseconds of a step on records of those lengths. */
export function peerSteps(
  peer: Peer,
  methods: readonly StepMethod[],
  lengths: readonly number[],
): Contender<number>[] {
  return peerMethods(methods).map((method) => ({
    name: `torch ${method}`,
    run: async () => 1000 * numberOf(await peer.ask({ do: "run", method, lengths }), "seconds"),
  }));
}
