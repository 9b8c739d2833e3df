/** Adapters that were trained on another base are refused; on the same base in other bits, they are served with a note. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TinyApp, type TinyFolders, tinyApp, tinyFolders } from "./testing-app.ts";

setDefaultTimeout(60_000);

let folders: TinyFolders;
beforeAll(async () => {
  folders = await tinyFolders();
  change("fa", { recipe: { quantize: "nf4-double" } });
  change("lora", { recipe: {} });
});
afterAll(() => folders.remove());

/** Changes what an adapter says of its training. */
function change(name: string, fields: object): void {
  const file = join(folders.adapters, name, "sbora.json");
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), ...fields }));
}

async function withApp(engine: object, use: (app: TinyApp) => Promise<void>): Promise<void> {
  const app = tinyApp(folders, { engine });
  await app.ready;
  try {
    await use(app);
  } finally {
    await app.close();
  }
}

async function noteOf(app: TinyApp, name: string): Promise<string | null> {
  const response = await app.ask(`/v1/adapters/${name}`);
  expect(response.status).toBe(200);
  return ((await response.json()) as { note: string | null }).note;
}

describe("other bits of the base", () => {
  for (const mode of ["merged", "unmerged"] as const) {
    test(`${mode}: trained on 4 bits, served on the base as it is`, () =>
      withApp({ mode }, async (app) => {
        const note = "fa was trained on its base quantized to nf4-double";
        expect(await noteOf(app, "fa")).toStartWith(note);
        expect(await noteOf(app, "lora")).toBeNull();
        const line = app.logs.find((record) => record.event === "adapter" && record.name === "fa")!;
        expect(line).toMatchObject({ level: "warn", method: "sbora-fa" });
        expect(line.note).toStartWith(note);
        expect(JSON.stringify(line)).not.toContain(folders.adapters);
        // loading it anew says so again, where the request is logged
        expect((await app.ask("/v1/adapters/fa", undefined, { method: "PUT" })).status).toBe(200);
        expect(app.logs.at(-1)).toMatchObject({ level: "warn", path: "/v1/adapters/fa", status: 200 });
      }));
  }

  test("the other way round, and nothing to say where both are alike", () =>
    withApp({ quantize: "nf4-double" }, async (app) => {
      expect(await noteOf(app, "fa")).toBeNull();
      expect(await noteOf(app, "lora")).toBe(
        "lora was trained on the base as it is, which is now quantized to nf4-double.",
      );
    }));
});

test("another base is refused with both names, and the others are served", async () => {
  change("lora", { base: "ab".repeat(32) });
  await withApp({}, async (app) => {
    const refused = await app.ask("/v1/adapters/lora", undefined, { method: "PUT" });
    expect(refused.status).toBe(400);
    const { error } = (await refused.json()) as { error: { code: string; message: string } };
    expect(error.code).toBe("adapter_refused");
    expect(error.message).toMatch(
      /lora: this adapter was trained on another base model, tiny \(fingerprint (ab){8}\), but the server runs \S+ \(fingerprint [0-9a-f]{16}\)/,
    );
    const models = (await (await app.ask("/v1/models")).json()) as { data: { id: string }[] };
    expect(models.data.map(({ id }) => id)).toEqual(["tiny", "fa"]);
  });
});
