/** Looks of a report's page (html.ts). Contrasts are at least 4.5 in both schemes; scripts/report/browser.test.ts measures them. */
export const PAGE_STYLE = `:root{color-scheme:light dark;--ink:#1f2328;--soft:#59636e;--paper:#fff;--card:#f6f8fa;--rule:#d1d9e0;
--link:#0969da;--good:#1a7f37;--bad:#a04100;--note:#fff8e6;--note-rule:#d4a72c}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--paper:#0d1117;--card:#151b23;--rule:#3d444d;
--link:#4493f8;--good:#3fb950;--bad:#f0883e;--note:#221c0d;--note-rule:#9a7411}}
*{box-sizing:border-box}html{scroll-padding-top:1rem;-webkit-text-size-adjust:100%}
body{font:16px/1.6 system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;margin:0 auto;max-width:74rem;padding:2rem clamp(1rem,4vw,2.5rem) 4rem;color:var(--ink);background:var(--paper);overflow-wrap:break-word}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 1rem}h2{font-size:1.45rem;line-height:1.3;border-bottom:1px solid var(--rule);padding-bottom:.4rem;margin:4rem 0 1rem}
h3{font-size:1.08rem;line-height:1.35;margin:2.2rem 0 .6rem}p,ul,dl{max-width:46rem}p{margin:.7rem 0}li{margin:.25rem 0}ul{padding-left:1.3rem}
a{color:var(--link)}nav{background:var(--card);border-radius:8px;padding:.8rem 1.2rem;margin:1.5rem 0}
nav ol{columns:20rem;column-gap:2.5rem;margin:0;padding-left:1.3rem}nav li{break-inside:avoid;padding-left:.2rem}
.badge{display:inline-block;font-size:.75rem;font-weight:600;line-height:1.5;color:var(--soft);border:1px solid var(--rule);border-radius:1rem;padding:0 .6rem;vertical-align:middle;white-space:nowrap;background:var(--paper)}
.scope{background:var(--note);border-left:4px solid var(--note-rule);padding:.7rem 1rem;border-radius:0 6px 6px 0}
.wide{overflow-x:auto;margin:.6rem 0 1rem}.wide:focus-visible,pre:focus-visible,summary:focus-visible{outline:2px solid var(--link);outline-offset:2px}
table{border-collapse:collapse;font-size:.875rem;line-height:1.45;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding:0 .6rem .5rem 0}caption span{display:inline-block;position:sticky;left:0;max-width:min(46rem,calc(100vw - 2.5rem))}.unseen{position:absolute;width:1px;height:1px;padding:0;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
th,td{padding:.28rem .7rem;text-align:left;vertical-align:top}thead th,thead td{border-bottom:1.5px solid var(--soft);vertical-align:bottom;white-space:nowrap}
tbody tr:not(.line):hover>*{background:var(--card)}tbody th{font-weight:500;position:sticky;left:0;background:var(--paper);padding-left:0}thead th:first-child,thead td:first-child{padding-left:0}
tbody th,td{border-bottom:1px solid color-mix(in srgb,var(--rule) 45%,transparent)}.right{text-align:right;white-space:nowrap}
tr.line td{border-bottom:1.5px solid var(--rule);padding:0}.verdict{white-space:nowrap;font-weight:600}.holds{color:var(--good)}.not{color:var(--bad)}.open{color:var(--soft);font-weight:400}.absent{color:var(--soft)}
.claims td,.claims tbody th{white-space:nowrap}.claims td:last-child,.claims tbody th{white-space:normal;min-width:15rem}
pre{overflow-x:auto;background:var(--card);border-radius:6px;padding:.8rem 1rem;font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;margin:.6rem 0}
dl{display:grid;grid-template-columns:minmax(6rem,auto) 1fr;gap:.15rem 1rem;font-size:.875rem}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:1rem 1.5rem;align-items:start}
figure{margin:.8rem 0}.gallery figure{margin:0;min-width:0}figure svg{display:block;width:100%;max-width:29rem;height:auto}figure img{display:block;max-width:none}
figcaption{color:var(--soft);font-size:.875rem;max-width:46rem}
details{border:1px solid var(--rule);border-radius:6px;padding:.1rem .9rem;margin:.6rem 0}summary{cursor:pointer;padding:.4rem 0;font-weight:500}
details details{font-size:.95rem}@media(max-width:40rem){tbody th{max-width:42vw;min-width:6rem}.claims tbody th{max-width:none;min-width:14rem;position:static}}@media(max-width:30rem){dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}h2{margin-top:3rem}}
@media print{body{max-width:none;padding:0}nav{display:none}section{break-before:page}}`;
