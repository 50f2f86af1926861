"""Style sheet of all HTML pages."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1f2328; --muted: #5c6570; --line: #e2e5e9;
  --accent: #0b69a3; --right: #007a59; --wrong: #c2500a; --doubt: #0b69a3; --heat: 0, 104, 170;
  --code: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131519; --card: #1b1e24; --ink: #e6e8eb; --muted: #a3abb8; --line: #2f343d;
    --accent: #5ab4ec; --right: #3ccfa4; --wrong: #ff9357; --doubt: #5ab4ec; --heat: 38, 120, 180;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, header, nav, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 44px; }
h1, h2, h3 { line-height: 1.25; text-wrap: balance; overflow-wrap: anywhere; }
h1 { margin: 4px 0 6px; font-size: clamp(26px, 5vw, 36px); letter-spacing: -0.015em; }
h2 { margin: 0 0 6px; font-size: 22px; letter-spacing: -0.01em; }
h3 { margin: 22px 0 8px; font-size: 15px; text-wrap: wrap; }
p { margin: 0 0 12px; max-width: 72ch; overflow-wrap: anywhere; }
a { color: var(--accent); }
figure { margin: 0; }
figcaption { margin-top: 6px; color: var(--muted); font-size: 13px; line-height: 1.4; }
.over { margin: 0; color: var(--muted); font-size: 14px; }
.lead { color: var(--muted); }
.note { margin-left: 6px; color: var(--muted); font-weight: 400; font-size: 13px; }

.key {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 22px 0; padding: 0;
}
.key > div {
  padding: 14px 16px; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
}
.key dt { color: var(--muted); font-size: 13px; }
.key dd { margin: 0; font-variant-numeric: tabular-nums; }
.key .value { font-size: 27px; font-weight: 650; letter-spacing: -0.02em; }
.key .more { color: var(--muted); font-size: 13px; }

nav ul {
  display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0; padding: 10px 0;
  list-style: none; font-size: 14px; border-block: 1px solid var(--line);
}
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
section { padding: 34px 0 6px; scroll-margin-top: 10px; }
section + section { margin-top: 28px; border-top: 1px solid var(--line); }

.wide { overflow-x: auto; margin: 14px 0; }
table { border-collapse: collapse; font-size: 14.5px; font-variant-numeric: tabular-nums; }
caption { padding-bottom: 6px; text-align: left; color: var(--muted); font-size: 13px; }
th, td {
  padding: 7px 14px 7px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line);
}
thead th { color: var(--muted); font-weight: 500; font-size: 13px; vertical-align: bottom; }
tbody th { font-weight: 500; }
.numbers tbody th { min-width: 8.5em; }
.numbers td { white-space: nowrap; }
.numbers td:last-child { min-width: 9em; white-space: normal; }
tr.here th, tr.here td { font-weight: 650; }
.range {
  display: block; color: var(--muted); font-size: 12px; font-weight: 400; white-space: nowrap;
}
.confusion td, .confusion thead th { min-width: 92px; padding: 12px 14px; text-align: center; }
.confusion td {
  border: 3px solid var(--paper); background: rgba(var(--heat), var(--share));
}
.confusion tbody th { vertical-align: middle; border: 0; }
.confusion small { display: block; opacity: 0.85; font-size: 12px; }
.confusion td.full { color: #fff; }
.settings td { font-family: var(--code); font-size: 13px; overflow-wrap: anywhere; }
.settings th { overflow-wrap: anywhere; }

.pair {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr));
  gap: 12px 32px; align-items: start;
}
.plot img { display: block; width: 100%; height: auto; }
.views {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 310px), 1fr)); gap: 20px 18px;
  margin: 14px 0;
}
.views .plot img { border-radius: 6px; }
.verdict { font-weight: 650; }
.verdict.good { color: var(--right); }
.verdict.doubtful { color: var(--doubt); }
.verdict.failed { color: var(--wrong); }
.lenses td, .lenses th { vertical-align: middle; }
.lenses tbody th img {
  display: block; width: 300px; height: auto; border-radius: 4px; image-rendering: pixelated;
}
.lenses thead button {
  padding: 0; border: 0; background: none; color: inherit; font: inherit; white-space: nowrap;
  cursor: pointer;
}
.lenses thead button::after { content: " \\2195"; opacity: 0.5; }
.lenses thead [aria-sort=ascending] button::after { content: " \\2191"; opacity: 1; }
.lenses thead [aria-sort=descending] button::after { content: " \\2193"; opacity: 1; }
.tiles {
  display: grid; gap: 14px 12px;
  grid-template-columns: repeat(var(--columns), minmax(0, 190px));
}
.tile img {
  display: block; width: 100%; height: auto; border-radius: 4px; background: #808080;
  image-rendering: pixelated;
}
.tile figcaption { font-size: 12px; overflow-wrap: anywhere; }
.tile b { color: var(--ink); font-weight: 500; }
.tile.right img { outline: 2px solid var(--right); outline-offset: 1px; }
.tile.wrong img { outline: 2px solid var(--wrong); outline-offset: 1px; }
.tile.right b { color: var(--right); }
.tile.wrong b { color: var(--wrong); }

pre {
  margin: 8px 0 16px; padding: 12px 14px; overflow-x: auto;
  font: 13px/1.5 var(--code);
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
}
details { margin: 14px 0; }
summary { color: var(--accent); cursor: pointer; }
footer { padding-block: 26px 50px; color: var(--muted); font-size: 13px; }

@media (min-width: 900px) {
  .numbers tbody th { white-space: nowrap; }
}
@media (max-width: 760px) {
  .tiles { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 12px 10px; }
}
@media (max-width: 480px) {
  main, header, nav, footer { padding-inline: 14px; }
  th, td { padding-right: 10px; }
  .numbers tbody th { min-width: 6.5em; }
  .confusion { font-size: 13px; }
  .confusion td, .confusion thead th { min-width: 60px; padding: 9px 3px; }
  .key { grid-template-columns: 1fr 1fr; }
  .key .value { font-size: 22px; }
}
@media print {
  nav { display: none; }
  .strip, .plot, table { break-inside: avoid; }
  body { background: #fff; }
}
"""
