/** Issue 6: merged adapters cost nothing while serving; the server with one and with 16 streams, beside llama.cpp's. */
import { checkInference } from "./check.ts";
import { type Bench, benchModel, computesOf } from "./context.ts";
import { benchLatency } from "./serve-latency.ts";
import { benchStreams } from "./serve-streams.ts";

export async function benchServe(bench: Bench): Promise<void> {
  const { report, device, say } = bench;
  const model = benchModel(bench);
  for (const compute of computesOf(bench, ["bf16"])) {
    say(`serve: ${model.name} ${compute}, ${device.threads} threads`);
    await checkInference(report, device, model.config, compute);
    await benchStreams(bench, model, compute);
    await benchLatency(bench, model, compute);
  }
}
