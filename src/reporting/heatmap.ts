/** Matrices as an SVG picture, side by side: nothing where a value is 0, an accent that grows with the value elsewhere. */
import { pngBytes } from "./png.ts";
import { escaped, round, svgPage, text, textWidth } from "./svg.ts";

export interface HeatmapChart {
  readonly title: string;
  readonly panels: readonly HeatmapPanel[];
  /** What stands along the upper and the left side. */
  readonly columns: string;
  readonly rows: string;
  readonly note?: string;
}

export interface HeatmapPanel {
  readonly title: string;
  /** A line below the matrix. */
  readonly caption: string;
  readonly rows: number;
  readonly columns: number;
  /** rows·columns values from 0 to 1. */
  readonly values: Float32Array;
}

/** Sizes in pixels. */
const LONGEST = 300;
const LEFT = 44;
const GAP = 36;
const HEAD = 92;
const BELOW = 34;
const FOOT = 24;
/** More cells a side than this are not seen anyway: neighbours share one, which shows the largest of them. */
const MOST_CELLS = 256;
/** Okabe and Ito's vermilion, clear on white and on black. */
const ACCENT = [0xd5, 0x5e, 0x00] as const;
const FAINTEST = 0.35;

export function heatmapChart({ title, panels, columns, rows, note }: HeatmapChart): string {
  const longest = Math.max(1, ...panels.flatMap((panel) => [panel.rows, panel.columns]));
  const scale = LONGEST / longest;
  // A panel is as wide as its matrix and its words.
  const widths = panels.map((panel) =>
    Math.max(panel.columns * scale, textWidth(panel.title) * 1.1, textWidth(panel.caption)),
  );
  const tallest = Math.max(0, ...panels.map((panel) => panel.rows * scale));
  const inner = widths.reduce((sum, width) => sum + width + GAP, -GAP);
  const width = Math.ceil(LEFT + Math.max(inner, textWidth(title) * 1.3, textWidth(note ?? "")) + 16);
  const height = Math.ceil(HEAD + tallest + BELOW + (note ? FOOT : 0));
  const parts = [text(LEFT, 24, title, 'class="title"')];
  const middle = round(HEAD + tallest / 2);
  parts.push(text(20, middle, rows, `text-anchor="middle" transform="rotate(-90 20 ${middle})"`));
  let x = LEFT;
  panels.forEach((panel, i) => {
    parts.push(panelOf(panel, x, scale, columns));
    x += widths[i]! + GAP;
  });
  if (note) parts.push(text(LEFT, height - 10, note));
  return svgPage(width, height, title, parts);
}

function panelOf(panel: HeatmapPanel, x: number, scale: number, columns: string): string {
  const [width, height] = [panel.columns * scale, panel.rows * scale];
  const size = `x="${round(x)}" y="${HEAD}" width="${round(width)}" height="${round(height)}"`;
  return [
    text(x, HEAD - 30, panel.title, 'class="panel"'),
    text(x, HEAD - 10, columns),
    `<image ${size} preserveAspectRatio="none" style="image-rendering:pixelated" href="${pictureOf(panel)}"><title>${escaped(panel.title)}</title></image>`,
    `<rect ${size} fill="none" class="grid"/>`,
    text(x, HEAD + height + 20, panel.caption),
  ].join("\n");
}

/** A data address of the matrix, a pixel a cell. */
function pictureOf({ rows, columns, values }: HeatmapPanel): string {
  const [height, width] = [Math.min(rows, MOST_CELLS), Math.min(columns, MOST_CELLS)];
  const cells = new Float32Array(height * width);
  for (let row = 0; row < rows; row++) {
    const y = Math.floor((row * height) / rows);
    for (let column = 0; column < columns; column++) {
      const at = y * width + Math.floor((column * width) / columns);
      cells[at] = Math.max(cells[at]!, values[row * columns + column]!);
    }
  }
  const pixels = new Uint8Array(4 * cells.length);
  cells.forEach((value, i) => {
    const alpha = value > 0 ? FAINTEST + (1 - FAINTEST) * Math.min(1, value) : 0;
    pixels.set([...ACCENT, Math.round(255 * alpha)], 4 * i);
  });
  return `data:image/png;base64,${Buffer.from(pngBytes(width, height, pixels)).toString("base64")}`;
}
