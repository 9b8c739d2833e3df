import { describe, expect, test } from "bun:test";
import { InputError } from "../errors.ts";
import { splitValidation } from "./split.ts";

describe("splitValidation", () => {
  test("both parts together are the file, in its order, and the seed decides", () => {
    const { train, validation } = splitValidation(1000, 120, 42);
    expect(validation).toHaveLength(120);
    expect([...train, ...validation].sort((a, b) => a - b)).toEqual(
      Array.from({ length: 1000 }, (_, i) => i),
    );
    expect(validation).toEqual([...validation].sort((a, b) => a - b));
    expect(splitValidation(1000, 120, 42).validation).toEqual([...validation]);
    expect(splitValidation(1000, 120, 43).validation).not.toEqual([...validation]);
  });

  test("nothing held out", () => {
    expect(splitValidation(3, 0, 42)).toEqual({ train: [0, 1, 2], validation: [] });
  });

  test("refuses to hold out everything", () => {
    expect(() => splitValidation(120, 120, 42)).toThrow(InputError);
    expect(() => splitValidation(10, 1.5, 42)).toThrow("valSize is 1.5");
  });
});
