/**
 * A task of ours as a local task of lm-evaluation-harness, to be scored through the server:
 *
 *     bun run scripts/peers/lm-eval-task.ts DATA TASK RECORDS OUT
 *
 * OUT/<task>.jsonl has the questions and options that our `options` ruler asks (settled 24), OUT/<task>.yaml says how
 * lm-eval reads them; README.md has the commands that score them on both sides.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { readTaskRecords } from "../../src/evaluation/task.ts";
import { taskNamed } from "../../src/evaluation/tasks/registry.ts";

const [data, name, count, out] = process.argv.slice(2);
if (!data || !name || !count || !out) throw new Error("give DATA TASK RECORDS OUT");
const task = taskNamed(name);
const records = readTaskRecords(data, task, Number(count));
if (!records) throw new Error(`there is no test set of ${name} under ${data}`);
const lines = records.map((record) => {
  const cloze = task.cloze(record);
  const labels = task.choices(record)?.labels ?? [];
  if (cloze?.contexts.length !== 1) throw new Error("only tasks whose options share a context");
  const options = cloze.continuations.map((text) => text.trimStart());
  return JSON.stringify({ question: cloze.contexts[0], options, gold: labels.indexOf(record.answer) });
});
mkdirSync(out, { recursive: true });
const file = resolve(out, `${name}.jsonl`);
writeFileSync(file, `${lines.join("\n")}\n`);
writeFileSync(
  join(out, `${name}.yaml`),
  `task: sbora_${name.toLowerCase().replaceAll("-", "_")}
dataset_path: json
dataset_kwargs:
  data_files:
    test: ${JSON.stringify(file)}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{options}}"
doc_to_target: "{{gold}}"
target_delimiter: " "
metric_list:
  - metric: acc
  - metric: acc_norm
`,
);
console.log(`${lines.length} records in ${out}`);
