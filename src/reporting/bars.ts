/** Grouped bars as an SVG picture: a grid of panels with one legend, every row of panels on one scale from 0. */
import {
  escaped,
  LIGHT_COLOURS,
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

export interface BarChart {
  readonly title: string;
  /** What the bars of a group are, in their order: at most as many as there are colours. */
  readonly series: readonly string[];
  readonly rows: readonly BarRow[];
  /** A line below the panels. */
  readonly note?: string;
}

/** Panels that share a scale from 0. */
export interface BarRow {
  /** What the scale measures, with its unit. */
  readonly label: string;
  /** End of the scale; default: the first round number above every bar. */
  readonly top?: number;
  readonly panels: readonly BarPanel[];
}

export interface BarPanel {
  readonly title: string;
  readonly groups: readonly BarGroup[];
}

export interface BarGroup {
  readonly title: string;
  readonly bars: readonly (Bar | null)[];
}

export interface Bar {
  readonly value: number;
  /** Half the length of the whisker. */
  readonly error?: number;
}

/** Sizes in pixels. */
const BAR = 14;
const GROUP_GAP = 14;
const PANEL_GAP = 22;
const PLOT_HEIGHT = 170;
const LEFT = 58;
const RIGHT = 16;
/** Title and legend; a row's panel titles; below a row its group names. */
const HEAD = 66;
const ABOVE = 30;
const BELOW = 40;
const FOOT = 30;
export function barChart(chart: BarChart): string {
  const { title, series, rows, note } = chart;
  if (series.length > LIGHT_COLOURS.length)
    throw new Error(`${series.length} series, but ${LIGHT_COLOURS.length} colours`);
  const columns = Math.max(0, ...rows.map(({ panels }) => panels.length));
  const widths = Array.from({ length: columns }, (_, i) =>
    Math.max(...rows.map(({ panels }) => panelWidth(panels[i], series.length))),
  );
  const needed = Math.max(textWidth(title) * 1.3, legendWidth(series), textWidth(note ?? ""));
  const panels = widths.reduce((sum, width) => sum + width + PANEL_GAP, -PANEL_GAP);
  const width = Math.ceil(LEFT + Math.max(panels, needed) + RIGHT);
  const rowHeight = ABOVE + PLOT_HEIGHT + BELOW;
  const height = HEAD + rows.length * rowHeight + (note ? FOOT : 8);
  const body = rows.map((row, i) => rowOf(row, HEAD + i * rowHeight + ABOVE, widths));
  return svgPage(width, height, title, [
    text(LEFT, 24, title, 'class="title"'),
    legend(series),
    ...body,
    ...(note ? [text(LEFT, height - 12, note)] : []),
  ]);
}

function legend(series: readonly string[]): string {
  let x = LEFT;
  return series
    .map((name, i) => {
      const at = x;
      x += 22 + textWidth(name) + 18;
      return `<rect class="s${i}" x="${round(at)}" y="39" width="14" height="14"/>${text(at + 20, 51, name)}`;
    })
    .join("");
}

function legendWidth(series: readonly string[]): number {
  return series.reduce((sum, name) => sum + 40 + textWidth(name), 0);
}

function rowOf({ label, top, panels }: BarRow, y: number, widths: readonly number[]): string {
  const scale = scaleFor(top, panels);
  const middle = y + PLOT_HEIGHT / 2;
  const turned = `text-anchor="middle" transform="rotate(-90 15 ${round(middle)})"`;
  const parts = [text(15, middle, label, turned)];
  let x = LEFT;
  panels.forEach((panel, i) => {
    const width = widths[i]!;
    parts.push(panelOf(panel, { x, y, width, labels: i === 0 }, scale));
    x += width + PANEL_GAP;
  });
  return parts.join("\n");
}

interface Frame {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  /** Whether the scale's numbers stand to the left. */
  readonly labels: boolean;
}

function panelOf({ title, groups }: BarPanel, frame: Frame, scale: Scale): string {
  const { x, y, width } = frame;
  const bottom = y + PLOT_HEIGHT;
  const at = (value: number): number => bottom - (PLOT_HEIGHT * value) / scale.high;
  const parts = [text(x, y - 12, title, 'class="panel"')];
  for (const value of ticksOf(scale)) {
    parts.push(line(value === 0 ? "axis" : "grid", x, at(value), x + width, at(value)));
    if (frame.labels)
      parts.push(text(x - 8, at(value) + 4.5, shownBy(scale.step, value), 'text-anchor="end"'));
  }
  const each = width / Math.max(1, groups.length);
  groups.forEach(({ title: name, bars }, i) => {
    const middle = x + (i + 0.5) * each;
    const start = middle - (bars.length * BAR) / 2;
    bars.forEach((bar, j) => {
      if (bar) parts.push(barOf(bar, `${title}, ${name}`, j, start + j * BAR, at, scale));
    });
    parts.push(text(middle, bottom + 18, name, 'text-anchor="middle"'));
  });
  return parts.join("\n");
}

function barOf(
  { value, error }: Bar,
  name: string,
  series: number,
  x: number,
  at: (value: number) => number,
  { high: top, step }: Scale,
): string {
  const y = at(Math.min(Math.max(0, value), top));
  const label = `${name}: ${shownBy(step / 100, value)}${error === undefined ? "" : ` ± ${shownBy(step / 100, error)}`}`;
  const rect =
    `<rect class="s${series}" x="${round(x + 1)}" y="${round(y)}" width="${BAR - 2}" height="${round(at(0) - y)}">` +
    `<title>${escaped(label)}</title></rect>`;
  if (error === undefined || error === 0) return rect;
  const middle = x + BAR / 2;
  return (
    rect + line("error", middle, at(Math.max(0, value - error)), middle, at(Math.min(top, value + error)))
  );
}

function panelWidth(panel: BarPanel | undefined, series: number): number {
  if (!panel) return 0;
  const group = Math.max(series * BAR, ...panel.groups.map(({ title }) => textWidth(title))) + GROUP_GAP;
  return Math.max(panel.groups.length * group, textWidth(panel.title) * 1.1);
}

/** From 0 to `top`, or to the first round number above every bar with its whisker. */
function scaleFor(top: number | undefined, panels: readonly BarPanel[]): Scale {
  const ends = panels.flatMap(({ groups }) =>
    groups.flatMap(({ bars }) => bars.flatMap((bar) => (bar ? [bar.value + (bar.error ?? 0)] : []))),
  );
  const scale = scaleOf([0, ...(top === undefined ? ends.map((end) => Math.max(0, end)) : [top])]);
  return scale.high > 0 && scale.low === 0 ? scale : { low: 0, high: 1, step: 0.5 };
}
