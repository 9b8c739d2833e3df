/** Request bodies: JSON of the right shape, or a 400 that names the field. */
import type { z } from "zod";
import { messageOf } from "../errors.ts";
import type { Ctx } from "./context.ts";
import { badRequest } from "./errors.ts";

const MAX_ISSUES = 8;
/** Templates and their variables are walked recursively. */
const MAX_DEPTH = 100;

export async function readBody<S extends z.ZodType>(c: Ctx, schema: S): Promise<z.output<S>> {
  const text = await c.req.text();
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw badRequest(`The body is not valid JSON: ${messageOf(error)}.`, null, "invalid_json");
  }
  if (isDeeper(json, MAX_DEPTH)) throw badRequest(`The body is nested more than ${MAX_DEPTH} levels deep.`);
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const { issues } = result.error;
  const told = issues
    .slice(0, MAX_ISSUES)
    .map(({ path, message }) => `${path.join(".") || "body"}: ${message}`);
  const more = issues.length > MAX_ISSUES ? `; and ${issues.length - MAX_ISSUES} more` : "";
  throw badRequest(`${told.join("; ")}${more}.`, issues[0]!.path.join(".") || null);
}

function isDeeper(json: unknown, levels: number): boolean {
  const isNest = (value: unknown): value is object => typeof value === "object" && value !== null;
  let level = [json].filter(isNest);
  for (let depth = 0; level.length > 0; depth++) {
    if (depth >= levels) return true;
    level = level.flatMap((nest) => Object.values(nest).filter(isNest));
  }
  return false;
}

/** Fields that would change the answer in a way this server does not know; ignoring them would mislead. */
export function refuseUnsupported(body: Readonly<Record<string, unknown>>): void {
  const some = (value: unknown): boolean => Array.isArray(value) && value.length > 0;
  const type = (value: unknown): unknown =>
    typeof value === "object" && value !== null ? (value as { type?: unknown }).type : undefined;
  const { tools, functions, response_format, suffix, best_of, n, modalities, audio } = body;
  const wrong: readonly (readonly [string, boolean])[] = [
    ["tools", some(tools)],
    ["functions", some(functions)],
    ["response_format", (response_format ?? null) !== null && type(response_format) !== "text"],
    ["suffix", typeof suffix === "string" && suffix !== ""],
    ["best_of", (best_of ?? null) !== null && best_of !== (n ?? 1)],
    ["modalities", some(modalities) && (modalities as unknown[]).some((m) => m !== "text")],
    ["audio", (audio ?? null) !== null],
  ];
  for (const [field, is] of wrong) {
    if (is)
      throw badRequest(
        `"${field}" is not supported by this server; leave it out.`,
        field,
        "unsupported_parameter",
      );
  }
}
