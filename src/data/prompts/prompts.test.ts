import { describe, expect, test } from "bun:test";
import { InputError } from "../../errors.ts";
import { promptFormats, promptHash, promptNamed } from "./registry.ts";

const plain = { instruction: "{instruction}", input: "" };
const withInput = { instruction: "{instruction}", input: "{input}" };

/** The JSON escapes of protocol §2.2 and §4.3, copied. */
const golden = {
  "llm-adapters": {
    train:
      "Below is an instruction that describes a task. Write a response that appropriately completes the request.  \n\n                ### Instruction:\n                {instruction}\n                \n                ### Response:\n                ",
    test: "Below is an instruction that describes a task. Write a response that appropriately completes the request. \n\n                ### Instruction:\n                {instruction}\n\n                ### Response:\n                ",
    trainWithInput:
      "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request. \n\n                ### Instruction:\n                {instruction}\n                \n                ### Input:\n                {input}\n                \n                ### Response:\n                ",
    testWithInput:
      "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n                ### Instruction:\n                {instruction}\n\n                ### Input:\n                {input}\n\n                ### Response:\n                ",
  },
  alpaca: {
    train:
      "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response: ",
    test: "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response: ",
    trainWithInput:
      "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response: ",
    testWithInput:
      "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response: ",
  },
  plain: {
    train: "{instruction}",
    test: "{instruction}",
    trainWithInput: "{instruction}\n{input}",
    testWithInput: "{instruction}\n{input}",
  },
};

describe.each(Object.entries(golden))("%s", (name, forms) => {
  const format = promptNamed(name);
  test("bytes of the protocol", () => {
    expect(format.train(plain)).toBe(forms.train);
    expect(format.test(plain)).toBe(forms.test);
    expect(format.train(withInput)).toBe(forms.trainWithInput);
    expect(format.test(withInput)).toBe(forms.testWithInput);
  });
});

test("the paper's two forms differ in white space only", () => {
  const format = promptNamed("llm-adapters");
  for (const record of [plain, withInput]) {
    const [train, test] = [format.train(record), format.test(record)];
    expect(train).not.toBe(test);
    expect(train.replaceAll(/\s+/g, " ")).toBe(test.replaceAll(/\s+/g, " "));
  }
});

test("every registered format has golden bytes and its own hash", () => {
  expect(promptFormats.map((f) => f.name).sort()).toEqual(Object.keys(golden).sort());
  expect(new Set(promptFormats.map(promptHash)).size).toBe(promptFormats.length);
});

test("an unknown format names the known ones", () => {
  expect(() => promptNamed("vicuna")).toThrow(InputError);
  expect(() => promptNamed("vicuna")).toThrow("llm-adapters, alpaca");
});
