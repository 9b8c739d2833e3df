/** Counters, gauges and histograms in Prometheus' text format. */

export type Labels = Readonly<Record<string, string>>;

export interface Metrics {
  count(name: string, labels?: Labels, by?: number): void;
  set(name: string, value: number, labels?: Labels): void;
  /** Into a histogram, in seconds. */
  observe(name: string, seconds: number, labels?: Labels): void;
  /** A counter's or gauge's value, for tests and estimates. */
  value(name: string, labels?: Labels): number;
  text(): string;
}

interface Family {
  readonly kind: "counter" | "gauge" | "histogram";
  readonly help: string;
}

/** Everything that can be measured; a name outside is a bug. */
const FAMILIES: Readonly<Record<string, Family>> = {
  sbora_requests_total: { kind: "counter", help: "HTTP requests by route and status." },
  sbora_prompt_tokens_total: { kind: "counter", help: "Prompt tokens computed." },
  sbora_cached_tokens_total: { kind: "counter", help: "Prompt tokens taken from the prefix cache." },
  sbora_generated_tokens_total: { kind: "counter", help: "Tokens generated." },
  sbora_preemptions_total: { kind: "counter", help: "Sequences put back for want of pages." },
  sbora_swaps_total: { kind: "counter", help: "Changes of the weight set." },
  sbora_swap_seconds_total: {
    kind: "counter",
    help: "Time spent changing weight sets; bits of an SBoRA adapter may change with the next step instead.",
  },
  sbora_sequences_running: { kind: "gauge", help: "Sequences with KV pages (busy slots)." },
  sbora_sequences_waiting: { kind: "gauge", help: "Sequences waiting for a slot." },
  sbora_requests_outstanding: { kind: "gauge", help: "Requests taken and not done." },
  sbora_kv_pages: { kind: "gauge", help: "KV pages by state; cached ones may be in use too." },
  sbora_step_seconds: { kind: "histogram", help: "Duration of one engine step." },
  sbora_first_token_seconds: { kind: "histogram", help: "From the request to its first token." },
  sbora_request_seconds: { kind: "histogram", help: "From the request to the end of its answer." },
};

const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

interface Histogram {
  readonly counts: number[];
  sum: number;
  count: number;
}

export function createMetrics(): Metrics {
  const values = new Map<string, Map<string, number>>();
  const histograms = new Map<string, Map<string, Histogram>>();
  const family = (name: string): Family => {
    const found = FAMILIES[name];
    if (!found) throw new Error(`there is no metric ${name}`);
    return found;
  };
  const series = <T>(all: Map<string, Map<string, T>>, name: string): Map<string, T> => {
    family(name);
    const known = all.get(name) ?? new Map<string, T>();
    all.set(name, known);
    return known;
  };
  return {
    count(name, labels = {}, by = 1) {
      const known = series(values, name);
      known.set(labelText(labels), (known.get(labelText(labels)) ?? 0) + by);
    },
    set(name, value, labels = {}) {
      series(values, name).set(labelText(labels), value);
    },
    observe(name, seconds, labels = {}) {
      const known = series(histograms, name);
      const key = labelText(labels);
      const histogram = known.get(key) ?? { counts: BUCKETS.map(() => 0), sum: 0, count: 0 };
      known.set(key, histogram);
      histogram.sum += seconds;
      histogram.count++;
      BUCKETS.forEach((bound, i) => {
        if (seconds <= bound) histogram.counts[i]!++;
      });
    },
    value: (name, labels = {}) => values.get(name)?.get(labelText(labels)) ?? 0,
    text() {
      const lines: string[] = [];
      for (const [name, { kind, help }] of Object.entries(FAMILIES)) {
        lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${kind}`);
        for (const [labels, value] of values.get(name) ?? []) lines.push(`${name}${braced(labels)} ${value}`);
        for (const [labels, histogram] of histograms.get(name) ?? [])
          lines.push(...histogramLines(name, labels, histogram));
      }
      return `${lines.join("\n")}\n`;
    },
  };
}

function histogramLines(name: string, labels: string, { counts, sum, count }: Histogram): string[] {
  const bucket = (bound: string, n: number): string =>
    `${name}_bucket${braced([labels, `le="${bound}"`].filter((l) => l !== "").join(","))} ${n}`;
  return [
    ...BUCKETS.map((bound, i) => bucket(String(bound), counts[i]!)),
    bucket("+Inf", count),
    `${name}_sum${braced(labels)} ${sum}`,
    `${name}_count${braced(labels)} ${count}`,
  ];
}

function labelText(labels: Labels): string {
  return Object.entries(labels)
    .map(
      ([name, value]) =>
        `${name}="${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`,
    )
    .join(",");
}

function braced(labels: string): string {
  return labels === "" ? "" : `{${labels}}`;
}
