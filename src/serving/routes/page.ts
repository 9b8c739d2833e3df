/** GET /: a page to try the models. Plain HTML and one script that Bun bundles on first use; nothing from elsewhere. */
import { join } from "node:path";
import type { Ctx, Serving } from "../context.ts";

const FOLDER = join(import.meta.dir, "..", "page");
/** The page talks to this server alone. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

let script: Promise<string> | null = null;

export async function page(_serving: Serving, c: Ctx): Promise<Response> {
  const headers = { "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff" };
  if (c.req.path === "/page.js") {
    script ??= bundle();
    return c.body(await script, 200, { ...headers, "Content-Type": "text/javascript; charset=utf-8" });
  }
  const html = await Bun.file(join(FOLDER, "index.html")).text();
  return c.body(html, 200, { ...headers, "Content-Type": "text/html; charset=utf-8" });
}

async function bundle(): Promise<string> {
  const { outputs } = await Bun.build({
    entrypoints: [join(FOLDER, "main.ts")],
    target: "browser",
    minify: true,
  });
  return outputs[0]!.text();
}
