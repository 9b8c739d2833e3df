/**
 * The few pieces that our pictures are made of: text stays text, colours follow the reader's light or dark setting, nothing
 * is loaded from elsewhere. Sizes in pixels.
 */

/** Width of a character of the 13-pixel text, on the generous side. */
const CHARACTER = 7.4;
const TICKS = 5;

/**
 * After Okabe and Ito, told apart by readers who see no red or green. Names are written in them too: each has a contrast of
 * at least 4.5 to its page (WCAG AA), so the light ones are darker than theirs and the dark ones lighter.
 */
export const LIGHT_COLOURS = ["#66707a", "#0072b2", "#bd4b00", "#007f5c", "#8a4f7d", "#8f6000", "#0b7285"];
export const DARK_COLOURS = ["#9198a1", "#56b4e9", "#f08a3c", "#3fc79a", "#d58bc2", "#d4a72c", "#a5d6ff"];

/** `s0`, `s1`, … fill a mark with a series' colour, `l0`, … draw a line in it. */
export const STYLE = `text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:16px;font-weight:600}.panel{font-weight:600}.grid{stroke:#d0d7de}.axis,.error{stroke:#1f2328}
.soft{fill:#59636e}.mark{stroke:#59636e;stroke-dasharray:4 3}.part{fill:#ffffff;stroke:#1f2328}.lead{stroke:#8c959f;stroke-width:0.75}.page{fill:#ffffff}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}
${seriesStyle(LIGHT_COLOURS)}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#3d444d}.axis,.error{stroke:#e6edf3}
.soft{fill:#9198a1}.mark{stroke:#9198a1}.part{fill:#0d1117;stroke:#e6edf3}.lead{stroke:#656c76}.page{fill:#0d1117}
${seriesStyle(DARK_COLOURS)}}`;

function seriesStyle(colours: readonly string[]): string {
  return colours.map((colour, i) => `.s${i}{fill:${colour}}.l${i}{stroke:${colour}}`).join("");
}

/** A whole picture; `label` is what a screen reader says, and what a browser shows in a picture's tab. */
export function svgPage(width: number, height: number, label: string, body: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(label)}">`,
    `<title>${escaped(label)}</title>`,
    `<style>${STYLE}</style>`,
    `<rect class="page" width="${width}" height="${height}"/>`,
    ...body,
    "</svg>\n",
  ].join("\n");
}

export function text(x: number, y: number, content: string, attributes = ""): string {
  return `<text x="${round(x)}" y="${round(y)}"${attributes && ` ${attributes}`}>${escaped(content)}</text>`;
}

export function line(kind: string, x1: number, y1: number, x2: number, y2: number): string {
  return `<line class="${kind}" x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}"/>`;
}

export function textWidth(content: string): number {
  return [...content].length * CHARACTER;
}

/** A tenth of a pixel is enough. */
export function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** Content and attribute values of HTML and XML; XML has no control characters, not even escaped ones. */
export function escaped(content: string): string {
  const entities: Readonly<Record<string, string>> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
  };
  return content.replace(/[&<>"]|(?![\t\n\r])\p{Cc}/gu, (sign) => entities[sign] ?? "\ufffd");
}

/** Ends of an axis and the distance of its lines. */
export interface Scale {
  readonly low: number;
  readonly high: number;
  readonly step: number;
}

/** Round ends (steps of 1, 2 or 5 times a power of ten, about five of them) around all values. */
export function scaleOf(values: readonly number[]): Scale {
  const finite = values.filter(Number.isFinite);
  const [least, most] = [Math.min(...finite), Math.max(...finite)];
  if (finite.length === 0) return { low: 0, high: 1, step: 0.5 };
  if (least === most)
    return scaleOf([least - Math.abs(least) / 10 - 1e-9, most + Math.abs(most) / 10 + 1e-9]);
  const rough = (most - least) / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough * (1 - 1e-9)) ?? 10);
  const steps = { low: Math.floor(least / step + 1e-9), high: Math.ceil(most / step - 1e-9) };
  return { low: steps.low * step, high: steps.high * step, step };
}

/** Where the lines of an axis stand. */
export function ticksOf({ low, high, step }: Scale): number[] {
  const count = Math.round((high - low) / step);
  return Array.from({ length: count + 1 }, (_, i) => low + i * step);
}

/** As many decimals as a step of this size needs. */
export function shownBy(step: number, value: number): string {
  return value.toFixed(Math.min(6, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9))));
}
