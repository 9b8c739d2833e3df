/** Figures 3 and 4 as chapters: the curves drawn anew from their files, a picture a rank, and how they were measured. */

import { MEMORY_AXES, MEMORY_NOTE, memoryPanels, memorySections } from "../../experiments/memory-report.ts";
import { modelTitle } from "../../experiments/table-picture.ts";
import { curveChart } from "../../src/reporting/curves.ts";
import { htmlGrid, htmlParagraph, htmlPicture, htmlSection } from "../../src/reporting/html.ts";
import { type ItemChapter, verdictsIn } from "./chapter.ts";
import type { CurveGroup } from "./groups.ts";
import { scopeOf } from "./items.ts";
import { madeSection } from "./made.ts";

const PLOT_WIDTH = 210;

export function curvesChapter({ figure, modelName, curves }: CurveGroup): ItemChapter {
  const { preset: name } = curves[0]!.curve.recipe;
  const files = curves.map(({ curve }) => curve);
  const sections = memorySections({ figure, preset: figure.presets[name], modelName, curves: files });
  const panels = memoryPanels(files);
  const span = panels.flatMap((panel) => panel.curves.flatMap(({ points }) => points.map(([, y]) => y)));
  const pictures = panels.map((panel) =>
    htmlPicture(
      curveChart({
        title: `Memory while training, ${panel.title}`,
        ...MEMORY_AXES,
        panels: [{ ...panel, title: modelTitle(modelName) }],
        span,
        plotWidth: PLOT_WIDTH,
      }),
    ),
  );
  const titles = ["Memory and time", "The paper's claims"];
  return {
    item: figure.name,
    preset: name,
    results: `${curves.length} curves`,
    verdicts: verdictsIn(sections),
    title: `Figure ${figure.number}, memory against time: ${modelTitle(modelName)}`,
    badge: `preset ${name}`,
    scope: curvesScope(name, modelName, figure.presets.paper.model, figure.paperModel),
    body: [
      htmlGrid(pictures),
      htmlParagraph(MEMORY_NOTE),
      ...sections.map((section, i) => htmlSection(section, section.table ? titles[i] : undefined)),
      ...madeSection(curves.map(({ name: file, curve }) => ({ name: file, file: { ...curve } }))),
    ],
  };
}

function curvesScope(preset: string, modelName: string, model: string, paperModel: string): string {
  if (preset !== "paper") return scopeOf(preset);
  return modelName === model
    ? `The paper's recipe on ${paperModel}, with our code, on the processor named below: the paper's curves are of another code on an RTX 4090.`
    : `Preset paper, but not the paper's experiment: ${modelName} in place of ${paperModel}.`;
}
