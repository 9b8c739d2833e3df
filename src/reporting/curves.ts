/** Curves as an SVG picture: panels side by side on one vertical scale, each curve named where it ends. */
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

export interface CurveChart {
  readonly title: string;
  /** What the axes measure, with their units. */
  readonly x: string;
  readonly y: string;
  readonly panels: readonly CurvePanel[];
  /** A line below the panels. */
  readonly note?: string;
  /** Values that the vertical scale holds besides the curves' own: for several pictures on one scale. */
  readonly span?: readonly number[];
  /** Of a panel, in pixels: less where a phone shows it. */
  readonly plotWidth?: number;
}

export interface CurvePanel {
  readonly title: string;
  readonly curves: readonly Curve[];
}

export interface Curve {
  /** Number of its colour: the same thing has the same colour in every panel and picture. */
  readonly colour: number;
  /** Stands beside the curve's end. */
  readonly label: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** Sizes in pixels. */
const PLOT_WIDTH = 360;
const PLOT_HEIGHT = 260;
const LEFT = 66;
const GAP = 46;
const HEAD = 76;
const BELOW = 52;
const FOOT = 24;
/** Least distance of two labels, and of a label from its plot. */
const LABEL_HEIGHT = 16;
const LABEL_GAP = 14;

export function curveChart(chart: CurveChart): string {
  const { title, panels, note, span = [], plotWidth = PLOT_WIDTH } = chart;
  const all = panels.flatMap(({ curves }) => curves.flatMap(({ points }) => points));
  const vertical = scaleOf([...all.map(([, y]) => y), ...span]);
  const widths = panels.map(({ curves }) => {
    const labels = curves.map(({ label }) => textWidth(label));
    return plotWidth + LABEL_GAP + Math.max(0, ...labels);
  });
  const inner = widths.reduce((sum, width) => sum + width + GAP, -GAP);
  const width = Math.ceil(LEFT + Math.max(inner, textWidth(title) * 1.3, textWidth(note ?? "")) + 16);
  const height = HEAD + PLOT_HEIGHT + BELOW + (note ? FOOT : 0);
  const parts = [
    text(LEFT, 24, title, 'class="title"'),
    text(16, HEAD + PLOT_HEIGHT / 2, chart.y, turned(16, HEAD + PLOT_HEIGHT / 2)),
  ];
  let x = LEFT;
  panels.forEach((panel, i) => {
    parts.push(panelOf(panel, [x, x + plotWidth], vertical, chart.x, i === 0));
    x += widths[i]! + GAP;
  });
  if (note) parts.push(text(LEFT, height - 12, note));
  return svgPage(width, height, title, parts);
}

function turned(x: number, y: number): string {
  return `text-anchor="middle" transform="rotate(-90 ${x} ${round(y)})"`;
}

function panelOf(
  panel: CurvePanel,
  [left, right]: readonly [number, number],
  vertical: Scale,
  unit: string,
  scaled: boolean,
): string {
  const [top, bottom] = [HEAD, HEAD + PLOT_HEIGHT];
  const xs = panel.curves.flatMap(({ points }) => points.map(([x]) => x));
  const horizontal = scaleOf([0, ...xs]);
  const place = (value: number, { low, high }: Scale, from: number, to: number): number =>
    from + ((value - low) / (high - low)) * (to - from);
  const atX = (value: number): number => place(value, horizontal, left, right);
  const atY = (value: number): number => place(value, vertical, bottom, top);
  const parts = [text(left, top - 14, panel.title, 'class="panel"')];
  for (const value of ticksOf(vertical)) {
    parts.push(line(value === vertical.low ? "axis" : "grid", left, atY(value), right, atY(value)));
    if (scaled)
      parts.push(text(left - 8, atY(value) + 4.5, shownBy(vertical.step, value), 'text-anchor="end"'));
  }
  for (const value of ticksOf(horizontal)) {
    parts.push(line("axis", atX(value), bottom, atX(value), bottom + 4));
    parts.push(text(atX(value), bottom + 18, shownBy(horizontal.step, value), 'text-anchor="middle"'));
  }
  parts.push(text((left + right) / 2, bottom + 38, unit, 'text-anchor="middle"'));
  for (const { colour, points, label } of panel.curves) {
    const path = points.map(([x, y]) => `${round(atX(x))},${round(atY(y))}`).join(" ");
    parts.push(
      `<polyline class="line l${colour}" points="${path}"><title>${escaped(label)}</title></polyline>`,
    );
  }
  parts.push(...endLabels(panel.curves, atX, atY, right));
  return parts.join("\n");
}

/** A dot where each curve ends and its name beside the plot, moved apart where names would cover each other. */
function endLabels(
  curves: readonly Curve[],
  atX: (value: number) => number,
  atY: (value: number) => number,
  right: number,
): string[] {
  const ends = curves.flatMap(({ points, label, colour }) => {
    const last = points.at(-1);
    return last ? [{ x: atX(last[0]), y: atY(last[1]), label, colour }] : [];
  });
  ends.sort((a, b) => a.y - b.y);
  const rows = apart(ends.map(({ y }) => y));
  return ends.flatMap(({ x, y, label, colour }, i) => [
    line("lead", x, y, right + LABEL_GAP - 4, rows[i]!),
    `<circle class="s${colour}" cx="${round(x)}" cy="${round(y)}" r="3.5"/>`,
    text(right + LABEL_GAP, rows[i]! + 4.5, label, `class="s${colour}"`),
  ]);
}

/** Ascending positions at least a label apart, each as near to where it was as the others allow. */
export function apart(wanted: readonly number[], distance = LABEL_HEIGHT): number[] {
  const groups: { sum: number; count: number }[] = [];
  const start = ({ sum, count }: { sum: number; count: number }): number =>
    sum / count - ((count - 1) * distance) / 2;
  for (const y of wanted) {
    let group = { sum: y, count: 1 };
    // A group that would cover the one before it is joined to it; both move around their common middle.
    for (
      let last = groups.at(-1);
      last && start(group) < start(last) + last.count * distance;
      last = groups.at(-1)
    ) {
      groups.pop();
      group = { sum: last.sum + group.sum, count: last.count + group.count };
    }
    groups.push(group);
  }
  return groups.flatMap((group) =>
    Array.from({ length: group.count }, (_, i) => start(group) + i * distance),
  );
}
