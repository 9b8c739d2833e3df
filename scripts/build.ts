/** Compiles the native library, or says where it lies: path, instruction sets, seconds. */
import { defineCommand, runMain, showUsage } from "citty";
import { InputError, messageOf } from "../src/errors.ts";
import { buildLibrary, type LibraryName } from "../src/native/build.ts";
import { closeDevice, openDevice } from "../src/native/device.ts";

const LIBRARIES: readonly LibraryName[] = ["cpu", "reference", "reference-f64"];

const EXAMPLES = `Examples
  bun run scripts/build.ts                                compile the CPU kernels (nothing to do when they are cached)
  bun run scripts/build.ts --library reference            the scalar kernels that tests compare with
  CXX=clang++ bun run scripts/build.ts                    with another compiler
  SBORA_SANITIZE=address,undefined bun run scripts/build.ts
                                                          instrumented; run with LD_PRELOAD="$(c++ -print-file-name=libasan.so)"

The cache is $SBORA_CACHE, else $XDG_CACHE_HOME/sbora or ~/.cache/sbora. Every other command compiles by itself on first use.`;

function libraryName(text: string): LibraryName {
  const name = LIBRARIES.find((known) => known === text);
  if (name === undefined) {
    throw new InputError(`--library is "${text}"; expected one of ${LIBRARIES.join(", ")}.`);
  }
  return name;
}

const command = defineCommand({
  meta: {
    name: "bun run scripts/build.ts",
    description: "Compile the native library and print where it lies.",
  },
  args: {
    library: {
      type: "string",
      default: "cpu",
      valueHint: LIBRARIES.join("|"),
      description: "Which library to compile",
    },
  },
  async run({ args }) {
    try {
      const name = libraryName(args.library);
      const started = performance.now();
      const path = await buildLibrary(name);
      const seconds = (performance.now() - started) / 1000;
      console.log(`library  ${path}`);
      console.log(`seconds  ${seconds.toFixed(1)}`);
      // An instrumented library loads only under its runtime: printing the path is all that can be done here.
      if (process.env.SBORA_SANITIZE) return;
      const device = await openDevice({ library: name });
      console.log(`device   ${device.name}, ${device.threads} threads`);
      console.log(`isas     ${device.isas.join(", ")} (using ${device.isa})`);
      closeDevice(device);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      console.error(messageOf(error));
      process.exit(1);
    }
  },
});

await runMain(command, {
  async showUsage(shown, parent) {
    await showUsage(shown, parent);
    console.log(EXAMPLES);
  },
});
