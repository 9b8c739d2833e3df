/**
 * One line a thing, its value as a bar from 0 or as a dot, whiskers for the error: reads on a phone, where names stand
 * beside their marks. Lines across all rows are what the values are compared with.
 */
import {
  escaped,
  line,
  round,
  type Scale,
  scaleOf,
  shownBy,
  svgPage,
  text,
  textWidth,
  ticksOf,
} from "./svg.ts";

export interface RowChart {
  readonly title: string;
  /** What the scale measures, with its unit. */
  readonly unit: string;
  /** Bars begin at 0; dots stand on a scale around their values. */
  readonly mark: "bar" | "dot";
  readonly rows: readonly RowMark[];
  readonly lines: readonly ReferenceLine[];
  /** Decimals of the values beside the marks. */
  readonly digits: number;
}

export interface RowMark {
  readonly label: string;
  /** Number of its colour: the same thing has the same colour in every picture. */
  readonly colour: number;
  /** null: not measured. */
  readonly value: number | null;
  /** Half the length of the whisker. */
  readonly error?: number;
  /** What the value is the mean of, where it is one. */
  readonly parts?: readonly number[];
  /** Does not stretch the scale of dots; off it, an arrow at its end stands for the mark. */
  readonly aside?: boolean;
}

export interface ReferenceLine {
  readonly label: string;
  readonly value: number;
}

/** Sizes in pixels. */
export const ROW_WIDTH = 400;
const ROW = 25;
const BAR = 13;
const MARGIN = 12;
const GAP = 10;
const HEAD = 42;
const LINE = 17;
const SCALE = 42;
const SIDE_GAP = 28;
const TITLE = 34;
const BETWEEN = 14;
/** A line further away than this many times the span of the marks is named, not drawn: it would take the scale from them. */
const FAR = 3;

/** One picture, as wide as a phone. */
export function rowChart(chart: RowChart): string {
  const { body, height } = panelOf(chart, [0, 0], chart.lines.length);
  return svgPage(ROW_WIDTH, height, chart.title, body);
}

/** Charts that stand beside each other. */
const COLUMNS = 2;

/** Several in two columns below a common title, their rows at equal heights; `notes`: lines below them. */
export function rowCharts(title: string, charts: readonly RowChart[], notes: readonly string[]): string {
  const body: string[] = [text(MARGIN, 26, title, 'class="title"')];
  let top = TITLE;
  for (let i = 0; i < charts.length; i += COLUMNS) {
    const beside = charts.slice(i, i + COLUMNS);
    const lines = Math.max(...beside.map((chart) => chart.lines.length));
    const panels = beside.map((chart, j) => panelOf(chart, [j * (ROW_WIDTH + SIDE_GAP), top], lines));
    body.push(...panels.flatMap((panel) => panel.body));
    top += Math.max(...panels.map(({ height }) => height)) + BETWEEN;
  }
  notes.forEach((note, i) => {
    body.push(text(MARGIN, top + 6 + i * LINE, note, 'class="soft"'));
  });
  const wide = Math.min(COLUMNS, charts.length) * (ROW_WIDTH + SIDE_GAP) - SIDE_GAP;
  const words = Math.max(textWidth(title) * 1.25, ...notes.map(textWidth)) + 2 * MARGIN;
  return svgPage(Math.ceil(Math.max(wide, words)), top + notes.length * LINE, title, body);
}

interface Panel {
  readonly body: readonly string[];
  readonly height: number;
}

/** `lineRoom`: lines of names above the rows, as many as the panel beside it has. */
function panelOf(chart: RowChart, [left, top]: readonly [number, number], lineRoom: number): Panel {
  const { title, unit, rows, lines, mark, digits } = chart;
  const scale = scaleFor(chart);
  const inside = lines.filter(({ value }) => isIn(scale, value));
  const outside = lines.filter((one) => !inside.includes(one));
  const names = Math.max(0, ...rows.map(({ label }) => textWidth(label)));
  const numbers = Math.max(0, ...rows.map((row) => textWidth(shown(row, digits))));
  const [from, to] = [left + MARGIN + names + GAP, left + ROW_WIDTH - MARGIN - numbers - GAP];
  const at = (value: number): number => from + ((value - scale.low) / (scale.high - scale.low)) * (to - from);
  const first = top + HEAD + LINE * lineRoom;
  const bottom = first + ROW * rows.length;
  const body = [text(left + MARGIN, top + 24, title, 'class="panel"')];
  for (const value of ticksOf(scale)) {
    body.push(line("grid", at(value), first, at(value), bottom));
    body.push(text(at(value), bottom + 17, shownBy(scale.step, value), 'text-anchor="middle" class="soft"'));
  }
  body.push(text((from + to) / 2, bottom + 35, unit, 'text-anchor="middle" class="soft"'));
  [...inside, ...outside].forEach((reference, i) => {
    body.push(
      ...lineOf(reference, { scale, at, from, to, y: first - LINE * (lines.length - i), bottom }, digits),
    );
  });
  if (mark === "bar") body.push(line("axis", at(0), first, at(0), bottom));
  rows.forEach((row, i) => {
    const y = first + ROW * (i + 0.5);
    body.push(text(left + MARGIN, y + 4.5, row.label));
    body.push(text(left + ROW_WIDTH - MARGIN, y + 4.5, shown(row, digits), 'text-anchor="end"'));
    if (row.value !== null) body.push(...markOf(row, row.value, mark, y, at, scale, digits));
  });
  return { body, height: bottom + SCALE - top };
}

interface Frame {
  readonly scale: Scale;
  readonly at: (value: number) => number;
  readonly from: number;
  readonly to: number;
  readonly y: number;
  readonly bottom: number;
}

/** Its name on a line of its own above the rows, beside where it stands; an arrow where it is off the scale. */
function lineOf({ label, value }: ReferenceLine, frame: Frame, digits: number): string[] {
  const { scale, at, from, to, y, bottom } = frame;
  const name = `${label} ${value.toFixed(digits)}`;
  if (value > scale.high && !isIn(scale, value))
    return [text(to, y + 10, `${name}, off the scale →`, 'text-anchor="end" class="soft"')];
  if (!isIn(scale, value)) return [text(from, y + 10, `← ${name}, off the scale`, 'class="soft"')];
  const fits = at(value) + 6 + textWidth(name) <= to + GAP;
  const anchor = fits ? 'class="soft"' : 'text-anchor="end" class="soft"';
  return [
    line("mark", at(value), y - 1, at(value), bottom),
    text(at(value) + (fits ? 6 : -6), y + 10, name, anchor),
  ];
}

function markOf(
  { label, colour, error, parts = [] }: RowMark,
  value: number,
  mark: RowChart["mark"],
  y: number,
  at: (value: number) => number,
  { low, high }: Scale,
  digits: number,
): string[] {
  const within = (x: number): number => Math.min(high, Math.max(low, x));
  const name = `<title>${escaped(`${label}: ${value.toFixed(digits)}${error ? ` ± ${error.toFixed(digits)}` : ""}`)}</title>`;
  if (value > high || (value < low && mark === "dot"))
    return [arrowOf(colour, at(within(value)), y, value > high, name)];
  const start = at(within(0));
  const drawn =
    mark === "bar"
      ? `<rect class="s${colour}" x="${round(start)}" y="${round(y - BAR / 2)}" width="${round(at(within(value)) - start)}" height="${BAR}">${name}</rect>`
      : `<circle class="s${colour}" cx="${round(at(value))}" cy="${round(y)}" r="5">${name}</circle>`;
  const whisker = error
    ? [
        line("error", at(within(value - error)), y, at(within(value + error)), y),
        ...[value - error, value + error].map((end) =>
          line("error", at(within(end)), y - 4, at(within(end)), y + 4),
        ),
      ]
    : [];
  const dots = parts.length > 1 ? parts : [];
  return [
    drawn,
    ...whisker,
    ...dots.map((part) => `<circle class="part" cx="${round(at(within(part)))}" cy="${round(y)}" r="2.5"/>`),
  ];
}

/** Points out of the scale, where a mark would lie. */
function arrowOf(colour: number, x: number, y: number, up: boolean, name: string): string {
  const back = round(x + (up ? -9 : 9));
  return `<polygon class="s${colour}" points="${round(x)},${round(y)} ${back},${round(y - 5)} ${back},${round(y + 5)}">${name}</polygon>`;
}

function shown({ value }: RowMark, digits: number): string {
  return value === null ? "–" : value.toFixed(digits);
}

/** A mean of percents misses a round end by its last bit. */
function isIn({ low, high }: Scale, value: number): boolean {
  const slack = 1e-9 * (high - low);
  return value >= low - slack && value <= high + slack;
}

/** Around every mark with its whisker, and every line that is not far from them. */
function scaleFor({ rows, lines, mark }: RowChart): Scale {
  const ends = rows.flatMap(({ value, error = 0, parts = [], aside = false }) =>
    value === null || (aside && mark === "dot") ? [] : [value - error, value + error, ...parts],
  );
  if (mark === "bar") {
    const most = Math.max(0, ...ends, ...lines.map(({ value }) => value));
    return most > 0 ? scaleOf([0, most]) : { low: 0, high: 1, step: 0.5 };
  }
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const near = lines.filter(
    ({ value }) => Math.max(most, value) - Math.min(least, value) <= FAR * (most - least),
  );
  return scaleOf([...ends, ...near.map(({ value }) => value)]);
}
